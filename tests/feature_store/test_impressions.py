"""What a person was shown: exact in any order, bounded, and apart from what the person did."""

import asyncio
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import keys
from feature_store.facts import fact_frame, people_of
from feature_store.impressions import (
    HOUR_S,
    MAX_CELLS,
    MAX_COUNT,
    NO_IMPRESSIONS,
    Impressions,
    add,
    fold,
    fold_frame,
    pack,
    unpack,
)
from feature_store.schema import EVENT_TYPE_CODES, EventType
from feature_store.state import EMPTY_STATE
from feature_store.store import Store
from tests.feature_store.events import said

AT = 1_780_000_000
CODE = EVENT_TYPE_CODES[EventType.IMPRESSION]

Shown = list[tuple[int, int]]
# Few rows and hours, so that cells meet; many of them, so that the bound is reached.
shown_strategy = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 30 * HOUR_S)), max_size=1500
) | st.builds(
    lambda seed, n: [
        tuple(pair)
        for pair in np.random.default_rng(seed).integers((0, 0), (60, 60 * HOUR_S), (n, 2)).tolist()
    ],
    st.integers(0, 99),
    st.integers(0, 2500),
)


def folded(shown: Shown, known: Impressions = NO_IMPRESSIONS) -> Impressions:
    columns = np.array(shown, dtype=np.uint32).reshape(-1, 2)
    return fold(known, columns[:, 0], columns[:, 1])


@settings(deadline=None)
@given(shown_strategy, st.randoms(use_true_random=False), st.integers(0, 1500))
def test_the_order_and_the_batches_of_arrival_are_irrelevant(
    shown: Shown, random: Any, cut: int
) -> None:
    at_once = folded(shown)
    shuffled = list(shown)
    random.shuffle(shuffled)
    assert folded(shuffled[cut:], folded(shuffled[:cut])) == at_once
    assert add(folded(shuffled[:cut]), folded(shuffled[cut:])) == at_once
    one_by_one = NO_IMPRESSIONS
    for start in range(0, len(shuffled), 100):
        one_by_one = unpack(pack(folded(shuffled[start : start + 100], one_by_one)))
    assert one_by_one == at_once


@settings(deadline=None)
@given(shown_strategy)
def test_the_newest_cells_are_what_a_plain_count_says(shown: Shown) -> None:
    counts: dict[tuple[int, int], int] = {}
    for row, at_s in shown:
        cell = (-(at_s // HOUR_S), row)
        counts[cell] = counts.get(cell, 0) + 1
    newest = sorted(counts.items())[:MAX_CELLS]
    found = folded(shown)
    assert sorted((row, -hour, count) for (hour, row), count in newest) == list(
        zip(found.rows.tolist(), found.hours.tolist(), found.counts.tolist(), strict=True)
    )


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["u:a", "u:b", "a:ü"]), shown_strategy))
def test_the_batched_fold_equals_the_single_one(people: dict[str, Shown]) -> None:
    rows = [(who, row, CODE, at_s) for who, shown in people.items() for row, at_s in shown]
    rows += [("u:other", 1, EVENT_TYPE_CODES[EventType.VIEW], 5)]
    schema = {"person": pl.String, "row": pl.UInt32, "type": pl.UInt8, "t_s": pl.UInt32}
    frame = pl.DataFrame(rows, schema=schema, orient="row").sample(fraction=1.0, shuffle=True)
    expected = {who: folded(shown) for who, shown in people.items() if shown}
    assert dict(fold_frame(frame)) == expected


def test_a_count_stops_at_its_bound_whatever_the_order() -> None:
    many = [(3, 10)] * (MAX_COUNT - 1)
    for parts in (([(3, 10)], many, many), (many, many, [(3, 10)])):
        total = NO_IMPRESSIONS
        for part in parts:
            total = folded(part, total)
        assert total.counts.tolist() == [MAX_COUNT]
    schema = {"person": pl.String, "row": pl.UInt32, "type": pl.UInt8, "t_s": pl.UInt32}
    frame = pl.DataFrame([("u:a", 3, CODE, 10)] * (MAX_COUNT + 5), schema=schema, orient="row")
    assert next(fold_frame(frame))[1].counts.tolist() == [MAX_COUNT]


def test_packing_is_exact_and_foreign_bytes_are_refused() -> None:
    some = folded([(1, 5), (1, HOUR_S), (70_000, 5)])
    assert unpack(pack(some)) == some
    assert pack(NO_IMPRESSIONS) == b""
    assert unpack(None) == unpack(b"") == NO_IMPRESSIONS
    assert len(pack(some)) == 4 + 10 * 3
    with pytest.raises(ValueError, match="truncated or corrupt"):
        unpack(pack(some)[:-1])
    with pytest.raises(ValueError, match="format 9"):
        unpack(b"\x09" + pack(some)[1:])


async def test_a_page_view_does_not_touch_the_state(store: Store) -> None:
    await store.events.append([said("view", AT, item_id="a")])
    server: Any = store._redis
    before = await server.get(keys.hot("u:ann"))
    # A value that no program could write: a page view that read and wrote it would notice.
    await server.set(keys.hot("u:ann"), b"untouched")
    shown = [said("impression", AT + at, item_id=f"i{at % 20}") for at in range(40)]
    assert (await store.events.append(shown)).accepted == 40
    assert await server.get(keys.hot("u:ann")) == b"untouched"
    await server.set(keys.hot("u:ann"), before)
    again = await store.events.append([*shown, said("impression", AT, item_id="i0")])
    assert (again.accepted, again.duplicates) == (1, 40)
    context = await store.load_context("u:ann")
    assert context.impressions == await store.load_impressions("u:ann")
    assert int(context.impressions.counts.sum()) == 41
    assert len(context.state.rows) == 1


async def test_one_batch_may_bring_both(store: Store) -> None:
    events = [
        said("impression", AT, item_id="a"),
        said("click", AT + 5, item_id="a"),
        said("impression", AT, recommendation_id="r", ranks=[1, 2]),
        said("search", AT, query="shoes"),
    ]
    assert (await store.events.append(events)).accepted == 4
    assert (await store.events.append(events)).duplicates == 4
    context = await store.load_context("u:ann")
    assert context.impressions.counts.tolist() == [1]
    assert context.state.counts.tolist() == [1]


async def test_many_writers_lose_no_impression(store: Store) -> None:
    other = await Store.open(store.url, read_timeout_s=5.0)
    events = [said("impression", AT + at, item_id=f"i{at % 3}") for at in range(60)]
    await asyncio.gather(
        *((store if at % 2 else other).events.append([event]) for at, event in enumerate(events)),
        *(other.events.append([event]) for event in events[:30]),
    )
    await other.close()
    assert (await store.load_impressions("u:ann")).counts.tolist() == [20, 20, 20]


async def test_live_and_imported_impressions_are_the_same_bytes(store: Store) -> None:
    events = [
        said(kind, AT + at * 700, item_id=f"i{at % 70}")
        for at in range(700)
        for kind in (["impression", "view"] if at % 9 == 0 else ["impression"])
    ]
    for start in range(0, len(events), 90):
        await store.events.append(events[start : start + 90])
    frame = pl.DataFrame(
        {
            "user_id": ["bob"] * len(events),
            "anonymous_id": pl.Series([None] * len(events), dtype=pl.String),
            "item_id": [event.item_id for event in events],
            "type": [event.type.value for event in events],
            "timestamp": [event.timestamp for event in events],
        }
    )
    for _ in range(2):
        await store.imports.apply("one", frame, lambda *_: None)
    live, imported = [await store.load_impressions(person) for person in ("u:ann", "u:bob")]
    assert live == imported
    assert len(live.rows) == MAX_CELLS
    assert await store.load_state("u:ann") == await store.load_state("u:bob")


def test_people_come_once_with_all_that_is_known_of_them() -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["a", "b", "b", "c"],
            "anonymous_id": pl.Series([None] * 4, dtype=pl.String),
            "item_id": ["x"] * 4,
            "type": ["impression", "impression", "view", "view"],
            "timestamp": pl.Series([AT * 1000] * 4).cast(pl.Datetime("ms", "UTC")),
        }
    )
    found = list(people_of(fact_frame(frame, {"x": 2})))
    assert [one.person for one in found] == ["u:a", "u:b", "u:c"]
    assert [len(one.state.rows) for one in found] == [0, 1, 1]
    assert [len(one.impressions.rows) for one in found] == [1, 1, 0]
    assert (found[0].state, found[2].impressions) == (EMPTY_STATE, NO_IMPRESSIONS)
