"""Events on a real server: exactly once, by many writers, and read by the next question."""

import asyncio
import contextlib
import os
import signal
from datetime import UTC, datetime

import polars as pl
import pytest

from feature_store import keys
from feature_store.embedded import EmbeddedServer
from feature_store.errors import OverloadedError, StoreUnavailableError
from feature_store.preferences import Preferences
from feature_store.schema import EVENT_TYPE_CODES, Event, EventType, ItemId
from feature_store.state import items_of, pack
from feature_store.state_writer import AppendResult
from feature_store.store import Store


def purchase(number: int, item: str = "x", user: str = "ann", second: int = 0) -> Event:
    return Event(
        event_id=f"e{number}",
        type=EventType.PURCHASE,
        user_id=user,
        item_id=ItemId(item),
        timestamp=datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC),
    )


async def test_an_event_counts_once_and_the_first_body_wins(store: Store) -> None:
    first = await store.events.append([purchase(1), purchase(2), purchase(1)])
    assert (first.accepted, first.duplicates, first.conflicts) == (2, 1, 0)
    again = await store.events.append([purchase(1), purchase(2, item="y"), purchase(3)])
    assert (again.accepted, again.duplicates, again.conflicts) == (1, 2, 1)
    state = await store.load_state("u:ann")
    assert state.counts.tolist() == [3]


async def test_ids_of_people_and_of_trust_classes_are_apart(store: Store) -> None:
    await store.events.append([purchase(1), purchase(1, user="bob")])
    public = await store.events.append([purchase(1)], trust="public")
    assert public.accepted == 1
    visitor = purchase(1).model_copy(update={"user_id": None, "anonymous_id": "ann"})
    assert (await store.events.append([visitor])).accepted == 1
    assert (await store.load_state("u:ann")).counts.tolist() == [2]
    assert (await store.load_state("a:ann")).counts.tolist() == [1]


async def test_writers_of_one_person_lose_nothing(server: EmbeddedServer, store: Store) -> None:
    other = await Store.open(server.url, read_timeout_s=5.0)
    numbers = range(200)
    results = await asyncio.gather(
        *(
            appended(
                store if number % 2 else other,
                purchase(number // 2, item=f"i{number // 2 % 7}", second=number // 2 % 60),
            )
            for number in numbers
        )
    )
    await other.close()
    assert sum(result.accepted for result in results) == 100
    assert sum(result.duplicates for result in results) == 100
    state = await store.load_state("u:ann")
    assert int(state.counts.sum()) == 100
    entries = await store._redis.xlen(keys.events(keys.shard_of("u:ann")))
    assert entries == 100


async def appended(store: Store, event: Event) -> AppendResult:
    """Append; whoever is told that too many write comes again."""
    while True:
        with contextlib.suppress(OverloadedError):
            return await store.events.append([event])


async def test_a_read_asked_after_the_answer_sees_the_write(
    server: EmbeddedServer, store: Store
) -> None:
    reader = await Store.open(server.url, read_timeout_s=5.0)
    for number in range(100):
        in_flight = [asyncio.ensure_future(reader.load_context("u:ann")) for _ in range(3)]
        await store.events.append([purchase(number, item=f"i{number}")])
        after = await reader.load_context("u:ann")
        assert len(after.state.rows) == number + 1
        await asyncio.gather(*in_flight)
    await reader.close()


async def test_a_lost_script_is_loaded_again(store: Store) -> None:
    await store.events.append([purchase(1)])
    await store._redis.script_flush()
    assert (await store.events.append([purchase(2)])).accepted == 1


async def test_every_id_has_one_row_for_ever(server: EmbeddedServer, store: Store) -> None:
    other = await Store.open(server.url, read_timeout_s=5.0)
    ids = ["a", "b/{c}%", "ü ", "a"]
    rows, others = await asyncio.gather(
        store.catalogue.rows_of(ids), other.catalogue.rows_of(list(reversed(ids)))
    )
    assert rows == others[::-1]
    assert sorted(set(rows)) == [0, 1, 2]
    changes = await other.catalogue.changes_since(0)
    assert changes is not None
    assert {change.row: change.item_ids[0] for change in changes} == dict(
        zip(rows, ids, strict=True)
    )
    assert (await store.load_context(None)).catalogue_sequence == 3
    await other.close()


async def test_an_import_counts_once_however_often_it_is_applied(store: Store) -> None:
    await store.events.append([purchase(1, item="a")])
    frame = pl.DataFrame(
        {
            "user_id": ["ann", "ann", None],
            "anonymous_id": [None, None, "guest"],
            "item_id": ["a", "b", "b"],
            "type": ["purchase", "view", "purchase"],
            "timestamp": [datetime(2025, 5, 1, tzinfo=UTC)] * 3,
        }
    )
    steps: list[tuple[int, int]] = []
    for _ in range(2):
        await store.imports.apply("one", frame, lambda done, n: steps.append((done, n)))
    assert steps[-1] == (2, 2)
    assert (await store.load_state("u:ann")).counts.tolist() == [2, 1]
    once = pack(await store.load_state("a:guest"))
    await store.imports.apply("two", frame, lambda *_: None)
    assert (await store.load_state("u:ann")).counts.tolist() == [3, 2]
    assert pack(await store.load_state("a:guest")) != once
    await store.imports.forget("one")
    assert not [key async for key in store._redis.scan_iter("i:*:one")]


async def test_preferences_come_with_the_context(store: Store) -> None:
    wanted = Preferences(hidden_items=frozenset({ItemId("x")}), hidden_brands=frozenset({"B"}))
    await store._redis.set(keys.preferences("u:ann"), wanted.model_dump_json())
    assert (await store.load_context("u:ann")).preferences == wanted


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreUnavailableError, match=r"redis://127\.0\.0\.1:1"):
        await Store.open("redis://user:hush@127.0.0.1:1/0")
    store = Store("unix:///nowhere/valkey.sock")
    with pytest.raises(StoreUnavailableError):
        await store.load_context("u:ann")
    await store.close()


async def test_a_server_that_hangs_costs_only_the_timeout(server: EmbeddedServer) -> None:
    store = await Store.open(server.url, read_timeout_s=0.25)
    await answered(store)
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError, match="250 ms"):
            await store.load_context("u:ann")
    finally:
        os.kill(pid, signal.SIGCONT)
    await answered(store)
    await store.close()


async def answered(store: Store) -> None:
    """Wait for an answer: a slow machine is like a server that hangs."""
    for _ in range(200):
        with contextlib.suppress(StoreUnavailableError):
            await store.load_context("u:ann")
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not answer again")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5.0, EventType.LIKE),
        (3.0, EventType.RATING),
        (1.0, EventType.DISLIKE),
        (None, EventType.RATING),
    ],
)
async def test_a_rating_says_what_it_means_live_and_imported(
    store: Store, value: float | None, kind: EventType
) -> None:
    rating = purchase(1).model_copy(update={"type": EventType.RATING, "value": value})
    await store.events.append([rating])
    frame = pl.DataFrame(
        {
            "user_id": ["bob"],
            "anonymous_id": [None],
            "item_id": [rating.item_id],
            "type": ["rating"],
            "timestamp": [rating.timestamp],
            "extra": [None if value is None else f'{{"value": {value}}}'],
        },
        schema_overrides={"anonymous_id": pl.String, "extra": pl.String},
    )
    await store.imports.apply("one", frame, lambda *_: None)
    states = [await store.load_state(person) for person in ("u:ann", "u:bob")]
    assert states[0] == states[1]
    assert items_of(states[0]).types.tolist() == [EVENT_TYPE_CODES[kind]]
