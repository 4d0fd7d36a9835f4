"""The import of events, from files to the log and the states, all of it or nothing.

Reading keeps a bounded number of rows in memory: normalised rows go to scratch files, then day by
day through removal of duplicates into the log's files, which appear at once when the journal is
written. The fold into the states follows; killed before its end, it is taken up by the next import.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from feature_store.event_log import EventLog, Journal, scan_files
from feature_store.ingest.amounts import DecimalMark
from feature_store.ingest.events import EventOptions, Normalised, normalise
from feature_store.ingest.mapping import EVENT_FIELDS, require, resolve
from feature_store.ingest.source import Source, open_table, read_batches
from feature_store.ingest.staging import GROUP_ROWS, settle, stage
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.table import EmptyFileError, Progress, RejectLog, silent
from feature_store.ingest.withheld import Withhold, nothing_withheld
from feature_store.mail_refusals import mail_refusals
from feature_store.preferences import Saying

LOCK_WAIT_S = 3.0
"""A service that archives has the log for a moment at a time; another import has it for longer."""
KIND = "import"
"""What a journal of ours says in its ``info``, so that nobody else's is folded."""

FOLD_COLUMNS = ["user_id", "anonymous_id", "item_id", "type", "timestamp", "extra"]
"""What the states are made from."""

Fold = Callable[[str, Iterator[pl.DataFrame], int, Progress], None]
"""Adds an import to the states. Given are its id, frames of `FOLD_COLUMNS` in which each person's
events stand whole in one frame, how many events there are, and whom to tell. Calling it
again for the same import must not count a person's events twice."""

Hear = Callable[[list[Saying]], None]
"""Remembers what people said of consents; hearing it again must change nothing."""


def nothing_heard(_: list[Saying]) -> None:
    """Remember nothing: for files that say nothing of consents."""


def event_batches(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: EventOptions,
    rejects: RejectLog,
    progress: Progress = silent,
) -> Iterator[tuple[int, Normalised]]:
    """Read the events of some files.

    Parameters
    ----------
    sources : sequence of Source
        Files; an empty one among several is passed over.
    given : mapping of str to str
        Columns that the person has named (``mapping.parse_map``).
    options : EventOptions
        How the files are meant.
    rejects : RejectLog
        Takes the refused rows.

    Yields
    ------
    tuple of (int, Normalised)
        The place of the file in `sources`, and events.

    Raises
    ------
    UserError
        If a file cannot be read, or lacks a column that is needed.
    """
    total = sum(source.size for source in sources)
    done = 0
    for place, source in enumerate(sources):
        mark = DecimalMark(options.decimal)
        try:
            with open_table(source) as table:
                mapping = event_mapping(given, table.columns, source.name)
                if options.type_given and "type" not in given:
                    mapping.pop("type", None)
                for batch in read_batches(source, table, sorted(set(mapping.values()))):
                    result = normalise(batch, mapping, options, mark)
                    rejects.add(result.rejects)
                    done += batch.n_bytes
                    progress("reading", min(done, total), total)
                    yield place, result
        except EmptyFileError:
            if len(sources) == 1:
                raise
    progress("reading", total, total)


def event_mapping(given: Mapping[str, str], columns: Sequence[str], source: str) -> dict[str, str]:
    """Decide which column each field of an event is read from.

    Raises
    ------
    UserError
        If person or time have none.
    """
    mapping = resolve(given, columns, EVENT_FIELDS, source)
    if "anonymous_id" not in mapping:
        require(mapping, "user_id", columns, source)
    require(mapping, "timestamp", columns, source)
    if "type" not in mapping:
        require(mapping, "item_id", columns, source)
    return mapping


def read_events(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: EventOptions,
    rejects: RejectLog,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Read files of events into memory, without a log: columns of the log, repeats included."""
    frames = [
        result.events.drop("line", "digest")
        for _, result in event_batches(sources, given, options, rejects, progress)
    ]
    return pl.concat(frames) if frames else scan_files([]).collect()


def import_events(
    log: EventLog,
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: EventOptions,
    *,
    fold: Fold,
    withhold: Withhold = nothing_withheld,
    hear: Hear = nothing_heard,
    rejects_file: Path | None = None,
    progress: Progress = silent,
) -> ImportSummary:
    """Import files of events.

    Parameters
    ----------
    log : EventLog
        Where they go.
    sources, given, options
        See `event_batches`.
    fold : Fold
        Adds them to the states.
    withhold : Withhold
        Leaves out what may not be kept, before the log is written.
    hear : callable
        Is told before that which people refuse mail, also those of whom nothing is kept.
    rejects_file : Path, optional
        Where refused rows are written; by default beside the import's journal.
    progress : Progress
        Is told how far it is.

    Raises
    ------
    ConflictError
        If another import is running.
    UserError
        If a file or the data directory is not what it must be; then nothing was imported.
    """
    began = time.monotonic()
    with log.importing(LOCK_WAIT_S):
        finish_pending(log, fold, progress)
        pending = log.begin(new_import_id(options.now))
        committed = False
        try:
            with RejectLog(rejects_file or pending.folder / "rejects.csv") as rejects:
                staged = stage(pending, event_batches(sources, given, options, rejects, progress))
                refusals = mail_refusals(staged.scan()) if staged.rows else []
                hear(refusals)
                settled = settle(log, pending, staged, withhold, progress)
            written = settled.written
            left_out = settled.forgotten + settled.without_consent
            summary = ImportSummary(
                rows_read=staged.rows + rejects.total,
                accepted=written,
                duplicates=staged.rows - written - left_out,
                forgotten=settled.forgotten,
                without_consent=settled.without_consent,
                mail_refusals=len(refusals),
                rejected=dict(rejects.counts.most_common()),
                rejects_file=rejects.written_to,
            )
            journal = None
            if written or rejects.total:
                info = _info(sources, summary)
                journal = pending.commit(info)
                committed = True
        finally:
            if not committed:
                pending.discard()
        if journal is not None:
            _describe(summary, log, journal)
            _fold_and_finish(log, journal, fold, progress)
    summary.seconds = time.monotonic() - began
    return summary


def finish_pending(log: EventLog, fold: Fold, progress: Progress = silent) -> list[str]:
    """Complete imports that were killed after they counted; hold ``log.importing()`` around it.

    What was killed before is removed.

    Returns
    -------
    list of str
        The imports that were completed.
    """
    log.discard_unfinished()
    journals = [journal for journal in log.pending() if journal.info.get("kind") == KIND]
    for journal in journals:
        _fold_and_finish(log, journal, fold, progress)
    return [journal.import_id for journal in journals]


def new_import_id(now: datetime) -> str:
    """Return a name that sorts by time and is nobody else's."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def _fold_and_finish(log: EventLog, journal: Journal, fold: Fold, progress: Progress) -> None:
    if journal.rows:
        progress("folding", 0, journal.rows)
        fold(journal.import_id, _people_frames(log, journal), journal.rows, progress)
        progress("folding", journal.rows, journal.rows)
    log.finish(journal.import_id)


def _people_frames(log: EventLog, journal: Journal) -> Iterator[pl.DataFrame]:
    """Read an import's events so that all of one person's are in one frame."""
    n_parts = -(-journal.rows // GROUP_ROWS)
    files = log.files_of(journal)
    if n_parts == 1:
        yield scan_files(files).select(FOLD_COLUMNS).collect()
        return
    # Written once by part, the events need not be searched again for every part.
    folder = log.imports / journal.import_id / "by_person"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        _divide(files, n_parts, folder)
        for part in range(n_parts):
            if found := sorted(folder.glob(f"{part}-*.parquet")):
                yield pl.read_parquet(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _divide(files: Sequence[Path], n_parts: int, folder: Path) -> None:
    """Write events to files of which each holds some people only."""
    part = (pl.coalesce("user_id", "anonymous_id").hash(seed=0) % n_parts).alias("part")
    waiting: list[pl.DataFrame] = []
    for at, file in enumerate(files):
        waiting.append(pl.read_parquet(file, columns=FOLD_COLUMNS))
        if sum(map(len, waiting)) < GROUP_ROWS and at + 1 < len(files):
            continue
        by_part = pl.concat(waiting).with_columns(part).partition_by("part", as_dict=True)
        waiting = []
        for (number,), events in by_part.items():
            events.drop("part").write_parquet(folder / f"{number}-{at}.parquet", compression="lz4")


def _describe(summary: ImportSummary, log: EventLog, journal: Journal) -> None:
    summary.import_id = journal.import_id
    if not journal.rows:
        return
    facts: dict[str, Any] = (
        scan_files(log.files_of(journal))
        .select(
            pl.struct("user_id", "anonymous_id").n_unique().alias("people"),
            pl.col("item_id").drop_nulls().n_unique().alias("items"),
            pl.col("timestamp").min().alias("first_at"),
            pl.col("timestamp").max().alias("last_at"),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    for name, value in facts.items():
        setattr(summary, name, value)


def _info(sources: Sequence[Source], summary: ImportSummary) -> dict[str, Any]:
    return {
        "kind": KIND,
        "sources": [source.name for source in sources[:100]],
        "rows_read": summary.rows_read,
        "duplicates": summary.duplicates,
        "forgotten": summary.forgotten,
        "without_consent": summary.without_consent,
        "rejected": summary.rejected,
    }
