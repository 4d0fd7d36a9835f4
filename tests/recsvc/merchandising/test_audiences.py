"""Counting the members of segments, over a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.errors import StoreUnavailableError
from feature_store.people import Document
from feature_store.store import Store
from recsvc.merchandising import audiences
from recsvc.merchandising.audiences import SegmentCounter, members_of, segments_now
from recsvc.merchandising.segments import BUILT_IN

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server"), fsync="everysec") as running:
        yield running


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[Store]:
    opened = await Store.open(server.url, 3.0)
    await opened._redis.flushall()
    yield opened
    await opened.close()


async def fill(store: Store, stages: dict[str, str]) -> None:
    documents: dict[str, Document | None] = {
        f"u:{user}": {"stage": stage} for user, stage in stages.items()
    }
    await store.people.put_many("computed", documents, "test")


async def test_a_small_shop_is_counted_anew_for_every_question(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiences, "LIVE_UPTO_S", 60.0)  # whatever stalls, this count is small
    counter = SegmentCounter(store)
    for number in range(5):
        await fill(store, {f"c{number}": "new"})
        found = await counter.counts(BUILT_IN)
        assert found is not None
        assert found.members["stage_new"] == found.n_users == number + 1


async def test_a_count_that_was_work_is_shown_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiences, "LIVE_UPTO_S", 0.0)
    monkeypatch.setattr(audiences, "SHARE", 1e9)
    counter = SegmentCounter(store)
    await fill(store, {"a": "new"})
    first = await counter.counts(BUILT_IN)
    await fill(store, {"b": "new"})
    assert await counter.counts(BUILT_IN) is first
    fewer = {"stage_new": BUILT_IN["stage_new"]}
    other = await counter.counts(fewer)
    assert other is not None
    assert dict(other.members) == {"stage_new": 2}


async def test_who_asks_at_once_shares_a_count_that_began_after_the_question(store: Store) -> None:
    counter = SegmentCounter(store)
    await fill(store, {f"c{number}": "new" for number in range(500)})
    found = await asyncio.gather(*(counter.counts(BUILT_IN) for _ in range(20)))
    assert len({id(one) for one in found}) <= 2
    assert all(one is not None and one.members["stage_new"] == 500 for one in found)


async def test_nobody_waits_for_long(store: Store) -> None:
    counter = SegmentCounter(store)
    await fill(store, {f"c{number}": "new" for number in range(500)})
    assert await counter.counts(BUILT_IN, wait_s=0.0001) is None
    found = await counter.counts(BUILT_IN)
    assert found is not None
    assert await counter.counts(BUILT_IN, wait_s=0.0001) is found, "the last one it is"


async def test_a_store_that_is_gone_is_said(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        counter = SegmentCounter(store)
        server.stop()
        with pytest.raises(StoreUnavailableError):
            await counter.counts(BUILT_IN)
        await store.close()


async def test_members_and_segments_are_two_sides_of_the_same(store: Store) -> None:
    stages = {f"c{n}": ("new", "active", "lapsed")[n % 3] for n in range(300)}
    await fill(store, stages)
    for stage in ("new", "active", "lapsed", "at_risk"):
        found = [
            one async for part in members_of(store, BUILT_IN[f"stage_{stage}"]) for one in part
        ]
        assert sorted(found) == sorted(user for user, his in stages.items() if his == stage)
    people = ["u:c0", "u:c1", "u:unknown", "a:visitor"]
    assert await segments_now(store, BUILT_IN, people) == {
        "stage_new": ["u:c0"],
        "stage_active": ["u:c1"],
    }


async def test_who_may_not_be_profiled_belongs_to_no_segment(store: Store) -> None:
    await fill(store, {"unasked": "new", "refuses": "new", "agrees": "new", "off": "new"})
    said: dict[str, Document] = {
        "u:refuses": {"consent": {"profiling": False}},
        "u:agrees": {"consent": {"profiling": True}},
        "u:off": {"consent": {"profiling": True}, "personalization": False},
    }
    await store.people.put_many("preferences", dict(said), "test")

    async def members() -> set[str]:
        new = BUILT_IN["stage_new"]
        return {one async for batch in members_of(store, new) for one in batch}

    assert await members() == {"unasked", "agrees"}
    counted = await SegmentCounter(store).counts({"stage_new": BUILT_IN["stage_new"]})
    assert counted is not None
    assert counted.members["stage_new"] == 2
    store.profiling = "opt_in"
    assert await members() == {"agrees"}
