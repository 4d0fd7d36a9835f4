"""What customers said of the shop over time, for all of them and for parts of them."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Literal

import polars as pl

from feature_store.event_log import EventLog
from feature_store.feedback import (
    DETRACTORS_UPTO,
    INSTRUMENTS,
    PROMOTERS_FROM,
    RATING_STEPS,
    SATISFIED_FROM,
    STEPS,
    feedback_rows,
)
from feature_store.merging import ROW_TYPE, merged_people
from feature_store.schema import FEEDBACK_EVENTS
from feature_store.state import FIRST_PSEUDO_ROW

Interval = Literal["day", "week", "month"]
_EVERY = {"day": "1d", "week": "1w", "month": "1mo"}
_KINDS = [kind.value for kind in FEEDBACK_EVENTS]

Members = Mapping[str, Collection[str]]
"""Segment → its people (``schema.person_of``); people who said nothing may be left out."""


def read_answers(log: EventLog, start: datetime, end: datetime) -> pl.DataFrame:
    """Read what people said from the archive.

    Parameters
    ----------
    log : EventLog
        Where it stands, within seconds of being said.
    start, end : datetime with a zone
        The first moment that counts, and the first that no longer does.

    Returns
    -------
    DataFrame
        ``person`` (str; of a visitor who signed in, the user), ``at`` (UTC), ``instrument`` (str:
        ``nps``, ``csat``, ``ces``, ``rating``, ``complaint``) and ``score`` (f64).
    """
    place = pl.col("row") - FIRST_PSEUDO_ROW
    names = {number: name for name, number in INSTRUMENTS.items()}
    step = (place % STEPS).cast(pl.Float64)
    with log.reading():
        # A visitor may have signed in at any time: all merges are read; else the days asked for.
        merges = log.scan().filter(pl.col("type") == ROW_TYPE)
        said = log.scan(start, end).filter(pl.col("type").is_in(_KINDS))
        return (
            merged_people(pl.concat([merges, said]))
            .select(
                pl.coalesce("u:" + pl.col("user_id"), "a:" + pl.col("anonymous_id")).alias(
                    "person"
                ),
                pl.col("timestamp").alias("at"),
                feedback_rows().alias("row"),
            )
            .drop_nulls("row")
            .with_columns((place // STEPS).replace_strict(names).alias("instrument"))
            .select(
                "person",
                "at",
                "instrument",
                pl.when(pl.col("instrument") == "rating")
                .then(step / RATING_STEPS)
                .otherwise(step)
                .alias("score"),
            )
            .collect()
        )


def feedback_report(
    answers: pl.DataFrame, interval: Interval, members: Members | None = None
) -> dict[str, Any]:
    """Sum up answers by period, overall and for each segment.

    Parameters
    ----------
    answers : DataFrame
        See `read_answers`.
    interval : {"day", "week", "month"}
        Length of a period in UTC; a week begins on Monday.
    members : mapping of str to collection of str, optional
        Who is in each segment, now: the report asks what today's segment said then.

    Returns
    -------
    dict
        ``overall`` and ``segments`` (``[{"segment", "total", "periods"}]``); a part has a
        ``total`` and its ``periods`` in order, each with ``start`` and, where somebody answered,
        ``nps``, ``csat``, ``ces``, ``ratings`` and ``complaints``. Periods without any are left
        out. NPS is the percentage of promoters (9, 10) less that of detractors (0 to 6), from -100
        to 100 (Reichheld, "The One Number You Need to Grow", Harvard Business Review, 2003).
    """
    answers = answers.with_columns(pl.col("at").dt.truncate(_EVERY[interval]).alias("start"))
    segments = [
        {"segment": name, **_part(answers.filter(pl.col("person").is_in(list(people))))}
        for name, people in sorted((members or {}).items())
    ]
    return {"overall": _part(answers), "segments": segments}


def _part(answers: pl.DataFrame) -> dict[str, Any]:
    periods: dict[datetime, dict[str, Any]] = {}
    for start, name, summary in _summaries(answers):
        periods.setdefault(start, {"start": start})[name] = summary
    whole = answers.with_columns(start=pl.lit(None, dtype=pl.Datetime("ms", "UTC")))
    return {
        "total": {name: summary for _, name, summary in _summaries(whole)},
        "periods": list(periods.values()),
    }


def _summaries(answers: pl.DataFrame) -> list[tuple[datetime, str, dict[str, Any]]]:
    score = pl.col("score")
    table = (
        answers.group_by("start", "instrument")
        .agg(
            pl.len().alias("count"),
            score.mean().alias("mean"),
            (score >= PROMOTERS_FROM).sum().alias("promoters"),
            (score <= DETRACTORS_UPTO).sum().alias("detractors"),
            (score >= SATISFIED_FROM).sum().alias("satisfied"),
        )
        .sort("start", "instrument")
    )
    found = []
    for row in table.iter_rows(named=True):
        count, mean = row["count"], round(row["mean"], 4)
        said: dict[str, Any] = {"count": count}
        match row["instrument"]:
            case "nps":
                promoters, detractors = row["promoters"], row["detractors"]
                said |= {"mean": mean, "promoters": promoters, "detractors": detractors}
                said["passives"] = count - promoters - detractors
                said["nps"] = round(100 * (promoters - detractors) / count, 2)
            case "csat":
                said |= {"mean": mean, "satisfied_share": round(row["satisfied"] / count, 4)}
            case "ces" | "rating":
                said["mean"] = mean
        found.append((row["start"], _NAMES.get(row["instrument"], row["instrument"]), said))
    return found


_NAMES = {"rating": "ratings", "complaint": "complaints"}
