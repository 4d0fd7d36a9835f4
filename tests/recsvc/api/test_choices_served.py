"""What somebody chooses shows in the next answer of any worker, and in what is recorded of it."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.schema import format_time
from tests.recsvc.api.service import Service, event, ids_of
from tests.waiting import until

RECS = "/v1/recommendations"


@pytest.fixture(scope="module")
def two(pair: tuple[Service, EmbeddedServer]) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Two connections to a service of two workers."""
    with pair[0].client() as one, pair[0].client() as other:
        yield one, other


def ask(client: httpx.Client, **query: Any) -> dict[str, Any]:
    response = client.get(RECS, params={"limit": 20, **query})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def buyer(client: httpx.Client) -> str:
    """Return a user who bought some items of one taste."""
    user = f"follower-{time.monotonic_ns():020d}"
    for number in (3, 9, 15, 21):
        client.post("/v1/events", json=event(user, f"i{number:05}")).raise_for_status()
    return user


def choose(client: httpx.Client, user: str, **patch: Any) -> None:
    client.patch(f"/v1/users/{user}/preferences", json=patch).raise_for_status()


def test_a_follow_is_seen_by_the_other_worker_and_says_what_is_followed(
    two: tuple[httpx.Client, httpx.Client],
) -> None:
    one, other = two
    user = f"follower-of-one-{time.monotonic_ns():020d}"
    choose(one, user, followed_brands=["Brand 1"])
    followed = [
        item
        for item in ask(other, user_id=user, fields="brand")["items"]
        if item["reason"]["code"] == "followed"
    ]
    assert followed
    for item in followed:
        assert item["reason"]["followed"] == [item["item"]["brand"]] == ["Brand 1"]
    choose(other, user, personalization=False)
    for client in (one, other):
        found = ask(client, user_id=user)
        assert not found["personalized"]
        assert "followed" not in {item["reason"]["code"] for item in found["items"]}
        assert ids_of(found) == ids_of(ask(client))


def test_who_refuses_is_in_no_record(two: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = two
    for refused in ({"consent": {"profiling": False}}, {"consent": {"analytics": False}}):
        user = buyer(one)
        before = ask(one, user_id=user)
        choose(one, user, **refused)
        after = ask(other, user_id=user)
        assert after["user_id"] == user
        records = [one.get(f"{RECS}/{each['recommendation_id']}") for each in (before, after)]
        assert [record.status_code for record in records] == [200, 200]
        assert [record.json()["user_id"] for record in records] == [user, None]
        assert user in records[0].text
        assert user not in records[1].text
        assert records[0].json()["history"]
        assert records[1].json()["history"] == []
        assert after["personalized"] is ("analytics" in refused["consent"])


def snooze(client: httpx.Client, user: str) -> list[dict[str, str]]:
    """Snooze something for a moment, but for one in which it can be seen, and something else."""
    for lasts in (0.4, 4.0, 20.0):
        now = datetime.now(UTC).replace(microsecond=0)
        ends = (now + timedelta(seconds=1 + lasts), now + timedelta(days=1))
        snoozed = [
            {"item_id": item_id, "until": format_time(at)}
            for item_id, at in zip(("i00005", "i00006"), ends, strict=True)
        ]
        answer = client.patch(f"/v1/users/{user}/preferences", json={"snoozed": snoozed})
        if answer.json()["snoozed"] == snoozed:
            return snoozed
    raise AssertionError("what was snoozed is not there")


def test_a_snooze_ends_by_itself(client: httpx.Client) -> None:
    user = f"snoozer-{time.monotonic_ns()}"
    theirs, snoozed = f"/v1/users/{user}/preferences", snooze(client, user)
    until(lambda: client.get(theirs).json()["snoozed"] == snoozed[1:])
    kept = client.patch(theirs, json={"snoozed": {"remove": ["i00006"]}}).json()
    assert kept["snoozed"] == []
