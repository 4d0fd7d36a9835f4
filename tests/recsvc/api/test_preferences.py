"""Preferences over real HTTP: what customers and visitors choose, and who may say it for them."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from redis import Redis

from feature_store import keys
from feature_store.embedded import EmbeddedServer
from feature_store.schema import format_time
from recsvc.settings import Settings
from tests.recsvc.api.browser import ORIGIN, page_of, public_key, put, secret_of
from tests.recsvc.api.service import N_ITEMS, Service, assert_problem, event, ids_of
from tests.recsvc.shop import item_ids
from tests.recsvc.signing import Backend

MINE = "/v1/me/preferences"
RECS = "/v1/recommendations"
REFUSED = {"consent": {"profiling": False}}
ALLOWED_A_MINUTE = Settings.model_fields["public_events_per_minute"].default
DEFAULTS: dict[str, Any] = {
    "hidden_items": [],
    "hidden_brands": [],
    "hidden_categories": [],
    "snoozed": [],
    "followed_brands": [],
    "followed_categories": [],
    "interests": [],
    "page": {"modules": None},
    "email": {"frequency_days": None, "paused_until": None},
    "personalization": True,
    "consent": {"profiling": None, "email_marketing": None, "analytics": None},
    "consent_changes": [],
    "profiling": {
        "allowed": True,
        "because": "You were not asked yet, and this shop personalizes until you object.",
    },
}


def somebody(what: str = "chooser") -> str:
    return f"{what}/{time.monotonic_ns()}"


def visitor() -> str:
    return f"visitor-of-preferences-{time.monotonic_ns():020d}"


def theirs(user: str) -> str:
    return f"/v1/users/{user.replace('/', '%2F')}/preferences"


def ahead(**lengths: float) -> str:
    at = datetime.now(UTC) + timedelta(**lengths)
    return format_time(at.replace(microsecond=at.microsecond // 1000 * 1000))


@pytest.fixture(scope="module")
def login(running: tuple[Service, EmbeddedServer]) -> Backend:
    service, server = running
    backend = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, backend.record)
    return backend


@pytest.fixture(scope="module")
def page(running: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    """The code of a page, with a public key."""
    service, server = running
    key, record = public_key(service)
    put(server, record)
    with page_of(service, **{"X-API-Key": key}) as client:
        yield client


def signed_in(login: Backend, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {login.token(user)}", "Origin": ORIGIN}


def test_everything_is_there_from_the_start(
    client: httpx.Client, page: httpx.Client, login: Backend
) -> None:
    user = somebody()
    for answer in (
        client.get(theirs(user)),
        client.get(MINE, headers=signed_in(login, user)),
        page.get(MINE, params={"anonymous_id": visitor()}),
    ):
        assert (answer.status_code, answer.json()) == (200, DEFAULTS)
        assert answer.headers["cache-control"] == "private, no-store"


def test_a_choice_is_the_same_by_every_door(client: httpx.Client, login: Backend) -> None:
    user, until = somebody(), ahead(days=3)
    me = signed_in(login, user)
    first = client.patch(
        MINE,
        headers=me,
        json={
            "hidden_items": ["i00003", "i00001"],
            "snoozed": [{"item_id": "i00009", "until": until}],
            "followed_categories": ["Unheard > Of"],
            "interests": ["Brand 1"],
            "email": {"frequency_days": 7},
        },
    )
    assert first.status_code == 200, first.text
    said = first.json()
    assert said["hidden_items"] == ["i00001", "i00003"]
    assert said["snoozed"] == [{"item_id": "i00009", "until": until}]
    assert said["email"] == {"frequency_days": 7, "paused_until": None}
    second = client.patch(
        theirs(user), json={"hidden_items": {"add": ["i00002"], "remove": ["i00003"]}}
    ).json()
    assert second == {**said, "hidden_items": ["i00001", "i00002"]}
    assert client.get(MINE, headers=me).json() == client.get(theirs(user)).json() == second
    cleared = {name: None for name in DEFAULTS if name not in ("consent_changes", "profiling")}
    assert client.patch(MINE, headers=me, json=cleared).json() == DEFAULTS


def test_what_is_hidden_is_gone_from_the_next_answer(client: httpx.Client) -> None:
    user = somebody()
    shown = ids_of(client.get(RECS, params={"user_id": user, "limit": 10}).json())
    client.patch(theirs(user), json={"hidden_items": shown[:3]})
    client.patch(theirs(user), json={"snoozed": [{"item_id": shown[3], "until": ahead(hours=1)}]})
    client.patch(theirs(user), json={"hidden_brands": ["Brand 2"]})
    after = client.get(RECS, params={"user_id": user, "limit": 100, "fields": "brand"}).json()
    assert not set(shown[:4]) & set(ids_of(after))
    assert "Brand 2" not in {item["item"].get("brand") for item in after["items"]}


@pytest.mark.parametrize(
    ("patch", "pointers"),
    [
        ({"unheard": 1}, ["#/unheard"]),
        ([], ["#"]),
        ({"hidden_items": "i00001"}, ["#/hidden_items"]),
        ({"hidden_items": ["", 1]}, ["#/hidden_items/0", "#/hidden_items/1"]),
        ({"hidden_items": {"add": ["."], "to": []}}, ["#/hidden_items/add/0", "#/hidden_items/to"]),
        ({"hidden_items": {"add": ["a"], "remove": ["a"]}}, ["#/hidden_items/remove/0"]),
        ({"hidden_items": [f"i{at}" for at in range(1_001)]}, ["#/hidden_items"]),
        ({"hidden_brands": [f"b{at}" for at in range(201)]}, ["#/hidden_brands"]),
        ({"page": {"modules": ["home"] * 51}}, ["#/page/modules"]),
        ({"page": {"modules": ["trending", "no such", "trending"]}},
         ["#/page/modules/1", "#/page/modules/2"]),
        ({"email": {"frequency_days": 0}}, ["#/email/frequency_days"]),
        ({"email": {"paused_until": "2020-01-01T00:00:00Z"}}, ["#/email/paused_until"]),
        ({"snoozed": [{"item_id": "a", "until": "2020-01-01T00:00:00Z"}]}, ["#/snoozed/0/until"]),
        ({"snoozed": {"add": [{"item_id": "a", "until": "2090-01-01T00:00:00Z"}]}},
         ["#/snoozed/add/0/until"]),
        ({"snoozed": [{"item_id": "a", "until": "2090-01-01T00:00:00"}]}, ["#/snoozed/0/until"]),
        ({"snoozed": [{"item_id": "a"}]}, ["#/snoozed/0/until"]),
        ({"personalization": "no"}, ["#/personalization"]),
        ({"consent": {"profiling": 1, "ads": True}}, ["#/consent/ads", "#/consent/profiling"]),
        ({"hidden_brands": ["X"], "followed_brands": {"add": ["X"]}}, ["#/followed_brands/add/0"]),
        ({"hidden_categories": ["A"], "followed_categories": ["A > B"]},
         ["#/followed_categories/0"]),
        ({"user_id": "somebody"}, ["#/user_id"]),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_named(
    client: httpx.Client, patch: Any, pointers: list[str]
) -> None:
    user = somebody()
    assert_problem(client.patch(theirs(user), json=patch), 422, *pointers)
    assert client.get(theirs(user)).json() == DEFAULTS


def test_lists_have_their_limit_however_they_grow(client: httpx.Client) -> None:
    user = somebody()
    for start in (0, 500):
        more = [f"i{at}" for at in range(start, start + 500)]
        assert client.patch(theirs(user), json={"hidden_items": {"add": more}}).status_code == 200
    full = client.patch(theirs(user), json={"hidden_items": {"add": ["one more"]}})
    assert_problem(full, 422, "#/hidden_items")
    instead = {"hidden_items": {"add": ["one more"], "remove": ["i0"]}}
    assert len(client.patch(theirs(user), json=instead).json()["hidden_items"]) == 1_000


def test_hiding_ends_following(client: httpx.Client) -> None:
    user = somebody()
    follow = {"followed_brands": ["X", "Y"], "followed_categories": ["A", "A > B", "AB"]}
    client.patch(theirs(user), json=follow)
    hide = {"hidden_brands": {"add": ["X"]}, "hidden_categories": {"add": ["A"]}}
    after = client.patch(theirs(user), json=hide).json()
    assert (after["followed_brands"], after["followed_categories"]) == (["Y"], ["AB"])
    again = client.patch(theirs(user), json={"followed_brands": {"add": ["X"]}})
    assert "hidden" in assert_problem(again, 422, "#/followed_brands/add/0")["errors"][0]["detail"]


def test_changes_of_consent_say_when_and_by_whom(client: httpx.Client, login: Backend) -> None:
    user = somebody()
    me = signed_in(login, user)
    client.patch(MINE, headers=me, json={"consent": {"profiling": True}})
    client.patch(MINE, headers=me, json={"consent": {"profiling": True}})
    refused = {"consent": {"profiling": False, "analytics": True, "source": "call centre"}}
    client.patch(theirs(user), json=refused)
    after = client.patch(theirs(user), json={"consent": {"analytics": None}}).json()
    assert after["consent"] == {"profiling": False, "email_marketing": None, "analytics": None}
    said = after["consent_changes"]
    assert [(one["purpose"], one["allowed"], one["source"]) for one in said] == [
        ("profiling", True, "customer"),
        ("profiling", False, "key:all/call centre"),
        ("analytics", True, "key:all/call centre"),
        ("analytics", None, "key:all"),
    ]  # fmt: skip
    today = datetime.now(UTC).date().isoformat()
    assert after["profiling"] == {"allowed": False, "because": f"You refused on {today}."}
    assert_problem(client.patch(MINE, headers=me, json=refused), 422, "#/consent/source")


def test_who_switches_personalization_off_gets_what_strangers_get(client: httpx.Client) -> None:
    user = somebody()
    for item_id in ("i00003", "i00006"):
        client.post("/v1/events", json=event(user, item_id))
    assert client.get(RECS, params={"user_id": user}).json()["personalized"]
    after = client.patch(theirs(user), json={"personalization": False}).json()
    assert after["profiling"] == {"allowed": False, "because": "Personalization is switched off."}
    answer = client.get(RECS, params={"user_id": user}).json()
    stranger = client.get(RECS, params={"user_id": somebody()}).json()
    assert not answer["personalized"]
    assert ids_of(answer) == ids_of(stranger)


async def test_two_tabs_at_once_lose_nothing(
    pair: tuple[Service, EmbeddedServer],
) -> None:
    user, ids = somebody(), item_ids(N_ITEMS)[:60]
    async with pair[0].async_client(connections=30) as client:

        async def hide(item_id: str) -> None:
            answer = await client.patch(theirs(user), json={"hidden_items": {"add": [item_id]}})
            while answer.status_code == 503:
                answer = await client.patch(theirs(user), json={"hidden_items": {"add": [item_id]}})
            assert answer.status_code == 200
            assert item_id in answer.json()["hidden_items"]

        await asyncio.gather(*(hide(item_id) for item_id in ids))
        assert (await client.get(theirs(user))).json()["hidden_items"] == ids
        for _ in range(10):
            answer = await client.get(RECS, params={"user_id": user, "limit": 100})
            assert not set(ids) & set(ids_of(answer.json()))


# --- visitors -----------------------------------------------------------------------------------


def test_a_visitor_chooses_with_a_public_key(page: httpx.Client) -> None:
    who = {"anonymous_id": visitor()}
    said = page.patch(MINE, params=who, json={"hidden_items": ["i00001"]})
    assert (said.status_code, said.json()["hidden_items"]) == (200, ["i00001"])
    given = page.patch(MINE, params=who, json={"consent": {"profiling": True}}).json()
    assert given["consent_changes"][-1]["source"] == "visitor"
    answer = page.get(RECS, params={**who, "limit": 100}).json()
    assert "i00001" not in ids_of(answer)


def test_browsers_name_themselves_as_they_may(page: httpx.Client, login: Backend) -> None:
    assert_problem(page.get(MINE), 422, "#/anonymous_id")
    assert_problem(page.get(MINE, params={"anonymous_id": "short"}), 422, "#/anonymous_id")
    assert_problem(page.get(MINE, params={"anonymous_id": "\x07" * 30}), 422, "#/anonymous_id")
    for params in ({"anonymous_id": visitor()}, {"user_id": "somebody else"}):
        (name,) = params
        headers = signed_in(login, somebody())
        assert_problem(page.get(MINE, params=params, headers=headers), 422, f"#/{name}")


def test_a_visitor_who_has_signed_in_may_only_restrict(
    client: httpx.Client, page: httpx.Client
) -> None:
    who, user = {"anonymous_id": visitor()}, somebody()
    page.patch(MINE, params=who, json={"hidden_items": ["i00001"], "consent": {"profiling": False}})
    client.patch(theirs(user), json={"consent": {"profiling": True}, "hidden_brands": ["X"]})
    merged = client.post(theirs(user).replace("preferences", "merge"), json=who)
    assert merged.status_code == 200
    both = page.get(MINE, params=who).json()
    assert (both["hidden_items"], both["hidden_brands"]) == (["i00001"], ["X"])
    assert both["consent"]["profiling"] is False
    said = [(one["allowed"], one["source"]) for one in both["consent_changes"]]
    assert said == [(False, "visitor"), (True, "key:all"), (False, "merge")]
    changes: list[dict[str, Any]] = [
        {"consent": {"profiling": True}},
        {"consent": {"profiling": None}},
        {"consent": {"email_marketing": True}},
        {"hidden_items": []},
        {"hidden_brands": {"remove": ["X"]}},
    ]
    for more in changes:
        assert "sign in" in assert_problem(page.patch(MINE, params=who, json=more), 403)["detail"]
    less = {"hidden_items": {"add": ["i00002"]}, "consent": {"analytics": False}}
    assert page.patch(MINE, params=who, json=less).status_code == 200
    after = client.get(theirs(user)).json()
    assert after["hidden_items"] == ["i00001", "i00002"]
    assert (after["consent"]["analytics"], after["consent"]["profiling"]) == (False, False)
    client.patch(theirs(user), json={"personalization": False})
    assert_problem(page.patch(MINE, params=who, json={"personalization": True}), 403)


def test_changes_by_browsers_are_counted(
    running: tuple[Service, EmbeddedServer], login: Backend
) -> None:
    headers, began = signed_in(login, somebody("hasty")), time.time()
    with page_of(running[0], **headers) as me:
        found = [me.patch(MINE, json={}).status_code for _ in range(ALLOWED_A_MINUTE + 1)]
        assert found[0] == 200
        assert 429 in found or time.time() // 60 != began // 60
        assert me.get(MINE).status_code == 200


# --- the end of what was learned ----------------------------------------------------------------


def test_a_reset_forgets_the_taste_and_keeps_the_choices(
    client: httpx.Client, login: Backend
) -> None:
    def ask_backend(user: str) -> httpx.Response:
        return client.post(f"{theirs(user)}/reset")

    def ask_browser(user: str) -> httpx.Response:
        return client.post(f"{MINE}/reset", headers=signed_in(login, user))

    for reset in (ask_backend, ask_browser):
        user = somebody()
        chosen = {
            "hidden_items": ["i00001"],
            "interests": ["Brand 1"],
            "consent": {"profiling": True},
        }
        before = client.patch(theirs(user), json=chosen).json()
        past = datetime.now(UTC) - timedelta(hours=1)
        bought = [event(user, f"i0000{at}", timestamp=format_time(past)) for at in (3, 6)]
        client.post("/v1/events", json=bought)
        assert client.get(f"/v1/users/{user.replace('/', '%2F')}").json()["n_items"] == 2
        answer = reset(user)
        assert answer.status_code == 200, answer.text
        assert answer.json()["user_id"] == user
        assert answer.json()["forgotten"] > 0
        assert client.get(theirs(user)).json() == before
        late = client.post("/v1/events", json=event(user, "i00009", timestamp=format_time(past)))
        assert (late.json()["accepted"], late.json()["withheld"]) == (0, 1)
        found = client.get(f"/v1/users/{user.replace('/', '%2F')}")
        assert found.status_code == 404 or found.json()["n_items"] == 0
        # Now they are somebody new, who still has interests.
        assert "i00001" not in ids_of(client.get(RECS, params={"user_id": user}).json())


def test_a_visitor_resets_until_signed_in(client: httpx.Client, page: httpx.Client) -> None:
    who, user = {"anonymous_id": visitor()}, somebody()
    seen = {**event("x", "i00004", type="view"), "user_id": None, **who}
    page.post("/v1/events", json=seen)
    assert page.get(RECS, params=who).json()["personalized"]
    assert page.post(f"{MINE}/reset", params=who).json()["anonymous_id"] == who["anonymous_id"]
    assert not page.get(RECS, params=who).json()["personalized"]
    client.post(theirs(user).replace("preferences", "merge"), json=who)
    assert "sign in" in assert_problem(page.post(f"{MINE}/reset", params=who), 403)["detail"]


# --- what cannot be read or reached -------------------------------------------------------------


def test_nothing_is_written_over_what_cannot_be_read(
    running: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    user = somebody()
    client.patch(theirs(user), json={"hidden_items": ["i00001"]})
    redis = Redis.from_url(running[1].url)
    for broken in (b"{", b"[1]", b'{"from": "the future"}'):
        redis.set(keys.preferences(f"u:{user}"), broken)
        for answer in (
            client.patch(theirs(user), json={"hidden_items": ["i00002"]}),
            client.get(theirs(user)),
        ):
            assert "cannot be read" in assert_problem(answer, 409)["detail"]
        assert redis.get(keys.preferences(f"u:{user}")) == broken
        who = {"anonymous_id": visitor()}
        client.post("/v1/events", json={**event("x", "i00004"), "user_id": None, **who, **REFUSED})
        assert client.post(theirs(user).replace("preferences", "merge"), json=who).json()["merged"]
        assert redis.get(keys.preferences(f"u:{user}")) == broken
        answer = client.get(RECS, params={"user_id": user, "limit": 100}).json()
        assert (answer["personalized"], answer["degraded"]) == (False, ["preferences"])
        assert "i00001" not in ids_of(answer)
    redis.close()
