"""Browsers over real HTTP: preflights, who may read an answer, keys in addresses, beacons."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.browser import (
    ORIGIN,
    OTHER_ORIGIN,
    VISITOR,
    page_of,
    public_key,
    put,
    secret_of,
)
from tests.recsvc.api.service import Service, assert_problem, event
from tests.recsvc.signing import Backend

RECS = "/v1/recommendations"
TOKEN_PAGE = "https://account.shop.example"


@pytest.fixture(scope="module")
def key(running: tuple[Service, EmbeddedServer]) -> str:
    service, server = running
    made, record = public_key(service)
    put(server, record)
    return made


@pytest.fixture(scope="module")
def login(running: tuple[Service, EmbeddedServer]) -> Backend:
    service, server = running
    backend = Backend(secret_of(service), origins=(TOKEN_PAGE,))
    put(server, backend.record)
    return backend


@pytest.fixture(scope="module")
def page(service: Service, key: str) -> Iterator[httpx.Client]:
    """The code of a page of the shop, without a key of its own."""
    with page_of(service) as client:
        yield client


def preflight(
    client: httpx.Client, path: str, method: str = "POST", origin: str = ORIGIN
) -> httpx.Response:
    return client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )


def readable_by(response: httpx.Response) -> str | None:
    """Return the page that may read an answer; check what must hold for every answer."""
    assert "Origin" in response.headers["vary"]
    assert "access-control-allow-credentials" not in response.headers
    allowed: str | None = response.headers.get("access-control-allow-origin")
    assert allowed != "*"
    return allowed


def said(**more: Any) -> dict[str, Any]:
    return {
        **event("x", "i00001", type="view"),
        "user_id": None,
        "anonymous_id": VISITOR,
        **more,
    }


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (RECS, {"GET", "POST"}),
        ("/v1/events", {"POST"}),
        ("/v1/me/merge", {"POST"}),
    ],
)
def test_a_preflight_is_answered_for_pages_that_a_key_is_bound_to(
    page: httpx.Client, login: Backend, path: str, methods: set[str]
) -> None:
    for origin in (ORIGIN, TOKEN_PAGE):
        answer = preflight(page, path, origin=origin)
        assert (answer.status_code, answer.content) == (204, b"")
        assert readable_by(answer) == origin
        allowed = answer.headers["access-control-allow-methods"].split(", ")
        assert set(allowed) == methods
        headers = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "content-type", "x-api-key"} <= set(headers)
        assert 0 < int(answer.headers["access-control-max-age"]) <= 7200
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("origin", [OTHER_ORIGIN, "null", "https://shop.example.evil.example", ""])
def test_no_preflight_for_other_pages(page: httpx.Client, origin: str) -> None:
    answer = preflight(page, RECS, origin=origin)
    assert_problem(answer, 403)
    assert readable_by(answer) is None


def test_no_preflight_for_addresses_of_backends(page: httpx.Client) -> None:
    for path in ("/v1/items", "/v1/users/ann", "/v1/orders", "/metrics", "/nowhere"):
        answer = preflight(page, path, "GET")
        assert_problem(answer, 403)
        assert readable_by(answer) is None


def test_options_without_a_page_is_no_preflight(client: httpx.Client) -> None:
    assert_problem(client.options(RECS), 405)
    assert_problem(client.options(RECS, headers={"Origin": ORIGIN}), 405)


def test_a_page_reads_answers_and_errors_alike(page: httpx.Client, key: str) -> None:
    hot = page.get(RECS, params={"anonymous_id": VISITOR, "key": key})
    assert hot.status_code == 200
    assert "parse;dur" in hot.headers["server-timing"], "answered at the edge"
    exposed = hot.headers["access-control-expose-headers"]
    assert "X-Request-ID" in exposed
    assert "Retry-After" in exposed
    for response, status in (
        (hot, 200),
        (page.post(RECS, params={"key": key}, json={"anonymous_id": VISITOR}), 200),
        (page.get(RECS, params={"key": key, "limit": "x"}), 422),
        (page.get(RECS, params={"key": key, "user_id": "ann"}), 422),
        (page.get(RECS, params={"key": key, "placement": "none"}), 404),
        (page.get(RECS), 401),
        (page.get("/v1/items", params={"key": key}), 403),
        (page.get("/nowhere", params={"key": key}), 404),
        (page.delete(RECS, params={"key": key}), 405),
        (page.post("/v1/events", params={"key": key}, content=b"{"), 415),
    ):
        assert response.status_code == status, response.text
        assert readable_by(response) == ORIGIN


def test_other_pages_are_refused_and_read_nothing(page: httpx.Client, key: str) -> None:
    for origin in (OTHER_ORIGIN, "null"):
        answer = page.get(RECS, params={"key": key}, headers={"Origin": origin})
        assert_problem(answer, 403)
        assert readable_by(answer) is None


def test_caches_keep_answers_for_pages_apart(client: httpx.Client) -> None:
    answer = client.get(RECS, params={"limit": 3})
    assert answer.headers["cache-control"].startswith("public")
    assert readable_by(answer) is None
    again = client.get(RECS, params={"limit": 3}, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert readable_by(again) is None


def test_no_page_reads_what_a_secret_key_is_answered(client: httpx.Client, key: str) -> None:
    for answer in (
        client.get(RECS, headers={"Origin": ORIGIN}),
        client.get("/v1/items", headers={"Origin": ORIGIN}),
    ):
        assert answer.status_code == 200
        assert readable_by(answer) is None


def test_a_key_in_the_address_is_a_public_one(
    page: httpx.Client, service: Service, key: str, login: Backend
) -> None:
    secret = service.shop.keys["all"]
    for wrong in (secret, login.token("ann"), "x", "", f"{key}&key={key}"):
        answer = page.get(f"{RECS}?key={wrong}")
        document = assert_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert secret not in answer.text
        assert document["instance"] == RECS
    refused = page.get(f"{RECS}?key={secret}").json()["detail"]
    assert "must not stand in an address" in refused
    assert "revoke" in refused
    # Neither does a good header make up for it.
    both = page.get(f"{RECS}?key={secret}", headers={"Authorization": f"Bearer {secret}"})
    assert_problem(both, 401)
    assert secret not in service.log_text()


def test_a_header_counts_before_the_address(
    service: Service, key: str, login: Backend, page: httpx.Client
) -> None:
    bearer = {"Authorization": f"Bearer {login.token('ann')}", "Origin": TOKEN_PAGE}
    answer = page.get(RECS, params={"key": key}, headers=bearer)
    assert answer.json()["user_id"] == "ann"
    assert readable_by(answer) == TOKEN_PAGE


def test_other_parameters_survive_the_key(page: httpx.Client, key: str) -> None:
    for query in (
        f"key={key}&limit=2&anonymous_id={VISITOR}",
        f"limit=2&key={key}&anonymous_id={VISITOR}",
        f"limit=2&anonymous_id={VISITOR}&key={key}",
        f"limit=2&&context.monkey=1&anonymous_id={VISITOR}&key={key}",
    ):
        answer = page.get(f"{RECS}?{query}")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) == 2
        assert answer.headers["cache-control"] == "private, no-store", "it is for the visitor"
    named = page.get(f"{RECS}?key={key}&keys=1&monkey=2")
    assert_problem(named, 422, "#/keys", "#/monkey")


def test_a_beacon_needs_no_preflight(page: httpx.Client, key: str, login: Backend) -> None:
    """What ``navigator.sendBeacon(url, JSON.stringify(events))`` sends when a page is left."""
    plain = {"Content-Type": "text/plain;charset=UTF-8"}
    body = json.dumps([said(), said(type="click")])
    sent = page.post("/v1/events", params={"key": key}, content=body, headers=plain)
    assert (sent.status_code, sent.json()["accepted"]) == (202, 2)
    assert readable_by(sent) == ORIGIN
    assert_problem(page.post(RECS, params={"key": key}, content="{}", headers=plain), 415)
    token = {"Authorization": f"Bearer {login.token('ann')}", "Origin": TOKEN_PAGE, **plain}
    assert_problem(page.post("/v1/events", content=body, headers=token), 415)


def test_a_backend_cannot_send_plain_text(client: httpx.Client) -> None:
    plain = {"Content-Type": "text/plain"}
    answer = client.post("/v1/events", content=json.dumps(said()), headers=plain)
    assert_problem(answer, 415)


def test_a_page_that_was_bound_a_moment_ago_is_welcome(
    running: tuple[Service, EmbeddedServer], page: httpx.Client
) -> None:
    service, server = running
    fresh = "https://new.shop.example"
    assert preflight(page, RECS, origin=fresh).status_code == 403
    made, record = public_key(service, fresh)
    put(server, record)
    assert preflight(page, RECS, origin=fresh).status_code == 204
    assert page.get(RECS, params={"key": made}, headers={"Origin": fresh}).status_code == 200
    moved = "https://moved.shop.example"
    put(server, record.model_copy(update={"origins": (moved,)}))
    assert page.get(RECS, params={"key": made}, headers={"Origin": moved}).status_code == 200
