"""Items are written over HTTP, and every worker's next answer knows of it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recsvc.api.service import (
    Service,
    assert_problem,
    event,
    running_shop,
)

PATH = "/v1/items"
JSON = {"Content-Type": "application/json"}
RECOMMENDATIONS = "/v1/recommendations"
MOST_S = 100.0
ANSWERS = 12
"""Enough to hear from both workers: each answer comes over a connection of its own."""

printable = st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" /:{}%+&=?#;,.~\\\"'")
ids = st.text(printable, min_size=1, max_size=12).filter(lambda one: one not in (".", ".."))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A shop of its own: other tests count the items of theirs."""
    with running_shop(tmp_path_factory.mktemp("items")) as (service, _):
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def at(item_id: str) -> str:
    return f"{PATH}/{quote(item_id, safe='')}"


def euros(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "EUR"}


def test_an_item_lives_from_put_to_delete_and_again(client: httpx.Client) -> None:
    path = at("life of an item")
    assert_problem(client.get(path), 404)
    assert_problem(client.patch(path, json={"title": "x"}), 404)
    assert_problem(client.delete(path), 404)
    put = client.put(path, json={"title": "T", "price": euros("1.5"), "attributes": {"a": 1}})
    assert put.status_code == 200
    assert put.json()["price"] == euros("1.50")
    patch = {"price": None, "attributes": {"b": [None]}, "markets": {"DE": {"available": False}}}
    patched = client.patch(path, json=patch)
    assert patched.status_code == 200
    assert patched.json() == client.get(path).json()
    assert patched.json()["price"] is None
    assert patched.json()["title"] == "T"
    assert patched.json()["attributes"] == {"a": 1, "b": [None]}
    assert patched.json()["markets"] == {"DE": {"available": False}}
    assert client.put(path, json={"brand": "B"}).json()["title"] is None
    assert client.delete(path).json() == {"item_id": "life of an item", "deleted": True}
    for response in (client.get(path), client.delete(path), client.patch(path, json={})):
        assert_problem(response, 404)
    posted = client.post("/v1/events", json=event("somebody", "life of an item"))
    assert posted.json()["accepted"] == 1
    assert_problem(client.get(path), 404)
    assert client.put(path, json={"title": "back"}).status_code == 200
    assert client.get(path).json()["title"] == "back"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"item_id": "another"}, "#/item_id"),
        ({"colour": "red"}, "#/colour"),
        ({"kind": "thing"}, "#/kind"),
        ({"price": {"amount": "-1", "currency": "EUR"}}, "#/price/amount"),
        ({"price": {"amount": "1.23456", "currency": "EUR"}}, "#/price/amount"),
        ({"price": {"amount": "NaN", "currency": "EUR"}}, "#/price/amount"),
        ({"published_at": "2026-01-01T00:00:00"}, "#/published_at"),
        ({"markets": {"D E": {}}}, "#/markets/D E/[key]"),
        ({"markets": {"DE": {"available": "perhaps"}}}, "#/markets/DE/available"),
        ({"categories": ["x"] * 51}, "#/categories"),
        ({"attributes": {"x": "y" * 40_000}}, "#/attributes"),
        (["title"], "#"),
    ],
)
def test_what_is_no_item_is_refused_by_name(client: httpx.Client, body: Any, pointer: str) -> None:
    for response in (
        client.put(at("refused"), json=body),
        client.patch(at("i00003"), json=body),
    ):
        assert_problem(response, 422, pointer)
    assert_problem(client.get(at("refused")), 404)


def test_values_that_do_not_go_together_are_refused(client: httpx.Client) -> None:
    body = {"price": euros("2"), "sale_price": {"amount": "1", "currency": "USD"}}
    assert_problem(client.put(at("money"), json=body), 422, "#")
    assert_problem(
        client.patch(at("i00003"), json={"sale_price": {"amount": "1", "currency": "USD"}}), 422
    )
    deep: Any = {}
    for _ in range(200):
        deep = {"x": deep}
    assert_problem(client.put(at("deep"), json={"attributes": deep}), 422, "#/attributes")
    assert_problem(client.patch(at("i00003"), json={"attributes": deep}), 422)
    text = {"Content-Type": "text/plain"}
    assert_problem(client.put(at("text"), content=b"{}", headers=text), 415)
    assert_problem(client.put(at("text"), content=b"{", headers=JSON), 400)


def test_a_batch_keeps_the_good_ones_and_names_the_bad_ones(client: httpx.Client) -> None:
    batch = [
        {"item_id": "batch a", "title": "first"},
        {"item_id": "batch b", "available": "perhaps"},
        {"title": "no id"},
        "no item",
        {"item_id": "batch a", "title": "second"},
    ]
    answer = client.post(PATH, json=batch).json()
    assert answer["accepted"] == 2
    assert [one["index"] for one in answer["rejected"]] == [1, 2, 3]
    assert answer["rejected"][0]["errors"][0]["pointer"] == "#/available"
    assert client.get(at("batch a")).json()["title"] == "second"
    assert_problem(client.get(at("batch b")), 404)
    assert_problem(client.post(PATH, json=[]), 422, "#")
    assert_problem(client.post(PATH, json=[{"item_id": "x"}] * 1001), 422, "#")
    most = [{"item_id": f"most {number}", "brand": "Most"} for number in range(1000)]
    assert client.post(PATH, json=most).json() == {"accepted": 1000, "rejected": []}
    page = client.get(PATH, params={"brand": "Most", "limit": 100}).json()
    assert len(page["items"]) == 100
    assert page["next_page_token"]


def test_a_writer_may_say_what_it_has_seen(client: httpx.Client) -> None:
    path = at("seen")
    created = client.put(path, json={"title": "1"}, headers={"If-None-Match": "*"})
    assert created.status_code == 200
    assert_problem(client.put(path, json={"title": "2"}, headers={"If-None-Match": "*"}), 412)
    tag = created.headers["ETag"]
    assert client.get(path).headers["ETag"] == tag
    changed = client.patch(path, json={"title": "3"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert_problem(client.patch(path, json={"title": "4"}, headers={"If-Match": tag}), 412)
    assert_problem(client.delete(path, headers={"If-Match": tag}), 412)
    assert_problem(client.put(at("nothing"), json={}, headers={"If-Match": "*"}), 412)
    assert client.delete(path, headers={"If-Match": changed.headers["ETag"]}).status_code == 200


@settings(max_examples=25, deadline=None)
@given(item_id=ids)
def test_any_id_survives_every_route(service: Service, item_id: str) -> None:
    with service.client() as client:
        path = at(item_id)
        assert client.put(path, json={"title": "T"}).json()["item_id"] == item_id
        assert client.patch(path, json={"brand": "B"}).json()["item_id"] == item_id
        batch = client.post(PATH, json=[{"item_id": item_id, "title": "U", "group_id": item_id}])
        assert batch.json()["accepted"] == 1
        page = client.get(PATH, params={"group_id": item_id}).json()
        assert item_id in [item["item_id"] for item in page["items"]]
        # Words of titles may begin with it too, so that there are more than a page holds.
        wanted: dict[str, str | int] = {"query": item_id, "group_id": item_id, "limit": 100}
        begins = client.get(PATH, params=wanted).json()
        assert item_id in [item["item_id"] for item in begins["items"]]
        assert client.get(path).json()["title"] == "U"
        assert client.delete(path).json()["item_id"] == item_id
        assert client.get(path).status_code == 404


def test_prices_are_those_of_the_market(client: httpx.Client) -> None:
    item = {
        "title": "Priced",
        "price": euros("5"),
        "sale_price": euros("4"),
        "markets": {
            "CH": {"price": {"amount": "6", "currency": "CHF"}},
            "AT": {"sale_price": euros("3")},
            "DE": {"available": True},
        },
    }
    assert client.put(at("priced"), json=item).status_code == 200
    one = {"field": "item.title", "op": "eq", "value": "Priced"}

    def prices(**context: str) -> list[Any]:
        fields = ["price", "sale_price"]
        body = {"limit": 1, "filter": one, "fields": fields, "context": context}
        (found,) = client.post(RECOMMENDATIONS, json=body).json()["items"]
        return [found["item"][name] and found["item"][name]["amount"] for name in fields]

    assert prices() == prices(country="FR") == prices(country="DE") == ["5.00", "4.00"]
    assert prices(country="CH") == ["6.00", None]
    assert prices(market="AT", country="CH") == [None, "3.00"]


def test_writers_of_different_fields_do_not_undo_each_other(client: httpx.Client) -> None:
    path = at("many hands")
    client.put(path, json={})

    def write(number: int) -> int:
        return client.patch(path, json={"attributes": {f"a{number}": number}}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(60))) == {200}
    assert client.get(path).json()["attributes"] == {f"a{k}": k for k in range(60)}


def test_writes_need_their_scope(service: Service) -> None:
    with service.client("recs:read") as client:
        for response in (
            client.put(at("x"), json={}),
            client.patch(at("x"), json={}),
            client.delete(at("x")),
            client.post(PATH, json={"item_id": "x"}),
        ):
            assert_problem(response, 403)


def test_no_worker_shows_what_may_not_be_shown(tmp_path: Path) -> None:
    with running_shop(tmp_path, workers=2) as (service, _), service.client() as client:
        client.headers["Connection"] = "close"
        titles = {"i00001": "Item 1 of Brand 1", "new one": "N"}

        def shown(item_id: str, **context: str) -> set[bool]:
            found = set()
            one = {"field": "item.title", "op": "eq", "value": titles[item_id]}
            for _ in range(ANSWERS):
                body = {"limit": 100, "context": context, "filter": one}
                items = client.post(RECOMMENDATIONS, json=body).json()["items"]
                found.add(item_id in [item["item_id"] for item in items])
            return found

        assert shown("i00001") == {True}
        hidden: list[dict[str, Any]] = [
            {"available": False},
            {"available": True, "expires_at": "2020-01-01T00:00:00Z"},
            {"expires_at": None, "published_at": "2999-01-01T00:00:00Z"},
        ]
        for patch in hidden:
            assert client.patch(at("i00001"), json=patch).status_code == 200
            assert shown("i00001") == {False}
        assert client.patch(at("i00001"), json={"published_at": None}).status_code == 200
        assert shown("i00001") == {True}
        terms = {"DE": {"available": False, "price": euros("9")}}
        assert client.patch(at("i00001"), json={"markets": terms}).status_code == 200
        assert shown("i00001") == shown("i00001", country="FR") == {True}
        assert shown("i00001", country="DE") == shown("i00001", market="DE") == {False}
        assert shown("i00001", country="DE", market="FR") == {True}
        assert client.delete(at("i00001")).status_code == 200
        assert shown("i00001") == shown("i00001", country="DE") == {False}
        assert client.put(at("new one"), json={"title": "N"}).status_code == 200
        assert shown("new one") == {True}


@pytest.mark.slow
def test_nothing_is_missed_while_the_log_becomes_a_file(tmp_path: Path) -> None:
    """Each write is looked for at once, from both workers, while files are made and swapped in."""
    settings = {"workers": 2, "max_item_changes": 30, "snapshot_poll_s": 0.05}
    with running_shop(tmp_path, **settings) as (service, _), service.client() as client:
        client.headers["Connection"] = "close"
        body = {"limit": 1, "filter": {"field": "item.brand", "op": "eq", "value": "Only"}}
        client.put(at("only"), json={"brand": "Only"})
        until_s = time.monotonic() + MOST_S
        swaps, number = 0, 0
        while swaps < 4 and time.monotonic() < until_s:
            number += 1
            available = number % 2 == 0
            patch = {"available": available, "attributes": {f"n{number % 40}": number}}
            assert client.patch(at("only"), json=patch).status_code == 200
            for _ in range(3):
                answer = client.post(RECOMMENDATIONS, json=body).json()
                assert answer["degraded"] == []
                assert len(answer["items"]) == available
            swaps = sum(line["event"] == "snapshot_swapped" for line in service.log_lines())
        assert swaps >= 4
        numbers = set(client.get(at("only")).json()["attributes"].values())
        assert numbers == set(range(max(1, number - 39), number + 1))
        assert not [line for line in service.log_lines() if line["level"] == "error"]
