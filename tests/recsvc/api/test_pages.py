"""Whole pages over HTTP: filled in one call, and defined like placements."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.paging import RECS, body, buyer, filled, module_names, somebody
from tests.recsvc.api.service import Service, assert_problem, event, ids_of, running_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, EmbeddedServer]]:
    """A service of its own: pages and placements of the site change."""
    folder: Path = tmp_path_factory.mktemp("pages")
    with running_shop(folder, workers=2, snapshot_poll_s=0.1, decision_sample=0.5) as both:
        yield both


@pytest.fixture(scope="module")
def client(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with shop[0].client() as opened:
        yield opened


# --- filled -------------------------------------------------------------------------------------


def test_the_page_of_a_customer_begins_like_its_first_placement(client: httpx.Client) -> None:
    user = buyer(client, *range(1, 40))
    page = filled(client.get("/v1/pages/home", params={"user_id": user}))
    assert (page["page"], page["user_id"], page["because"]) == ("home", user, "default")
    assert page["personalized"]
    assert module_names(page) == ["for_you", "buy_again", "trending", "new"]
    first = page["modules"][0]
    assert (first["placement"], first["title"], len(first["items"])) == ("home", "For you", 12)
    alone = client.get(RECS, params={"user_id": user, "placement": "home", "limit": 12})
    assert ids_of(first) == ids_of(alone.json())
    bought = {f"i{number:05d}" for number in range(1, 40)}
    assert set(ids_of(page["modules"][1])) <= bought - set(ids_of(first))


def test_each_module_is_its_placement_without_what_stands_above(client: httpx.Client) -> None:
    user = buyer(client)
    page = filled(client.get("/v1/pages/home", params={"user_id": user}))
    above: list[str] = []
    for module in page["modules"]:
        if module["module"] != "buy_again":  # it goes on with nothing
            params: dict[str, Any] = {"user_id": user, "placement": module["placement"]}
            params |= {"limit": 12, "exclude_item_ids": above}
            alone = client.get(RECS, params=params)
            assert ids_of(module) == ids_of(alone.json())
            assert len(module["items"]) == 12
        above += ids_of(module)


def test_nothing_that_was_never_bought_stands_under_buy_again(client: httpx.Client) -> None:
    page = filled(client.get("/v1/pages/home", params={"user_id": somebody("stranger")}))
    assert page["empty"] == ["buy_again"]
    assert module_names(page) == ["for_you", "trending", "new"]
    numbers = tuple(range(20, 60, 2))
    page = filled(client.get("/v1/pages/cart", params={"user_id": buyer(client, *numbers)}))
    again = page["modules"][1]
    assert again["module"] == "buy_again"
    assert len(again["items"]) == 6
    assert {item["source"] for item in again["items"]} == {"repeat"}
    assert set(ids_of(again)) <= {f"i{number:05d}" for number in numbers}


def test_a_page_is_about_its_items_and_shows_none_of_them(client: httpx.Client) -> None:
    page = filled(client.get("/v1/pages/product", params={"item_ids": "i00010"}))
    assert module_names(page) == ["similar", "together"]
    params: dict[str, Any] = {"placement": "product", "item_ids": "i00010", "limit": 12}
    assert ids_of(page["modules"][0]) == ids_of(client.get(RECS, params=params).json())
    shown = [item_id for module in page["modules"] for item_id in ids_of(module)]
    assert "i00010" not in shown


def test_the_query_is_that_of_recommendations(client: httpx.Client) -> None:
    condition = '{"field": "item.brand", "op": "eq", "value": "Brand 1"}'
    asked: dict[str, Any] = {
        "filter": condition,
        "fields": ["title", "brand"],
        "exclude_item_ids": ["i00001"],
        "context.country": "DE",
        "explain": "true",
    }
    page = filled(client.get("/v1/pages/home", params=asked))
    for module in page["modules"]:
        for item in module["items"]:
            assert item["item"]["brand"] == "Brand 1"
            assert item["item_id"] != "i00001"
            assert item["reason"]["text"]
            assert item["journey"]


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"placement": "home"}, "#/placement"),
        ({"limit": "5"}, "#/limit"),
        ({"after": "x"}, "#/after"),
        ({"nonsense": "1"}, "#/nonsense"),
        ({"filter": "{"}, "#/filter"),
        ({"user_id": "a", "external_id.crm": "b"}, "#/external_id"),
    ],
)
def test_what_a_page_cannot_be_asked(
    client: httpx.Client, params: dict[str, str], pointer: str
) -> None:
    assert_problem(client.get("/v1/pages/home", params=params), 422, pointer)


def test_unknown_pages(client: httpx.Client) -> None:
    assert "home" in assert_problem(client.get("/v1/pages/none"), 404)["detail"]
    assert_problem(client.get("/v1/pages/none/definition"), 404)
    assert_problem(client.delete("/v1/pages/none"), 404)


def test_impressions_and_decisions_are_of_a_module(client: httpx.Client) -> None:
    user = buyer(client)
    page = filled(client.get("/v1/pages/home", params={"user_id": user}))
    for module in page["modules"]:
        name = module["recommendation_id"]
        decision = client.get(f"{RECS}/{name}").json()
        assert decision["placement"] == module["placement"]
        assert decision["user_id"] == user
        assert ids_of(decision) == ids_of(module)
        seen = event(user, module["items"][0]["item_id"], type="click", recommendation_id=name)
        assert client.post("/v1/events", json={**seen, "rank": 1}).json()["accepted"] == 1


def test_pages_for_nobody_may_be_kept_and_others_not(client: httpx.Client) -> None:
    answer = client.get("/v1/pages/home")
    assert answer.headers["cache-control"] == "public, no-cache"
    assert not answer.json()["personalized"]
    tag = {"If-None-Match": answer.headers["etag"]}
    assert client.get("/v1/pages/home", headers=tag).status_code == 304
    assert client.get("/v1/pages/cart", headers=tag).status_code == 200
    assert client.get("/v1/pages/home?context.a=1", headers=tag).status_code == 304
    private = client.get("/v1/pages/home", params={"user_id": somebody("private")})
    assert private.headers["cache-control"] == "private, no-store"
    assert private.headers["server-timing"].startswith("parse;dur"), "answered at the edge"


def test_a_module_goes_on_without_what_stands_above(client: httpx.Client) -> None:
    page = filled(client.get("/v1/pages/home"))
    trending = page["modules"][1]
    assert trending["module"] == "trending"
    whole = {"placement": "trending", "exclude_item_ids": ids_of(page["modules"][0])}
    more = client.get(RECS, params={**whole, "limit": 5, "after": trending["recommendation_id"]})
    longer = client.get(RECS, params={**whole, "limit": 17}).json()
    assert ids_of(trending) + ids_of(more.json()) == ids_of(longer)


# --- rules --------------------------------------------------------------------------------------


def test_a_rule_of_a_placement_acts_in_its_module(client: httpx.Client) -> None:
    for name, placement in (("pages.above", "home"), ("pages.below", "trending")):
        action = {"type": "pin", "item_ids": ["i00077", "i00078"], "positions": [1]}
        rule = {"placements": [placement], "action": action}
        client.put(f"/v1/rules/{name}", json=rule).raise_for_status()
    names = ["pages.above", "pages.below"]
    client.post("/v1/rules/publish", json={"rule_ids": names}).raise_for_status()
    page = filled(client.get("/v1/pages/home"))
    above, below = page["modules"][:2]
    assert (ids_of(above)[0], above["items"][0]["rule_ids"]) == ("i00077", ["pages.above"])
    # The item of both pins stands above; below its spare takes the place.
    assert (ids_of(below)[0], below["items"][0]["rule_ids"]) == ("i00078", ["pages.below"])
    for name in names:
        stored = client.get(f"/v1/rules/{name}").json()
        paused = {key: stored[key] for key in ("placements", "action")} | {"status": "paused"}
        tag = {"If-Match": f'"{stored["revision"]}"'}
        client.put(f"/v1/rules/{name}", json=paused, headers=tag).raise_for_status()
    client.post("/v1/rules/publish", json={"rule_ids": names}).raise_for_status()


# --- definitions --------------------------------------------------------------------------------


def test_a_page_is_made_changed_and_deleted(client: httpx.Client) -> None:
    made = client.put(
        "/v1/pages/landing",
        json=body(
            {"module": "top", "placement": "trending", "title": "Hot", "limit": 3},
            {"module": "more", "placement": "home"},
            title="Landing",
        ),
    )
    assert (made.status_code, made.headers["etag"]) == (200, '"1"'), made.text
    page = filled(client.get("/v1/pages/landing"))
    assert page["title"] == "Landing"
    assert [(one["module"], one["title"], len(one["items"])) for one in page["modules"]] == [
        ("top", "Hot", 3),
        ("more", "For you", 20),
    ]
    read = client.get("/v1/pages/landing/definition")
    assert (read.json(), read.headers["etag"]) == (made.json(), '"1"')
    assert not read.json()["built_in"]
    # What was read can be written, changed.
    changed = {**read.json(), "modules": read.json()["modules"][::-1]}
    assert_problem(client.put("/v1/pages/landing", json=changed, headers={"If-Match": '"7"'}), 412)
    again = client.put("/v1/pages/landing", json=changed, headers={"If-Match": '"1"'})
    assert again.json()["revision"] == 2
    for _ in range(8):  # any worker
        assert module_names(filled(client.get("/v1/pages/landing"))) == ["more", "top"]
    assert client.delete("/v1/pages/landing").json() == {"name": "landing", "restored": False}
    assert_problem(client.get("/v1/pages/landing"), 404)


def test_a_built_in_page_is_changed_and_restored(client: httpx.Client) -> None:
    before = client.get("/v1/pages/cart/definition").json()
    assert (before["built_in"], before["changed"], before["revision"]) == (True, False, 0)
    assert before["modules"][1]["fallback"] == "none"
    client.put("/v1/pages/cart", json=body()).raise_for_status()
    assert module_names(filled(client.get("/v1/pages/cart"))) == ["a"]
    assert client.get("/v1/pages/cart/definition").json()["changed"]
    names = [one["name"] for one in client.get("/v1/pages").json()["pages"]]
    assert {"home", "product", "cart", "me"} <= set(names)
    assert client.delete("/v1/pages/cart").json() == {"name": "cart", "restored": True}
    assert client.get("/v1/pages/cart/definition").json() == before
    audit = client.get("/v1/rules/audit").text
    assert '"page"' in audit


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"modules": []}, "#/modules"),
        ({"modules": [{"module": f"m{n}", "placement": "home"} for n in range(21)]}, "#/modules"),
        ({"modules": [{"module": "a", "placement": "none"}]}, "#/modules/0/placement"),
        ({"modules": [{"module": "a", "placement": "home"}] * 2}, "#/modules/1/module"),
        ({"modules": [{"module": "a b", "placement": "home"}]}, "#/modules/0/module"),
        (
            {"modules": [{"module": "a", "placement": "home", "limit": 101}]},
            "#/modules/0/limit",
        ),
        ({"modules": [{"module": "a", "placement": "home", "x": 1}]}, "#/modules/0/x"),
        ({"defaults": {"rich": ["a"]}}, "#/defaults/rich"),
        ({"defaults": {"new": []}}, "#/defaults/new"),
        ({"defaults": {"new": ["b"]}}, "#/defaults/new/0"),
        ({"defaults": {"new": ["a", "a"]}}, "#/defaults/new/1"),
        ({"title": 5}, "#/title"),
        ({"unknown": 5}, "#/unknown"),
    ],
)
def test_what_is_wrong_with_a_page_is_named(
    client: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(client.put("/v1/pages/wrong", json={**body(), **change}), 422, pointer)


def test_a_page_has_a_plain_name_and_a_json_body(client: httpx.Client) -> None:
    assert_problem(client.put("/v1/pages/a%2Fb", json=body()), 422, "#/name")
    assert_problem(client.put("/v1/pages/wrong", content=b"x"), 415)
    assert_problem(client.put("/v1/pages/wrong", json=[]), 422, "#")


def test_a_module_whose_placement_is_gone_is_left_out(client: httpx.Client) -> None:
    placement = {"sources": [{"source": "popular"}], "limit": 4, "title": "Mine"}
    client.put("/v1/placements/passing", json=placement).raise_for_status()
    modules = [
        {"module": "passing", "placement": "passing"},
        {"module": "stays", "placement": "trending"},
    ]
    client.put("/v1/pages/passing", json=body(*modules)).raise_for_status()
    page = filled(client.get("/v1/pages/passing"))
    assert [one["title"] for one in page["modules"]] == ["Mine", "Trending now"]
    client.delete("/v1/placements/passing").raise_for_status()
    page = filled(client.get("/v1/pages/passing"))
    assert (module_names(page), page["missing"]) == (["stays"], ["passing"])
