"""A recommendation id replays the decision: from any worker, at once."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from feature_store.decision_log import DecisionLog
from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.service import Service, assert_problem, event, make_shop
from tests.waiting import until

Pair = tuple[httpx.Client, httpx.Client, Service]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("decisions")
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        shop = make_shop(folder / "data", server.url)
        with (
            Service(shop, redis_url=server.url, decision_sample=1) as one,
            Service(shop, redis_url=server.url) as other,
            one.client() as here,
            other.client() as there,
        ):
            yield here, there, one


def ask(client: httpx.Client, **query: Any) -> dict[str, Any]:
    response = client.get("/v1/recommendations", params=query)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def replay(client: httpx.Client, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the record of an answer; on a slow machine it may be written later than asked for."""
    responses: list[httpx.Response] = []

    def is_found() -> bool:
        responses.append(client.get(f"/v1/recommendations/{answer['recommendation_id']}"))
        assert responses[-1].status_code == 200 or "retry-after" in responses[-1].headers
        return responses[-1].status_code == 200

    until(is_found)
    document: dict[str, Any] = responses[-1].json()
    return document


def test_a_decision_says_what_was_shown_from_where_and_why(pair: Pair) -> None:
    one, other, _ = pair
    for item in ("i00003", "i00009"):
        one.post("/v1/events", json=event("buyer", item)).raise_for_status()
    body = {
        "action": {"type": "pin", "item_ids": ["i00080"], "positions": [2]},
        "placements": ["home"],
    }
    one.put("/v1/rules/pinned", json=body).raise_for_status()
    hidden = {"field": "item.item_id", "op": "eq", "value": "i00006"}
    body["action"] = {"type": "exclude", "target": hidden}
    one.put("/v1/rules/gone", json=body).raise_for_status()
    one.post("/v1/rules/publish", json={"rule_ids": ["pinned", "gone"]}).raise_for_status()
    one.put("/v1/recalls/r", json={"reason": "x", "item_ids": ["i00012"]}).raise_for_status()
    answer = ask(one, user_id="buyer", limit=20, **{"context.channel": "app"})
    for client in (other, one):
        decision = replay(client, answer)
        assert decision["user_id"] == "buyer"
        assert decision["context"] == {"channel": "app"}
        assert decision["rules_version"] == answer["rules_version"]
        assert [item["item_id"] for item in decision["items"]] == [
            item["item_id"] for item in answer["items"]
        ]
        assert decision["items"][1]["item_id"] == "i00080"
        assert decision["items"][1]["rules"] == [{"rule_id": "pinned", "revision": 1}]
        assert {"rule_id": "gone", "revision": 1} in decision["rules"]
        assert {entry["item_id"] for entry in decision["history"]} == {"i00003", "i00009"}
        removed = {entry["item_id"]: entry["by"] for entry in decision["removed"]}
        assert removed["i00006"] == ["rule:gone"]
        assert removed["i00012"] == ["recalled"]
        assert len(decision["candidates"]) > 20
        best = decision["candidates"][0]
        assert sum(best["score_parts"].values()) == pytest.approx(best["score"], abs=1e-3)


def test_an_answer_for_nobody_and_the_next_page_are_recorded_too(pair: Pair) -> None:
    one, other, _ = pair
    first = ask(other, limit=3)
    decision = replay(one, first)
    assert (decision["user_id"], decision["history"], decision["candidates"]) == (None, [], None)
    second = ask(other, limit=3, after=first["recommendation_id"])
    assert [item["rank"] for item in replay(one, second)["items"]] == [4, 5, 6]
    visitor = ask(other, limit=3, anonymous_id="v-1")
    assert replay(one, visitor)["anonymous_id"] == "v-1"


def test_what_is_no_decision(pair: Pair) -> None:
    one, _, _ = pair
    old = f"{int(time.time() * 1000) - 10**9:012x}0001{0:016x}"
    assert_problem(one.get(f"/v1/recommendations/{old}"), 404)
    assert_problem(one.get("/v1/recommendations/nonsense"), 422)


def test_every_answer_is_in_the_files_when_the_service_has_ended(pair: Pair) -> None:
    one, _, service = pair
    answers = [ask(one, user_id=f"u{number}", limit=2) for number in range(300)]
    assert service.stop() == 0
    log = DecisionLog(service.shop.data_dir / "decisions")
    log.seal()
    found = log.scan().collect()
    ids = set(found["recommendation_id"])
    assert {answer["recommendation_id"] for answer in answers} <= ids
    assert len(ids) == len(found)
