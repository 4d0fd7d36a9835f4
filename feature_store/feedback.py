"""What a person said of the shop: surveys, complaints and ratings, kept as facts of their state.

Each possible answer has a pseudo row, so that the fold that counts purchases of an item counts
answers too, in any order and exactly: how often each score was given, when first and when last.

===========  =====================================================  ==================
instrument   scale                                                  step of a row
===========  =====================================================  ==================
``nps``      0 to 10, "would you recommend us" (Reichheld, 2003)    one point
``csat``     1 to 5, how satisfied                                  one point
``ces``      1 to 7, how easy it was made                           one point
ratings      1 to 5, of any item                                    a tenth of a point
complaints   none                                                   one row
===========  =====================================================  ==================
"""

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import polars as pl

from feature_store.schema import RATING_SCALE, SURVEY_SCALES, Event, EventType, format_time
from feature_store.state import FIRST_PSEUDO_ROW, UserState

STEPS = 64
"""Pseudo rows of one instrument, one for each step of its scale."""
INSTRUMENTS: Final = {"nps": 0, "csat": 1, "ces": 2, "rating": 3, "complaint": 4}
"""Numbers in stored rows: a new one is added at the end."""
RATING_STEPS = 10
"""Steps of one point of a rating."""

PROMOTERS_FROM, DETRACTORS_UPTO = 9, 6
"""Of answers to the NPS question; the score is the share of promoters less that of detractors."""
SATISFIED_FROM = 4
"""From this answer on a customer is counted as satisfied (CSAT)."""


def _first_row(instrument: str) -> int:
    return FIRST_PSEUDO_ROW + STEPS * INSTRUMENTS[instrument]


def feedback_row(event: Event) -> int | None:
    """Return the pseudo row of what an event says; ``None`` if it says nothing of this kind."""
    if event.type is EventType.SURVEY and event.instrument is not None and event.score is not None:
        return _first_row(event.instrument) + int(event.score)
    if event.type is EventType.RATING and event.value is not None:
        return _first_row("rating") + int(event.value * RATING_STEPS + 0.5)
    if event.type is EventType.COMPLAINT:
        return _first_row("complaint")
    return None


def feedback_rows() -> pl.Expr:
    """Return `feedback_row` over the log's columns ``type`` and ``extra``, null for none.

    What a file brought past `Event`'s own checks, a score out of range, has no row either.
    """
    extra = pl.col("extra")
    score, value = (
        extra.str.json_path_match(f"$.{name}").cast(pl.Float64, strict=False)
        for name in ("score", "value")
    )
    instrument = extra.str.json_path_match("$.instrument")
    kind, step = pl.col("type"), (value * RATING_STEPS + 0.5).floor()
    choices = [
        (kind == EventType.COMPLAINT.value, pl.lit(_first_row("complaint"))),
        (
            (kind == EventType.RATING.value) & value.is_between(*RATING_SCALE),
            step + _first_row("rating"),
        ),
    ]
    for name, (low, high) in SURVEY_SCALES.items():
        asked = (kind == EventType.SURVEY.value) & (instrument == name)
        whole = score.is_between(low, high) & (score == score.floor())
        choices.append((asked & whole, score + _first_row(name)))
    return pl.coalesce(
        *(pl.when(said).then(row.cast(pl.UInt32, strict=False)) for said, row in choices)
    )


def read_feedback(state: UserState) -> dict[str, Any]:
    """Return what a person said, as conditions and profiles show it.

    Parameters
    ----------
    state : UserState
        The `hot` part suffices.

    Returns
    -------
    dict
        ``nps``, ``csat``, ``ces``: ``{"score", "at", "count", "mean"}``, the score being the last
        one given (of two in the same second the lower one); ``ratings``: ``{"count", "mean",
        "at"}``; ``complaints``: ``{"count", "at"}``. ``at`` is the last time, RFC 3339. What was
        never said is not there.
    """
    first = state.n_item_facts
    if first == len(state.rows):
        return {}
    places = state.rows[first:] - np.uint32(FIRST_PSEUDO_ROW)
    counts, last_s = state.counts[first:].astype(np.int64), state.last_s[first:]
    found: dict[str, Any] = {}
    for name, number in INSTRUMENTS.items():
        mine = places // STEPS == number
        if not mine.any():
            continue
        steps, n, at_s = (places[mine] % STEPS).astype(np.int64), counts[mine], last_s[mine]
        said: dict[str, Any] = {"count": int(n.sum()), "at": _time(int(at_s.max()))}
        mean = float(steps @ n) / int(n.sum())
        if name == "rating":
            found["ratings"] = {**said, "mean": round(mean / RATING_STEPS, 4)}
        elif name == "complaint":
            found["complaints"] = said
        else:
            found[name] = {**said, "score": int(steps[at_s.argmax()]), "mean": round(mean, 4)}
    return found


def _time(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
