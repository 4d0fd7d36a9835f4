"""What may not be used is used nowhere: removed tastes, values and answers of refusers."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from tests.recsvc.api.service import Service, event, running_shop
from tests.waiting import until

COMPUTED = {
    "stage": "active",
    "churn_risk": 0.25,
    "tastes": {
        "categories": ["Sweets > Candy", "Pets"],
        "category_shares": [0.7, 0.3],
        "brands": ["Brand 1", "Brand 2"],
        "brand_shares": [0.6, 0.4],
        "price_band": "low",
    },
}
SEGMENT = "sweet_teeth"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, EmbeddedServer]]:
    with running_shop(tmp_path_factory.mktemp("unused")) as both:
        yield both


@pytest.fixture(scope="module")
def backend(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with shop[0].client() as client:
        body = {
            "name": "Sweet teeth",
            "when": {
                "field": "user.computed.tastes.categories",
                "op": "under",
                "value": "Sweets",
            },
        }
        client.put(f"/v1/segments/{SEGMENT}", json=body).raise_for_status()
        yield client


@pytest.fixture
def somebody(shop: tuple[Service, EmbeddedServer]) -> str:
    """A user of whom a training computed something."""
    user = f"computed-{time.monotonic_ns()}"

    async def compute() -> None:
        store = await Store.open(shop[1].url, read_timeout_s=20)
        await store.people.put_many("computed", {f"u:{user}": COMPUTED}, by="training")
        await store.close()

    asyncio.run(compute())
    return user


def disown(shop: tuple[Service, EmbeddedServer], user: str, kind: str, name: str) -> None:
    """Remove a point as `DELETE /v1/me/profile/{point_id}` does, also one that is not shown."""
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def change(document: dict[str, Any] | None) -> dict[str, Any]:
        before = document or {}
        said = [*before.get("disowned", []), {"kind": kind, "name": name, "at": at}]
        return {**before, "disowned": said}

    async def store_it() -> None:
        store = await Store.open(shop[1].url, read_timeout_s=20)
        await store.people.update("preferences", f"u:{user}", change, "customer")
        await store.close()

    asyncio.run(store_it())


def members(backend: httpx.Client) -> set[str]:
    answer = backend.get(f"/v1/segments/{SEGMENT}/members")
    assert answer.status_code == 200, answer.text
    return {json.loads(line)["user_id"] for line in answer.text.splitlines()}


def seen(backend: httpx.Client, user: str) -> tuple[Any, set[str]]:
    """Return the tastes of a user, and the segments, as the shop sees them."""
    computed = backend.get(f"/v1/users/{user}").json()["computed"]
    return computed.get("tastes"), set(computed["segments"])


def test_a_taste_that_was_removed_chooses_no_rule_and_no_segment(
    shop: tuple[Service, EmbeddedServer], backend: httpx.Client, somebody: str
) -> None:
    tastes, segments = seen(backend, somebody)
    assert tastes == COMPUTED["tastes"]
    assert SEGMENT in segments
    assert somebody in members(backend)
    disown(shop, somebody, "category", "Sweets")
    disown(shop, somebody, "brand", "Brand 1")
    tastes, segments = seen(backend, somebody)
    assert tastes == {
        "categories": ["Pets"],
        "category_shares": [0.3],
        "brands": ["Brand 2"],
        "brand_shares": [0.4],
        "price_band": "low",
    }
    assert SEGMENT not in segments
    assert somebody not in members(backend)
    # It is stored still, and shown to whoever asks for everything.
    held = backend.get(f"/v1/users/{somebody}/export").json()["sections"]
    assert held["computed"]["entries"] == [COMPUTED]
    assert SEGMENT not in {one["segment_id"] for one in held["segments"]["entries"]}


def test_who_refuses_has_no_segments_and_no_computed_values(
    backend: httpx.Client, somebody: str
) -> None:
    path = f"/v1/users/{somebody}"
    backend.patch(f"{path}/preferences", json={"consent": {"profiling": False}}).raise_for_status()
    assert seen(backend, somebody) == (None, set())
    assert backend.get(path).json()["computed"]["churn_risk"] is None
    assert somebody not in members(backend)
    held = backend.get(f"{path}/export").json()["sections"]
    assert (held["segments"]["count"], held["computed"]["count"]) == (0, 1)
    backend.patch(f"{path}/preferences", json={"consent": {"profiling": True}}).raise_for_status()
    assert seen(backend, somebody)[0] == COMPUTED["tastes"]


def test_who_refuses_statistics_is_in_no_report(backend: httpx.Client) -> None:
    users = [f"answers-{number}-{time.monotonic_ns()}" for number in range(3)]
    day = datetime.now(UTC) - timedelta(days=1)
    survey = {"type": "survey", "item_id": None, "instrument": "csat", "score": 5}
    said = [{**event(user, ""), **survey, "timestamp": day.isoformat()} for user in users]
    assert backend.post("/v1/events", json=said).json()["accepted"] == 3

    def answers() -> int:
        total = backend.get("/v1/reports/feedback").json()["overall"]["total"]
        return int(total.get("csat", {}).get("count", 0))

    until(lambda: answers() == 3)
    for left, (user, refused) in enumerate(
        [(users[0], {"analytics": False}), (users[1], {"profiling": False})]
    ):
        body = {"consent": refused}
        backend.patch(f"/v1/users/{user}/preferences", json=body).raise_for_status()
        assert answers() == 2 - left
    backend.patch(f"/v1/users/{users[0]}/preferences", json={"consent": {"analytics": True}})
    assert answers() == 2
