"""The customer's own page over HTTP: chosen, by default, without consent, without the store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.browser import ORIGIN, page_of, public_key, put, secret_of
from tests.recsvc.api.paging import (
    RECS,
    body,
    buyer,
    compute,
    filled,
    module_names,
    signed_in,
    somebody,
    visitor,
)
from tests.recsvc.api.service import Service, assert_problem, ids_of, running_shop
from tests.recsvc.signing import Backend

MINE = "/v1/me/page"
PREFERENCES = "/v1/me/preferences"


@pytest.fixture(scope="module")
def client(pair: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with pair[0].client() as opened:
        yield opened


@pytest.fixture(scope="module")
def login(pair: tuple[Service, EmbeddedServer]) -> Backend:
    backend = Backend(secret_of(pair[0]), "EdDSA", (ORIGIN,))
    put(pair[1], backend.record)
    return backend


@pytest.fixture(scope="module")
def browser(pair: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    """The code of a page, with a public key."""
    key, record = public_key(pair[0])
    put(pair[1], record)
    with page_of(pair[0], **{"X-API-Key": key}) as opened:
        yield opened


def choose(client: httpx.Client, headers: dict[str, str], *modules: str) -> httpx.Response:
    patch = {"page": {"modules": list(modules)}}
    return client.patch(PREFERENCES, json=patch, headers=headers)


def mine(client: httpx.Client, headers: dict[str, str], **params: Any) -> dict[str, Any]:
    return filled(client.get(MINE, headers=headers, params=params))


@pytest.fixture
def anyone(pair: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with pair[0].client(None) as opened:
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
    pages = [mine(anyone, headers) for _ in range(6)]  # of any worker
    for page in pages:
        assert page["because"] == "chosen"
        assert module_names(page) == ["new", "buy_again", "for_you"]
    page = pages[-1]
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


def test_a_page_speaks_the_customers_language(anyone: httpx.Client, login: Backend) -> None:
    headers = signed_in(login, somebody("speaker"))
    german = ("Ihre Seite", ["Für Sie", "Gerade im Trend", "Neu im Sortiment"])
    english = ("Your page", ["For you", "Trending now", "New arrivals"])
    for asked, params, (title, titles) in (
        ({}, {}, english),
        ({}, {"context.language": "de"}, german),
        ({"Accept-Language": "fr;q=0.3, de-AT"}, {}, german),
        ({"Accept-Language": "de"}, {"context.language": "en"}, english),
    ):
        page = mine(anyone, {**headers, **asked}, **params)
        assert page["title"] == title
        assert [module["title"] for module in page["modules"]] == titles
        assert page["choosable"][0]["title"] == titles[0]
        texts = {item["reason"]["text"] for item in page["modules"][2]["items"]}
        assert texts == {"Neu" if title == "Ihre Seite" else "New"}


def test_what_cannot_be_chosen_is_refused(anyone: httpx.Client, login: Backend) -> None:
    headers = signed_in(login, somebody("chooser"))
    problem = assert_problem(choose(anyone, headers, "for_you", "x"), 422, "#/page/modules/1")
    assert "buy_again" in problem["errors"][0]["detail"]
    assert mine(anyone, headers)["because"] == "default"


def test_the_default_is_by_stage(
    pair: tuple[Service, EmbeddedServer],
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
        compute(pair[1], user, stage)
        page = mine(anyone, signed_in(login, user))
        assert page["because"] == f"stage:{stage}"
        assert module_names(page) == modules
        # The stage is personal: who objects has what everybody has.
        objects = {**signed_in(login, user), "Sec-GPC": "1"}
        page = mine(anyone, objects)
        assert (page["because"], page["personalized"]) == ("default", False)
        assert module_names(page) == ["for_you", "trending", "new"]
        assert not any(one["personalized"] for one in page["modules"])


@pytest.mark.parametrize("path", [MINE, "/v1/pages/home"])
def test_an_objection_that_comes_with_a_page_is_remembered(
    client: httpx.Client, anyone: httpx.Client, login: Backend, path: str
) -> None:
    headers = signed_in(login, buyer(client))
    assert filled(anyone.get(path, headers=headers))["personalized"]
    for sent in ({**headers, "Sec-GPC": "1"}, headers):
        assert not filled(anyone.get(path, headers=sent))["personalized"]
    consent = anyone.get(PREFERENCES, headers=headers).json()["consent"]
    assert consent["profiling"] is False


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
    modules: list[dict[str, Any]] = [
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
