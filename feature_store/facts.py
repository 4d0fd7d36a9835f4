"""Which facts an event leaves behind, said once for a single event and once for a log of them."""

from collections.abc import Mapping, Sequence

import polars as pl

from feature_store.feedback import feedback_row, feedback_rows
from feature_store.schema import (
    DISLIKE_UPTO,
    EVENT_TYPE_CODES,
    FEEDBACK_EVENTS,
    LIKE_FROM,
    Event,
    EventType,
)

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
    person = pl.coalesce("u:" + pl.col("user_id"), "a:" + pl.col("anonymous_id")).alias("person")
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
