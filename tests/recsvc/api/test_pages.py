"""Whole pages over HTTP: defined, filled, and the customer's own."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from tests.recsvc.api.browser import ORIGIN, page_of, public_key, put, secret_of
from tests.recsvc.api.service import Service, assert_problem, event, ids_of, running_shop
from tests.recsvc.signing import Backend

RECS = "/v1/recommendations"
MINE = "/v1/me/page"
PREFERENCES = "/v1/me/preferences"


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


@pytest.fixture(scope="module")
def login(shop: tuple[Service, EmbeddedServer]) -> Backend:
    backend = Backend(secret_of(shop[0]), "EdDSA", (ORIGIN,))
    put(shop[1], backend.record)
    return backend


@pytest.fixture(scope="module")
def browser(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    """The code of a page, with a public key."""
    key, record = public_key(shop[0])
    put(shop[1], record)
    with page_of(shop[0], **{"X-API-Key": key}) as opened:
        yield opened


def somebody(what: str) -> str:
    return f"{what} of pages {time.monotonic_ns()}"


def visitor() -> str:
    return f"visitor-of-pages-{time.monotonic_ns():020d}"


def buyer(client: httpx.Client, *numbers: int) -> str:
    user = somebody("buyer")
    events = [event(user, f"i{number:05d}") for number in numbers or (3, 6, 9)]
    assert client.post("/v1/events", json=events).json()["accepted"] == len(events)
    return user


def signed_in(login: Backend, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {login.token(user)}", "Origin": ORIGIN}


def compute(server: EmbeddedServer, user: str, stage: str) -> None:
    """Say a customer's stage, as training does."""

    async def run() -> None:
        store = await Store.open(server.url)
        try:
            await store.people.put_many("computed", {f"u:{user}": {"stage": stage}}, "training")
        finally:
            await store.close()

    asyncio.run(run())


def filled(response: httpx.Response) -> dict[str, Any]:
    """Check what holds for every page, and return it."""
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    shown = [item_id for module in page["modules"] for item_id in ids_of(module)]
    assert len(set(shown)) == len(shown), "an item stands on the page twice"
    for module in page["modules"]:
        assert module["items"], "an empty module is left out"
        assert [item["rank"] for item in module["items"]] == list(
            range(1, len(module["items"]) + 1)
        )
        assert module["title"]
        for name in ("user_id", "model_version", "rules_version", "degraded"):
            assert module[name] == page[name]
    assert page["personalized"] == any(one["personalized"] for one in page["modules"])
    names = module_names(page)
    assert not set(names) & {*page["empty"], *page["missing"]}
    assert len(set(names)) == len(names)
    ids = [module["recommendation_id"] for module in page["modules"]]
    assert len(set(ids)) == len(ids)
    return page


def module_names(page: dict[str, Any]) -> list[str]:
    return [module["module"] for module in page["modules"]]


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
            params = {"user_id": user, "placement": module["placement"], "limit": 12}
            alone = client.get(RECS, params={**params, "exclude_item_ids": above})
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
    params = {"placement": "product", "item_ids": "i00010", "limit": 12}
    assert ids_of(page["modules"][0]) == ids_of(client.get(RECS, params=params).json())
    shown = [item_id for module in page["modules"] for item_id in ids_of(module)]
    assert "i00010" not in shown


def test_the_query_is_that_of_recommendations(client: httpx.Client) -> None:
    condition = '{"field": "item.brand", "op": "eq", "value": "Brand 1"}'
    asked = {
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
    assert "store;dur" in private.headers["server-timing"]


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


def body(*modules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"modules": list(modules or [{"module": "a", "placement": "home"}]), **more}


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


# --- the customer's own -------------------------------------------------------------------------


def choose(client: httpx.Client, headers: dict[str, str], *modules: str) -> httpx.Response:
    patch = {"page": {"modules": list(modules)}}
    return client.patch(PREFERENCES, json=patch, headers=headers)


def mine(client: httpx.Client, headers: dict[str, str], **params: Any) -> dict[str, Any]:
    return filled(client.get(MINE, headers=headers, params=params))


@pytest.fixture
def anyone(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with shop[0].client(None) as opened:
        yield opened


def test_the_chosen_modules_stand_in_their_order(
    client: httpx.Client, anyone: httpx.Client, login: Backend
) -> None:
    user = buyer(client, *range(1, 40))
    headers = signed_in(login, user)
    before = mine(anyone, headers)
    assert (before["because"], before["user_id"], before["page"]) == ("default", user, "me")
    assert module_names(before) == ["for_you", "trending", "new"]
    assert choose(anyone, headers, "new", "buy_again", "for_you").status_code == 200
    for _ in range(6):  # any worker
        page = mine(anyone, headers)
        assert page["because"] == "chosen"
        assert module_names(page) == ["new", "buy_again", "for_you"]
    chosen = [one["module"] for one in page["choosable"] if one["chosen"]]
    others = [one["module"] for one in page["choosable"] if not one["chosen"]]
    assert chosen == ["for_you", "buy_again", "new"]
    assert others == ["trending", "popular", "content"]
    assert all(one["title"] for one in page["choosable"])
    for module in page["modules"]:
        assert all(item["reason"]["text"] for item in module["items"])
    assert ids_of(page["modules"][0]) == ids_of(
        anyone.get(RECS, params={"placement": "new", "limit": 12}, headers=headers).json()
    )
    # The backend renders the same page.
    theirs = filled(client.get("/v1/pages/me", params={"user_id": user}))
    assert module_names(theirs) == module_names(page)
    assert "choosable" not in theirs
    # Back to the default.
    patch = {"page": {"modules": None}}
    assert anyone.patch(PREFERENCES, json=patch, headers=headers).status_code == 200
    assert mine(anyone, headers)["because"] == "default"


def test_what_cannot_be_chosen_is_refused(anyone: httpx.Client, login: Backend) -> None:
    headers = signed_in(login, somebody("chooser"))
    problem = assert_problem(choose(anyone, headers, "for_you", "x"), 422, "#/page/modules/1")
    assert "buy_again" in problem["errors"][0]["detail"]
    assert mine(anyone, headers)["because"] == "default"


def test_the_default_is_by_stage(
    shop: tuple[Service, EmbeddedServer],
    client: httpx.Client,
    anyone: httpx.Client,
    login: Backend,
) -> None:
    orders = {
        "new": ["trending", "new", "for_you"],
        "active": ["buy_again", "for_you", "new"],
        "at_risk": ["for_you", "buy_again", "trending"],
        "lapsed": ["trending", "new", "for_you"],
    }
    for stage, modules in orders.items():
        user = buyer(client, *range(1, 40))
        compute(shop[1], user, stage)
        page = mine(anyone, signed_in(login, user))
        assert page["because"] == f"stage:{stage}"
        assert module_names(page) == modules
        # The stage is personal: who objects has what everybody has.
        objects = {**signed_in(login, user), "Sec-GPC": "1"}
        page = mine(anyone, objects)
        assert (page["because"], page["personalized"]) == ("default", False)
        assert module_names(page) == ["for_you", "trending", "new"]
        assert not any(one["personalized"] for one in page["modules"])


def test_who_is_not_profiled_has_their_modules_with_what_everybody_sees(
    client: httpx.Client, anyone: httpx.Client, login: Backend
) -> None:
    headers = signed_in(login, buyer(client))
    assert choose(anyone, headers, "trending", "for_you").status_code == 200
    patch = {"personalization": False}
    assert anyone.patch(PREFERENCES, json=patch, headers=headers).status_code == 200
    page = mine(anyone, headers)
    assert (page["because"], page["personalized"]) == ("chosen", False)
    assert module_names(page) == ["trending", "for_you"]
    nobodys = client.get(RECS, params={"placement": "trending", "limit": 12}).json()
    assert ids_of(page["modules"][0]) == ids_of(nobodys)


def test_what_was_hidden_stands_in_no_module(
    client: httpx.Client, anyone: httpx.Client, login: Backend
) -> None:
    headers = signed_in(login, buyer(client))
    page = mine(anyone, headers)
    gone = [ids_of(module)[0] for module in page["modules"]]
    patch = {"hidden_items": {"add": gone}, "hidden_brands": {"add": ["Brand 2"]}}
    assert anyone.patch(PREFERENCES, json=patch, headers=headers).status_code == 200
    for _ in range(4):
        page = mine(anyone, headers, fields="brand")
        for module in page["modules"]:
            assert not set(gone) & set(ids_of(module))
            assert {item["item"]["brand"] for item in module["items"]} <= {
                *("Brand 0", "Brand 1", "Brand 3")
            }


def test_what_the_site_offers_no_more_is_named(
    client: httpx.Client, anyone: httpx.Client, login: Backend
) -> None:
    headers = signed_in(login, somebody("loyal"))
    assert choose(anyone, headers, "popular", "trending", "new").status_code == 200
    modules = [
        {"module": "trending", "placement": "trending", "choosable": False},
        {"module": "new", "placement": "new", "title": "Fresh"},
    ]
    client.put("/v1/pages/me", json=body(*modules, title="Yours")).raise_for_status()
    try:
        page = mine(anyone, headers)
        assert (module_names(page), page["missing"]) == (["new"], ["popular", "trending"])
        assert page["choosable"] == [{"module": "new", "title": "Fresh", "chosen": True}]
        others = mine(anyone, signed_in(login, somebody("other")))
        assert (others["because"], module_names(others)) == ("default", ["trending", "new"])
        client.put("/v1/pages/me", json=body(modules[0])).raise_for_status()
        page = mine(anyone, headers)
        assert (page["because"], module_names(page)) == ("default", ["trending"])
        assert page["missing"] == ["popular", "new"]
        assert page["choosable"] == []
    finally:
        client.delete("/v1/pages/me").raise_for_status()


def test_a_visitor_has_a_page_too(browser: httpx.Client) -> None:
    anonymous_id = visitor()
    params = {"anonymous_id": anonymous_id}
    page = filled(browser.get(MINE, params=params))
    assert (page["because"], page["user_id"], page["personalized"]) == ("default", None, False)
    patch = {"page": {"modules": ["popular", "new"]}}
    assert browser.patch(PREFERENCES, params=params, json=patch).status_code == 200
    answer = browser.get(MINE, params=params)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["cache-control"] == "private, no-store"
    assert module_names(filled(answer)) == ["popular", "new"]
    assert_problem(browser.get(MINE), 422, "#/anonymous_id")
    assert_problem(browser.get(MINE, params={"anonymous_id": "short"}), 422, "#/anonymous_id")
    home = filled(browser.get("/v1/pages/home", params=params))
    assert home["user_id"] is None
    assert_problem(browser.get("/v1/pages/home", params={"user_id": "x"}), 422, "#/user_id")
    assert_problem(browser.get("/v1/pages/home/definition"), 403)


def test_one_asks_for_oneself(client: httpx.Client, anyone: httpx.Client, login: Backend) -> None:
    headers = signed_in(login, somebody("asker"))
    for params, pointer in (
        ({"user_id": "bob"}, "#/user_id"),
        ({"anonymous_id": visitor()}, "#/anonymous_id"),
        ({"external_id.crm": "1"}, "#/external_id"),
        ({"explain": "true"}, "#/explain"),
        ({"limit": "3"}, "#/limit"),
        ({"fields": "attributes"}, "#/fields"),
    ):
        assert_problem(anyone.get(MINE, params=params, headers=headers), 422, pointer)
    assert_problem(client.get(MINE), 403)
    assert_problem(anyone.get("/v1/pages/home?user_id=bob", headers=headers), 404)
    asked = anyone.get("/v1/pages/home", headers=headers)
    assert filled(asked)["user_id"].startswith("asker")


@pytest.mark.parametrize("path", [MINE, "/v1/pages/home", "/v1/pages/me"])
def test_a_page_of_the_shop_may_ask(browser: httpx.Client, path: str) -> None:
    asked = {"Access-Control-Request-Method": "GET"}
    answer = browser.options(path, headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-methods"].split(", ") == ["GET"]
    definition = browser.options("/v1/pages/home/definition", headers=asked)
    assert_problem(definition, 403)


# --- without the store --------------------------------------------------------------------------


def test_without_the_store_the_page_is_there_and_not_personal(
    tmp_path: Path,
) -> None:
    with running_shop(tmp_path) as (service, server), service.client() as client:
        backend = Backend(secret_of(service), "EdDSA", (ORIGIN,))
        put(server, backend.record)
        user = buyer(client)
        compute(server, user, "active")
        headers = signed_in(backend, user)
        with service.client(None) as anyone:
            assert mine(anyone, headers)["because"] == "stage:active"
            assert choose(anyone, headers, "new", "for_you").status_code == 200
            assert mine(anyone, headers)["personalized"]
            server.stop()
            page = mine(anyone, headers)
            assert (page["degraded"], page["personalized"]) == (["store"], False)
            assert module_names(page) == ["new", "for_you"], "this worker saw the choice"
            other = filled(client.get("/v1/pages/home", params={"user_id": user}))
            assert (other["degraded"], other["personalized"]) == (["store"], False)
            assert module_names(other) == ["for_you", "trending", "new"]
