"""Packed values of a person as rows that can be read: items with titles, times as text."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from feature_store.catalogue import Catalogue
from feature_store.feedback import INSTRUMENTS, RATING_STEPS, STEPS
from feature_store.holdings.server import OnServer
from feature_store.impressions import HOUR_S
from feature_store.links import ROW_TYPE
from feature_store.schema import EVENT_TYPE_CODES, format_time
from feature_store.state import FIRST_PSEUDO_ROW

SLICE = 50
"""Entries of a section that are made before others get the event loop."""
TYPES = {code: kind.value for kind, code in EVENT_TYPE_CODES.items()}
_NAMES = {number: name for name, number in INSTRUMENTS.items()}

Row = dict[str, Any]


def time_of(seconds: float) -> str:
    """Write seconds since 1970 as RFC 3339."""
    at = datetime.fromtimestamp(seconds, UTC)
    return format_time(at.replace(microsecond=at.microsecond // 1000 * 1000))


def facts_of(held: OnServer, catalogue: Catalogue) -> Iterator[Row]:
    """Yield how often, when first and when last a person did what with which item, newest first."""
    state, n = held.state, held.state.n_item_facts
    newest = np.argsort(state.last_s[:n], kind="stable")[::-1]
    columns = (state.rows, state.types, state.counts, state.first_s, state.last_s)
    for row, kind, count, first_s, last_s in zip(
        *(one[:n][newest].tolist() for one in columns), strict=True
    ):
        yield {
            **titled(catalogue, row),
            "type": TYPES[kind],
            "count": count,
            "first_at": time_of(first_s),
            "last_at": time_of(last_s),
        }


def session_of(held: OnServer, catalogue: Catalogue) -> Iterator[Row]:
    """Yield the newest single events about items, newest first."""
    state = held.state
    columns = (state.session_rows, state.session_types, state.session_s)
    for row, kind, at_s in zip(*(one.tolist() for one in columns), strict=True):
        yield {"at": time_of(at_s), "type": TYPES[kind], **titled(catalogue, row)}


def feedback_of(held: OnServer, _: Catalogue) -> Iterator[Row]:
    """Yield how often each answer was given, when first and when last."""
    state, n = held.state, held.state.n_item_facts
    columns = (state.rows, state.counts, state.first_s, state.last_s)
    for row, count, first_s, last_s in zip(*(one[n:].tolist() for one in columns), strict=True):
        number, step = divmod(row - FIRST_PSEUDO_ROW, STEPS)
        name = _NAMES.get(number, f"unknown {number}")
        score = {"rating": step / RATING_STEPS, "complaint": None}.get(name, step)
        yield {
            "instrument": name,
            "score": score,
            "count": count,
            "first_at": time_of(first_s),
            "last_at": time_of(last_s),
        }


def shown_of(held: OnServer, catalogue: Catalogue) -> Iterator[Row]:
    """Yield what was shown how often in which hour."""
    shown = held.impressions
    columns = (shown.rows, shown.hours, shown.counts)
    for row, hour, count in zip(*(one.tolist() for one in columns), strict=True):
        yield {**titled(catalogue, row), "hour": time_of(hour * HOUR_S), "count": count}


def titled(catalogue: Catalogue, row: int) -> Row:
    """Return an item's id and title; ``None`` where the catalogue has none."""
    columns = catalogue.columns_at(row) if row < catalogue.n_rows else None
    if columns is None:
        return {"item_id": catalogue.item_id(row), "title": None}
    return {"item_id": columns["item_id"], "title": columns.get("title")}


def event_key(row: Row) -> tuple[Any, ...]:
    """Return what makes an event the same event again."""
    return tuple(row.get(name) for name in ("user_id", "anonymous_id", "event_id", "trust"))


def title_of(catalogue: Catalogue, item_id: str | None) -> Row:
    """Return an item's title; nothing where the catalogue has none."""
    row = None if item_id is None else catalogue.row(item_id)
    title = None if row is None else titled(catalogue, row)["title"]
    return {} if title is None else {"title": title}


def log_row(row: Row, catalogue: Catalogue) -> Row:
    """Return a row of the log with times as text and its JSON read; without what is not there."""
    shown = {name: value for name, value in row.items() if value is not None}
    shown |= title_of(catalogue, row.get("item_id"))
    shown["timestamp"] = format_time(row["timestamp"])
    if row.get("extra"):
        shown["extra"] = orjson.loads(row["extra"])
    if row["type"] == ROW_TYPE:
        shown["meaning"] = "the visitor signed in as the user"
    return shown


def change_of(row: Row) -> Row:
    """Return a change of a document as an export shows it."""
    return {"at": row["at"], "by": row["by"], "document": row["kind"], "content": row["body"]} | {
        "of": row["person"].partition(":")[2]
    }


def merge_of(visitor: str, user: str, at_s: int | None, *, complete: bool) -> Row:
    """Return how a visitor became a user."""
    return {
        "anonymous_id": visitor.removeprefix("a:"),
        "user_id": user.removeprefix("u:"),
        "at": None if at_s is None else time_of(at_s),
        "complete": complete,
    }


def sliced(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield rows a few at a time, so that others get the event loop between two."""
    few: list[Row] = []
    for row in rows:
        few.append(row)
        if len(few) == SLICE:
            yield few
            few = []
    if few:
        yield few
