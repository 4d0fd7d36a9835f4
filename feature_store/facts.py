"""Which facts an event leaves behind, said once for a single event and once for a log of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import itemgetter

import numpy as np
import polars as pl

from feature_store import impressions
from feature_store.feedback import feedback_row, feedback_rows
from feature_store.impressions import NO_IMPRESSIONS, Impressions
from feature_store.schema import (
    DISLIKE_UPTO,
    EVENT_TYPE_CODES,
    FEEDBACK_EVENTS,
    LIKE_FROM,
    Event,
    EventType,
)
from feature_store.state import EMPTY_STATE, UserState, fold, fold_frame

_CODES = {kind.value: code for kind, code in EVENT_TYPE_CODES.items()}
_FEEDBACK = [kind.value for kind in FEEDBACK_EVENTS]


def facts_of(event: Event, row: int | None) -> list[tuple[int, int]]:
    """Return what a single event adds to a state.

    Parameters
    ----------
    event : Event
        The event.
    row : int or None
        Catalogue row of its item; ``None`` without one.

    Returns
    -------
    list of (int, int)
        Row and type code of each fact. A rating is a fact of its item (a like, a dislike, or
        neither) and one of its value; a type that `state.fold` passes over may be among them.
    """
    facts = []
    if row is not None and event.type not in _NOT_OF_ITEMS:
        facts.append((row, event.fact_code))
    said = feedback_row(event)
    if said is not None:
        facts.append((said, EVENT_TYPE_CODES[event.type]))
    return facts


_NOT_OF_ITEMS = FEEDBACK_EVENTS - {EventType.RATING}


def shown_rows(event: Event, row: int | None) -> list[int]:
    """Return the catalogue rows that an event says were shown.

    Parameters
    ----------
    event : Event
        The event.
    row : int or None
        Catalogue row of its item; ``None`` without one.

    Returns
    -------
    list of int
        Empty unless it is an impression of an item. One that names a decision and ranks instead
        says what was shown only to who knows the decision; it stands in the log alone.
    """
    return [row] if row is not None and event.type is EventType.IMPRESSION else []


def person_column() -> pl.Expr:
    """Return whose each event of a log is (``schema.person_of``), as the column ``person``."""
    return pl.coalesce("u:" + pl.col("user_id"), "a:" + pl.col("anonymous_id")).alias("person")


def fact_frame(events: pl.DataFrame, rows: Mapping[str, int]) -> pl.DataFrame:
    """Return `facts_of` all events of a log, as ``state.fold_frame`` reads them.

    Parameters
    ----------
    events : DataFrame
        Distinct events: ``user_id``, ``anonymous_id``, ``item_id``, ``type`` (str), ``timestamp``
        and, where there is more, ``extra`` (JSON).
    rows : mapping of str to int
        Catalogue row of each item.

    Returns
    -------
    DataFrame
        ``person`` (str), ``row`` (u32), ``type`` (u8) and ``t_s`` (u32).
    """
    person = person_column()
    at_s = (pl.col("timestamp").dt.epoch("ms") // 1000).cast(pl.UInt32).alias("t_s")
    row_of = pl.DataFrame(
        {"item_id": list(rows), "row": list(rows.values())}, {"item_id": str, "row": pl.UInt32}
    )
    without_item = [kind.value for kind in _NOT_OF_ITEMS]
    facts = (
        events.filter(~pl.col("type").is_in(without_item))
        .join(row_of, on="item_id")
        .select(person, "row", fact_codes(events.columns), at_s)
    )
    said = events.filter(pl.col("type").is_in(_FEEDBACK))
    if said.is_empty():
        return facts
    if "extra" not in said.columns:
        said = said.with_columns(extra=pl.lit(None, dtype=pl.String))
    code = pl.col("type").replace_strict(_CODES, return_dtype=pl.UInt8).alias("type")
    spoken = said.select(person, feedback_rows().alias("row"), code, at_s)
    return pl.concat([facts, spoken.drop_nulls("row")])


def fact_codes(columns: Sequence[str]) -> pl.Expr:
    """Return ``Event.fact_code`` over the log's columns ``type`` and, if it is there, ``extra``."""
    code = pl.col("type").replace_strict(_CODES, return_dtype=pl.UInt8).alias("type")
    if "extra" not in columns:
        return code
    value = pl.when(pl.col("type") == EventType.RATING.value).then(
        pl.col("extra").str.json_path_match("$.value").cast(pl.Float64, strict=False)
    )
    like, dislike = (EVENT_TYPE_CODES[kind] for kind in (EventType.LIKE, EventType.DISLIKE))
    return (
        pl.when(value >= LIKE_FROM)
        .then(pl.lit(like, pl.UInt8))
        .when(value <= DISLIKE_UPTO)
        .then(pl.lit(dislike, pl.UInt8))
        .otherwise(code)
        .alias("type")
    )


@dataclass(frozen=True, slots=True)
class PersonFacts:
    """All that some events say of one person.

    Parameters
    ----------
    person : str
        ``schema.person_of``.
    state : UserState
        What the person did and said.
    impressions : Impressions
        What the person was shown.
    """

    person: str
    state: UserState
    impressions: Impressions


def facts_of_events(person: str, events: Iterable[tuple[Event, int | None]]) -> PersonFacts:
    """Return what single events of one person say.

    Parameters
    ----------
    person : str
        Whose they are.
    events : iterable of (Event, int or None)
        Distinct events, each with the catalogue row of its item.
    """
    did: list[tuple[int, int, int]] = []
    shown: list[tuple[int, int]] = []
    for event, row in events:
        at_s = int(event.timestamp.timestamp())
        did += ((*fact, at_s) for fact in facts_of(event, row))
        shown += ((one, at_s) for one in shown_rows(event, row))
    rows, types, times_s = zip(*did, strict=True) if did else ((), (), ())
    state = fold(
        EMPTY_STATE,
        np.array(rows, dtype=np.uint32),
        np.array(types, dtype=np.uint8),
        np.array(times_s, dtype=np.uint32),
    )
    pairs = np.array(shown, dtype=np.uint32).reshape(-1, 2)
    return PersonFacts(person, state, impressions.fold(NO_IMPRESSIONS, pairs[:, 0], pairs[:, 1]))


def people_of(facts: pl.DataFrame) -> Iterator[PersonFacts]:
    """Yield everybody of whom facts (`fact_frame`) say something, sorted by person."""
    states = ((person, 0, state) for person, state in fold_frame(facts))
    shown = ((person, 1, seen) for person, seen in impressions.fold_frame(facts))
    both = merge(states, shown, key=itemgetter(0, 1))
    for person, parts in groupby(both, key=itemgetter(0)):
        found = {place: part for _, place, part in parts}
        state, seen = found.get(0, EMPTY_STATE), found.get(1, NO_IMPRESSIONS)
        assert isinstance(state, UserState)
        assert isinstance(seen, Impressions)
        yield PersonFacts(person, state, seen)
