"""An erasure of a user ends the links of the visitors, whatever else is under way just then."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
import polars as pl
import pytest

from feature_store import keys
from feature_store.errors import ConflictError
from feature_store.forgetting.ledger import epoch_ms
from feature_store.links import Link, read_link
from feature_store.store import Store
from tests.feature_store.lives import did, having, live, mentions, now
from tests.feature_store.test_merging import Killed, dying


def before_it_writes(runner: Any, act: Callable[[], Awaitable[Any]]) -> None:
    """Let something happen between what a writer reads and what it writes, once."""
    run, done = runner.run, False

    async def run_after(script: str, calls: Any) -> list[int]:
        nonlocal done
        if not done:
            done = True
            await act()
        outcomes: list[int] = await run(script, calls)
        return outcomes

    runner.run = run_after


@pytest.fixture
async def other(store: Store) -> Any:
    opened = await Store.open(store.url, read_timeout_s=5.0)
    yield opened
    await opened.close()


AHEAD = timedelta(minutes=1)
"""A clock that is ahead: such an event is not from before the erasure."""


async def appends(store: Store) -> None:
    await store.events.append([did(1, visitor="v-40417", timestamp=now() + AHEAD)])


async def imports(store: Store) -> None:
    frame = pl.DataFrame(
        {
            "user_id": pl.Series([None], dtype=pl.String),
            "anonymous_id": ["v-40417"],
            "item_id": ["i"],
            "type": ["purchase"],
            "timestamp": [now() + AHEAD],
        }
    )
    await store.imports.apply("one", frame, lambda *_: None)


async def chooses(store: Store) -> None:
    await store.people.update("preferences", "a:v-40417", having(hidden_brands=["B"]), "v")


@pytest.mark.parametrize(
    ("act", "writer"), [(appends, "events"), (imports, "imports"), (chooses, "people")]
)
async def test_what_a_visitor_does_while_the_user_is_erased_is_the_visitors(
    store: Store, other: Store, act: Callable[[Store], Awaitable[None]], writer: str
) -> None:
    await store.merger.merge("ann-77131", "v-40417", now())
    before_it_writes(
        getattr(store, writer)._scripts, lambda: other.forgetting.erase("u:ann-77131", "test")
    )
    await act(store)
    names = await mentions(store, "ann-77131")
    assert {name[:2] for name in names} <= {b"e:"}, "only the merge, which waits for the archive"
    assert [name for name in await mentions(store, "v-40417") if name[:2] in (b"h:", b"p:")]


async def test_an_erasure_that_was_killed_before_the_visitors_is_finished_by_whoever_meets_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live(store, "ann-77131", "v-40417")

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store.forgetting, "_leave", killed)
        with pytest.raises(Killed):
            await store.forgetting.erase("u:ann-77131", "test")
    assert await store._redis.get(keys.link("a:v-40417")) == b"=u:ann-77131"
    result = await store.events.append([did(1, visitor="v-40417"), did(8, user="ann-77131")])
    assert result.accepted == 2
    assert await store._redis.get(keys.link("a:v-40417")) is None
    for person in ("u:ann-77131", "a:v-40417"):
        assert (await store.load_state(person)).counts.tolist() == [1]
    # Who was erased is still known to whoever asks again.
    erased = await store.forgetting.erase("u:ann-77131", "test")
    assert set(erased.people) == {"u:ann-77131", "a:v-40417"}
    assert (await store.load_state("a:v-40417")).counts.tolist() == [1]


async def test_who_signs_in_again_is_found_by_the_next_erasure(store: Store) -> None:
    await store.merger.merge("ann", "v", now())
    await store.forgetting.erase("u:ann", "test", note=True)
    assert await store._redis.hgetall(keys.merges("u:ann")) == {b"a:v": b"x"}
    with pytest.raises(Killed):
        await dying(store.merger, "_seal", before=False).merge("ann", "v", now())
    await store.forgetting.leave_journal("u:ann")
    erased = await store.forgetting.erase("u:ann", "test")
    assert erased.people == ("u:ann", "a:v")
    assert await store._redis.get(keys.link("a:v")) is None


async def test_a_sign_in_that_was_killed_beside_an_erasure_leaves_no_link(store: Store) -> None:
    early = now()
    await store.forgetting.erase("u:ann-77131", "test")
    with pytest.raises(Killed):
        await dying(store.merger, "_seal", before=False).merge("ann-77131", "v-40417", early)
    assert await store._redis.get(keys.link("a:v-40417"))
    await store.forgetting.forget_markers(["u:ann-77131"])
    assert await store._redis.get(keys.link("a:v-40417")) is None


async def test_a_visitor_who_is_a_user_is_erased_with_the_user_only(store: Store) -> None:
    await live(store, "ann", "v")
    for forget in (store.forgetting.erase, store.forgetting.forget_taste):
        with pytest.raises(ConflictError, match="signed in"):
            await forget("a:v", "test")
    assert (await store.load_state("u:ann")).counts.sum()
    with pytest.raises(Killed):
        await dying(store.merger, "_seal", before=False).merge("bob", "w", now())
    with pytest.raises(ConflictError, match="signed in"):
        await store.forgetting.erase("a:w", "test")


async def test_who_signs_in_after_the_visitor_was_erased_keeps_the_link(store: Store) -> None:
    """A sign-in that read its clock before the erasure of the visitor, and sealed after it."""
    early = now()
    await store.events.append([did(1, visitor="v")])
    await store.forgetting.erase("a:v", "test")
    await store.merger.merge("ann", "v", early)
    guard, *_ = await store.forgetting.guards(["a:v"])
    (entry,) = [one for one in await store.streams.read({}, 9) if b'"merge"' in one.body]
    at = datetime.fromisoformat(orjson.loads(entry.body)["timestamp"])
    assert epoch_ms(at) >= guard.cut.erased_ms
    held: Any = await store._redis.get(keys.link("a:v"))
    assert read_link(held) == Link("u:ann", None)
    assert not (await store.load_state("u:ann")).counts.sum()
