"""Consents that come along with requests and events: obeyed, and remembered for whom they may."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from feature_store.embedded import EmbeddedServer
from feature_store.schema import format_time
from tests.recsvc.api.browser import ORIGIN, page_of, public_key, put, secret_of
from tests.recsvc.api.service import Service, assert_problem, event, ids_of, running_shop
from tests.recsvc.signing import Backend

MINE = "/v1/me/preferences"
RECS = "/v1/recommendations"
GPC = {"Sec-GPC": "1"}


def somebody() -> str:
    return f"asked-{time.monotonic_ns()}"


def visitor() -> str:
    return f"visitor-of-consents-{time.monotonic_ns():020d}"


def ago(**lengths: float) -> str:
    return format_time(datetime.now(UTC) - timedelta(**lengths))


def seen(who: str, item_id: str = "i00004", **more: Any) -> dict[str, Any]:
    """Return what a visitor looked at."""
    return {**event("x", item_id, type="view"), "user_id": None, "anonymous_id": who, **more}


def changes(answer: httpx.Response) -> list[tuple[str, bool | None, str]]:
    said = answer.json()["consent_changes"]
    return [(one["purpose"], one["allowed"], one["source"]) for one in said]


@pytest.fixture(scope="module")
def login(running: tuple[Service, EmbeddedServer]) -> Backend:
    service, server = running
    backend = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, backend.record)
    return backend


@pytest.fixture(scope="module")
def page(running: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    service, server = running
    key, record = public_key(service)
    put(server, record)
    with page_of(service, **{"X-API-Key": key}) as client:
        yield client


@pytest.fixture
def ann(service: Service, login: Backend) -> Iterator[tuple[str, httpx.Client]]:
    """A customer who has signed in and has a history, and the browser."""
    user = somebody()
    with (
        page_of(service, Authorization=f"Bearer {login.token(user)}") as browser,
        service.client() as backend,
    ):
        backend.post("/v1/events", json=[event(user, "i00003"), event(user, "i00006")])
        assert browser.get(RECS).json()["personalized"]
        yield user, browser


# --- Global Privacy Control ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["get", "post", "page", "events", "preferences", "patch"])
def test_an_objecting_browser_is_obeyed_and_remembered_with_a_token(
    ann: tuple[str, httpx.Client], client: httpx.Client, how: str
) -> None:
    user, browser = ann
    match how:
        case "get":
            answer = browser.get(RECS, headers=GPC)
            assert not answer.json()["personalized"]
        case "post":
            answer = browser.post(RECS, json={}, headers=GPC)
            assert not answer.json()["personalized"]
        case "page":
            answer = browser.get("/v1/me/page", headers=GPC)
            assert not [one for one in answer.json()["modules"] if one["personalized"]]
        case "events":
            looked = {**event(user, "i00009", type="view"), "user_id": None}
            answer = browser.post("/v1/events", json=looked, headers=GPC)
            assert (answer.json()["accepted"], answer.json()["withheld"]) == (0, 1)
        case "preferences":
            answer = browser.get(MINE, headers=GPC)
            assert answer.json()["consent"]["profiling"] is False
        case _:
            answer = browser.patch(MINE, headers=GPC, json={"hidden_items": ["i00001"]})
            assert answer.json()["consent"]["profiling"] is False
    assert answer.status_code in (200, 202)
    stored = client.get(f"/v1/users/{user}/preferences")
    assert changes(stored) == [("profiling", False, "gpc")]
    assert "Global Privacy Control" in stored.json()["profiling"]["because"]
    german = browser.get(MINE, headers={"Accept-Language": "de-AT, en;q=0.5"})
    assert german.json()["profiling"]["because"].startswith("Ihr Browser hat am ")
    assert german.headers["content-language"] == "de"
    # From now on on every device, and once is enough.
    assert not browser.get(RECS).json()["personalized"]
    browser.get(RECS, headers=GPC)
    assert len(changes(client.get(f"/v1/users/{user}/preferences"))) == 1
    given = browser.patch(MINE, headers=GPC, json={"consent": {"profiling": True}})
    assert given.status_code == 422
    assert browser.patch(MINE, json={"consent": {"profiling": True}}).status_code == 200
    assert browser.get(RECS).json()["personalized"]


def test_whatever_customers_do_for_themselves_an_objection_is_remembered(
    service: Service, login: Backend, client: httpx.Client
) -> None:
    """Every operation that only browsers may use; of who is forgotten nothing is kept."""
    forgetting = {("delete", "/v1/me"), ("get", "/v1/me/erasures/{erasure_id}")}
    paths = client.get("/openapi.json").json()["paths"]
    own = [
        (method, template)
        for template, item in paths.items()
        for method, operation in item.items()
        if "customer" in operation["x-credentials"] and not operation["x-scopes"]
    ]
    assert len(own) > 10
    for method, template in own:
        user = somebody()
        path = re.sub(r"\{[^}]+\}", "none", template)
        with page_of(service, Authorization=f"Bearer {login.token(user)}") as browser:
            body: dict[str, Any] | None = None if method in ("get", "delete") else {}
            browser.request(method, path, headers=GPC, json=body)
        expected = [] if (method, template) in forgetting else [("profiling", False, "gpc")]
        stored = client.get(f"/v1/users/{user}/preferences")
        assert changes(stored) == expected, f"{method} {template}"


def test_an_objection_without_a_token_is_obeyed_and_not_remembered(
    client: httpx.Client, page: httpx.Client
) -> None:
    user, who = somebody(), visitor()
    client.post("/v1/events", json=event(user, "i00003"))
    page.post("/v1/events", json=seen(who))
    for browser, params in ((client, {"user_id": user}), (page, {"anonymous_id": who})):
        assert not browser.get(RECS, params=params, headers=GPC).json()["personalized"]
        assert browser.get(RECS, params=params).json()["personalized"]
    agreed = {"anonymous_id": who, "consent.profiling": "true"}
    assert not page.get(RECS, params=agreed, headers=GPC).json()["personalized"]
    assert changes(page.get(MINE, params={"anonymous_id": who})) == []


# --- with a request -----------------------------------------------------------------------------


def test_what_a_visitor_says_last_is_remembered(page: httpx.Client) -> None:
    who = visitor()
    page.post("/v1/events", json=seen(who))
    asked: list[tuple[dict[str, Any], bool]] = [
        ({"profiling": False}, False),
        ({}, False),
        ({"profiling": True, "analytics": False}, True),
        ({}, True),
        ({"profiling": True}, True),
    ]
    for consent, personal in asked:
        body = {"anonymous_id": who, "consent": consent} if consent else {"anonymous_id": who}
        assert page.post(RECS, json=body).json()["personalized"] is personal
        query = {
            "anonymous_id": who,
            **{f"consent.{k}": str(v).lower() for k, v in consent.items()},
        }
        assert page.get(RECS, params=query).json()["personalized"] is personal
    assert changes(page.get(MINE, params={"anonymous_id": who})) == [
        ("profiling", False, "request"),
        ("profiling", True, "request"),
        ("analytics", False, "request"),
    ]


def test_what_a_request_says_of_a_user_holds_for_that_request(client: httpx.Client) -> None:
    user = somebody()
    client.post("/v1/events", json=event(user, "i00003"))
    refused = {"user_id": user, "consent": {"profiling": False}}
    assert not client.post(RECS, json=refused).json()["personalized"]
    assert client.get(RECS, params={"user_id": user}).json()["personalized"]
    assert changes(client.get(f"/v1/users/{user}/preferences")) == []


def test_of_a_visitor_who_signed_in_only_refusals_are_remembered(
    client: httpx.Client, page: httpx.Client
) -> None:
    user, who = somebody(), visitor()
    page.post("/v1/events", json=seen(who))
    client.post(f"/v1/users/{user}/merge", json={"anonymous_id": who})
    page.post(RECS, json={"anonymous_id": who, "consent": {"profiling": True}})
    page.post("/v1/events", json=seen(who, consent={"profiling": True, "analytics": True}))
    assert changes(client.get(f"/v1/users/{user}/preferences")) == []
    page.post(RECS, json={"anonymous_id": who, "consent": {"profiling": False}})
    page.post("/v1/events", json=seen(who, consent={"analytics": False}))
    page.post(RECS, json={"anonymous_id": who, "consent": {"profiling": True}})
    assert changes(client.get(f"/v1/users/{user}/preferences")) == [
        ("profiling", False, "request"),
        ("analytics", False, "event"),
    ]
    assert not client.get(RECS, params={"user_id": user}).json()["personalized"]


# --- with events --------------------------------------------------------------------------------


def test_consents_come_with_events_before_they_are_acknowledged(
    client: httpx.Client, page: httpx.Client
) -> None:
    who = visitor()
    for browser in (page, client):
        refused = browser.post("/v1/events", json=[seen(who, consent={"profiling": False})])
        assert (refused.json()["accepted"], refused.json()["withheld"]) == (0, 1)
        assert page.post("/v1/events", json=seen(who)).json()["withheld"] == 1
        agreed = seen(who, consent={"profiling": True})
        assert browser.post("/v1/events", json=agreed).json()["accepted"] == 1
        assert page.get(RECS, params={"anonymous_id": who}).json()["personalized"]
    said = changes(page.get(MINE, params={"anonymous_id": who}))
    assert said == [("profiling", False, "event"), ("profiling", True, "event")] * 2


def test_an_old_consent_does_not_outdo_a_newer_one(page: httpx.Client) -> None:
    who = visitor()
    page.patch(MINE, params={"anonymous_id": who}, json={"consent": {"profiling": False}})
    page.post("/v1/events", json=seen(who, consent={"profiling": True}, timestamp=ago(hours=1)))
    assert changes(page.get(MINE, params={"anonymous_id": who})) == [
        ("profiling", False, "visitor")
    ]
    other = visitor()
    page.patch(MINE, params={"anonymous_id": other}, json={"consent": {"profiling": True}})
    page.post("/v1/events", json=seen(other, consent={"profiling": False}, timestamp=ago(hours=1)))
    assert changes(page.get(MINE, params={"anonymous_id": other})) == [
        ("profiling", True, "visitor")
    ]


def test_the_last_word_of_a_batch_counts(client: httpx.Client, page: httpx.Client) -> None:
    who = visitor()
    words = [
        seen(who, "i00004", consent={"profiling": True}, timestamp=ago(minutes=1)),
        seen(who, "i00005", consent={"profiling": False}, timestamp=ago(minutes=2)),
    ]
    answer = client.post("/v1/events", json=words).json()
    assert (answer["accepted"], answer["withheld"]) == (1, 1)
    assert page.get(MINE, params={"anonymous_id": who}).json()["consent"]["profiling"] is True


def test_unsubscribing_ends_the_consent_to_mail(client: httpx.Client, page: httpx.Client) -> None:
    user, who = somebody(), visitor()
    path = f"/v1/users/{user}/preferences"
    left = {**event(user, "x", type="unsubscribe"), "item_id": None}
    client.patch(path, json={"consent": {"email_marketing": True, "profiling": False}})
    assert client.post("/v1/events", json=left).status_code == 202
    assert changes(client.get(path))[2:] == [("email_marketing", False, "unsubscribe")]
    # Coming back counts, also when the old event is delivered once more.
    client.patch(path, json={"consent": {"email_marketing": True}})
    assert client.post("/v1/events", json=left).status_code == 202
    assert client.get(path).json()["consent"]["email_marketing"] is True
    call = {"type": "track", "event": "Unsubscribed", "userId": user, "messageId": somebody()}
    assert client.post("/v1/events/segment", json=call).status_code == 202
    assert client.get(path).json()["consent"]["email_marketing"] is False
    left = {**seen(who, type="unsubscribe"), "item_id": None}
    assert client.post("/v1/events", json=left).status_code == 202
    stored = page.get(MINE, params={"anonymous_id": who})
    assert changes(stored) == [("email_marketing", False, "unsubscribe")]


def test_consents_of_other_platforms_are_those_of_their_visitors(
    client: httpx.Client, page: httpx.Client
) -> None:
    def call(who: str, granted: bool, **more: Any) -> dict[str, Any]:
        return {
            "type": "track",
            "event": "Product Viewed",
            "anonymousId": who,
            "messageId": somebody(),
            "properties": {"product_id": "i00004"},
            "context": {"consent": {"categoryPreferences": {"Personalization": granted}}},
            **more,
        }

    def payload(who: str, granted: str, **more: Any) -> dict[str, Any]:
        viewed = {"name": "view_item", "params": {"items": [{"item_id": "i00004"}]}}
        consent = {"ad_personalization": granted}
        return {"client_id": who, "consent": consent, "events": [viewed], **more}

    for path, bodies in (
        ("/v1/events/segment", [call(visitor(), granted=False), call(visitor(), granted=True)]),
        ("/v1/events/ga4", [payload(visitor(), "DENIED"), payload(visitor(), "GRANTED")]),
    ):
        for body, granted in zip(bodies, (False, True), strict=True):
            who = {"anonymous_id": body.get("anonymousId") or body["client_id"]}
            answer = client.post(path, json=body).json()
            assert (answer["accepted"], answer["withheld"]) == (int(granted), int(not granted))
            assert changes(page.get(MINE, params=who)) == [("profiling", granted, "event")]
    user = somebody()
    client.post("/v1/events/segment", json=call(visitor(), granted=False, userId=user))
    client.post("/v1/events/ga4", json=payload(visitor(), "DENIED", user_id=user))
    assert changes(client.get(f"/v1/users/{user}/preferences")) == []


# --- nothing is less private for a failure ------------------------------------------------------


def test_strangers_and_refusers_get_the_same(client: httpx.Client) -> None:
    user = somebody()
    client.post("/v1/events", json=[event(user, "i00003"), event(user, "i00006")])
    client.patch(f"/v1/users/{user}/preferences", json={"consent": {"profiling": False}})
    refused = client.get(RECS, params={"user_id": user, "limit": 30}).json()
    stranger = client.get(RECS, params={"user_id": somebody(), "limit": 30}).json()
    assert ids_of(refused) == ids_of(stranger)
    assert not {one["reason"]["code"] for one in refused["items"]} & {
        "because_you_bought", "because_you_viewed", "buy_again",
    }  # fmt: skip


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[tuple[Service, EmbeddedServer]]:
    """A service whose server a test may break."""
    with running_shop(tmp_path) as both:
        yield both


def test_a_consent_that_cannot_be_remembered_makes_no_answer_personal(
    lonely: tuple[Service, EmbeddedServer],
) -> None:
    service, server = lonely
    user, who = somebody(), visitor()
    login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, login.record)
    with (
        service.client() as client,
        page_of(service, Authorization=f"Bearer {login.token(user)}") as browser,
        Redis.from_url(server.url) as redis,
    ):
        client.post("/v1/events", json=[event(user, "i00003"), seen(who)])
        hidden = {"hidden_items": ["i00001"]}
        client.patch(f"/v1/users/{user}/preferences", json=hidden)
        assert browser.get(RECS).json()["personalized"]
        # From now on the server is read, and refuses to write.
        redis.config_set("min-replicas-to-write", 1)
        agreed = {"anonymous_id": who, "consent": {"profiling": True}}
        for answer in (client.post(RECS, json=agreed), browser.get(RECS, headers=GPC)):
            assert answer.status_code == 200
            assert not answer.json()["personalized"]
            assert answer.json()["degraded"] == ["preferences"]
        assert "i00001" not in ids_of(browser.get(RECS, params={"limit": 100}).json())
        assert client.get(RECS, params={"anonymous_id": who}).json()["personalized"]
        refused = seen(who, consent={"profiling": False})
        assert client.post("/v1/events", json=refused).status_code == 503
        assert_problem(
            client.patch(f"/v1/users/{user}/preferences", json=hidden | {"interests": ["A"]}), 503
        )
        assert client.get(f"/v1/users/{user}/preferences").json()["hidden_items"] == ["i00001"]
        redis.config_set("min-replicas-to-write", 0)
        assert not client.post(RECS, json={**agreed, "consent": {"profiling": False}}).json()[
            "degraded"
        ]
    server.stop()
    with service.client() as client:
        for method in ("GET", "PATCH"):
            answer = client.request(method, f"/v1/users/{user}/preferences", json={})
            assert "retry-after" in answer.headers
            assert_problem(answer, 503)
        answer = client.get(RECS, params={"user_id": user, "limit": 100}).json()
        assert (answer["personalized"], answer["degraded"]) == (False, ["store"])
        assert "i00001" not in ids_of(answer)
