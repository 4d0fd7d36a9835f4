"""What the site says about privacy: with revisions, audited, obeyed in the next answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.recsvc.api.service import assert_problem, event, running_shop


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("privacy")
    with running_shop(folder) as (service, _), service.client() as opened:
        yield opened


def test_it_has_revisions_and_stands_in_the_audit(client: httpx.Client) -> None:
    fresh = client.get("/v1/privacy")
    assert (fresh.status_code, fresh.headers["etag"]) == (200, '"0"')
    assert fresh.json()["never_named"] == []
    said = {"never_named": ["Health > Intimate"]}
    first = client.put("/v1/privacy", json=said, headers={"If-None-Match": "*"})
    assert (first.status_code, first.json()["revision"]) == (200, 1)
    assert_problem(client.put("/v1/privacy", json=said, headers={"If-Match": '"7"'}), 412)
    second = client.put(
        "/v1/privacy",
        json=first.json() | {"never_named": []},
        headers={"If-Match": first.headers["etag"]},
    )
    assert (second.status_code, second.headers["etag"]) == (200, '"2"')
    assert client.get("/v1/privacy").json() == second.json()
    audit = client.get("/v1/rules/audit").json()["entries"]
    assert [one["after"] for one in audit if one["kind"] == "privacy"] == [
        {"never_named": []},
        said,
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"never_named": "Health"}, "#/never_named"),
        ({"never_named": [""]}, "#/never_named/0"),
        ({"never_named": ["Health", "Health >  Intimate"]}, "#/never_named/1"),
        ({"never_named": [7]}, "#/never_named/0"),
        ({"never_named": ["x"] * 201}, "#/never_named"),
        ({"unknown": 1}, "#/unknown"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    assert_problem(client.put("/v1/privacy", json=body), 422, pointer)


def test_it_is_obeyed_in_the_next_answer(client: httpx.Client) -> None:
    paths = {"i00003": ["Health > Intimate"], "i00006": ["Health"]}
    for item_id, categories in paths.items():
        client.patch(f"/v1/items/{item_id}", json={"categories": categories}).raise_for_status()
    person = "hushed-customer-7319"
    asked: dict[str, Any] = {"user_id": person, "limit": 90, "explain": True}
    for item_id in paths:
        client.post("/v1/events", json=event(person, item_id)).raise_for_status()

    def named() -> dict[str, dict[str, Any]]:
        items = client.post("/v1/recommendations", json=asked).json()["items"]
        return {one["item_id"]: one["reason"] for one in items}

    before = named()
    assert "i00003" in {one for reason in before.values() for one in reason["item_ids"]}
    client.put("/v1/privacy", json={"never_named": ["health > intimate"]}).raise_for_status()
    after = named()
    assert after.keys() == before.keys()
    assert "i00003" not in {one for reason in after.values() for one in reason["item_ids"]}
    assert "Item 3 " not in str(after)
    assert after["i00003"]["text"] == "Recommended"
    assert after["i00006"] == before["i00006"]
    asked["context"] = {"language": "de-AT"}
    assert named()["i00003"]["text"] == "Empfohlen"
    assert named()["i00006"]["text"] == "Das haben Sie schon einmal gekauft"


def sections(client: httpx.Client, **parameters: str) -> dict[str, dict[str, Any]]:
    response = client.get("/v1/transparency", params=parameters)
    assert response.status_code == 200, response.text
    return {one["id"]: one for one in response.json()["sections"]}


def test_how_the_ranking_works_is_for_everybody_and_of_now(client: httpx.Client) -> None:
    before = client.get("/v1/transparency", headers={"Authorization": ""})
    assert before.status_code == 200
    document = before.json()
    assert document["model_version"] == client.get("/v1/models").json()["current"]
    assert document["language"] == before.headers["content-language"] == "en"
    body = {"sources": [{"source": "new", "weight": 3}, {"source": "popular"}], "limit": 3}
    client.put("/v1/placements/just_in", json=body).raise_for_status()
    rule = {"placements": ["home"], "action": {"type": "pin", "item_ids": ["i00080"],
                                               "positions": [1]}}  # fmt: skip
    client.put("/v1/rules/told", json=rule).raise_for_status()
    assert "pin" not in str(sections(client)["rules"])
    client.post("/v1/rules/publish", json={"rule_ids": ["told"]}).raise_for_status()
    after = client.get("/v1/transparency").json()
    assert after["rules_version"] == document["rules_version"] + 1
    told = sections(client)
    assert {
        "name": "pin",
        "value": 1,
        "text": "One rule puts certain items at certain places.",
    } in (told["rules"]["parameters"])
    (just_in,) = [one for one in told["placements"]["parameters"] if one["name"] == "just_in"]
    assert just_in["value"] == {"new": 0.75, "popular": 0.25}
    client.delete("/v1/placements/just_in").raise_for_status()


def test_how_the_ranking_works_in_german_and_as_a_page(client: httpx.Client) -> None:
    assert sections(client, language="de-CH")["overview"]["title"] == "Kurz gesagt"
    german = client.get("/v1/transparency", headers={"Accept-Language": "fr, de;q=0.5"})
    assert german.headers["content-language"] == "de"
    assert "Accept-Language" in german.headers["vary"]
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = client.get("/v1/transparency", headers={"Accept": browser})
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.startswith("<!doctype html>")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    both = client.get("/v1/transparency", headers={"Accept": "application/json, text/html"})
    assert both.headers["content-type"] == "application/json"
    assert_problem(client.get("/v1/transparency", params={"language": "x" * 36}), 422)
