"""Public keys over real HTTP: what a page's code may say and ask, and how much of it."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from feature_store.archiver import Archiver
from feature_store.embedded import EmbeddedServer
from feature_store.errors import UserError
from feature_store.event_log import EventLog
from feature_store.store import Store
from recsvc.access.auth import PUBLIC_SCOPES, load_secret, new_key
from recsvc.access.public_keys import PUBLIC_TYPES
from recsvc.settings import Settings
from tests.recsvc.api.service import Service, assert_problem, event, ids_of

ORIGIN = "https://shop.example"
VISITOR = "507f191e-810c-4197-89de-860ea0123456"


@pytest.fixture(scope="module")
def page(running: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    """A client with a public key."""
    service, server = running
    secret = load_secret(Settings(data_dir=service.shop.data_dir))
    key, record = new_key(
        secret, "page", PUBLIC_SCOPES, datetime.now(UTC), public=True, origins=(ORIGIN,)
    )
    assert key.startswith("pk_")

    async def put() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        await store.keys.put(record)
        await store.close()

    asyncio.run(put())
    headers = {"X-API-Key": key}
    with httpx.Client(base_url=service.url, headers=headers, verify=False, timeout=60) as client:
        yield client


def said(item_id: str = "i00001", visitor: str = VISITOR, **more: Any) -> dict[str, Any]:
    return {**event("x", item_id, type="view"), "user_id": None, "anonymous_id": visitor, **more}


def test_a_visitor_is_seen_and_answered(page: httpx.Client) -> None:
    response = page.post("/v1/events", json=[said("i00007"), said("i00010", type="click")])
    assert (response.status_code, response.json()["accepted"]) == (202, 2)
    answer = page.get("/v1/recommendations", params={"anonymous_id": VISITOR, "limit": 5})
    assert answer.status_code == 200
    assert answer.json()["personalized"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"type": "purchase"}, "#/type"),
        ({"type": "refund"}, "#/type"),
        ({"type": "unsubscribe"}, "#/type"),
        ({"user_id": "ann"}, "#/user_id"),
        ({"anonymous_id": "guessable"}, "#/anonymous_id"),
        ({"order_id": "1"}, "#/order_id"),
    ],
)
def test_what_a_page_cannot_say(page: httpx.Client, change: dict[str, Any], pointer: str) -> None:
    assert_problem(page.post("/v1/events", json=said(**change)), 422, pointer)
    answer = page.post("/v1/events", json=[said(**change), said("i00002")]).json()
    assert (answer["accepted"], [one["index"] for one in answer["rejected"]]) == (1, [0])


def test_every_type_was_thought_of() -> None:
    assert {"purchase", "refund", "send", "open", "bounce", "unsubscribe", "complaint"} == {
        kind.value for kind in set(type(next(iter(PUBLIC_TYPES)))) - PUBLIC_TYPES
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/orders"),
        ("POST", "/v1/events/segment"),
        ("POST", "/v1/events/ga4"),
        ("POST", "/v1/events/retail"),
        ("GET", "/v1/items"),
        ("GET", "/v1/users/ann"),
        ("POST", "/v1/users/ann/merge"),
        ("GET", "/v1/models"),
    ],
)
def test_doors_that_are_not_for_pages(page: httpx.Client, method: str, path: str) -> None:
    assert_problem(page.request(method, path, json={}), 403)


def test_what_a_page_cannot_ask(page: httpx.Client) -> None:
    for params, pointer in (
        ({"user_id": "ann"}, "#/user_id"),
        ({"anonymous_id": "short"}, "#/anonymous_id"),
        ({"explain": "true"}, "#/explain"),
        ({"fields": "attributes"}, "#/fields"),
    ):
        assert_problem(page.get("/v1/recommendations", params=params), 422, pointer)
    assert page.post("/v1/recommendations", json={"fields": ["title"]}).status_code == 200


def test_a_key_is_bound_to_its_pages(page: httpx.Client) -> None:
    for origin, status in ((ORIGIN, 202), ("https://evil.example", 403)):
        response = page.post("/v1/events", json=said(), headers={"Origin": origin})
        assert response.status_code == status


def test_a_page_cannot_occupy_the_ids_of_the_backend(
    page: httpx.Client, client: httpx.Client
) -> None:
    mine = said(event_id="the-same")
    assert page.post("/v1/events", json=mine).json()["accepted"] == 1
    assert page.post("/v1/events", json=mine).json()["duplicates"] == 1
    bought = {**mine, "type": "purchase"}
    answer = client.post("/v1/events", json=bought).json()
    assert (answer["accepted"], answer["conflicts"]) == (1, 0)


def test_a_visitor_may_send_240_events_a_minute(page: httpx.Client, client: httpx.Client) -> None:
    visitor = "a-visitor-who-never-stops-clicking"
    batch = [said("i00001", visitor) for _ in range(200)]
    # Twice at most may a minute end in between.
    refused = None
    for _ in range(4):
        response = page.post("/v1/events", json=batch)
        if response.status_code == 429:
            refused = response
            break
    assert refused is not None
    assert_problem(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert page.post("/v1/events", json=said("i00001", VISITOR)).status_code == 202
    mine = [said("i00002", visitor) for _ in range(300)]
    assert client.post("/v1/events", json=mine).json()["accepted"] == 300


def test_low_trust_stands_in_the_log(
    page: httpx.Client, running: tuple[Service, EmbeddedServer], tmp_path: Path
) -> None:
    service, server = running
    page.post("/v1/events", json=said("i00003", event_id="in the log"))

    async def archived() -> pl.DataFrame:
        store = await Store.open(server.url, read_timeout_s=5.0)
        log, found = EventLog(service.shop.data_dir), pl.DataFrame()
        for _ in range(100):
            await Archiver(store.streams, log).run_all()
            found = log.scan().filter(pl.col("event_id") == "in the log").collect()
            if len(found):
                break
            await asyncio.sleep(0.1)
        await store.close()
        return found

    assert asyncio.run(archived())["trust"].to_list() == ["public"]


def test_a_public_key_has_few_scopes() -> None:
    with pytest.raises(UserError, match="anybody can read"):
        new_key(b"s" * 32, "page", ["users:write"], datetime.now(UTC), public=True)


# --- signing in ---------------------------------------------------------------------------------


def test_the_next_answer_knows_who_signed_in(page: httpx.Client, client: httpx.Client) -> None:
    visitor, user = "v-0123456789-0123456789-merge", "signed/in"
    page.post("/v1/events", json=[said("i00011", visitor), said("i00012", visitor)])
    client.post("/v1/events", json=event(user, "i00013"))
    path = "/v1/users/signed%2Fin/merge"
    answer = client.post(path, json={"anonymous_id": visitor})
    assert answer.status_code == 200
    assert answer.json() == {"user_id": user, "anonymous_id": visitor, "merged": True}
    assert client.post(path, json={"anonymous_id": visitor}).json()["merged"] is False
    assert client.get("/v1/users/signed%2Fin").json()["counts"] == {"purchase": 1, "view": 2}
    page.post("/v1/events", json=said("i00014", visitor))
    assert client.get("/v1/users/signed%2Fin").json()["counts"]["view"] == 3
    asked: dict[str, Any] = {"placement": "buy_again", "limit": 1}
    for who in ({"user_id": user}, {"anonymous_id": visitor}):
        found = client.get("/v1/recommendations", params={**asked, **who}).json()
        assert ids_of(found) == ["i00013"]
    taken = client.post("/v1/users/other/merge", json={"anonymous_id": visitor})
    assert_problem(taken, 409)


def test_a_merge_that_is_wrong_is_refused_by_name(client: httpx.Client, service: Service) -> None:
    path = "/v1/users/u/merge"
    assert_problem(client.post(path, json={}), 422, "#/anonymous_id")
    assert_problem(client.post(path, json={"anonymous_id": 5}), 422, "#/anonymous_id")
    assert_problem(client.post(path, json={"anonymous_id": "v", "x": 1}), 422, "#/x")
    assert_problem(client.post(path, json=[]), 422, "#")
    assert_problem(client.post("/v1/users/%FF/merge", json={}), 422, "#/user_id")
    with service.client("users:read") as reader:
        assert_problem(reader.post(path, json={"anonymous_id": "v"}), 403)
