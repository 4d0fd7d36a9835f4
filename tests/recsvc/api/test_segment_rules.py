"""A live rule over a segment: whatever changes who is in it counts in the next answer."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.service import Service, assert_problem, event, make_shop

RULE = {
    "name": "Not for those",
    "placements": ["home"],
    "when": {"field": "segment", "op": "eq", "value": "tired"},
    "action": {
        "type": "exclude",
        "target": {"field": "item.brand", "op": "eq", "value": "Brand 1"},
    },
}


def segment(field: str, op: str, value: Any) -> dict[str, Any]:
    return {"name": "Tired of it", "when": {"field": field, "op": op, "value": value}}


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of two services over one shop: what one writes the other must know."""
    folder = tmp_path_factory.mktemp("segment-rules")
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        shop = make_shop(folder / "data", server.url)
        with (
            Service(shop, redis_url=server.url) as one,
            Service(shop, redis_url=server.url, sensitive_attributes="health") as other,
            one.client() as here,
            other.client() as there,
        ):
            yield here, there


def excluded(client: httpx.Client, **whom: str) -> bool:
    """Tell whether a list lacks the brand that the rule takes out."""
    query: dict[str, Any] = {"placement": "home", "limit": 100, "fields": "brand", **whom}
    response = client.get("/v1/recommendations", params=query)
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["degraded"] == []
    return "Brand 1" not in {item["item"]["brand"] for item in document["items"]}


def test_what_changes_who_is_in_a_segment_counts_at_once(
    pair: tuple[httpx.Client, httpx.Client],
) -> None:
    writer, reader = pair
    path, user = "/v1/segments/tired", "/v1/users/u"
    writer.put(path, json=segment("user.attributes.mood", "eq", "tired")).raise_for_status()
    rule_id = writer.post("/v1/rules", json=RULE).json()["rule_id"]
    assert not excluded(reader, user_id="u")
    writer.post("/v1/rules/publish", json={"rule_ids": [rule_id]}).raise_for_status()
    assert not excluded(reader, user_id="u")
    for number in range(20):
        writer.patch(user, json={"attributes": {"mood": "tired"}})
        assert excluded(reader, user_id="u"), number
        writer.patch(user, json={"attributes": {"mood": None}})
        assert not excluded(reader, user_id="u"), number
    writer.patch(user, json={"loyalty": {"tier": "gold"}, "external_ids": {"crm": "C/1"}})
    writer.put(path, json=segment("user.loyalty.tier", "eq", "gold")).raise_for_status()
    assert excluded(reader, user_id="u")
    assert excluded(reader, **{"external_id.crm": "C/1"})
    assert not excluded(reader, **{"external_id.crm": "unknown"})
    assert not excluded(reader)
    assert_problem(reader.delete(path), 409)
    writer.put(path, json=segment("user.feedback.complaints.count", "gte", 1)).raise_for_status()
    assert not excluded(reader, user_id="u")
    complaint = {**event("u", "", type="complaint"), "item_id": None}
    assert writer.post("/v1/events", json=complaint).status_code == 202
    assert excluded(reader, user_id="u")
    refusing = {"user_id": "u", "consent.profiling": "false"}
    assert not excluded(reader, **refusing), "who is not profiled is in no segment"


def test_a_rule_over_a_sensitive_attribute_needs_the_flag(
    pair: tuple[httpx.Client, httpx.Client],
) -> None:
    _, strict = pair
    when = {"field": "user.attributes.health", "op": "exists", "value": True}
    problem = assert_problem(strict.post("/v1/rules", json={**RULE, "when": when}), 422)
    assert problem["errors"][0]["pointer"] == "#/when/field"
    allowed = {**RULE, "when": when, "allow_sensitive": True}
    assert strict.post("/v1/rules", json=allowed).status_code == 201
