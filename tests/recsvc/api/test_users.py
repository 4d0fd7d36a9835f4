"""Users over HTTP: what is said of them counts in the next answer, whatever their ids look like."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.embedded import EmbeddedServer
from feature_store.schema import MAX_ID_LENGTH
from feature_store.store import Store
from tests.recsvc.api.service import ODD_IDS, Service, assert_problem, event, unscored

PROFILE: dict[str, Any] = {
    "attributes": {"city": "Berlin", "children": 2, "vip": True, "sizes": ["M", "L"]},
    "loyalty": {"program": "club", "tier": "gold", "points": 1200.5},
    "external_ids": {},
}


def path(user_id: str) -> str:
    return f"/v1/users/{quote(user_id, safe='')}"


def said(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in PROFILE}


any_id = st.text(
    st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" "),
    min_size=1,
    max_size=MAX_ID_LENGTH,
).filter(lambda one: one not in (".", "..") and one.isprintable())


def test_put_get_patch(client: httpx.Client) -> None:
    put = client.put(path("full"), json={**PROFILE, "external_ids": {"crm": "full/1"}})
    assert put.status_code == 200
    document = put.json()
    assert said(document) == {**PROFILE, "external_ids": {"crm": "full/1"}}
    assert document["counts"] == {}
    assert document["recent"] == []
    assert document["first_seen_at"] is None
    assert document["feedback"] == {}
    assert document["computed"] == {
        "segments": [], "stage": None, "rfm": None, "clv": None, "churn_risk": None,
        "next_purchase_at": None,
    }  # fmt: skip
    assert client.get(path("full")).json() == document
    patch = {"attributes": {"city": "Köln", "vip": None}, "loyalty": {"points": 3}}
    patched = client.patch(path("full"), json=patch).json()
    assert patched["attributes"] == {"city": "Köln", "children": 2, "sizes": ["M", "L"]}
    assert patched["loyalty"] == {"program": "club", "tier": "gold", "points": 3}
    assert patched["external_ids"] == {"crm": "full/1"}
    replaced = client.put(path("full"), json={"user_id": "full", "attributes": {"a": 1}}).json()
    assert said(replaced) == {
        "attributes": {"a": 1},
        "loyalty": {"program": None, "tier": None, "points": None},
        "external_ids": {},
    }


def test_whoever_is_known_in_any_way_is_found(
    client: httpx.Client, running: tuple[Service, EmbeddedServer]
) -> None:
    assert_problem(client.get(path("nobody at all")), 404)
    assert client.put(path("empty"), json={}).status_code == 200
    assert client.get(path("empty")).status_code == 200
    client.patch(path("patched"), json={})
    assert client.get(path("patched")).status_code == 200
    client.post("/v1/events", json=event("buyer", "i00001"))
    bought = client.get(path("buyer")).json()
    assert bought["counts"] == {"purchase": 1}
    assert bought["attributes"] == {}
    complaint = {**event("grumbler", ""), "type": "complaint", "item_id": None}
    assert client.post("/v1/events", json=complaint).status_code == 202
    assert client.get(path("grumbler")).json()["feedback"]["complaints"]["count"] == 1

    async def compute() -> None:
        store = await Store.open(running[1].url, read_timeout_s=5.0)
        computed = {"stage": "at_risk", "churn_risk": 0.7, "rfm": {"group": "cant_lose"}, "x": 1}
        await store.people.put_many("computed", {"u:lapsing": computed}, "training")
        await store.close()

    asyncio.run(compute())
    document = client.get(path("lapsing")).json()["computed"]
    assert document["stage"] == "at_risk"
    assert document["x"] == 1
    assert document["segments"] == ["rfm_cant_lose", "stage_at_risk"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"attributes": {"a b": 1}}, ["#/attributes/a b"]),
        ({"attributes": {"": 1}}, ["#/attributes/"]),
        ({"attributes": {"a": {"b": 1}}}, ["#/attributes/a"]),
        ({"attributes": {"a": None}}, ["#/attributes/a"]),
        ({"attributes": {"a": [1]}}, ["#/attributes/a"]),
        ({"attributes": {"a": "x" * 1001}}, ["#/attributes/a"]),
        ({"attributes": {"a": 2**53 + 1}}, ["#/attributes/a"]),
        ({"attributes": {f"a{n}": n for n in range(101)}}, ["#/attributes"]),
        ({"attributes": {f"a{n}": n for n in range(100)}}, []),
        ({"attributes": []}, ["#/attributes"]),
        ({"loyalty": {"points": "3"}}, ["#/loyalty/points"]),
        ({"loyalty": {"points": True, "tier": 3}}, ["#/loyalty/points", "#/loyalty/tier"]),
        ({"loyalty": {"level": "x"}}, ["#/loyalty/level"]),
        ({"external_ids": {"crm": ""}}, ["#/external_ids/crm"]),
        ({"external_ids": {"crm": ".."}}, ["#/external_ids/crm"]),
        ({"external_ids": {"a=b": "1"}}, ["#/external_ids/a=b"]),
        ({"user_id": "another"}, ["#/user_id"]),
        ({"computed": {}}, ["#/computed"]),
        ([], ["#"]),
    ],
)
def test_what_is_no_profile_is_named(client: httpx.Client, body: Any, pointers: list[str]) -> None:
    put = client.put(path("checked"), json=body)
    if not pointers:
        assert put.status_code == 200
        return
    assert_problem(put, 422, *pointers)
    if body and "a" not in str(body.get("attributes", "")):
        assert_problem(client.patch(path("checked"), json=body), 422, *pointers)


def test_a_patch_is_checked_in_what_it_makes(client: httpx.Client) -> None:
    hundred = {f"a{n}": n for n in range(100)}
    client.put(path("many"), json={"attributes": hundred})
    assert_problem(client.patch(path("many"), json={"attributes": {"b": 1}}), 422, "#/attributes")
    swapped = client.patch(path("many"), json={"attributes": {"b": 1, "a0": None}})
    assert swapped.status_code == 200
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    assert_problem(client.patch(path("many"), json={"attributes": deep}), 422)
    assert client.get(path("many")).json()["attributes"]["b"] == 1


def test_an_external_id_is_one_users(client: httpx.Client) -> None:
    client.put(path("owner"), json={"external_ids": {"crm": "E-1"}})
    assert_problem(client.put(path("thief"), json={"external_ids": {"crm": "E-1"}}), 409)
    assert_problem(client.get(path("thief")), 404)
    client.patch(path("owner"), json={"external_ids": {"crm": None}})
    assert client.put(path("thief"), json={"external_ids": {"crm": "E-1"}}).status_code == 200


def test_an_external_id_stands_for_the_user(client: httpx.Client, service: Service) -> None:
    odd = "a=b&c/%"
    client.put(path("known"), json={"external_ids": {"sub_key": odd, "crm": "K-1"}})
    client.post("/v1/events", json=event("known", "i00007"))
    found = client.get("/v1/users", params={"external_id.sub_key": odd})
    assert found.json()["user_id"] == "known"
    assert found.json() == client.get(path("known")).json()
    assert_problem(client.get("/v1/users", params={"external_id.crm": odd}), 404)
    for query in ("", "external_id.crm=1&limit=5", "external_id.crm=", "external_id=1", "x=1"):
        assert client.get(f"/v1/users?{query}").status_code == 422
    asked: dict[str, Any] = {"limit": 5, "placement": "home"}
    by_id = client.get("/v1/recommendations", params={**asked, "user_id": "known"})
    by_query = client.get("/v1/recommendations", params={**asked, "external_id.crm": "K-1"})
    by_body = client.post("/v1/recommendations", json={**asked, "external_id": {"crm": "K-1"}})
    for answer in (by_query, by_body):
        assert unscored(answer.json()) == unscored(by_id.json())
        assert answer.json()["user_id"] == "known"
        assert answer.json()["personalized"] is True
    unknown = client.get("/v1/recommendations", params={**asked, "external_id.crm": "nobody's"})
    assert unknown.status_code == 200
    assert unknown.json()["personalized"] is False
    assert len(unknown.json()["items"]) == 5
    assert unknown.headers["cache-control"] == "private, no-store"
    assert "etag" not in unknown.headers
    client.patch(path("known"), json={"external_ids": {"crm": "K-2"}})
    moved = client.get("/v1/recommendations", params={**asked, "external_id.crm": "K-2"})
    assert unscored(moved.json()) == unscored(by_id.json())


def test_of_a_batch_the_good_ones_are_stored_and_the_bad_ones_named(client: httpx.Client) -> None:
    batch: list[Any] = [
        {"user_id": "b1", "attributes": {"n": 1}, "external_ids": {"crm": "B"}},
        {"user_id": "b2", "attributes": {"n": {}}},
        {"user_id": "..", "attributes": {}},
        {"attributes": {"n": 3}},
        "b4",
        {"user_id": "b5", "external_ids": {"crm": "B"}},
        {"user_id": "b6", "attributes": {"n": 1}},
        {"user_id": "b6", "attributes": {"n": 2}},
    ]
    answer = client.post("/v1/users", json=batch)
    assert answer.status_code == 200
    document = answer.json()
    assert document["accepted"] == 3
    assert document["changed"] == 2
    assert {
        one["index"]: [error["pointer"] for error in one["errors"]]
        for one in document["rejected"]
    } == {1: ["#/attributes/n"], 2: ["#/user_id"], 3: ["#/user_id"], 4: ["#"],
          5: ["#/external_ids"]}  # fmt: skip
    assert client.get(path("b6")).json()["attributes"] == {"n": 2}
    assert_problem(client.get(path("b2")), 404)
    again = client.post("/v1/users", json=batch[:1]).json()
    assert again == {"accepted": 1, "changed": 0, "rejected": []}
    one = client.post("/v1/users", json={"user_id": "b7"}).json()
    assert one == {"accepted": 1, "changed": 1, "rejected": []}
    for wrong in ([], "x", [{"user_id": "c"}] * 1001):
        assert_problem(client.post("/v1/users", json=wrong), 422, "#")
    thousand = [{"user_id": f"t{n}", "attributes": {"n": n}} for n in range(1000)]
    assert client.post("/v1/users", json=thousand).json()["changed"] == 1000


def test_patches_of_many_at_once_all_count(service: Service) -> None:
    async def race() -> dict[str, Any]:
        async with service.async_client() as client:
            await asyncio.gather(
                *(
                    client.patch(path("raced"), json={"attributes": {f"a{number}": number}})
                    for number in range(20)
                )
            )
            document: dict[str, Any] = (await client.get(path("raced"))).json()
            return document

    assert asyncio.run(race())["attributes"] == {f"a{number}": number for number in range(20)}


@pytest.fixture(scope="module")
def plain(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(user_id=any_id | st.sampled_from(ODD_IDS))
def test_any_id_survives_every_route_of_users(plain: httpx.Client, user_id: str) -> None:
    put = plain.put(path(user_id), json={"attributes": {"who": user_id}})
    assert put.status_code == 200, put.text
    assert put.json()["user_id"] == user_id
    bulk = {"user_id": user_id, "attributes": {"who": user_id, "bulk": True}}
    assert plain.post("/v1/users", json=[bulk]).json()["rejected"] == []
    patched = plain.patch(path(user_id), json={"attributes": {"patched": True}})
    assert patched.status_code == 200
    document = plain.get(path(user_id)).json()
    assert document["user_id"] == user_id
    assert document["attributes"] == {"who": user_id, "bulk": True, "patched": True}


def test_only_keys_with_the_scope_may(service: Service) -> None:
    with service.client("users:read") as reader:
        assert_problem(reader.put(path("x"), json={}), 403)
        assert_problem(reader.patch(path("x"), json={}), 403)
        assert_problem(reader.post("/v1/users", json=[{"user_id": "x"}]), 403)
    with service.client("users:write") as writer:
        assert writer.put(path("scoped"), json={}).status_code == 200
        assert_problem(writer.get(path("scoped")), 403)


def test_a_change_counts_in_the_next_answer_of_the_other_worker(
    pair: tuple[Service, EmbeddedServer],
) -> None:
    """Each new connection may reach either worker; over 40 of them both have answered."""
    service, _ = pair
    for number in range(40):
        with service.client() as writer, service.client() as reader:
            writer.patch(path("shared"), json={"attributes": {"n": number}})
            assert reader.get(path("shared")).json()["attributes"]["n"] == number
