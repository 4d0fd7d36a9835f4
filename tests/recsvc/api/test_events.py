"""Events over real HTTP: kept, counted, refused by name; and seen by the next answer."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest

from feature_store.event_log import EventLog
from tests.recsvc.api.service import Service, assert_problem, event, ids_of
from tests.waiting import until

PATH = "/v1/events"


def outcome(response: httpx.Response) -> tuple[int, int, int, list[Any]]:
    assert response.status_code == 202, response.text
    answer = response.json()
    assert list(answer) == ["accepted", "duplicates", "conflicts", "rejected", "withheld"]
    assert answer["withheld"] == 0
    return answer["accepted"], answer["duplicates"], answer["conflicts"], answer["rejected"]


def test_the_same_event_counts_once_and_the_first_body_wins(client: httpx.Client) -> None:
    first = event("once", "i00001", quantity=1)
    assert outcome(client.post(PATH, json=first)) == (1, 0, 0, [])
    assert outcome(client.post(PATH, json=first)) == (0, 1, 0, [])
    assert outcome(client.post(PATH, json={**first, "quantity": 2})) == (0, 1, 1, [])
    assert outcome(client.post(PATH, json=[first, event("once", "i00002")])) == (1, 1, 0, [])
    known = client.get("/v1/users/once").json()
    assert known["counts"] == {"purchase": 2}


def test_the_good_ones_of_a_batch_are_kept_and_the_bad_ones_named(client: httpx.Client) -> None:
    later = datetime.now(UTC) + timedelta(minutes=10)
    batch: list[Any] = [
        event("batch", "i00001"),
        event("batch", "i00002", quantity="two"),
        "not an event",
        event("batch", "i00003"),
        event("batch", "i00004", timestamp=later.isoformat()),
        event("batch", "i00004", colour="red"),
        {"type": "purchase"},
    ]
    accepted, duplicates, conflicts, rejected = outcome(client.post(PATH, json=batch))
    assert (accepted, duplicates, conflicts) == (2, 0, 0)
    assert [one["index"] for one in rejected] == [1, 2, 4, 5, 6]
    assert rejected[0]["errors"][0]["pointer"] == "#/quantity"
    assert rejected[2]["errors"] == [
        {"pointer": "#/timestamp", "detail": "the time lies more than 5 minutes in the future"}
    ]
    assert rejected[3]["errors"][0]["pointer"] == "#/colour"
    assert {error["pointer"] for error in rejected[4]["errors"]} == {"#/event_id", "#/timestamp"}
    assert client.get("/v1/users/batch").json()["n_items"] == 2


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"type": "steal"}, "#/type"),
        ({"user_id": None}, "#"),
        ({"user_id": 5}, "#/user_id"),
        ({"user_id": ".."}, "#/user_id"),
        ({"item_id": None}, "#"),
        ({"item_id": "a\nb"}, "#/item_id"),
        ({"timestamp": "yesterday"}, "#/timestamp"),
        ({"timestamp": "2026-01-01T00:00:00"}, "#/timestamp"),
        ({"timestamp": 1_700_000_000}, "#/timestamp"),
        ({"timestamp": "1960-01-01T00:00:00Z"}, "#/timestamp"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "#/timestamp"),
        ({"unit_price": {"amount": "x", "currency": "EUR"}}, "#/unit_price/amount"),
        ({"unit_price": {"amount": "1"}}, "#/unit_price/currency"),
        ({"unit_price": 1.5}, "#/unit_price"),
        ({"quantity": -1}, "#/quantity"),
        ({"rank": 0}, "#/rank"),
        ({"consent": {"profiling": "yes"}}, "#/consent/profiling"),
        ({"a/b": 1}, "#/a~1b"),
    ],
)
def test_one_bad_event_is_refused_by_name(
    client: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(client.post(PATH, json={**event("bad", "i00001"), **change}), 422, pointer)


def test_everything_that_an_event_may_say_is_accepted(client: httpx.Client) -> None:
    whole = event(
        "whole",
        "i00001",
        quantity=2,
        unit_price={"amount": "15.00", "currency": "EUR"},
        order_id="o/1",
        recommendation_id="0" * 32,
        rank=3,
        channel="web",
        context={"country": "DE", "first": True, "n": 3, "x": None},
        consent={"profiling": True},
    )
    others: list[dict[str, Any]] = [
        event("whole", "i00002", type=kind)
        for kind in ("view", "add_to_cart", "remove_from_cart", "click", "like", "dislike")
    ]
    others += [
        event("whole", "i00003", type="rating", value=4.5),
        event("whole", "i00003", type="refund"),
        {**event("whole", ""), "type": "search", "query": "shoes", "item_id": None},
        {**event("whole", ""), "type": "impression", "ranks": [1, 2], "item_id": None},
        {**event("whole", ""), "type": "survey", "instrument": "nps", "score": 9, "item_id": None},
        {**event("x", "i00001"), "user_id": None, "anonymous_id": "visitor-1"},
    ]
    assert outcome(client.post(PATH, json=[whole, *others]))[0] == 13
    counts = client.get("/v1/users/whole").json()["counts"]
    assert counts["view"] == counts["refund"] == counts["purchase"] == 1
    assert counts["like"] == 2  # one of them a good rating


def test_a_batch_has_its_limits(client: httpx.Client) -> None:
    assert_problem(client.post(PATH, json=[]), 422, "#")
    assert_problem(client.post(PATH, json=[{}] * 1001), 422, "#")
    assert_problem(client.post(PATH, json=3), 422, "#")
    assert_problem(client.post(PATH, content=b"[{]"), 415)
    assert_problem(
        client.post(PATH, content=b"[{]", headers={"Content-Type": "application/json"}), 400
    )
    batch = [event("many", f"i{number % 90:05d}") for number in range(1000)]
    assert outcome(client.post(PATH, json=batch)) == (1000, 0, 0, [])
    assert client.get("/v1/users/many").json()["counts"] == {"purchase": 1000}


def test_a_new_item_can_be_bought_shown_and_looked_up_at_once(client: httpx.Client) -> None:
    for number in range(3):
        item_id = f"brand new {number}/é"
        assert outcome(client.post(PATH, json=event("early", item_id)))[0] == 1
        answer = client.get(
            "/v1/recommendations",
            params={"placement": "buy_again", "user_id": "early", "limit": number + 1},
        ).json()
        assert item_id in ids_of(answer)


def test_a_visitor_and_a_user_of_the_same_name_are_two(client: httpx.Client) -> None:
    client.post(PATH, json=event("twin", "i00010"))
    client.post(PATH, json={**event("twin", "i00020"), "user_id": None, "anonymous_id": "twin"})
    find: Callable[[str], list[str]] = lambda who: ids_of(  # noqa: E731
        client.get(
            "/v1/recommendations", params={"placement": "buy_again", who: "twin", "limit": 1}
        ).json()
    )
    assert find("user_id") == ["i00010"]
    assert find("anonymous_id") == ["i00020"]


def test_what_is_known_of_a_person(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/users/nobody%20knows"), 404)
    assert_problem(client.get("/v1/users/%FF"), 422, "#/user_id")
    old = "2020-02-29T12:00:00+01:00"
    client.post(PATH, json=event("known/ü", "i00001", timestamp=old))
    client.post(PATH, json=event("known/ü", "i00002", type="view"))
    document = client.get("/v1/users/known%2F%C3%BC").json()
    assert document["user_id"] == "known/ü"
    assert document["first_seen_at"] == "2020-02-29T11:00:00Z"
    assert document["n_items"] == 2
    assert [(one["type"], one["item_id"]) for one in document["recent"]] == [
        ("view", "i00002"),
        ("purchase", "i00001"),
    ]


def test_accepted_events_reach_the_log_that_training_reads(
    client: httpx.Client, service: Service
) -> None:
    assert outcome(client.post(PATH, json=event("archived/1", "i00001")))[0] == 1
    log = EventLog(service.shop.data_dir)

    def kept() -> list[str]:
        mine = log.scan().filter(pl.col("user_id") == "archived/1").collect()
        return mine["item_id"].to_list()

    until(kept)
    assert kept() == ["i00001"]


def test_events_need_their_scope(service: Service) -> None:
    with service.client("recs:read") as reader:
        assert_problem(reader.post(PATH, json=event("u", "i00001")), 403)
        assert_problem(reader.get("/v1/users/u"), 403)
    with service.client(None) as nobody:
        assert_problem(nobody.post(PATH, json=event("u", "i00001")), 401)
        assert_problem(nobody.get("/v1/users/u"), 401)
