"""Personas over HTTP."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from tests.recsvc.api.service import Service, assert_problem
from tests.recsvc.api.test_users import any_id

FAMILY: dict[str, Any] = {
    "name": "Young family",
    "description": "Many",
    "attributes": {"children": 2},
    "loyalty": {"program": None, "tier": "gold", "points": None},
    "computed": {"stage": "active", "rfm": {"group": "loyal"}, "clv": {"amount": "3.00"}},
    "feedback": {"nps": {"score": 9}},
    "history": [{"type": "purchase", "item_id": "i00001", "days_ago": 3.0}],
    "preferences": None,
    "context": {"channel": "app"},
}


def path(persona_id: str) -> str:
    return f"/v1/personas/{quote(persona_id, safe='')}"


def test_a_persona_is_saved_read_listed_and_deleted(client: httpx.Client) -> None:
    put = client.put(path("family"), json=FAMILY)
    assert put.status_code == 200
    document = put.json()
    assert {name: document[name] for name in FAMILY} == FAMILY
    assert put.headers["etag"] == '"1"'
    assert client.get(path("family")).json() == document
    assert document in client.get("/v1/personas").json()["personas"]
    again = client.put(path("family"), json=FAMILY, headers={"If-Match": '"1"'})
    assert again.headers["etag"] == '"2"'
    assert_problem(client.put(path("family"), json=FAMILY, headers={"If-Match": '"1"'}), 412)
    assert_problem(client.delete(path("family"), headers={"If-Match": '"1"'}), 412)
    assert client.delete(path("family")).json() == {"persona_id": "family", "deleted": True}
    assert_problem(client.get(path("family")), 404)
    assert_problem(client.delete(path("family")), 404)


def test_preferences_of_a_persona_are_kept(client: httpx.Client) -> None:
    body = {"name": "Shy", "preferences": {"hidden_brands": ["X"], "personalization": False}}
    document = client.put(path("shy"), json=body).json()
    assert document["preferences"]["hidden_brands"] == ["X"]
    assert document["preferences"]["personalization"] is False
    client.delete(path("shy"))


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "#/name"),
        ({"attributes": {"a b": 1}}, "#/attributes/a b"),
        ({"history": [{"type": "purchase", "item_id": "x"}]}, "#/history/0/days_ago"),
        ({"history": [{"type": "open", "item_id": "x", "days_ago": 1}]}, "#/history/0/type"),
        ({"history": [{"type": "view", "item_id": "x", "days_ago": -1}]}, "#/history/0/days_ago"),
        ({"computed": {"churn_risk": "high"}}, "#/computed"),
        ({"computed": {"rfm": {"r": "5"}}}, "#/computed"),
        ({"computed": {"other": "x" * 17_000}}, "#/computed"),
        ({"feedback": {"nps": {"score": "9"}}}, "#/feedback"),
        ({"context": {"a": []}}, "#/context"),
        ({"preferences": {"hidden": 1}}, "#/preferences/hidden"),
        ({"persona_id": "another"}, "#/persona_id"),
        ({"other": 1}, "#/other"),
    ],
)
def test_what_is_no_persona_is_named(
    client: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(client.put(path("checked"), json={**FAMILY, **change}), 422, pointer)


def test_a_preview_shows_what_a_persona_would_see(client: httpx.Client) -> None:
    family = {**FAMILY, "history": [{"type": "purchase", "item_id": "i00003", "days_ago": 40}]}
    client.put(path("seen"), json=family)
    exclude = {
        "type": "exclude",
        "target": {"field": "item.item_id", "op": "eq", "value": "i00003"},
    }
    gold = {"field": "user.loyalty.tier", "op": "eq", "value": "gold"}
    in_app = {"field": "context.channel", "op": "eq", "value": "app"}
    active = {"field": "segment", "op": "eq", "value": "stage_active"}
    happy = {"field": "user.feedback.nps.score", "op": "gte", "value": 9}
    body = {
        "rules": [
            {
                "name": "R",
                "placements": ["buy_again"],
                "when": {"all": [gold, in_app, active, happy]},
                "action": exclude,
            }
        ],
        "persona": "seen",
        "placement": "buy_again",
    }
    answer = client.post("/v1/rules/preview", json=body)
    assert answer.status_code == 200, answer.text
    (lists,) = answer.json()["lists"]
    assert lists["viewer"] == "seen"
    assert lists["before"][0]["item_id"] == "i00003"
    assert [one["item_id"] for one in lists["out"]] == ["i00003"]
    web = client.post("/v1/rules/preview", json={**body, "context": {"channel": "web"}}).json()
    assert web["lists"][0]["changed"] is False
    client.delete(path("seen"))
    assert_problem(client.post("/v1/rules/preview", json=body), 422, "#/persona")


def test_scopes(service: Service) -> None:
    with service.client("marketing:read") as reader:
        assert reader.get("/v1/personas").status_code == 200
        assert_problem(reader.put(path("x"), json=FAMILY), 403)
        assert_problem(reader.delete(path("x")), 403)
    with service.client("marketing:write") as writer:
        assert_problem(writer.get("/v1/personas"), 403)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(persona_id=any_id)
def test_any_id_survives_every_route(client: httpx.Client, persona_id: str) -> None:
    assert client.put(path(persona_id), json=FAMILY).json()["persona_id"] == persona_id
    assert client.get(path(persona_id)).json()["persona_id"] == persona_id
    assert client.delete(path(persona_id)).json()["persona_id"] == persona_id
