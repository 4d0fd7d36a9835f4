"""Nothing about somebody is kept by anybody on the way: a table over all that can be read."""

import re
from collections.abc import Iterator

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.browser import ORIGIN, page_of, put, secret_of
from tests.recsvc.api.service import Service, event
from tests.recsvc.signing import Backend

USER, ITEM, SEGMENT, RECALL = "kept by nobody", "i00003", "nobody_keeps", "nobody keeps"
PERSONAL = re.compile(
    r"/v1/(me|users/\{|recommendations|pages/\{page\}$|\w+/\{\w+\}/(members|customers))"
)
"""Addresses that answer about somebody; pages and recommendations when somebody is named."""
NAMES_NOBODY = {"/v1/me/erasures/{erasure_id}"}
"""Receipts: 404 without an erasure, and they name nobody."""


@pytest.fixture(scope="module")
def somebody(running: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    """Somebody with a history, and a browser with their token."""
    service, server = running
    login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, login.record)
    with (
        service.client() as backend,
        page_of(service, Authorization=f"Bearer {login.token(USER)}") as browser,
    ):
        backend.post("/v1/events", json=event(USER, ITEM)).raise_for_status()
        segment = {
            "name": "x",
            "when": {"field": "user.attributes.x", "op": "exists", "value": True},
        }
        backend.put(f"/v1/segments/{SEGMENT}", json=segment).raise_for_status()
        recall = {"item_ids": ["i00089"], "reason": "test"}
        backend.put(f"/v1/recalls/{RECALL}", json=recall).raise_for_status()
        yield browser
        backend.delete(f"/v1/recalls/{RECALL}").raise_for_status()
        backend.delete(f"/v1/segments/{SEGMENT}").raise_for_status()


def test_no_answer_about_somebody_is_kept(client: httpx.Client, somebody: httpx.Client) -> None:
    shown = client.get("/v1/recommendations", params={"user_id": USER}).json()
    parts = {
        "user_id": USER,
        "recommendation_id": shown["recommendation_id"],
        "segment_id": SEGMENT,
        "recall_id": RECALL,
        "page": "home",
    }
    paths = client.get("/openapi.json").json()["paths"]
    asked = [path for path, operations in paths.items() if "get" in operations]
    asked = [path for path in asked if PERSONAL.match(path) and path not in NAMES_NOBODY]
    assert len(asked) >= 12
    for path in asked:
        if path.startswith("/v1/me"):
            answer = somebody.get(path)
        else:
            about = {"user_id": USER} if "recommendations" in path or "page" in path else {}
            about = {} if "{recommendation_id}" in path else about
            answer = client.get(path.format(**parts), params=about)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers.get("cache-control") == "private, no-store", path
        assert "etag" not in answer.headers, path


def test_errors_are_not_kept(client: httpx.Client) -> None:
    for path in ("/v1/users/nobody-at-all", "/v1/recommendations?limit=0", "/v1/nothing"):
        answer = client.get(path)
        assert answer.status_code >= 400
        assert "no-store" in answer.headers["cache-control"]
