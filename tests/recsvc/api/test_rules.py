"""The life of rules over HTTP: written, published, paused, reverted, rolled back, audited."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.service import Service, assert_problem, make_shop

BRAND_1 = {"field": "item.brand", "op": "eq", "value": "Brand 1"}


def rule(**fields: Any) -> dict[str, Any]:
    return {
        "name": "n",
        "placements": ["home"],
        "action": {"type": "exclude", "target": BRAND_1},
        **fields,
    }


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    folder = tmp_path_factory.mktemp("rules")
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        shop = make_shop(folder / "data", server.url)
        with (
            Service(shop, redis_url=server.url) as one,
            Service(shop, redis_url=server.url) as other,
            one.client() as here,
            other.client() as there,
        ):
            yield here, there


@pytest.fixture
def one(pair: tuple[httpx.Client, httpx.Client]) -> httpx.Client:
    """A client of a service in which no rule is in force."""
    pair[0].post("/v1/rules/rollback", json={"rules_version": 0}).raise_for_status()
    return pair[0]


@pytest.fixture
def other(pair: tuple[httpx.Client, httpx.Client]) -> httpx.Client:
    return pair[1]


def brands(client: httpx.Client, placement: str = "home") -> set[str]:
    query: dict[str, Any] = {"placement": placement, "limit": 100, "fields": "brand"}
    response = client.get("/v1/recommendations", params=query)
    assert response.status_code == 200, response.text
    return {item["item"]["brand"] for item in response.json()["items"]}


def test_a_rule_is_obeyed_by_every_worker_from_the_next_answer_on(
    one: httpx.Client, other: httpx.Client
) -> None:
    made = one.post("/v1/rules", json=rule())
    assert made.status_code == 201, made.text
    document = made.json()
    rule_id = document["rule_id"]
    assert (document["status"], document["revision"], document["live_revision"]) == (
        "draft",
        1,
        None,
    )
    assert made.headers["etag"] == '"1"'
    assert "Brand 1" in brands(other), "a draft shows nothing"
    published = one.post("/v1/rules/publish", json={"rule_ids": [rule_id], "note": "go"}).json()
    assert published["rules"] == {rule_id: 1}
    assert published["changed"] == [rule_id]
    answer = other.get("/v1/recommendations").json()
    assert answer["rules_version"] == published["rules_version"]
    assert "Brand 1" not in brands(other)
    assert "Brand 1" in brands(other, "trending"), "another placement"
    assert other.get(f"/v1/rules/{rule_id}").json()["status"] == "live"
    # Edited, but not published: what was published stays in force.
    changed = rule(action={"type": "exclude", "target": {**BRAND_1, "value": "Brand 2"}})
    put = other.put(f"/v1/rules/{rule_id}", json=changed, headers={"If-Match": '"1"'})
    assert (put.json()["revision"], put.json()["live_revision"]) == (2, 1)
    assert brands(one) >= {"Brand 2"}
    assert "Brand 1" not in brands(one)
    other.post("/v1/rules/publish", json={"rule_ids": [rule_id]}).raise_for_status()
    assert brands(one) >= {"Brand 1"}
    assert "Brand 2" not in brands(one)
    # One rule is taken back at once, and then all of them.
    one.post(f"/v1/rules/{rule_id}/revert", json={"revision": 1}).raise_for_status()
    assert "Brand 1" not in brands(other)
    one.post("/v1/rules/rollback", json={"rules_version": 0}).raise_for_status()
    assert brands(other) >= {"Brand 1", "Brand 2"}


def test_a_rule_goes_out_of_force_by_being_published_as_paused(
    one: httpx.Client, other: httpx.Client
) -> None:
    one.put("/v1/rules/a%2Fb", json=rule(), headers={"If-None-Match": "*"}).raise_for_status()
    one.post("/v1/rules/publish", json={"rule_ids": ["a/b"]}).raise_for_status()
    assert "Brand 1" not in brands(other)
    assert_problem(one.delete("/v1/rules/a%2Fb"), 409)
    document = one.get("/v1/rules/a%2Fb").json()
    document["status"] = "paused"
    headers = {"If-Match": f'"{document["revision"]}"'}
    one.put("/v1/rules/a%2Fb", json=document, headers=headers).raise_for_status()
    assert "Brand 1" not in brands(other)
    one.post("/v1/rules/publish", json={"rule_ids": ["a/b"]}).raise_for_status()
    assert "Brand 1" in brands(other)
    one.delete("/v1/rules/a%2Fb").raise_for_status()
    assert_problem(one.get("/v1/rules/a%2Fb"), 404)
    # Its history is not deleted.
    one.post("/v1/rules/a%2Fb/revert", json={"revision": 1}).raise_for_status()
    assert one.get("/v1/rules/a%2Fb").json()["status"] == "draft"


def test_two_marketers_never_overwrite_each_other(one: httpx.Client, other: httpx.Client) -> None:
    one.put("/v1/rules/both", json=rule()).raise_for_status()
    assert_problem(other.put("/v1/rules/both", json=rule()), 412)
    assert_problem(other.put("/v1/rules/both", json=rule(), headers={"If-Match": '"7"'}), 412)
    assert_problem(other.put("/v1/rules/both", json=rule(), headers={"If-None-Match": "*"}), 409)
    fine = other.put("/v1/rules/both", json=rule(name="x"), headers={"If-Match": '"1"'})
    assert fine.json()["name"] == "x"
    assert_problem(one.put("/v1/rules/both", json=rule(), headers={"If-Match": '"1"'}), 412)
    assert_problem(one.delete("/v1/rules/both", headers={"If-Match": '"1"'}), 412)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"when": {"field": "user.nothing", "op": "eq", "value": 1}}, "#/when/field"),
        ({"when": {"field": "segment", "op": "eq", "value": "unknown"}}, "#/when/value"),
        ({"placements": ["nowhere"]}, "#/placements/0"),
        ({"placements": []}, "#/placements"),
        ({"action": {"type": "pin", "item_ids": [], "positions": [1]}}, "#/action/item_ids"),
        ({"action": {"type": "boost", "target": BRAND_1, "weight": 1}}, "#/action/weight"),
        ({"ends_at": "2027-01-01"}, "#/ends_at"),
        ({"something": 1}, "#/something"),
        ({"rule_id": "another"}, "#/rule_id"),
        (
            {"action": {"type": "exclude", "target": {"any": []}}},
            "#/action/target/any",
        ),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(
    one: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(one.put("/v1/rules/wrong", json=rule(**change)), 422, pointer)


def test_the_audit_names_who_when_before_and_after(one: httpx.Client, other: httpx.Client) -> None:
    one.put("/v1/rules/audited", json=rule(name="first")).raise_for_status()
    other.put(
        "/v1/rules/audited", json=rule(name="second"), headers={"If-Match": '"1"'}
    ).raise_for_status()
    one.post("/v1/rules/publish", json={"rule_ids": ["audited"], "note": "why"}).raise_for_status()
    audit = other.get("/v1/rules/audit", params={"rule_id": "audited"}).json()
    live, second, first = audit["entries"]
    assert first["before"] is None
    assert (first["after"]["name"], second["before"]["name"]) == ("first", "first")
    assert (live["kind"], live["note"], live["by"]) == ("live_rule", "why", "key:all")
    assert audit["verified"] >= 3
    whole, query = [], {"limit": 2}
    while True:
        page = other.get("/v1/rules/audit", params=query).json()
        whole += page["entries"]
        if page["next_before"] is None:
            break
        query["before"] = page["next_before"]
    at_once = other.get("/v1/rules/audit", params={"limit": 1000}).json()["entries"]
    assert whole == at_once
    assert_problem(other.post("/v1/rules/rollback", json={"rules_version": 9999}), 404)
    assert_problem(other.post("/v1/rules/publish", json={"rule_ids": ["missing"]}), 404)


def test_a_preview_shows_what_is_then_served_and_changes_nothing(
    one: httpx.Client, other: httpx.Client
) -> None:
    one.put("/v1/rules/seen", json=rule()).raise_for_status()
    body = {"rule_ids": ["seen"], "user_ids": ["stranger", "another"], "limit": 20}
    previewed = one.post("/v1/rules/preview", json=body)
    assert previewed.status_code == 200, previewed.text
    document = previewed.json()
    assert document["summary"]["viewers"] == document["summary"]["changed_lists"] == 2
    lists = document["lists"][0]
    assert lists["viewer"] == "stranger"
    assert {entry["rule_ids"][0] for entry in lists["out"]} == {"seen"}
    query: dict[str, str | int] = {"user_id": "stranger", "limit": 20}
    served = other.get("/v1/recommendations", params=query).json()["items"]
    assert [item["item_id"] for item in served] == [item["item_id"] for item in lists["before"]]
    one.post("/v1/rules/publish", json={"rule_ids": ["seen"]}).raise_for_status()
    served = other.get("/v1/recommendations", params=query).json()["items"]
    assert [item["item_id"] for item in served] == [item["item_id"] for item in lists["after"]]
    inline = {"rules": [rule(rule_id="seen", status="paused")], "limit": 20}
    back = one.post("/v1/rules/preview", json=inline)
    assert_problem(one.post("/v1/rules/preview", json={}), 422)
    assert_problem(
        one.post("/v1/rules/preview", json={"rules": [{}, rule(when={})]}),
        422,
        "#/rules/0/action",
    )
    assert back.json()["summary"]["changed_lists"] == 1


def test_lint_over_http(one: httpx.Client) -> None:
    target = {"field": "item.brand", "op": "eq", "value": "nobody"}
    one.put("/v1/rules/useless", json=rule(action={"type": "exclude", "target": target}))
    findings = one.get("/v1/rules/lint").json()["findings"]
    assert ("useless", "never_matches") in {(one["rule_id"], one["kind"]) for one in findings}
    live = one.get("/v1/rules/lint", params={"scope": "live"}).json()
    assert live == {"findings": [], "rules": 0}


def test_an_attribute_is_one_that_items_have_and_of_their_type(one: httpx.Client) -> None:
    item = {"item_id": "striped", "title": "t", "attributes": {"stripes": 3, "Größe": ["s", "m"]}}
    one.put("/v1/items/striped", json=item).raise_for_status()

    def put(name: str, value: object) -> httpx.Response:
        target = {"field": f"item.attributes.{name}", "op": "eq", "value": value}
        body = rule(action={"type": "exclude", "target": target}, rule_id=f"r{name}{value}")
        return one.post("/v1/rules", json=body)

    assert put("stripes", 3).status_code == 201
    assert put("Größe", "m").status_code == 201
    assert_problem(put("dots", 3), 422, "#/action/target/field")
    assert_problem(put("stripes", "three"), 422, "#/action/target/value")


def test_rolled_back_lists_are_the_lists_of_that_publication(
    one: httpx.Client, other: httpx.Client
) -> None:
    def lists() -> list[list[str]]:
        query: dict[str, str | int] = {"limit": 30}
        answers = [
            other.get("/v1/recommendations", params={**query, "user_id": f"roll {n}"})
            for n in range(5)
        ]
        return [[item["item_id"] for item in answer.json()["items"]] for answer in answers]

    seen = {0: lists()}
    for number, name in enumerate(("first", "second", "third")):
        brand = {**BRAND_1, "value": f"Brand {number}"}
        body = rule(action={"type": "exclude", "target": brand}, rule_id=name)
        one.post("/v1/rules", json=body).raise_for_status()
        published = one.post("/v1/rules/publish", json={"rule_ids": [name]}).json()
        seen[published["rules_version"]] = lists()
    assert len({str(one_of_them) for one_of_them in seen.values()}) == 4
    for version, expected in [*seen.items()][::-1]:
        one.post("/v1/rules/rollback", json={"rules_version": version}).raise_for_status()
        assert lists() == expected
