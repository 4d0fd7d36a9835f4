"""Recommendations over real HTTP: both ways in, headers, refusals, read your own writes."""

import base64
import json
from typing import Any

import httpx
import pytest

from feature_store.conditions import ITEM_FIELDS
from tests.recsvc.api.service import (
    N_ITEMS,
    ODD_IDS,
    Service,
    assert_problem,
    event,
    ids_of,
    unscored,
)
from tests.recsvc.shop import ON_PRODUCTS

PATH = "/v1/recommendations"


def ask(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    response = client.get(PATH, params=parameters)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def test_an_answer_has_every_field_of_the_contract(client: httpx.Client, service: Service) -> None:
    answer = ask(client, user_id="nobody yet", limit=5)
    assert list(answer) == [
        "recommendation_id",
        "placement",
        "user_id",
        "model_version",
        "rules_version",
        "personalized",
        "degraded",
        "experiment",
        "items",
    ]
    assert answer["placement"] == "home"
    assert answer["user_id"] == "nobody yet"
    assert answer["model_version"] in service.shop.models
    assert (answer["personalized"], answer["degraded"]) == (False, [])
    assert len(answer["items"]) == 5
    first = answer["items"][0]
    assert list(first) == ["item_id", "rank", "score", "source", "reason", "rule_ids", "item"]
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("placement", ON_PRODUCTS)
def test_every_placement_is_full_for_a_stranger(client: httpx.Client, placement: str) -> None:
    answer = ask(client, placement=placement, user_id="stranger", item_ids="i00001", limit=30)
    assert len(set(ids_of(answer))) == 30
    assert "i00001" not in ids_of(answer)


def test_a_purchase_is_in_the_very_next_answer(client: httpx.Client) -> None:
    user_id = "buyer / 1 é"
    for item_id in ("i00003", "i00006", "i00009"):
        assert client.post("/v1/events", json=event(user_id, item_id)).status_code == 202
        answer = ask(client, placement="buy_again", user_id=user_id, limit=5)
        assert answer["personalized"]
        assert item_id in ids_of(answer)
    answer = ask(client, user_id=user_id, limit=10)
    assert {item["source"] for item in answer["items"]} & {"collaborative", "repeat"}


def test_a_query_and_a_body_give_the_same_list(client: httpx.Client) -> None:
    client.post("/v1/events", json=event("both", "i00005"))
    condition = {"field": "item.brand", "op": "in", "value": ["Brand 1", "Brand 2"]}
    body = {
        "placement": "home",
        "user_id": "both",
        "limit": 12,
        "exclude_item_ids": ["i00001", "i00002"],
        "filter": condition,
        "context": {"country": "DE"},
        "fields": ["title", "brand"],
    }
    query = {**body, "filter": json.dumps(condition), "context.country": "DE"}
    del query["context"]
    posted = client.post(PATH, json=body).json()
    asked = ask(client, **query)
    assert unscored(asked) == unscored(posted)
    assert {item["item"]["brand"] for item in asked["items"]} == {"Brand 1", "Brand 2"}
    assert not {"i00001", "i00002"} & set(ids_of(asked))


def test_the_raw_way_and_the_declared_route_answer_alike(
    client: httpx.Client, service: Service
) -> None:
    client.post("/v1/events", json=event("alike", "i00004"))
    key = service.shop.keys["all"]
    ways = {
        "bearer": {"Authorization": f"Bearer {key}"},
        "header": {"X-API-Key": key},
        # These two are unusual enough to go through FastAPI.
        "basic": {"Authorization": "Basic " + base64.b64encode(f"mail:{key}".encode()).decode()},
        "lower": {"Authorization": f"bearer {key}"},
    }
    answers, headers = [], []
    for way in ways.values():
        with service.client(None) as other:
            response = other.get(PATH, params={"user_id": "alike", "limit": 8}, headers=way)
        assert response.status_code == 200
        answer = response.json()
        answer.pop("recommendation_id")
        answers.append(answer)
        headers.append({name: response.headers[name] for name in ("content-type", "cache-control")})
        assert "store;dur=" in response.headers["server-timing"]
        assert response.headers["x-request-id"]
    assert all(unscored(answer) == unscored(answers[0]) for answer in answers)
    assert all(one == headers[0] for one in headers)
    assert headers[0] == {"content-type": "application/json", "cache-control": "private, no-store"}


def test_an_answer_for_nobody_may_be_kept_but_not_used_unasked(client: httpx.Client) -> None:
    first = client.get(PATH, params={"placement": "trending", "limit": 4})
    assert first.headers["cache-control"] == "public, no-cache"
    etag = first.headers["etag"]
    for known in (etag, f'"other", {etag}', "*"):
        again = client.get(
            PATH,
            params={"placement": "trending", "limit": 4},
            headers={"If-None-Match": known},
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert "content-length" not in again.headers
        assert again.headers["x-request-id"]
    other = client.get(
        PATH, params={"placement": "trending", "limit": 5}, headers={"If-None-Match": etag}
    )
    assert other.status_code == 200
    assert other.headers["etag"] != etag
    personal = client.get(PATH, params={"user_id": "u"})
    assert personal.headers["cache-control"] == "private, no-store"
    assert "etag" not in personal.headers


def test_a_visitor_who_objects_gets_no_personal_answer(client: httpx.Client) -> None:
    client.post("/v1/events", json=event("objector", "i00004"))
    assert ask(client, user_id="objector")["personalized"]
    refused: list[dict[str, Any]] = [
        {"headers": {"Sec-GPC": "1"}},
        {"params": {"user_id": "objector", "consent.profiling": "false"}},
    ]
    for how in refused:
        answer = client.get(PATH, **{"params": {"user_id": "objector"}, **how}).json()
        assert not answer["personalized"]
        assert answer["items"]


def test_the_next_items_of_a_list_repeat_nothing(client: httpx.Client) -> None:
    client.post("/v1/events", json=event("reader", "i00002"))
    seen: list[str] = []
    after: dict[str, str] = {}
    for page in range(4):
        answer = ask(client, user_id="reader", limit=10, **after)
        assert [item["rank"] for item in answer["items"]] == list(
            range(10 * page + 1, 10 * page + 11)
        )
        seen += ids_of(answer)
        after = {"after": answer["recommendation_id"]}
    assert len(set(seen)) == 40
    assert_problem(client.get(PATH, params={"after": "x"}), 422, "#/after")


def test_reasons_in_words_on_demand(client: httpx.Client) -> None:
    client.post("/v1/events", json=event("curious", "i00007"))
    answer = ask(client, user_id="curious", explain="true", fields="title", limit=3)
    for item in answer["items"]:
        assert item["reason"]["text"]
        assert item["journey"]
        assert list(item["item"]) == ["title"]


def test_hiding_all_but_seven_leaves_exactly_those_seven(client: httpx.Client) -> None:
    wanted = ["i00011", "i00022", "i00088", *ODD_IDS[:4]]
    body = {
        "user_id": "picky",
        "limit": 100,
        "filter": {"field": "item.item_id", "op": "in", "value": wanted},
    }
    answer = client.post(PATH, json=body).json()
    assert sorted(ids_of(answer)) == sorted(wanted)


def test_odd_ids_survive_in_every_place(client: httpx.Client) -> None:
    for odd in ODD_IDS:
        assert client.post("/v1/events", json=event(odd, odd)).status_code == 202
        answer = ask(client, placement="buy_again", user_id=odd, limit=1)
        assert answer["user_id"] == odd
        assert ids_of(answer) == [odd]
        excluded = ask(client, user_id=odd, exclude_item_ids=odd, item_ids=odd, limit=100)
        assert odd not in ids_of(excluded)


@pytest.mark.parametrize(
    ("query", "status", "pointers"),
    [
        ("placement=nowhere", 404, []),
        ("limit=0", 422, ["#/limit"]),
        ("limit=1000&explain=yes&user=1", 422, ["#/limit", "#/explain", "#/user"]),
        ("user_id=%FF", 422, ["#/user_id"]),
        ("filter={}", 422, ["#/filter/field"]),
        ("filter=%7B%22field%22%3A%22item.brand%22%2C%22op%22%3A%5B%5D%7D", 422, ["#/filter/op"]),
    ],
)
def test_what_is_wrong_is_named(
    client: httpx.Client, query: str, status: int, pointers: list[str]
) -> None:
    assert_problem(client.get(f"{PATH}?{query}"), status, *pointers)


def test_bodies_are_refused_for_what_they_are(client: httpx.Client, service: Service) -> None:
    json_type = {"Content-Type": "application/json"}
    assert_problem(client.post(PATH, content=b"{", headers=json_type), 400)
    assert_problem(client.post(PATH, content=b"", headers=json_type), 400)
    assert_problem(client.post(PATH, content=b"[]", headers=json_type), 422, "#")
    assert_problem(client.post(PATH, content=b"{}"), 415)
    assert_problem(client.post(PATH, data={"user_id": "u"}), 415)
    large = b'{"user_id": "' + b"x" * 5_000_000 + b'"}'
    assert_problem(client.post(PATH, content=large, headers=json_type), 413)

    def chunks() -> Any:
        for _ in range(90):
            yield b" " * 65_536

    assert_problem(client.post(PATH, content=chunks(), headers=json_type), 413)
    assert client.post(PATH, json={"user_id": "u"}).status_code == 200


def test_keys_and_scopes(service: Service) -> None:
    with service.client(None) as nobody:
        refused = nobody.get(PATH)
        assert_problem(refused, 401)
        assert refused.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("Bearer", "Bearer rk_wrong", f"Bearer rk_{'A' * 43}", "Basic !", "Other x"):
            assert_problem(nobody.get(PATH, headers={"Authorization": wrong}), 401)
    with service.client("events:write") as writer:
        assert_problem(writer.get(PATH), 403)
        assert_problem(writer.post(PATH, json={}), 403)
    with service.client("recs:read") as reader:
        assert reader.get(PATH).status_code == 200
        assert_problem(reader.post("/v1/events", json=event("u", "i")), 403)


def test_request_ids_of_the_caller_are_kept_if_they_are_good(client: httpx.Client) -> None:
    for path in (PATH, "/livez", "/nowhere"):
        kept = client.get(path, headers={"X-Request-ID": "shop-1.a_B"})
        assert kept.headers["x-request-id"] == "shop-1.a_B"
        for bad in ("", "x" * 65, "a b", 'a"b'):
            made = client.get(path, headers={"X-Request-ID": bad})
            assert made.headers["x-request-id"] != bad
            assert len(made.headers["x-request-id"]) == 16


def test_filters_cover_every_field(client: httpx.Client) -> None:
    for name in ITEM_FIELDS:
        body = {"filter": {"field": name, "op": "exists", "value": True}, "limit": 100}
        assert client.post(PATH, json=body).status_code == 200
    with_price = {"field": "item.price", "op": "between", "value": [1, 3]}
    answer = client.post(PATH, json={"filter": with_price, "limit": 100}).json()
    assert sorted(ids_of(answer)) == ["i00000", "i00001"]
    assert len(ids_of(client.post(PATH, json={"limit": 100}).json())) >= N_ITEMS
