"""The laws of a state: order is irrelevant, nothing is lost, bytes say the same."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.schema import EVENT_TYPE_CODES, EventType
from feature_store.state import (
    EMPTY_STATE,
    FIRST_PSEUDO_ROW,
    FOLDED_CODES,
    HOT_ITEMS,
    SESSION_EVENTS,
    UserState,
    add,
    fold,
    fold_frame,
    hot_of,
    items_of,
    join,
    pack,
    split,
    unpack,
)

EventTuple = tuple[int, int, int]
events_strategy = st.lists(
    st.tuples(
        st.integers(0, 700) | st.integers(FIRST_PSEUDO_ROW, FIRST_PSEUDO_ROW + 300),
        st.sampled_from(list(EVENT_TYPE_CODES.values())),
        st.integers(0, 2**32 - 1),
    ),
    max_size=400,
)


def folded(events: list[EventTuple], state: UserState = EMPTY_STATE) -> UserState:
    columns = list(zip(*events, strict=True)) if events else [(), (), ()]
    return fold(
        state,
        np.array(columns[0], dtype=np.uint32),
        np.array(columns[1], dtype=np.uint8),
        np.array(columns[2], dtype=np.uint32),
    )


@given(events_strategy, st.randoms(use_true_random=False), st.integers(0, 400))
def test_the_order_and_the_batches_of_arrival_are_irrelevant(
    events: list[EventTuple], random: object, cut: int
) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    at_once = folded(events)
    assert folded(shuffled[cut:], folded(shuffled[:cut])) == at_once
    assert add(folded(shuffled[:cut]), folded(shuffled[cut:])) == at_once


@given(events_strategy)
def test_facts_are_what_a_plain_count_says(events: list[EventTuple]) -> None:
    state = folded(events)
    expected: dict[tuple[int, int], list[int]] = {}
    for row, kind, time_s in events:
        if kind in FOLDED_CODES:
            expected.setdefault((row, kind), []).append(time_s)
    facts = zip(
        state.rows.tolist(),
        state.types.tolist(),
        state.counts.tolist(),
        state.first_s.tolist(),
        state.last_s.tolist(),
        strict=True,
    )
    assert [
        (row, kind, len(times), min(times), max(times))
        for (row, kind), times in sorted(expected.items())
    ] == list(facts)
    newest = sorted(
        (-time_s, kind, row)
        for row, kind, time_s in events
        if kind in FOLDED_CODES and row < FIRST_PSEUDO_ROW
    )[:SESSION_EVENTS]
    session = zip(
        state.session_s.tolist(),
        state.session_types.tolist(),
        state.session_rows.tolist(),
        strict=True,
    )
    assert [(-time_s, kind, row) for time_s, kind, row in session] == newest


@given(events_strategy)
def test_hot_and_rest_are_a_partition_by_age(events: list[EventTuple]) -> None:
    state = folded(events)
    hot, rest = split(state)
    assert join(hot, rest) == state
    hot_items = set(items_of(hot).rows.tolist())
    assert len(hot_items) <= HOT_ITEMS
    assert not set(hot.rows.tolist()) & set(rest.rows.tolist())
    assert hot.n_item_facts == len(items_of(hot).rows)
    assert rest.n_item_facts == len(rest.rows)
    if len(rest.rows):
        assert len(hot_items) == HOT_ITEMS
        newest_of_rest = max(rest.last_s.tolist())
        oldest_of_hot = min(max(hot.last_s[hot.rows == row].tolist()) for row in hot_items)
        assert newest_of_rest <= oldest_of_hot


@given(events_strategy, events_strategy)
def test_writing_through_hot_and_rest_loses_nothing(
    earlier: list[EventTuple], later: list[EventTuple]
) -> None:
    hot, rest = split(folded(earlier))
    stored = (pack(hot), pack(rest))
    again = folded(later, join(unpack(stored[0]), unpack(stored[1])))
    assert again == folded(earlier + later)
    assert hot_of(again) == split(folded(later + earlier))[0]


@given(events_strategy)
def test_packing_is_exact(events: list[EventTuple]) -> None:
    state = folded(events)
    assert unpack(pack(state)) == state
    assert pack(unpack(pack(state))) == pack(state)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["u:a", "u:b", "a:ü"]), events_strategy))
def test_the_batched_fold_equals_the_single_one(people: dict[str, list[EventTuple]]) -> None:
    rows = [(person, *event) for person, events in people.items() for event in events]
    schema = {"person": pl.String, "row": pl.UInt32, "type": pl.UInt8, "t_s": pl.UInt32}
    frame = pl.DataFrame(rows, schema=schema, orient="row").sample(fraction=1.0, shuffle=True)
    expected = {person: folded(events) for person, events in people.items()}
    expected = {person: state for person, state in expected.items() if state != EMPTY_STATE}
    assert dict(fold_frame(frame)) == expected


def test_an_empty_state_needs_no_key() -> None:
    assert pack(EMPTY_STATE) == b""
    assert unpack(None) == unpack(b"") == EMPTY_STATE


def test_a_truncated_or_foreign_value_is_refused() -> None:
    packed = pack(folded([(1, EVENT_TYPE_CODES[EventType.PURCHASE], 5)]))
    with pytest.raises(ValueError, match="truncated or corrupt"):
        unpack(packed[:-1])
    with pytest.raises(ValueError, match="format 9"):
        unpack(b"\x09" + packed[1:])
