"""What the site says about privacy: with revisions, audited, obeyed in the next answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.recsvc.api.service import assert_problem, running_shop


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
