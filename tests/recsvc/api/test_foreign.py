"""Orders, and events in the words of other platforms, over real HTTP."""

import json
from typing import Any

import httpx
import pytest

from recsvc.api.foreign import GA4_EXAMPLE, RETAIL_EXAMPLE, SEGMENT_EXAMPLE
from tests.recsvc.api.service import Service, assert_problem, event

ORDER: dict[str, Any] = {
    "order_id": "o-1",
    "user_id": "orders",
    "placed_at": "2026-11-20T10:15:00Z",
    "channel": "store",
    "lines": [
        {"item_id": "i00001", "quantity": 2, "unit_price": {"amount": "1.49", "currency": "EUR"}},
        {"item_id": "i00001"},
        {"item_id": "i00002"},
    ],
}


def counts(response: httpx.Response) -> tuple[int, int, int]:
    assert response.status_code == 202, response.text
    answer = response.json()
    return answer["accepted"], answer["duplicates"], answer["conflicts"]


def test_an_order_is_a_purchase_for_each_line_and_counts_once(client: httpx.Client) -> None:
    assert counts(client.post("/v1/orders", json=ORDER)) == (3, 0, 0)
    assert counts(client.post("/v1/orders", json=ORDER)) == (0, 3, 0)
    assert counts(client.post("/v1/orders", json={**ORDER, "channel": "web"})) == (0, 3, 3)
    known = client.get("/v1/users/orders").json()
    assert (known["counts"], known["n_items"]) == ({"purchase": 3}, 2)
    visitor = {**ORDER, "user_id": None, "anonymous_id": "orders", "order_id": "é" * 128}
    assert counts(client.post("/v1/orders", json=visitor)) == (3, 0, 0)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"order_id": None}, "#/order_id"),
        ({"user_id": None}, "#"),
        ({"placed_at": "2999-01-01T00:00:00Z"}, "#/placed_at"),
        ({"placed_at": "today"}, "#/placed_at"),
        ({"lines": []}, "#/lines"),
        ({"lines": [{"item_id": "a"}] * 1001}, "#/lines"),
        ({"lines": [{"item_id": "a"}, {"quantity": 1}]}, "#/lines/1/item_id"),
        ({"lines": [{"item_id": "a", "quantity": 1.5}]}, "#/lines/0/quantity"),
        ({"total": 3}, "#/total"),
    ],
)
def test_an_order_that_is_wrong_is_refused_whole(
    client: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(client.post("/v1/orders", json={**ORDER, **change}), 422, pointer)


@pytest.mark.parametrize(
    ("path", "document", "order_at"),
    [
        ("segment", SEGMENT_EXAMPLE, ["batch", 0, "properties", "order_id"]),
        ("ga4", GA4_EXAMPLE, ["events", 0, "params", "transaction_id"]),
        ("retail", RETAIL_EXAMPLE, ["purchaseTransaction", "id"]),
    ],
)
def test_examples_of_every_platform_count_once_by_whatever_door(
    client: httpx.Client, path: str, document: dict[str, Any], order_at: list[Any]
) -> None:
    user_id, order_id = f"foreign-{path}", f"order of {path}"
    document = json.loads(json.dumps(document).replace('"2375"', f'"{user_id}"'))
    document = json.loads(json.dumps(document).replace("2026-11-22T10", "2026-11-20T10"))
    document = json.loads(json.dumps(document).replace("17953425", "17950000"))
    part: Any = document
    for step in order_at[:-1]:
        part = part[step]
    part[order_at[-1]] = order_id
    assert counts(client.post(f"/v1/events/{path}", json=document)) == (2, 0, 0)
    assert counts(client.post(f"/v1/events/{path}", json=document)) == (0, 2, 0)
    lines = [{"item_id": "1082185"}, {"item_id": "995242"}]
    same = {**ORDER, "order_id": order_id, "user_id": user_id, "lines": lines}
    assert counts(client.post("/v1/orders", json=same))[1] == 2
    assert client.get(f"/v1/users/{user_id}").json()["counts"] == {"purchase": 2}


def test_what_means_nothing_here_is_counted_and_named(client: httpx.Client) -> None:
    calls = [
        {"type": "page", "userId": "who does nothing"},
        {"type": "track", "event": "Coupon Entered", "userId": "who does nothing"},
        {
            "type": "track",
            "event": "Product Viewed",
            "userId": "who does nothing",
            "properties": {},
        },
        {
            "type": "track",
            "event": "Product Viewed",
            "userId": "who does nothing",
            "properties": {"product_id": "i00001"},
            "context": {"consent": {"categoryPreferences": {"Personalization": False}}},
        },
    ]
    answer = client.post("/v1/events/segment", json={"batch": calls}).json()
    assert answer["ignored"] == {"Coupon Entered": 1, "page": 1}
    assert (answer["accepted"], answer["withheld"]) == (0, 1)
    assert answer["rejected"] == [
        {"index": 2, "errors": [{"pointer": "#/batch/2", "detail": "needs the product's id"}]}
    ]
    assert_problem(client.get("/v1/users/who%20does%20nothing"), 404)
    metrics = client.get("/metrics").text
    assert 'recsvc_ignored_events_total{name="Coupon Entered",platform="segment"}' in metrics
    assert_problem(client.post("/v1/events/segment", json=[]), 422, "#")
    assert_problem(client.post("/v1/events/ga4", json={"events": 1}), 422, "#/events")
    assert_problem(client.post("/v1/events/retail", json=[]), 422, "#")


def cloudevent(number: int, **more: Any) -> dict[str, Any]:
    data = event("cloud", "i00001", type="view")
    del data["event_id"]
    return {
        "specversion": "1.0",
        "id": str(number),
        "source": "/shop",
        "type": "example.view",
        "data": data,
        **more,
    }


def test_cloudevents_structured_and_batched(client: httpx.Client) -> None:
    def send(document: Any, media_type: str) -> httpx.Response:
        headers = {"Content-Type": f"{media_type}; charset=utf-8"}
        return client.post("/v1/events", content=json.dumps(document), headers=headers)

    one, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
    assert counts(send(cloudevent(1), one)) == (1, 0, 0)
    two = [cloudevent(1), cloudevent(2), cloudevent(3, data={"user_id": 5}), 7]
    response = send(two, batch)
    accepted, duplicates, _ = counts(response)
    assert (accepted, duplicates) == (1, 1)
    rejected = response.json()["rejected"]
    assert [each["index"] for each in rejected] == [2, 3]
    assert "#/data/user_id" in {error["pointer"] for error in rejected[0]["errors"]}
    assert client.get("/v1/users/cloud").json()["counts"] == {"view": 2}
    assert_problem(send({**cloudevent(1), "specversion": "0.3"}, one), 422, "#/specversion")
    assert_problem(send([cloudevent(1)], one), 422, "#")
    assert_problem(send(cloudevent(1), batch), 422, "#")


def test_a_segment_login_joins_the_histories(client: httpx.Client) -> None:
    visitor = {**event("x", "i00001", type="view"), "user_id": None, "anonymous_id": "seg-visitor"}
    client.post("/v1/events", json=visitor)
    login = {"type": "identify", "userId": "seg-user", "anonymousId": "seg-visitor"}
    assert client.post("/v1/events/segment", json=login).json()["merged"] == 1
    assert client.post("/v1/events/segment", json=login).json()["merged"] == 0
    assert client.get("/v1/users/seg-user").json()["counts"] == {"view": 1}
    other = {"type": "alias", "userId": "another", "previousId": "seg-visitor"}
    answer = client.post("/v1/events/segment", json=other).json()
    assert answer["merged"] == 0
    assert "another user" in answer["rejected"][0]["errors"][0]["detail"]


def test_these_doors_need_the_scope(service: Service) -> None:
    with service.client("recs:read") as reader:
        for path in ("/v1/orders", "/v1/events/segment", "/v1/events/ga4", "/v1/events/retail"):
            assert_problem(reader.post(path, json={}), 403)
