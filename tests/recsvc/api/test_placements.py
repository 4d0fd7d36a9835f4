"""Slots over HTTP: made, tuned, restored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.recsvc.api.service import assert_problem, ids_of, running_shop


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("placements")
    with running_shop(folder) as (service, _), service.client() as opened:
        yield opened


def body(**fields: Any) -> dict[str, Any]:
    return {"sources": [{"source": "popular"}], "limit": 5, **fields}


def shown(client: httpx.Client, placement: str) -> list[str]:
    response = client.get("/v1/recommendations", params={"placement": placement})
    assert response.status_code == 200, response.text
    return ids_of(response.json())


def test_a_slot_is_made_changed_and_deleted(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/recommendations", params={"placement": "mine"}), 404)
    made = client.put("/v1/placements/mine", json=body())
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    assert len(shown(client, "mine")) == 5
    hidden = {"field": "item.brand", "op": "eq", "value": "Brand 1"}
    changed = made.json() | {"filter": hidden, "limit": 9}
    stale = client.put("/v1/placements/mine", json=changed, headers={"If-Match": '"7"'})
    assert_problem(stale, 412)
    client.put("/v1/placements/mine", json=changed, headers={"If-Match": '"1"'}).raise_for_status()
    found = shown(client, "mine")
    assert len(found) == 9
    assert {int(one[1:]) % 4 for one in found if one.startswith("i0")} == {1}
    assert client.delete("/v1/placements/mine").json() == {"name": "mine", "restored": False}
    assert_problem(client.get("/v1/placements/mine"), 404)


def test_a_built_in_slot_is_tuned_and_restored(client: httpx.Client) -> None:
    as_it_came = client.get("/v1/placements/trending").json()
    assert (as_it_came["built_in"], as_it_came["changed"], as_it_came["revision"]) == (
        True,
        False,
        0,
    )
    before = shown(client, "trending")
    client.put("/v1/placements/trending", json=body(limit=3)).raise_for_status()
    assert len(shown(client, "trending")) == 3
    assert client.get("/v1/placements/trending").json()["changed"]
    assert client.delete("/v1/placements/trending").json()["restored"]
    assert shown(client, "trending") == before
    assert client.get("/v1/placements/trending").json() == as_it_came
    names = [one["name"] for one in client.get("/v1/placements").json()["placements"]]
    assert {"home", "product", "cart", "email", "trending"} <= set(names)


def test_a_slot_that_a_live_rule_uses_stays(client: httpx.Client) -> None:
    client.put("/v1/placements/used", json=body()).raise_for_status()
    rule = {
        "placements": ["used"],
        "action": {"type": "pin", "item_ids": ["i00080"], "positions": [1]},
    }
    client.put("/v1/rules/uses", json=rule).raise_for_status()
    client.post("/v1/rules/publish", json={"rule_ids": ["uses"]}).raise_for_status()
    assert shown(client, "used")[0] == "i00080"
    assert_problem(client.delete("/v1/placements/used"), 409)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"sources": []}, "#/sources"),
        ({"sources": [{"source": "magic"}]}, "#/sources/0/source"),
        ({"diversity": 2}, "#/diversity"),
        ({"limit": 0}, "#/limit"),
        ({"filter": {"field": "item.x", "op": "eq", "value": 1}}, "#/filter/field"),
        ({"filter": {"field": "user.loyalty.tier", "op": "eq", "value": "x"}}, "#/filter/field"),
        ({"kinds": []}, "#/kinds"),
        ({"unknown": 1}, "#/unknown"),
    ],
)
def test_what_is_wrong_with_a_slot_is_named(
    client: httpx.Client, change: dict[str, Any], pointer: str
) -> None:
    assert_problem(client.put("/v1/placements/wrong", json=body(**change)), 422, pointer)


def test_a_slot_has_a_plain_name(client: httpx.Client) -> None:
    assert_problem(client.put("/v1/placements/a%2Fb", json=body()), 422, "#/name")
