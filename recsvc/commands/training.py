"""What ``recsvc train`` and ``recsvc evaluate`` say; the training itself is not known here."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import polars as pl

from feature_store.errors import UserError
from feature_store.event_log import EventLog
from feature_store.ingest.events import EventOptions
from feature_store.ingest.mapping import EVENT_FIELDS, parse_map
from feature_store.ingest.run import read_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.table import RejectLog
from recsvc.commands.archive import archive_first
from recsvc.commands.customers import show_customers
from recsvc.commands.importing import known_timezone
from recsvc.commands.models import show_evaluation
from recsvc.commands.output import ProgressReport, note, say, write_json
from recsvc.settings import Settings

StageProgress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""

_PARTS = 1000


@contextmanager
def reporting() -> Iterator[StageProgress]:
    """Show how far each stage of a training is."""
    with ProgressReport() as progress:
        yield stages(progress)


def stages(progress: ProgressReport) -> StageProgress:
    """Return what a training calls."""

    def report(stage: str, share: float) -> None:
        progress(stage, round(share * _PARTS), _PARTS)

    return report


def refuse_later(engine: str, tune: int | None, budget: str | None) -> None:
    """Say what a later version will do.

    Raises
    ------
    UserError
        If one of these options was given.
    """
    if engine != "local":
        raise UserError(f"--engine {engine} is not yet supported in this version; use local")
    if tune is not None or budget is not None:
        raise UserError("--tune and --budget are not yet supported in this version")


def window(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """Read the bounds of what is learned from; a bound without a zone is in UTC.

    Raises
    ------
    UserError
        If one is no time, or they are in the wrong order.
    """
    bounds = _time(start, "--from"), _time(end, "--to")
    if bounds[0] is not None and bounds[1] is not None and bounds[0] >= bounds[1]:
        raise UserError(f"--from {start} is not before --to {end}")
    return bounds


def _time(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{option} takes a day or a time like 2026-01-31T10:00:00Z, not {text!r}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def evaluated_files(
    events: str | None, train_file: Path | None, test_file: Path | None
) -> str | tuple[Path, Path]:
    """Return what to evaluate: purchases, or the two files of a published split.

    Raises
    ------
    UserError
        If it is neither, or both.
    """
    if events is not None and train_file is None and test_file is None:
        return events
    if events is None and train_file is not None and test_file is not None:
        return train_file, test_file
    raise UserError("name either a file of purchases, or both --train FILE and --test FILE")


def read_purchases(source: str, form: str | None, columns: str, timezone: str) -> pl.LazyFrame:
    """Read files of purchases as an import would, without a log.

    Returns
    -------
    LazyFrame
        ``event_log.EVENT_LOG_SCHEMA``.
    """
    options = EventOptions(now=datetime.now(UTC), timezone=known_timezone(timezone))
    given = parse_map(columns, EVENT_FIELDS)
    with RejectLog(None) as rejects, ProgressReport() as progress:
        events = read_events(find_sources(source, form), given, options, rejects, progress)
    if rejects.total:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in rejects.counts.most_common())
        note(f"{rejects.total:,} rows were passed over: {reasons}")
    if events.is_empty():
        raise UserError(f"{source} holds no purchases that can be read")
    return events.lazy()


def report_evaluation(document: dict[str, Any], *, as_json: bool) -> None:
    """Show the table of an evaluation."""
    if as_json:
        write_json(document)
    else:
        show_evaluation(document)


def report(
    manifest: dict[str, Any],
    evaluation: dict[str, Any] | None,
    published: bool,
    reason: str,
    *,
    as_json: bool,
) -> None:
    """Say what came of a training.

    Parameters
    ----------
    manifest : dict
        Of the model.
    evaluation : dict or None
        The table; ``None`` if there was nobody to test on.
    published : bool
        Whether the model serves now.
    reason : str
        Why, or why not.
    """
    if as_json:
        write_json(
            {
                "version": manifest["version"],
                "published": published,
                "reason": reason,
                "n_items": manifest["n_items"],
                "gate": manifest["gate"],
                "evaluation": evaluation,
                "customers": manifest.get("customers"),
            }
        )
        return
    if evaluation is not None and evaluation["rows"]:
        show_evaluation(evaluation)
        say("")
    show_customers(manifest.get("customers"))
    serves = "serves" if published else "does not serve"
    say(f"{manifest['version']} ({manifest['n_items']:,} items) {serves}: {reason}")


def watched_seconds(every: str) -> float:
    """Read an interval such as 24h, 90m or 30s.

    Raises
    ------
    UserError
        If it is none.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
    try:
        seconds = float(every[:-1]) * units[every[-1:]]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < inf:
        raise UserError(f"--every takes an interval like 24h, 90m or 7d, not {every!r}")
    return seconds


def watched_command(
    settings: Settings, start: str | None, *, publish: bool, customers: bool
) -> list[str]:
    """Return the command line of one training of ``recsvc train --watch``."""
    command = [sys.executable, "-m", "recsvc.cli", "--data-dir", str(settings.data_dir), "train"]
    command += [] if start is None else ["--from", start]
    command += [] if publish else ["--no-publish"]
    return command if customers else [*command, "--no-customers"]


def count_events(settings: Settings) -> int:
    """Archive, and count the events of the log."""
    with ProgressReport() as progress:
        archive_first(settings, progress)
    return EventLog(settings.data_dir).count()
