"""Impressions over HTTP: the next list knows them, whoever answers."""

import time
from typing import Any

import httpx
import pytest

from tests.recsvc.api.service import event, ids_of


def home(client: httpx.Client, visitor: str, **asked: Any) -> list[str]:
    params = {"anonymous_id": visitor, "limit": 10, **asked}
    response = client.get("/v1/recommendations", params=params)
    assert response.status_code == 200, response.text
    return ids_of(response.json())


def send(client: httpx.Client, kind: str, visitor: str, items: list[str]) -> None:
    events = [event(visitor, item, type=kind, anonymous_id=visitor) for item in items]
    for one in events:
        one["user_id"] = None
    answer = client.post("/v1/events", json=events)
    assert answer.json()["accepted"] == len(events)


@pytest.mark.parametrize("placement", ["home", "trending"])
def test_what_a_visitor_overlooks_steps_back_and_a_click_brings_it_back(
    client: httpx.Client, placement: str
) -> None:
    visitor = f"looks-{placement}-{time.monotonic_ns()}"
    before = home(client, visitor, placement=placement)
    first = before[0]
    for _ in range(20):
        send(client, "impression", visitor, before[:1])
    after = home(client, visitor, placement=placement)
    assert first not in after[:3]
    assert len(after) == 10
    # Whoever objects to profiling is shown what everybody is.
    objecting = client.get(
        "/v1/recommendations",
        params={"anonymous_id": visitor, "limit": 10, "placement": placement},
        headers={"Sec-GPC": "1"},
    )
    assert ids_of(objecting.json()) == before
    assert objecting.json()["personalized"] is False
    send(client, "click", visitor, [first])
    everybody = client.get("/v1/recommendations", params={"limit": 10, "placement": "trending"})
    assert home(client, visitor, placement="trending") == ids_of(everybody.json())


def test_an_impression_may_name_ranks_instead_of_an_item(client: httpx.Client) -> None:
    found = client.get("/v1/recommendations", params={"anonymous_id": "ranks", "limit": 3}).json()
    one = event("x", "i00001", type="impression", anonymous_id="ranks")
    one |= {"user_id": None, "item_id": None, "ranks": [1, 2, 3]}
    one["recommendation_id"] = found["recommendation_id"]
    assert client.post("/v1/events", json=one).json()["accepted"] == 1
