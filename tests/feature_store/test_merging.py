"""A visitor who signs in: one history, whatever happens in between, and however often."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.change_log import ChangeLog
from feature_store.embedded import EmbeddedServer
from feature_store.errors import ConflictError, RateLimitedError
from feature_store.event_log import EventLog
from feature_store.facts import PersonFacts, fact_frame, people_of
from feature_store.impressions import NO_IMPRESSIONS
from feature_store.merging import ROW_TYPE, Merger, merged_people, read_link
from feature_store.people import NAME as PEOPLE
from feature_store.preferences import (
    Preferences,
    stricter,
)
from feature_store.schema import Event, EventType, ItemId
from feature_store.state import EMPTY_STATE
from feature_store.store import Store

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def event(number: int, user: str | None = None, visitor: str | None = None) -> Event:
    return Event(
        event_id=f"e{number}",
        type=EventType.PURCHASE if number % 2 else EventType.VIEW,
        user_id=user,
        anonymous_id=visitor,
        item_id=ItemId(f"i{number % 5}"),
        timestamp=NOW + timedelta(seconds=number % 7),
    )


def visitor_frame() -> pl.DataFrame:
    """Return an import of one purchase of the visitor."""
    return pl.DataFrame(
        {
            "user_id": pl.Series([None], dtype=pl.String),
            "anonymous_id": ["v"],
            "item_id": ["i9"],
            "type": ["purchase"],
            "timestamp": [NOW],
        }
    )


async def total(store: Store, person: str) -> int:
    return int((await store.load_state(person)).counts.sum())


async def test_two_histories_become_one(store: Store) -> None:
    await store.events.append([event(1, "ann"), event(1, visitor="v"), event(2, visitor="v")])
    assert await store.merger.merge("ann", "v", NOW)
    assert await total(store, "u:ann") == 3
    assert await total(store, "a:v") == 0
    assert not await store.merger.merge("ann", "v", NOW)
    # Whoever asks for the visitor is answered from the one history.
    seen = await store.load_context("a:v")
    assert seen.state == (await store.load_context("u:ann")).state
    # Sent again, the visitor's events are known; new ones are the user's.
    again = await store.events.append([event(1, visitor="v"), event(3, visitor="v")])
    assert (again.accepted, again.duplicates, again.conflicts) == (1, 1, 0)
    assert await total(store, "u:ann") == 4
    assert not await store._redis.keys("?:*:a:v") or set(await store._redis.keys("?:*:a:v")) == {
        keys.link("a:v").encode()
    }


async def test_a_visitor_is_one_user_for_ever(store: Store) -> None:
    await store.merger.merge("ann", "v", NOW)
    with pytest.raises(ConflictError):
        await store.merger.merge("bob", "v", NOW)
    assert not await store.merger.merge("ann", "v", NOW)
    await store.merger.merge("ann", "w", NOW)
    assert await store._redis.hkeys(keys.merges("u:ann")) == [b"a:v", b"a:w"]


async def test_what_was_shown_and_chosen_goes_to_the_user(store: Store, tmp_path: Path) -> None:
    shown = [lawful(2, None, "v"), lawful(2, "ann", None), lawful(3, None, "v")]
    await store.events.append(shown)
    people = store.people
    await people.update("preferences", "a:v", lambda _: {"hidden_brands": ["B", "A"]}, "v")
    assert await people.count() == 1
    await store.merger.merge("ann", "v", NOW)
    assert (await store.load_impressions("u:ann")).counts.tolist() == [2, 1]
    assert await store.load_impressions("a:v") == NO_IMPRESSIONS
    held = await people.get("preferences", "u:ann")
    assert held is not None
    assert held["hidden_brands"] == ["A", "B"]
    assert await people.get("preferences", "a:v") is None
    assert await people.count() == 1
    # The change log knows both: that the user's choices changed, and that the visitor's are gone.
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    changes = [change.body for change in ChangeLog(tmp_path).read(PEOPLE)]
    assert {(one["person"], one["by"], one["body"] is None) for one in changes} == {
        ("a:v", "v", False), ("a:v", "merge", True), ("u:ann", "merge", False)
    }  # fmt: skip


async def test_the_stricter_choice_holds(store: Store) -> None:
    mine = Preferences(hidden_items=frozenset({ItemId("x")}), hidden_brands=frozenset({"B"}))
    theirs = Preferences(hidden_items=frozenset({ItemId("y")}), personalization=False)
    for person, chosen in (("u:ann", mine), ("a:v", theirs)):
        await store._redis.set(keys.preferences(person), chosen.model_dump_json())
    await store.merger.merge("ann", "v", NOW)
    held = (await store.load_context("u:ann")).preferences
    assert held == stricter(mine, theirs) == stricter(theirs, mine)
    assert held.hidden_items == {"x", "y"}
    assert not held.personalization


class Killed(BaseException):
    """What stands for the death of the process."""


STEPS = ("_seal", "_absorb", "_clear")


def dying(merger: Merger, step: str, *, before: bool) -> Merger:
    """Return a merger of a process that dies just before or after a step."""
    real: Callable[..., Any] = getattr(merger, step)

    async def die(**given: Any) -> Any:
        if not before:
            await real(**given)
        raise Killed

    other = Merger(merger._redis)
    setattr(other, step, die)
    return other


@pytest.mark.parametrize(("step", "before"), list(itertools.product(STEPS, (True, False))))
@pytest.mark.parametrize("next_comes", ["merge", "event", "import", "both"])
async def test_a_merge_that_died_is_completed_by_whoever_comes_next(
    store: Store, step: str, before: bool, next_comes: str
) -> None:
    await store.events.append([event(1, "ann"), event(2, visitor="v"), event(3, visitor="v")])
    with pytest.raises(Killed):
        await dying(store.merger, step, before=before).merge("ann", "v", NOW)
    expected, later = 3, NOW + timedelta(hours=1)
    if next_comes == "event":
        result = await store.events.append([event(2, visitor="v"), event(4, visitor="v")])
        assert (result.accepted, result.duplicates) == (1, 1)
        expected += 1
    elif next_comes == "import":
        for _ in range(2):
            await store.imports.apply("one", visitor_frame(), lambda *_: None)
        expected += 1
    elif next_comes == "both":
        other = Merger(store._redis)
        await asyncio.gather(
            store.merger.merge("ann", "v", later),
            other.merge("ann", "v", later),
            store.events.append([event(4, visitor="v"), event(5, "ann")]),
        )
        expected += 2
    await store.merger.merge("ann", "v", later)
    assert await total(store, "u:ann") == expected
    assert await total(store, "a:v") == 0
    redis: Any = store._redis
    link = read_link(await redis.get(keys.link("a:v")))
    assert link is not None
    assert link.complete
    # As a rebuild from the log would write it, however late the merge was completed.
    sealed = later if (step, before) == ("_seal", True) else NOW
    assert await redis.hgetall(keys.merges("u:ann")) == {b"a:v": b"%d" % sealed.timestamp()}


@pytest.mark.parametrize("what", ["event", "import"])
async def test_a_merge_between_the_reading_and_the_writing_of_a_state_is_noticed(
    store: Store, what: str
) -> None:
    # The visitor has no state before or after the merge: comparing states would see no change.
    runner = (store.events if what == "event" else store.imports)._scripts
    run, began = runner.run, False

    async def run_after_the_merge(script: str, calls: Any) -> list[int]:
        nonlocal began
        if not began:
            began = True
            await store.merger.merge("ann", "v", NOW)
        return await run(script, calls)

    runner.run = run_after_the_merge  # type: ignore[method-assign]
    if what == "event":
        await store.events.append([event(2, visitor="v")])
    else:
        await store.imports.apply("one", visitor_frame(), lambda *_: None)
    assert began
    assert await total(store, "u:ann") == 1
    assert await total(store, "a:v") == 0


async def test_the_ids_of_visitor_and_user_are_apart(store: Store) -> None:
    await store.events.append([event(1, visitor="v"), event(2, "ann")])
    await store.merger.merge("ann", "v", NOW)
    await store.merger.merge("ann", "w", NOW)
    news = [event(1, "ann"), event(2, visitor="v"), event(1, visitor="w"), event(2, visitor="w")]
    result = await store.events.append(news)
    assert (result.accepted, result.duplicates) == (4, 0)


async def test_an_import_before_and_after_the_merge_counts_once(store: Store) -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["ann", None],
            "anonymous_id": [None, "v"],
            "item_id": ["a", "b"],
            "type": ["purchase", "purchase"],
            "timestamp": [NOW, NOW],
        }
    )
    await store.imports.apply("one", frame, lambda *_: None)
    await store.merger.merge("ann", "v", NOW)
    await store.imports.apply("one", frame, lambda *_: None)
    assert await total(store, "u:ann") == 2
    await store.imports.apply("two", frame, lambda *_: None)
    await store.imports.apply("two", frame, lambda *_: None)
    assert await total(store, "u:ann") == 4


async def test_a_merge_is_in_the_log_and_can_be_repeated_from_it(
    store: Store, tmp_path: Path
) -> None:
    log = EventLog(tmp_path)
    archiver = Archiver(store.streams, log)
    await store.events.append([event(1, "ann"), event(2, visitor="v"), event(3, visitor="w")])
    await archiver.run_all()
    for _ in range(2):
        await store.merger.merge("ann", "v", NOW)
    await store.events.append([event(4, visitor="v"), event(5, "ann", "v")])
    await archiver.run_all()
    rows = log.scan().filter(pl.col("type") == ROW_TYPE).collect()
    assert rows.select("user_id", "anonymous_id").rows() == [("ann", "v")]
    people = merged_people(log.scan()).collect().sort("event_id")
    assert people["user_id"].to_list() == ["ann", "ann", None, "ann", "ann"]
    assert people["anonymous_id"].to_list() == [None, "v", "w", "v", "v"]


# --- the law ------------------------------------------------------------------------------------

WHO: list[tuple[str | None, str | None]] = [
    ("ann", None), (None, "v"), (None, "w"), ("bob", None), ("ann", "v"),
]  # fmt: skip
APPENDS = st.tuples(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(WHO)), min_size=1, max_size=4),
    st.sampled_from([None, *STEPS]),
)
ACTIONS = st.lists(
    APPENDS
    | st.tuples(st.sampled_from([("ann", "v"), ("bob", "w")]), st.sampled_from([None, *STEPS])),
    max_size=12,
)


def lawful(number: int, user: str | None, visitor: str | None) -> Event:
    """Return one of five events: done, shown and said."""
    kinds = ["view", "purchase", "impression", "impression", "survey"]
    fields: dict[str, Any] = {"instrument": "nps", "score": 7} if kinds[number] == "survey" else {}
    return Event(
        event_id=f"e{number}",
        type=EventType(kinds[number]),
        user_id=user,
        anonymous_id=visitor,
        item_id=None if fields else ItemId(f"i{number % 2}"),
        timestamp=NOW + timedelta(seconds=1801 * number),
        **fields,
    )


def as_log(sent: Iterable[Event], merged: dict[str, str]) -> pl.DataFrame:
    """Return what was sent as a log has it, each event its person's after all merges."""
    return pl.DataFrame(
        [
            {
                "user_id": one.user_id or merged.get(one.anonymous_id or ""),
                "anonymous_id": one.anonymous_id,
                "item_id": one.item_id,
                "type": one.type.value,
                "timestamp": one.timestamp,
                "extra": '{"instrument": "nps", "score": 7}' if one.instrument else None,
            }
            for one in sent
        ],
        schema={
            **dict.fromkeys(("user_id", "anonymous_id", "item_id", "type"), pl.String),
            "timestamp": pl.Datetime("ms", "UTC"),
            "extra": pl.String,
        },
    )


async def interleave(url: str, actions: list[Any], tmp_path: Path, at_once: bool) -> None:
    store = await Store.open(url, read_timeout_s=5.0)
    await store._redis.flushall()
    sent: dict[tuple[str, str], Event] = {}

    async def act(what: Any, dies: str | None = None) -> None:
        if isinstance(what, list):
            events = [lawful(number, *who) for number, who in what]
            for one in events:
                # The identity of an event: a signed-in user, or else the visitor, and its id.
                person = f"u:{one.user_id}" if one.user_id else f"a:{one.anonymous_id}"
                sent.setdefault((person, one.event_id), one)
            await store.events.append(events)
            return
        merger = store.merger if dies is None else dying(store.merger, dies, before=False)
        with contextlib.suppress(Killed):
            await merger.merge(what[0], what[1], NOW)

    if at_once:
        await asyncio.gather(*(act(*action) for action in actions))
    else:
        for action in actions:
            await act(*action)
    merged = {what[1]: what[0] for what, _ in actions if not isinstance(what, list)}
    for visitor, user in merged.items():
        await store.merger.merge(user, visitor, NOW)

    log = as_log(sent.values(), merged)
    names = ["i0", "i1"]
    rows = dict(zip(names, await store.catalogue.rows_of(names), strict=True))
    expected = {one.person: one for one in people_of(fact_frame(log, rows))}
    for person in ("u:ann", "u:bob", "a:v", "a:w"):
        facts = expected.get(person, PersonFacts(person, EMPTY_STATE, NO_IMPRESSIONS))
        assert await store.load_state(person) == facts.state, person
        assert await store.load_impressions(person) == facts.impressions, person
    # The log says the same: repeating its merges gives the same people.
    archive = EventLog(tmp_path)
    await Archiver(store.streams, archive).run_all()
    people = merged_people(archive.scan()).collect()
    assert len(people) == len(sent)
    whose = pl.coalesce("u:" + pl.col("user_id"), "a:" + pl.col("anonymous_id"))
    found, wanted = (frame.select(whose).to_series().to_list() for frame in (people, log))
    assert sorted(found) == sorted(wanted)
    await store.close()


@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS, at_once=st.booleans())
def test_any_interleaving_is_the_fold_of_all_events(
    server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[Any],
    at_once: bool,
) -> None:
    asyncio.run(interleave(server.url, actions, tmp_path_factory.mktemp("log"), at_once))


# --- what the public may send -------------------------------------------------------------------


async def test_a_visitor_may_send_so_much_a_minute(store: Store) -> None:
    take = store.quota.take
    await take({"v": 3, "w": 1}, 4, 120.0)
    await take({"v": 1}, 4, 179.0)
    with pytest.raises(RateLimitedError) as caught:
        await take({"w": 3, "v": 1}, 4, 150.0)
    assert caught.value.retry_after_s == 30
    await take({"w": 3}, 4, 150.0)  # what was refused whole used nothing up
    await take({"v": 4}, 4, 180.0)
    assert await store._redis.ttl(keys.quota("v", 3)) <= 120
