"""Whose events may be learned from, by what the archive knows of their preferences."""

from collections.abc import Iterator
from typing import Any

import orjson
import polars as pl

from feature_store.change_log import ChangeLog
from feature_store.links import ROW_TYPE
from feature_store.preferences import ProfilingDefault, profiling_allowed, read_preferences

_PEOPLE = "people"
_MARK = b'"kind":"preferences"'


def consenting(log: pl.LazyFrame, changes: ChangeLog, default: ProfilingDefault) -> pl.LazyFrame:
    """Leave out the events of people who may not be profiled.

    Events of theirs are not stored while that is so; these are from before.

    Parameters
    ----------
    log : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``. What a visitor did who has signed in is the
        user's to allow.
    changes : ChangeLog
        Has the preferences; archive what waits before.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.

    Returns
    -------
    LazyFrame
        The same columns; rows of type ``merge`` stay.
    """
    # Whoever said something other than the default: only these need be remembered.
    others = [
        person
        for person, body in _preferences(changes).items()
        if profiling_allowed(read_preferences(orjson.dumps(body)), default)
        is not (default == "opt_out")
    ]
    if not others and default == "opt_out":
        return log
    users = [one.removeprefix("u:") for one in others if one.startswith("u:")]
    visitors = [one.removeprefix("a:") for one in others if one.startswith("a:")]
    is_merge = pl.col("type") == ROW_TYPE
    links = (
        log.filter(is_merge)
        .sort("timestamp")
        .unique("anonymous_id", keep="first")
        .select("anonymous_id", pl.col("user_id").alias("_signed_in"))
    )
    user = pl.coalesce("user_id", "_signed_in")
    named = (
        pl.when(user.is_not_null())
        .then(user.is_in(users))
        .otherwise(pl.col("anonymous_id").is_in(visitors))
    ).fill_null(value=False)
    kept = ~named if default == "opt_out" else named
    joined = log.join(links, on="anonymous_id", how="left")
    return joined.filter(is_merge | kept).drop("_signed_in")


def _preferences(changes: ChangeLog) -> dict[str, Any]:
    """Return the newest preferences of everybody who has any."""
    found: dict[str, Any] = {}
    for entry in _entries(changes):
        if entry["kind"] != "preferences":
            continue  # the words stood in an attribute of a profile
        if entry["body"] is None:
            found.pop(entry["person"], None)
        else:
            found[entry["person"]] = entry["body"]
    return found


def _entries(changes: ChangeLog) -> Iterator[dict[str, Any]]:
    for path in changes.files(_PEOPLE):
        for line in path.read_bytes().splitlines():
            # Most lines are profiles, which need not be parsed.
            if _MARK in line:
                yield orjson.loads(line)
