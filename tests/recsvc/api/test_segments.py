"""Segments over HTTP: who belongs to them counts at once, in every worker."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from feature_store.documents import Write
from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from tests.recsvc.api.service import Service, assert_problem, event, running_shop
from tests.recsvc.api.test_users import any_id
from tests.waiting import until

GOLD = {"field": "user.loyalty.tier", "op": "eq", "value": "gold"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, EmbeddedServer]]:
    """Two workers whose people are those of these tests alone."""
    folder = tmp_path_factory.mktemp("segments")
    with running_shop(folder, workers=2, sensitive_attributes="health, religion") as both:
        yield both


@pytest.fixture(scope="module")
def client(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with shop[0].client() as client:
        yield client


def path(segment_id: str) -> str:
    return f"/v1/segments/{quote(segment_id, safe='')}"


def segment(when: Any, **more: Any) -> dict[str, Any]:
    return {"name": "A segment", "when": when, **more}


def attribute(name: str, value: Any, op: str = "eq") -> dict[str, Any]:
    return {"field": f"user.attributes.{name}", "op": op, "value": value}


def members(client: httpx.Client, segment_id: str) -> list[str]:
    response = client.get(f"{path(segment_id)}/members")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in response.text.splitlines()]
    assert all(list(one) == ["user_id"] for one in found)
    return sorted(one["user_id"] for one in found)


def test_a_segment_is_written_read_listed_and_deleted(client: httpx.Client) -> None:
    put = client.put(path("gold"), json=segment(GOLD, description="Those"))
    assert put.status_code == 200
    assert put.headers["etag"] == '"1"'
    document = put.json()
    assert document["revision"] == 1
    assert document["updated_by"] == "key:all"
    assert document["count"] is None
    read = client.get(path("gold"))
    assert read.headers["etag"] == '"1"'
    assert read.json() == {**document, "count": 0, "as_of": read.json()["as_of"]}
    listed = {one["segment_id"]: one for one in client.get("/v1/segments").json()["segments"]}
    assert listed["gold"]["when"] == GOLD
    assert listed["stage_lapsed"]["built_in"] is True
    assert listed["rfm_champions"]["count"] == 0
    quick = client.get("/v1/segments", params={"counts": "false"}).json()
    assert {one["count"] for one in quick["segments"]} == {None}
    deleted = client.delete(path("gold"))
    assert deleted.json() == {"segment_id": "gold", "deleted": True}
    for answer in (
        client.get(path("gold")),
        client.get(f"{path('gold')}/members"),
        client.delete(path("gold")),
    ):
        assert_problem(answer, 404)


def test_of_two_writers_the_second_is_told(client: httpx.Client) -> None:
    stale = {"If-Match": '"1"'}
    new = {"If-None-Match": "*"}
    body = segment(GOLD)
    assert client.put(path("raced"), json=body, headers=new).status_code == 200
    assert_problem(client.put(path("raced"), json=body, headers=new), 412)
    changed = client.put(path("raced"), json=segment(GOLD, name="B"), headers=stale)
    assert changed.headers["etag"] == '"2"'
    assert_problem(client.put(path("raced"), json=body, headers=stale), 412)
    assert_problem(client.delete(path("raced"), headers=stale), 412)
    wrong = {"If-Match": "three"}
    assert_problem(client.put(path("raced"), json=body, headers=wrong), 422, "#/If-Match")
    assert client.delete(path("raced"), headers={"If-Match": '"2"'}).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"when": GOLD}, ["#/name"]),
        ({"name": "x"}, ["#/when"]),
        (segment(GOLD, other=1), ["#/other"]),
        (segment(GOLD, segment_id="another"), ["#/segment_id"]),
        (segment({}), ["#/when/field"]),
        (segment({"all": []}), ["#/when/all"]),
        (segment({"all": [GOLD, {**GOLD, "op": "like"}]}), ["#/when/all/1/op"]),
        (segment({**GOLD, "value": 3}), ["#/when/value"]),
        (segment({**GOLD, "field": "item.brand"}), ["#/when/field"]),
        (segment({**GOLD, "field": "user.loyalty.level"}), ["#/when/field"]),
        (segment({"not": {"field": "segment", "op": "eq", "value": "gold"}}), ["#/when/not"]),
        (segment({"any": [GOLD, attribute("health", "x")]}), ["#/when/any/1/field"]),
        ([], ["#"]),
    ],
)
def test_what_is_no_segment_is_named(client: httpx.Client, body: Any, pointers: list[str]) -> None:
    assert_problem(client.put(path("checked"), json=body), 422, *pointers)
    assert_problem(client.get(path("checked")), 404)


def test_sensitive_attributes_need_the_flag(client: httpx.Client) -> None:
    when = attribute("religion", True, "exists")
    problem = assert_problem(client.put(path("s"), json=segment(when)), 422, "#/when/field")
    assert "allow_sensitive" in problem["errors"][0]["detail"]
    assert client.put(path("s"), json=segment(when, allow_sensitive=True)).status_code == 200
    client.put("/v1/users/believer", json={"attributes": {"religion": "any"}})
    assert members(client, "s") == ["believer"]
    client.delete(path("s"))


def test_built_in_ones_follow_what_training_computed(
    client: httpx.Client, shop: tuple[Service, EmbeddedServer]
) -> None:
    async def compute() -> None:
        store = await Store.open(shop[1].url, read_timeout_s=5.0)
        await store.people.put_many(
            "computed",
            {
                "u:c1": {"stage": "lapsed", "rfm": {"group": "hibernating"}},
                "u:c2": {"stage": "active", "rfm": {"group": "champions"}},
                "u:c3": {"stage": "active", "rfm": {"group": "loyal"}},
                "a:visitor": {"stage": "active", "rfm": {"group": "loyal"}},
            },
            "training",
        )
        await store.close()

    asyncio.run(compute())
    assert members(client, "stage_active") == ["c2", "c3"]
    # On a machine on which counting took long, a count is not made anew for a while.
    until(lambda: client.get(path("stage_active")).json()["count"] == 2)
    assert members(client, "rfm_hibernating") == ["c1"]
    assert_problem(client.put(path("stage_new"), json=segment(GOLD)), 409)
    assert_problem(client.delete(path("rfm_loyal")), 409)


def test_what_people_say_makes_them_members(client: httpx.Client) -> None:
    low = {"field": "user.feedback.nps.score", "op": "lte", "value": 6}
    client.put(path("detractors"), json=segment(low))
    client.put("/v1/users/said", json={})
    answer = event("said", "i00001", type="survey", instrument="nps", score=3)
    assert client.post("/v1/events", json={**answer, "item_id": None}).status_code == 202
    assert members(client, "detractors") == ["said"]
    assert client.get(path("detractors")).json()["count"] == 1
    assert "detractors" in client.get("/v1/users/said").json()["computed"]["segments"]
    client.delete(path("detractors"))


def test_the_report_of_feedback_is_by_segment(client: httpx.Client) -> None:
    client.put(path("critics"), json=segment(attribute("critic", True)))
    for number, score in enumerate((1, 3, 10)):
        client.put(f"/v1/users/rated{number}", json={"attributes": {"critic": score < 9}})
    visitor = {"user_id": None, "anonymous_id": "rating-visitor"}
    said = [
        {**event(f"rated{number}", "x", type="survey", instrument="nps", score=score), **who}
        for number, score, who in ((0, 1, {}), (1, 3, {}), (2, 10, {}), (3, 10, visitor))
    ]
    body = [{**one, "item_id": None, "timestamp": "2018-03-01T12:00:00Z"} for one in said]
    assert client.post("/v1/events", json=body).json()["accepted"] == 4
    asked = {"from": "2018-03-01", "to": "2018-03-02"}
    report: dict[str, Any] = {}

    def is_archived() -> bool:
        report.update(client.get("/v1/reports/feedback", params=asked).json())
        return bool(report["overall"]["total"].get("nps", {}).get("count") == 4)

    until(is_archived)
    (critics,) = [one for one in report["segments"] if one["segment"] == "critics"]
    assert critics["total"]["nps"]["nps"] == -100.0
    assert critics["total"]["nps"]["count"] == 2
    assert report["overall"]["total"]["nps"]["nps"] == 0.0
    client.delete(path("critics"))


def test_a_segment_in_use_is_not_deleted(
    client: httpx.Client, shop: tuple[Service, EmbeddedServer]
) -> None:
    client.put(path("used"), json=segment(GOLD))
    when = {"all": [{"field": "segment", "op": "in", "value": ["other", "used"]}]}

    async def write(body: dict[str, Any] | None) -> None:
        store = await Store.open(shop[1].url, read_timeout_s=5.0)
        await store.documents.write([Write("offer", "summer/1", body)], "test")
        await store.close()

    asyncio.run(write({"audience": when, "status": "live"}))
    problem = assert_problem(client.delete(path("used")), 409)
    assert "the offer 'summer/1'" in problem["detail"]
    asyncio.run(write({"audience": when, "status": "archived"}))
    rule = {
        "rule_id": "r/1",
        "name": "For those",
        "when": {"not": {"field": "segment", "op": "eq", "value": "used"}},
        "action": {"type": "exclude", "target": {"field": "item.brand", "op": "eq", "value": "X"}},
    }
    assert client.post("/v1/rules", json=rule).status_code in (200, 201)
    assert "the rule 'r/1'" in assert_problem(client.delete(path("used")), 409)["detail"]
    assert client.delete("/v1/rules/r%2F1").status_code in (200, 204)
    assert client.delete(path("used")).status_code == 200
    asyncio.run(write(None))


def test_a_change_counts_in_the_next_answer_of_the_other_worker(
    shop: tuple[Service, EmbeddedServer],
) -> None:
    """Each new connection may reach either worker; over 30 of them both have answered."""
    service, _ = shop
    for number in range(30):
        with service.client() as writer, service.client() as reader:
            when = attribute("round", number)
            assert writer.put(path("moving"), json=segment(when)).status_code == 200
            writer.put("/v1/users/mover", json={"attributes": {"round": number}})
            seen = reader.get("/v1/users/mover").json()
            assert seen["computed"]["segments"] == ["moving"]
            assert members(reader, "moving") == ["mover"]
            assert reader.get(path("moving")).json()["count"] == 1
            writer.delete(path("moving"))
            assert_problem(reader.get(path("moving")), 404)
            assert reader.get("/v1/users/mover").json()["computed"]["segments"] == []


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(segment_id=any_id)
def test_any_id_survives_every_route_of_segments(client: httpx.Client, segment_id: str) -> None:
    when = attribute("who", segment_id)
    put = client.put(path(segment_id), json=segment(when))
    assert put.json()["segment_id"] == segment_id
    client.put(f"/v1/users/{quote(segment_id, safe='')}", json={"attributes": {"who": segment_id}})
    assert members(client, segment_id) == [segment_id]
    assert client.get(path(segment_id), params={"counts": "false"}).json()["when"] == when
    assert client.delete(path(segment_id)).json()["segment_id"] == segment_id


def test_scopes(shop: tuple[Service, EmbeddedServer]) -> None:
    service, _ = shop
    with service.client("marketing:read") as reader:
        assert reader.get("/v1/segments").status_code == 200
        assert_problem(reader.put(path("x"), json=segment(GOLD)), 403)
        assert_problem(reader.delete(path("x")), 403)
    with service.client("marketing:write") as writer:
        assert_problem(writer.get("/v1/segments"), 403)
        assert_problem(writer.get(f"{path('stage_new')}/members"), 403)


def test_a_stream_of_members_that_breaks_off_does_not_look_whole(tmp_path: Path) -> None:
    with running_shop(tmp_path) as (service, server), service.client() as client:
        client.put(path("all"), json=segment(attribute("n", True, "exists")))

        async def fill() -> None:
            store = await Store.open(server.url, read_timeout_s=5.0)
            await store.people.put_many(
                "profile",
                {f"u:{'x' * 100}{n}": {"attributes": {"n": n}} for n in range(50_000)},
                "test",
            )
            await store.close()

        asyncio.run(fill())
        with client.stream("GET", f"{path('all')}/members") as stream:
            lines = stream.iter_lines()
            next(lines)
            server.stop()
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
