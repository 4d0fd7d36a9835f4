"""What the system thinks of me, over real HTTP with two workers, and that it does not fit."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.browser import ORIGIN, page_of, public_key, put
from tests.recsvc.api.departments import (
    SECRET,
    Customer,
    N,
    everywhere,
    fresh,
    user_path,
)
from tests.recsvc.api.service import Service, assert_problem, event, ids_of
from tests.recsvc.shop import item_ids

PROFILE = "/v1/me/profile"


@pytest.fixture(scope="module")
def key(shop: tuple[Service, EmbeddedServer]) -> str:
    service, server = shop
    found, record = public_key(service)
    put(server, record)
    return found


def buy(backend: httpx.Client, user: str, *numbers: int, **more: Any) -> None:
    events = [event(user, item_ids(N)[number], **more) for number in numbers]
    assert backend.post("/v1/events", json=events).json()["accepted"] == len(numbers)


def points(profile: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in profile["points"] if one["kind"] == kind}


def test_a_profile_says_why(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("ann")
    buy(backend, user, 0, 6, 12)
    buy(backend, user, 1, type="view")
    answer = customer(user).get(PROFILE)
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    profile = answer.json()
    assert profile["profiled"] is True
    pets = points(profile, "category")["Pets > Shelf 0"]
    assert pets["removable"] is True
    assert [one["item_id"] for one in pets["because"]] == ["i00000", "i00006", "i00012"]
    assert "because you bought “Thing 0”" in pets["text"]
    garden = points(profile, "category")["Garden > Shelf 1"]
    assert pets["strength"] > garden["strength"] > 0
    assert "looked at" in garden["text"]
    assert points(profile, "brand")["Maker 0"]["strength"] == pets["strength"]
    assert sum(one["strength"] for one in points(profile, "category").values()) == pytest.approx(
        1, abs=0.001
    )
    assert {one["item_id"] for one in profile["recent"]} == {"i00000", "i00006", "i00012", "i00001"}
    assert profile["recent"][0]["text"].startswith(("You bought", "You looked at"))
    german = customer(user).get(PROFILE, headers={"Accept-Language": "fr, de;q=0.8, en;q=0.3"})
    assert german.headers["content-language"] == "de"
    assert "kauften" in german.text
    assert customer(user).get(PROFILE, params={"language": "de"}).json() == german.json()
    unheard = customer(user).get(PROFILE, params={"language": "tlh"})
    assert unheard.headers["content-language"] == "en"
    assert_problem(customer(user).get(PROFILE, params={"language": "x" * 36}), 422, "#/language")
    theirs = backend.get(f"{user_path(user)}/profile").json()
    assert theirs == profile


def test_what_is_never_named_is_counted_only(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("eve")
    buy(backend, user, 5, 11, 2)  # 5 and 11 are intimate, 2 is not
    me = customer(user)
    following = {"followed_categories": [SECRET], "hidden_items": ["i00005"]}
    backend.patch(f"{user_path(user)}/preferences", json=following).raise_for_status()
    answer = me.get(PROFILE)
    for secret in ("Intimate", "i00005", "i00011", "Thing 5", "Thing 11", "Maker 5"):
        assert secret not in answer.text
    profile = answer.json()
    assert [*points(profile, "category")] == ["Health > Shelf 0"]
    # A category, its brand, a follow and a hide.
    assert profile["withheld"] == 4
    assert profile["withheld_text"] == "4 more that we do not name here."
    assert profile["recent_withheld"] == 2


def test_what_does_not_describe_me_is_gone_everywhere(
    customer: Customer, backend: httpx.Client
) -> None:
    user = fresh("bob")
    buy(backend, user, 0, 6, 12, 1)
    me = customer(user)
    before = ids_of(me.get("/v1/recommendations", params={"limit": 10}).json())
    point = points(me.get(PROFILE).json(), "category")["Pets > Shelf 0"]
    for _ in range(2):
        answer = me.delete(f"{PROFILE}/{point['point_id']}")
        assert answer.json() == {"point_id": point["point_id"], "removed": True}
    for profile in everywhere(me, PROFILE):
        assert [*points(profile, "category")] == ["Garden > Shelf 1"]
        assert "Maker 0" not in points(profile, "brand")
        assert [one["item_id"] for one in profile["recent"]] == ["i00001"]
        (removed,) = profile["removed"]
        assert (removed["point_id"], removed["kind"]) == (point["point_id"], "category")
    assert all(
        ids_of(answer) != before for answer in everywhere(me, "/v1/recommendations", limit=10)
    )
    answer = me.post(f"{PROFILE}/{point['point_id']}/restore")
    assert answer.json()["restored"] is True
    assert me.post(f"{PROFILE}/{point['point_id']}/restore").json()["restored"] is False
    for profile in everywhere(me, PROFILE):
        assert {*points(profile, "category")} == {"Garden > Shelf 1", "Pets > Shelf 0"}
        assert profile["removed"] == []


def test_an_item_and_a_brand_can_be_refused(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("joe")
    buy(backend, user, 0, 1, 2)
    me = customer(user)
    signal = next(one for one in me.get(PROFILE).json()["recent"] if one["item_id"] == "i00001")
    me.delete(f"{PROFILE}/{signal['point_id']}").raise_for_status()
    profile = me.get(PROFILE).json()
    assert "i00001" not in [one["item_id"] for one in profile["recent"]]
    assert [*points(profile, "category")] == ["Health > Shelf 0", "Pets > Shelf 0"]
    maker = points(profile, "brand")["Maker 2"]
    me.delete(f"{PROFILE}/{maker['point_id']}").raise_for_status()
    assert [*points(me.get(PROFILE).json(), "category")] == ["Pets > Shelf 0"]
    # What happens from now on counts again.
    time.sleep(1.1)
    buy(backend, user, 2)
    assert {*points(me.get(PROFILE).json(), "brand")} == {"Maker 0", "Maker 2"}


def test_segments_and_what_was_said(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("kim")
    path = user_path(user)
    segment = {
        "name": "Gold in Berlin",
        "description": "For the opening",
        "when": {"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
    }
    backend.put("/v1/segments/gold%20profile", json=segment, headers={"If-None-Match": "*"})
    backend.put(path, json={"loyalty": {"program": "club", "tier": "gold"}}).raise_for_status()
    me = customer(user)
    said = {
        "followed_brands": ["Maker 3"],
        "interests": ["Pets"],
        "hidden_items": ["i00007"],
        "consent": {"email_marketing": True},
        "email": {"frequency_days": 14},
    }
    me.patch("/v1/me/preferences", json=said).raise_for_status()
    profile = me.get(PROFILE).json()
    gold = points(profile, "segment")["gold profile"]
    assert gold["text"] == "You are in the group: Gold in Berlin. For the opening"
    assert [*points(profile, "followed_brand")] == ["Maker 3"]
    assert points(profile, "hidden_item")["i00007"]["text"].endswith("Thing 7.")
    assert profile["email"]["text"] == "At most one e-mail every 14 days."
    mail = next(one for one in profile["consent"] if one["purpose"] == "email_marketing")
    assert (mail["allowed"], mail["source"]) == (True, "customer")
    for one in (
        gold,
        points(profile, "followed_brand")["Maker 3"],
        points(profile, "interest")["Pets"],
    ):
        me.delete(f"{PROFILE}/{one['point_id']}").raise_for_status()
    assert [one["kind"] for one in me.get(PROFILE).json()["points"]] == ["hidden_item"]
    left = me.get("/v1/me/preferences").json()
    assert (left["followed_brands"], left["interests"]) == ([], [])
    # What was said is gone with the saying: there is no such point any more.
    followed = points(profile, "followed_brand")["Maker 3"]["point_id"]
    assert_problem(me.delete(f"{PROFILE}/{followed}"), 404)


def test_who_allows_no_profile_sees_what_they_chose(
    customer: Customer, backend: httpx.Client
) -> None:
    user = fresh("max")
    buy(backend, user, 0, 6)
    me = customer(user)
    shown = me.get(PROFILE).json()
    me.patch("/v1/me/preferences", json={"followed_categories": ["Garden"]}).raise_for_status()
    me.patch("/v1/me/preferences", json={"personalization": False}).raise_for_status()
    for profile in everywhere(me, PROFILE):
        assert profile["profiled"] is False
        assert [one["kind"] for one in profile["points"]] == ["followed_category"]
        assert (profile["recent"], profile["withheld"]) == ([], 0)
        assert "do not allow a profile" in profile["text"]
        assert "Thing 0" not in str(profile)
    pets = points(shown, "category")["Pets > Shelf 0"]["point_id"]
    assert_problem(me.delete(f"{PROFILE}/{pets}"), 404)


def test_a_browser_that_objects_is_obeyed_and_remembered(
    customer: Customer, backend: httpx.Client
) -> None:
    user = fresh("gil")
    buy(backend, user, 0, 6)
    me = customer(user)
    assert me.get(PROFILE, headers={"Sec-GPC": "1"}).json()["profiled"] is False
    assert me.get(PROFILE).json()["profiled"] is False
    assert me.get("/v1/me/preferences").json()["consent"]["profiling"] is False


def test_a_visitor_has_a_profile_until_they_sign_in(
    shop: tuple[Service, EmbeddedServer], customer: Customer, key: str
) -> None:
    visitor = f"v-0123456789-0123456789-{time.monotonic_ns()}"
    user = fresh("mia")
    with page_of(shop[0], **{"X-API-Key": key}) as page:
        seen = {
            **event("x", "i00003", type="view", anonymous_id=visitor),
            "user_id": None,
        }
        assert page.post("/v1/events", json=seen).json()["accepted"] == 1
        profile = page.get(PROFILE, params={"anonymous_id": visitor}).json()
        point = points(profile, "category")["Pets > Shelf 1"]
        asking_first = {"Access-Control-Request-Method": "DELETE"}
        preflight = page.options(f"{PROFILE}/{point['point_id']}", headers=asking_first)
        assert preflight.headers["access-control-allow-methods"] == "DELETE"
        assert_problem(page.get(PROFILE), 422, "#/anonymous_id")
        assert_problem(page.get(PROFILE, params={"anonymous_id": "short"}), 422, "#/anonymous_id")
        assert customer(user).post("/v1/me/merge", json={"anonymous_id": visitor}).json()["merged"]
        assert_problem(page.get(PROFILE, params={"anonymous_id": visitor}), 403)
        mine = f"{PROFILE}/{point['point_id']}"
        assert_problem(page.delete(mine, params={"anonymous_id": visitor}), 403)
    assert customer(user).get(PROFILE).json()["points"] == profile["points"]
    refused = customer(user).get(PROFILE, params={"anonymous_id": visitor})
    assert_problem(refused, 422, "#/anonymous_id")
    assert_problem(customer(user).get(PROFILE, params={"user_id": user}), 422, "#/user_id")


def test_unknown_points_are_not_there(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("pat")
    buy(backend, user, 0)
    me = customer(user)
    for point_id in ("category-00000000000000000000", "no such thing", "a%2Fb", "item-"):
        assert_problem(me.delete(f"{PROFILE}/{point_id}"), 404)
    # Somebody else's point is no point of mine.
    other = fresh("sam")
    buy(backend, other, 1)
    garden = points(customer(other).get(PROFILE).json(), "category")["Garden > Shelf 1"]
    assert_problem(me.delete(f"{PROFILE}/{garden['point_id']}"), 404)


def test_racing_tabs_all_count(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("tab")
    numbers = [0, 1, 2, 3, 4, 8]
    buy(backend, user, *numbers, timestamp=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
    me = customer(user)
    ids = [one["point_id"] for one in me.get(PROFILE).json()["recent"]]
    assert len(ids) == len(numbers)
    statuses: list[int] = []

    def tab(point_id: str) -> None:
        with httpx.Client(
            base_url=me.base_url, headers=me.headers, verify=False, timeout=60
        ) as mine:
            statuses.append(mine.delete(f"{PROFILE}/{point_id}").status_code)

    threads = [threading.Thread(target=tab, args=(one,)) for one in ids * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    for profile in everywhere(me, PROFILE):
        assert profile["recent"] == []
        assert points(profile, "category") == {}
        assert len(profile["removed"]) == len(numbers)
