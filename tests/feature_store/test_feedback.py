"""What people say of the shop: refused or kept, the same live, imported and added up."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.event_log import EventLog
from feature_store.facts import fact_frame, facts_of
from feature_store.feedback import feedback_row, read_feedback
from feature_store.ingest.events import EventOptions
from feature_store.ingest.run import import_events
from feature_store.ingest.source import find_sources
from feature_store.schema import SURVEY_SCALES, Event, EventType
from feature_store.state import (
    EMPTY_STATE,
    FIRST_PSEUDO_ROW,
    UserState,
    fold,
    fold_frame,
    hot_of,
    items_of,
)
from feature_store.store import Store
from tests.feature_store.events import columns_of, said

AT = 1_780_000_000


def state_of(*events: Event) -> UserState:
    """Fold single events, all items having the row 7."""
    facts = [
        (row, kind, int(event.timestamp.timestamp()))
        for event in events
        for row, kind in facts_of(event, None if event.item_id is None else 7)
    ]
    return fold(EMPTY_STATE, *columns_of(facts))


def survey(instrument: str, score: float, at_s: int = AT) -> Event:
    return said("survey", at_s, instrument=instrument, score=score)


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("survey", {"score": 9}, "needs an instrument: nps, csat, ces"),
        ("survey", {"instrument": "nps"}, "nps needs a whole score from 0 to 10"),
        ("survey", {"instrument": "nps", "score": 11}, "from 0 to 10"),
        ("survey", {"instrument": "nps", "score": 8.5}, "whole score"),
        ("survey", {"instrument": "nps", "score": float("nan")}, "whole score"),
        ("survey", {"instrument": "csat", "score": 0}, "csat needs a whole score from 1 to 5"),
        ("survey", {"instrument": "ces", "score": 8}, "ces needs a whole score from 1 to 7"),
        ("rating", {"item_id": "x", "value": 0.9}, "value of a rating is from 1 to 5"),
        ("rating", {"item_id": "x", "value": 6}, "value of a rating is from 1 to 5"),
        ("rating", {"value": 3}, "needs an item_id"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(
    kind: str, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        said(kind, AT, **fields)


def test_the_last_answer_the_mean_and_the_count_are_known() -> None:
    state = state_of(
        survey("nps", 10, AT),
        survey("nps", 3, AT + 60),
        survey("nps", 3, AT + 20),
        survey("csat", 5),
        said("complaint", AT + 5),
        said("complaint", AT + 1),
        said("rating", AT, item_id="x", value=4.5),
        said("rating", AT + 9, item_id="x", value=1),
        said("rating", AT + 99, item_id="x"),
    )
    assert read_feedback(hot_of(state)) == {
        "nps": {"score": 3, "at": "2026-05-28T20:27:40Z", "count": 3, "mean": 5.3333},
        "csat": {"score": 5, "at": "2026-05-28T20:26:40Z", "count": 1, "mean": 5.0},
        "complaints": {"count": 2, "at": "2026-05-28T20:26:45Z"},
        "ratings": {"count": 2, "mean": 2.75, "at": "2026-05-28T20:26:49Z"},
    }
    # Of the item itself: a like, a dislike, a rating without a value. It alone is in the session.
    assert items_of(state).counts.tolist() == [1, 1, 1]
    assert set(state.session_rows.tolist()) == {7}
    assert read_feedback(EMPTY_STATE) == read_feedback(items_of(state)) == {}


def test_of_two_answers_in_one_second_the_lower_counts() -> None:
    assert read_feedback(state_of(survey("ces", 7), survey("ces", 2)))["ces"]["score"] == 2


def test_no_two_answers_share_a_row() -> None:
    events = [
        survey(name, score)
        for name, (low, high) in SURVEY_SCALES.items()
        for score in range(low, high + 1)
    ]
    events += [said("rating", AT, item_id="x", value=tenth / 10) for tenth in range(10, 51)]
    events.append(said("complaint", AT))
    rows = [feedback_row(event) for event in events]
    assert len(set(rows)) == len(rows)
    assert all(row is not None and FIRST_PSEUDO_ROW <= row < 2**32 for row in rows)


FEEDBACK = st.one_of(
    *(
        st.builds(survey, st.just(name), st.integers(low, high), st.integers(AT, AT + 9))
        for name, (low, high) in SURVEY_SCALES.items()
    ),
    st.builds(said, st.just("complaint"), st.integers(AT, AT + 9)),
    st.builds(
        lambda at_s, value: said("rating", at_s, item_id="x", value=value),
        st.integers(AT, AT + 9),
        st.none() | st.floats(1, 5),
    ),
    st.builds(
        lambda kind, at_s: said(kind, at_s, item_id="x"),
        st.sampled_from(["view", "purchase", "impression"]),
        st.integers(AT, AT + 9),
    ),
)


def log_of(events: list[Event]) -> pl.DataFrame:
    """Return events as the log has them."""
    fields = ("instrument", "score", "value")
    extras = [
        orjson.dumps(
            {name: getattr(one, name) for name in fields if getattr(one, name) is not None}
        )
        for one in events
    ]
    return pl.DataFrame(
        {
            "user_id": [one.user_id for one in events],
            "anonymous_id": [one.anonymous_id for one in events],
            "item_id": [one.item_id for one in events],
            "type": [one.type.value for one in events],
            "timestamp": [one.timestamp for one in events],
            "extra": [None if extra == b"{}" else extra.decode() for extra in extras],
        },
        schema_overrides=dict.fromkeys(("anonymous_id", "item_id", "extra"), pl.String),
    )


@settings(deadline=None)
@given(st.lists(FEEDBACK, min_size=1, max_size=60))
def test_a_log_gives_the_facts_that_single_events_give(events: list[Event]) -> None:
    expected = state_of(*events)
    found = dict(fold_frame(fact_frame(log_of(events), {"x": 7})))
    assert found == ({"u:ann": expected} if len(expected.rows) else {})


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("survey", '{"instrument": "nps", "score": 11}'),
        ("survey", '{"instrument": "csat", "score": 2.5}'),
        ("survey", '{"instrument": "fun", "score": 2}'),
        ("survey", None),
        ("rating", '{"value": 9}'),
        ("rating", '{"value": 1e300}'),
    ],
)
def test_what_a_file_brought_past_the_checks_is_no_fact(kind: str, extra: str | None) -> None:
    frame = log_of([survey("nps", 3)]).with_columns(
        type=pl.lit(kind), extra=pl.lit(extra, dtype=pl.String)
    )
    assert fact_frame(frame, {}).is_empty()


async def test_live_and_imported_states_are_the_same_bytes(store: Store) -> None:
    events = [
        survey("nps", 9),
        said("complaint", AT + 1),
        said("rating", AT + 2, item_id="i", value=4.05),
        said("rating", AT + 3, item_id="i"),
        said("purchase", AT + 4, item_id="j"),
        survey("ces", 1, AT + 5),
    ]
    await store.events.append(events[3:])
    await store.events.append(events)
    live = await store.load_state("u:ann")
    frame = log_of(events).with_columns(user_id=pl.lit("bob"))
    await store.imports.apply("one", frame, lambda *_: None)
    assert live == await store.load_state("u:bob")
    # What only says something of the shop makes a person known, but is no taste.
    await store.events.append([said("survey", AT, user_id="eve", instrument="nps", score=0)])
    context = await store.load_context("u:eve")
    assert context.state.n_item_facts == 0
    assert read_feedback(context.state)["nps"]["score"] == 0


def test_the_newest_256_items_leave_feedback_where_it_is() -> None:
    old = [(FIRST_PSEUDO_ROW + 3, 15, 5), (FIRST_PSEUDO_ROW + 9, 15, 6)]
    facts = old + [(row, 0, AT + row) for row in range(300)]
    hot = hot_of(fold(EMPTY_STATE, *columns_of(facts)))
    assert len(hot.rows) == 256 + 2
    assert read_feedback(hot)["nps"]["count"] == 2


def test_the_code_of_a_survey_is_what_the_tests_say() -> None:
    assert list(EventType).index(EventType.SURVEY) == 15
    assert datetime.fromtimestamp(AT, UTC).year == 2026


def test_rows_of_a_file_are_refused_as_live_events_are(tmp_path: Path) -> None:
    file = tmp_path / "said.csv"
    file.write_text(
        "user_id,item_id,timestamp,type,value,instrument,score\n"
        "a,,2026-01-01,survey,,nps,0\n"
        "a,,2026-01-01,survey,,NPS,9\n"
        "a,,2026-01-01,survey,,,9\n"
        "a,,2026-01-01,survey,,csat,0\n"
        "a,,2026-01-01,survey,,csat,2.5\n"
        "a,,2026-01-01,survey,,csat,\n"
        "a,,2026-01-01,complaint,,,\n"
        "a,i,2026-01-01,rating,5,,\n"
        "a,i,2026-01-01,rating,,,\n"
        "a,i,2026-01-01,rating,5.1,,\n"
        "a,i,2026-01-01,rating,good,,\n"
        "a,i,2026-01-01,view,17,,\n"
    )
    log = EventLog(tmp_path / "data")
    options = EventOptions(now=datetime(2026, 6, 1, tzinfo=UTC))
    summary = import_events(log, find_sources(str(file)), {}, options, fold=lambda *_: None)
    assert summary.rejected == {"bad_score": 3, "bad_instrument": 2, "bad_value": 2}
    frame = fact_frame(log.scan().collect(), {"i": 1})
    ((_, state),) = fold_frame(frame)
    assert {name: said["count"] for name, said in read_feedback(state).items()} == {
        "nps": 1,
        "ratings": 1,
        "complaints": 1,
    }
