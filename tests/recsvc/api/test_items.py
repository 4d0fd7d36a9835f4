"""The catalogue over real HTTP, and ids that hold anything."""

import json
from urllib.parse import quote

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recsvc.api.service import N_ITEMS, ODD_IDS, Service, assert_problem, event

PATH = "/v1/items"

printable = st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" /:{}%+&=?#;,.~\\\"'")
ids = st.text(printable, min_size=1, max_size=12).filter(lambda one: one not in (".", ".."))


def test_an_item_as_the_contract_has_it(client: httpx.Client) -> None:
    response = client.get(f"{PATH}/i00002")
    assert response.status_code == 200
    assert response.json() == {
        "item_id": "i00002",
        "kind": "product",
        "title": "Item 2 of Brand 2",
        "url": None,
        "image_url": None,
        "price": {"amount": "3.50", "currency": "EUR"},
        "sale_price": None,
        "brand": "Brand 2",
        "categories": [],
        "available": True,
        "published_at": None,
        "expires_at": None,
        "group_id": None,
        "attributes": {},
        "markets": {},
    }
    assert_problem(client.get(f"{PATH}/unknown"), 404)


def test_odd_ids_are_found_under_their_own_path(client: httpx.Client) -> None:
    for odd in ODD_IDS:
        found = client.get(f"{PATH}/{quote(odd, safe='')}")
        assert found.status_code == 200, odd
        assert found.json()["item_id"] == odd


@settings(max_examples=40, deadline=None)
@given(item_id=ids)
def test_any_id_survives_the_way_through_body_and_path(service: Service, item_id: str) -> None:
    with service.client() as client:
        posted = client.post("/v1/events", json=event("id tester", item_id))
        assert posted.status_code == 202
        assert posted.json()["accepted"] == 1
        found = client.get(f"{PATH}/{quote(item_id, safe='')}")
        assert found.status_code == 200, found.text
        assert found.json()["item_id"] == item_id
        user = client.get(f"/v1/users/{quote('id tester', safe='')}")
        assert user.json()["recent"]


def test_pages_of_the_catalogue_repeat_nothing_and_leave_out_nothing(client: httpx.Client) -> None:
    seen: list[str] = []
    parameters: dict[str, str] = {"limit": "40", "query": "of Brand"}
    while True:
        page = client.get(PATH, params=parameters).json()
        seen += [item["item_id"] for item in page["items"]]
        if page["next_page_token"] is None:
            break
        parameters["page_token"] = page["next_page_token"]
    assert len(seen) == len(set(seen)) == N_ITEMS + len(ODD_IDS)


def test_search_goes_by_beginnings_of_words_and_of_ids(client: httpx.Client) -> None:
    def found(query: str) -> list[str]:
        items = client.get(PATH, params={"query": query, "limit": 100}).json()["items"]
        return [item["item_id"] for item in items]

    assert found("ITEM 17 OF") == ["i00017"]
    assert found("bra 17 it") == ["i00017"]
    assert found("tem 17") == []
    assert set(found("brand 3")) >= {"i00003", "i00007"}
    assert found("a/b") == ["a/b"]
    assert found("i0001") == [f"i{number:05d}" for number in range(10, 20)]
    assert found("no such thing") == []
    assert found(".*") == []


def test_search_goes_by_fields(client: httpx.Client) -> None:
    def found(**fields: str) -> list[str]:
        items = client.get(PATH, params={"limit": 100, **fields}).json()["items"]
        return [item["item_id"] for item in items]

    assert found(brand="Brand 1", query="i0000") == ["i00001", "i00005", "i00009"]
    assert found(brand="brand 1") == []
    assert found(kind="content") == found(available="false") == found(group_id="g") == []
    cheap = {"field": "item.price", "op": "lt", "value": 3}
    assert found(filter=json.dumps(cheap)) == ["i00000", "i00001"]
    assert_problem(client.get(PATH, params={"filter": "{"}), 422, "#/filter")
    bad = json.dumps({"field": "item.colour", "op": "eq", "value": 3})
    assert_problem(client.get(PATH, params={"filter": bad}), 422, "#/filter/field")


def test_parameters_are_checked(client: httpx.Client) -> None:
    assert_problem(client.get(PATH, params={"limit": "0"}), 422, "#/limit")
    assert_problem(client.get(PATH, params={"limit": "x"}), 422, "#/limit")
    assert_problem(client.get(PATH, params={"query": "x" * 201}), 422, "#/query")
    assert_problem(client.get(PATH, params={"other": "1"}), 422, "#/other")
    for token in ("x", "cm93IHg", "%%%", "é"):
        assert_problem(client.get(PATH, params={"page_token": token}), 422, "#/page_token")


def test_items_need_a_scope(service: Service) -> None:
    for scope, status in (("recs:read", 200), ("catalog:write", 200), ("users:read", 403)):
        with service.client(scope) as client:
            assert client.get(PATH).status_code == status
            assert client.get(f"{PATH}/i00001").status_code == status
