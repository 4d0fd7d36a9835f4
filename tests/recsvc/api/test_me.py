"""Customer tokens over real HTTP: a browser acts for one customer, and for nobody else."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.browser import ORIGIN, OTHER_ORIGIN, page_of, public_key, put, secret_of
from tests.recsvc.api.service import Service, assert_problem, event, ids_of
from tests.recsvc.signing import Backend
from tests.waiting import until

RECS = "/v1/recommendations"
MERGE = "/v1/me/merge"

Customer = Callable[[str], httpx.Client]


@pytest.fixture(scope="module", params=["EdDSA", "HS256"])
def login(running: tuple[Service, EmbeddedServer], request: pytest.FixtureRequest) -> Backend:
    service, server = running
    backend = Backend(secret_of(service), request.param, (ORIGIN,))
    put(server, backend.record)
    return backend


@pytest.fixture
def customer(service: Service, login: Backend) -> Iterator[Customer]:
    """Make the browser of a customer who has signed in."""
    opened: list[httpx.Client] = []

    def made(user_id: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {login.token(user_id)}", "Origin": ORIGIN}
        opened.append(httpx.Client(base_url=service.url, headers=headers, verify=False, timeout=60))
        return opened[-1]

    yield made
    for client in opened:
        client.close()


def said(item_id: str, **more: Any) -> dict[str, Any]:
    """Return a view that names nobody: the token does."""
    return {**event("me", item_id, type="view"), "user_id": None, **more}


def test_a_token_speaks_for_its_customer(customer: Customer, client: httpx.Client) -> None:
    user = f"ann/{time.monotonic_ns()}"
    ann = customer(user)
    for body in (said("i00011"), [said("i00012"), said("i00013", user_id=user)]):
        assert ann.post("/v1/events", json=body).status_code == 202
    counts = client.get(f"/v1/users/{user.replace('/', '%2F')}").json()["counts"]
    assert counts == {"view": 3}
    for answer in (
        ann.get(RECS),
        ann.get(RECS, params={"user_id": user}),
        ann.post(RECS, json={}),
        ann.post(RECS, json={"user_id": user}),
    ):
        assert answer.status_code == 200
        assert (answer.json()["user_id"], answer.json()["personalized"]) == (user, True)
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_a_verified_token_is_answered_at_the_edge(customer: Customer) -> None:
    ann = customer("ann")
    phases = [ann.get(RECS).headers["server-timing"].partition(";")[0] for _ in range(3)]
    assert phases == ["total", "parse", "parse"]


def test_others_do_not_exist_for_a_token(customer: Customer, client: httpx.Client) -> None:
    client.post("/v1/events", json=event("bob", "i00001"))
    ann = customer("ann")
    for answer in (
        ann.get(RECS, params={"user_id": "bob"}),
        ann.get(RECS, params={"user_id": "nobody at all"}),
        ann.post(RECS, json={"user_id": "bob"}),
        ann.post("/v1/events", json=said("i00001", user_id="bob")),
    ):
        assert "bob" not in assert_problem(answer, 404)["detail"]
    mixed = ann.post("/v1/events", json=[said("i00001"), said("i00002", user_id="bob")]).json()
    assert mixed["accepted"] == 1
    (rejected,) = mixed["rejected"]
    assert (rejected["index"], rejected["errors"][0]["pointer"]) == (1, "#/user_id")
    assert "view" not in client.get("/v1/users/bob").json()["counts"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"type": "purchase"}, "#/type"),
        ({"type": "refund"}, "#/type"),
        ({"type": "unsubscribe"}, "#/type"),
        ({"order_id": "1"}, "#/order_id"),
        ({"anonymous_id": "guessable"}, "#/anonymous_id"),
    ],
)
def test_what_a_customers_browser_cannot_say(
    customer: Customer, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(customer("ann").post("/v1/events", json=said("i00001", **change)), 422, pointer)


def test_what_a_customers_browser_cannot_ask(customer: Customer) -> None:
    for params, pointer in (
        ({"explain": "true"}, "#/explain"),
        ({"fields": "attributes"}, "#/fields"),
    ):
        assert_problem(customer("ann").get(RECS, params=params), 422, pointer)


def test_a_customer_may_send_240_events_a_minute(customer: Customer) -> None:
    eve = customer(f"eve {time.monotonic_ns()}")
    visitor = {"anonymous_id": "507f191e-810c-4197-89de-860ea0777777"}
    statuses = [
        eve.post("/v1/events", json=[said("i00001") for _ in range(200)]).status_code
        for _ in range(4)
    ]
    assert 429 in statuses
    merges = []
    for _ in range(3):  # a minute may end in between
        for count in (200, 40):
            eve.post("/v1/events", json=[said("i00001") for _ in range(count)])
        merges.append(eve.post(MERGE, json=visitor).status_code)
    assert 429 in merges
    assert customer("somebody else").post("/v1/events", json=said("i00001")).status_code == 202


def test_who_objects_to_profiling_is_obeyed(customer: Customer, client: httpx.Client) -> None:
    user = f"gpc {time.monotonic_ns()}"
    gil, objects = customer(user), {"Sec-GPC": "1"}
    assert gil.post("/v1/events", json=said("i00011")).status_code == 202
    assert gil.get(RECS).json()["personalized"] is True
    for _ in range(2):
        assert gil.get(RECS, headers=objects).json()["personalized"] is False
    answer = gil.post("/v1/events", json=said("i00012"), headers=objects).json()
    assert (answer["accepted"], answer["withheld"]) == (0, 1)
    refused = said("i00012", consent={"profiling": False})
    answer = gil.post("/v1/events", json=[refused, said("i00013"), {}]).json()
    # The objection is remembered: until it is taken back, nothing more is kept.
    assert (answer["accepted"], answer["withheld"], len(answer["rejected"])) == (0, 2, 1)
    agreed = gil.patch("/v1/me/preferences", json={"consent": {"profiling": True}})
    assert agreed.status_code == 200
    answer = gil.post("/v1/events", json=[refused, said("i00013"), {}]).json()
    assert (answer["accepted"], answer["withheld"], len(answer["rejected"])) == (1, 1, 1)
    assert client.get(f"/v1/users/{user}").json()["counts"] == {"view": 2}


# --- signing in ---------------------------------------------------------------------------------


def test_the_next_answer_knows_what_the_visitor_did(
    running: tuple[Service, EmbeddedServer], customer: Customer, client: httpx.Client
) -> None:
    service, server = running
    key, record = public_key(service)
    put(server, record)
    visitor = f"v-0123456789-0123456789-{time.monotonic_ns()}"
    user = f"mia {time.monotonic_ns()}"
    with page_of(service, **{"X-API-Key": key}) as page:
        seen = said("i00014", anonymous_id=visitor)
        assert page.post("/v1/events", json=seen).json()["accepted"] == 1
    mia = customer(user)
    answer = mia.post(MERGE, json={"anonymous_id": visitor})
    assert answer.status_code == 200
    assert answer.json() == {"user_id": user, "anonymous_id": visitor, "merged": True}
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert mia.post(MERGE, json={"anonymous_id": visitor}).json()["merged"] is False
    assert client.get(f"/v1/users/{user}").json()["counts"] == {"view": 1}
    assert mia.get(RECS).json()["personalized"] is True
    assert_problem(customer("other").post(MERGE, json={"anonymous_id": visitor}), 409)


def test_me_takes_no_user_id(customer: Customer) -> None:
    ann, visitor = customer("ann"), "507f191e-810c-4197-89de-860ea0999999"
    body = {"anonymous_id": visitor}
    assert_problem(ann.post(f"{MERGE}?user_id=bob", json=body), 422, "#/user_id")
    assert_problem(ann.post(MERGE, json={**body, "user_id": "bob"}), 422, "#/user_id")
    assert_problem(ann.post(MERGE, json={"anonymous_id": "guessable"}), 422, "#/anonymous_id")
    assert_problem(ann.post(MERGE, json={}), 422, "#/anonymous_id")
    assert_problem(ann.post(MERGE, content=b"{"), 415)
    assert_problem(ann.post("/v1/me/bob/merge", json=body), 404)


def test_me_is_for_tokens_alone(
    running: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    service, server = running
    key, record = public_key(service)
    put(server, record)
    body = {"anonymous_id": "507f191e-810c-4197-89de-860ea0999999"}
    assert "customer token" in assert_problem(client.post(MERGE, json=body), 403)["detail"]
    with page_of(service, **{"X-API-Key": key}) as page:
        assert_problem(page.post(MERGE, json=body), 403)


# --- what ends a token --------------------------------------------------------------------------


def test_a_token_is_for_the_pages_of_its_signing_key(service: Service, login: Backend) -> None:
    bearer = {"Authorization": f"Bearer {login.token('ann')}"}
    with service.client(None) as anyone:
        assert anyone.get(RECS, headers=bearer).status_code == 200, "an app names no page"
        for _ in range(2):
            refused = anyone.get(RECS, headers={**bearer, "Origin": OTHER_ORIGIN})
            assert_problem(refused, 403)
            assert "access-control-allow-origin" not in refused.headers


def ending_soon(anyone: httpx.Client, login: Backend) -> dict[str, str]:
    """Return a token that was good a moment ago, however slow the machine is."""
    for lifetime_s in (1.5, 6.0, 24.0):
        bearer = {"Authorization": f"Bearer {login.token('ann', lifetime_s=lifetime_s)}"}
        if anyone.get(RECS, headers=bearer).status_code == 200:
            return bearer
    raise AssertionError("no token is good")


def test_a_remembered_token_ends_when_it_says(service: Service, login: Backend) -> None:
    with service.client(None) as anyone:
        bearer = ending_soon(anyone, login)
        until(lambda: anyone.get(RECS, headers=bearer).status_code != 200)
        answer = anyone.get(RECS, headers=bearer)
        assert "expired" in assert_problem(answer, 401)["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")
        early = {"Authorization": f"Bearer {login.token('ann', nbf=time.time() + 60)}"}
        assert_problem(anyone.get(RECS, headers=early), 401)
        long = {"Authorization": f"Bearer {login.token('ann', lifetime_s=7200)}"}
        assert_problem(anyone.get(RECS, headers=long), 401)


def test_tokens_of_a_revoked_key_end_everywhere_within_five_seconds(
    pair: tuple[Service, EmbeddedServer],
) -> None:
    service, server = pair
    backend = Backend(secret_of(service))
    bearer = {"Authorization": f"Bearer {backend.token('ann')}"}

    def statuses() -> set[int]:
        found = set()
        for _ in range(12):
            with service.client(None) as client:
                found.add(client.get(RECS, headers=bearer).status_code)
        return found

    assert statuses() == {401}
    put(server, backend.record)
    assert statuses() == {200}
    put(server, backend.revoked())
    # Within five seconds, as `test_keys` says of all keys.
    until(lambda: statuses() == {401})


def test_a_customers_list_is_that_of_the_backend(customer: Customer, client: httpx.Client) -> None:
    user = f"same {time.monotonic_ns()}"
    client.post("/v1/events", json=[event(user, "i00021"), event(user, "i00022")])
    mine = customer(user).get(RECS, params={"limit": 10}).json()
    theirs = client.get(RECS, params={"limit": 10, "user_id": user}).json()
    assert ids_of(mine) == ids_of(theirs)
