"""Whose events are learned from: what the archive knows of their preferences decides."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from feature_store.archiver import as_log_frame
from feature_store.change_log import ChangeLog
from feature_store.consent_log import consenting
from feature_store.links import ROW_TYPE
from feature_store.people import person_change
from feature_store.preferences import ProfilingDefault

NOW = datetime(2026, 11, 22, tzinfo=UTC)
REFUSES: dict[str, Any] = {"consent": {"profiling": False}}
AGREES: dict[str, Any] = {"consent": {"profiling": True}}
OFF: dict[str, Any] = {"personalization": False}


def row(user: str | None, visitor: str | None, type_: str = "purchase") -> dict[str, Any]:
    return {
        "event_id": f"{user}-{visitor}-{type_}",
        "type": type_,
        "user_id": user,
        "anonymous_id": visitor,
        "item_id": None if type_ == ROW_TYPE else "i",
        "timestamp": NOW.isoformat(),
        "trust": "server",
    }


LOG = as_log_frame(
    [
        row("agreed", None), row("refused", None), row("off", None), row("unasked", None),
        row("changed", None), row("shop-assistant", None),
        row(None, "refused visitor"), row(None, "agreed visitor"), row(None, "unasked visitor"),
        # What a visitor did who has signed in is the user's to allow.
        row(None, "of refused"), row("refused", "of refused", ROW_TYPE),
        row(None, "of agreed"), row("agreed", "of agreed", ROW_TYPE),
        row("agreed", "refused visitor"),
    ]
).lazy()  # fmt: skip


@pytest.fixture
def changes(tmp_path: Path) -> ChangeLog:
    log = ChangeLog(tmp_path)
    said = [
        ("preferences", "u:agreed", AGREES),
        ("preferences", "u:refused", REFUSES),
        ("preferences", "u:off", AGREES | OFF),
        ("preferences", "u:changed", REFUSES),
        ("preferences", "a:refused visitor", REFUSES),
        ("preferences", "a:agreed visitor", AGREES),
        # An attribute that looks like the mark is none.
        ("profile", "u:shop-assistant", {"attributes": {"note": '"kind":"preferences"'}}),
    ]
    for at, (kind, person, body) in enumerate([*said, ("preferences", "u:changed", None)]):
        entry = orjson.loads(person_change(kind, person, body, "test"))  # type: ignore[arg-type]
        log.write("people", "e", [f"{at + 1}-0-0"], [entry])
    return log


def left(changes: ChangeLog, default: ProfilingDefault) -> set[str]:
    found = consenting(LOG, changes, default).collect()
    assert found.columns == LOG.collect_schema().names()
    events = found.filter(pl.col("type") != ROW_TYPE)
    assert len(found) - len(events) == 2
    return set(events["event_id"])


def test_who_refuses_is_not_learned_from(changes: ChangeLog) -> None:
    assert left(changes, "opt_out") == {
        "agreed-None-purchase", "unasked-None-purchase", "changed-None-purchase",
        "shop-assistant-None-purchase", "None-agreed visitor-purchase",
        "None-unasked visitor-purchase", "None-of agreed-purchase",
        "agreed-refused visitor-purchase",
    }  # fmt: skip


def test_where_people_must_agree_only_those_are_learned_from_who_did(changes: ChangeLog) -> None:
    assert left(changes, "opt_in") == {
        "agreed-None-purchase", "None-agreed visitor-purchase", "None-of agreed-purchase",
        "agreed-refused visitor-purchase",
    }  # fmt: skip


def test_without_preferences_nothing_is_looked_at(tmp_path: Path) -> None:
    assert consenting(LOG, ChangeLog(tmp_path), "opt_out") is LOG
    assert consenting(LOG, ChangeLog(tmp_path), "opt_in").collect().height == 2
