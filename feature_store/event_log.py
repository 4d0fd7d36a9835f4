"""The archive of everything that happened: one Parquet file per import and day.

The log is the source from which all else can be rebuilt, so a file that stands in it is whole. An
import is staged beside the log and counts from the moment its journal is written: whoever meets
a committed journal, reader or importer, moves its files into place first. So a reader sees all
of an import or nothing of it, even when the importer was killed half-way.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from feature_store.errors import ConflictError
from feature_store.files import locked, make_folder, sync_file, sync_folder, write_json

EVENT_LOG_SCHEMA: dict[str, pl.DataType] = {
    "event_id": pl.String(),
    "type": pl.String(),
    "user_id": pl.String(),
    "anonymous_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": pl.Datetime("ms", "UTC"),
    "quantity": pl.Int32(),
    "unit_price": pl.Float64(),
    "currency": pl.String(),
    "order_id": pl.String(),
    "channel": pl.String(),
    "trust": pl.String(),
    "extra": pl.String(),
}
"""Columns of the log. ``trust`` is ``server`` or ``public``; ``extra`` is JSON of all the rest."""

EVENT_KEY = ("user_id", "anonymous_id", "event_id")
"""What makes an event the same event again, within one trust class."""

_JOURNAL = "journal.json"
_DONE = "done.json"
_STAGING = "staging"
_READING = "reading.lock"
_LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Journal:
    """What an import has put into the log.

    Parameters
    ----------
    import_id : str
        Name of the import, of its folder and of its files.
    files : tuple of str
        Paths relative to the log's ``events`` folder.
    rows : int
        Events in those files.
    info : dict
        Whatever the importer wants to be remembered, as JSON.
    """

    import_id: str
    files: tuple[str, ...]
    rows: int
    info: dict[str, Any]


class EventLog:
    """The event log under a data directory.

    Parameters
    ----------
    data_dir : Path
        The log lives in ``events/``, imports on their way into it in ``imports/``.
    """

    def __init__(self, data_dir: Path) -> None:
        self.events = data_dir / "events"
        self.imports = data_dir / "imports"

    def scan(self, start: datetime | None = None, end: datetime | None = None) -> pl.LazyFrame:
        """Read events lazily.

        Parameters
        ----------
        start, end : datetime with a zone, optional
            First moment that counts, and the first that no longer does.

        Returns
        -------
        LazyFrame
            Columns of `EVENT_LOG_SCHEMA`, in no particular order. Only the days between `start`
            and `end` are opened.
        """
        with self._listing():
            files = self.files(
                start.astimezone(UTC).date() if start else None,
                # The end is exclusive: at midnight sharp the day that begins is not needed.
                (end.astimezone(UTC) - timedelta(microseconds=1)).date() if end else None,
            )
        frame = scan_files(files)
        if start is not None:
            frame = frame.filter(pl.col("timestamp") >= start)
        if end is not None:
            frame = frame.filter(pl.col("timestamp") < end)
        return frame

    def files(self, first: date | None = None, last: date | None = None) -> list[Path]:
        """List the log's files of the days from `first` to `last`, both included, by day."""
        if not self.events.is_dir():
            return []
        merged = self.superseded()
        chosen: list[Path] = []
        for folder in sorted(self.events.glob("date=????-??-??")):
            day = folder.name.removeprefix("date=")
            if (first and day < first.isoformat()) or (last and day > last.isoformat()):
                continue
            found = (path for path in folder.glob("*.parquet") if _name(path) not in merged)
            chosen.extend(sorted(found))
        return chosen

    def superseded(self) -> set[str]:
        """Name the files whose events stand in a merged file too (``compaction``)."""
        names: set[str] = set()
        for folder in self.imports.glob("compact-*"):
            for name in (_JOURNAL, _DONE):
                with suppress(FileNotFoundError):
                    names.update(_read_journal(folder / name).info["supersedes"])
        return names

    def count(self) -> int:
        """Return how many events the log holds."""
        with self.reading():
            return int(self.scan().select(pl.len()).collect().item())

    @contextmanager
    def importing(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the right to write to the log, which one process has at a time.

        Parameters
        ----------
        wait_s : float
            How long to wait for whoever has it now.

        Raises
        ------
        ConflictError
            If another process has it for longer.
        UserError
            If the data directory cannot be written.
        """
        make_folder(self.imports)
        busy = f"another import into {self.imports.parent} is running; wait until it has finished"
        deadline_s = time.monotonic() + wait_s
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self.imports / "import.lock", busy))
                    break
                except ConflictError:
                    if time.monotonic() >= deadline_s:
                        raise
                    time.sleep(_LOOK_AGAIN_S)
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep every file as it is, from the listing of the log to the end of what is read.

        A reader opens a file more than once. Without this it fails when an erasure writes the file
        anew in between.
        """
        if not os.access(self.imports, os.W_OK):
            yield
            return
        with locked(self.imports / _READING, shared=True):
            yield

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Hold all readers back while a file is replaced; wait for those that are at work."""
        with locked(self.imports / _READING):
            yield

    def begin(self, import_id: str) -> "PendingImport":
        """Start an import; nothing of it counts before its `commit`. Hold `importing` around it."""
        return PendingImport(self, import_id)

    def pending(self) -> list[Journal]:
        """List committed imports that nobody has called `finish` for, oldest first."""
        found = []
        for path in sorted(self.imports.glob(f"*/{_JOURNAL}")):
            # Another process may finish it between the listing and the reading.
            with suppress(FileNotFoundError):
                found.append(_read_journal(path))
        return found

    def finish(self, import_id: str) -> None:
        """Note that everything that follows from a committed import has been done."""
        folder = self.imports / import_id
        with suppress(FileNotFoundError):
            (folder / _JOURNAL).replace(folder / _DONE)
        shutil.rmtree(folder / _STAGING, ignore_errors=True)

    def completed(self, prefix: str) -> list[Journal]:
        """List what `finish` was called for and whose name begins with `prefix`."""
        return [_read_journal(path) for path in sorted(self.imports.glob(f"{prefix}*/{_DONE}"))]

    def forget(self, import_id: str) -> None:
        """Remove the memory of a finished import; its events stay."""
        shutil.rmtree(self.imports / import_id, ignore_errors=True)

    def discard_unfinished(self) -> list[str]:
        """Remove what killed imports left behind before they counted. Hold `importing` around it.

        Returns
        -------
        list of str
            The imports that were given up.
        """
        dropped = []
        for folder in sorted(p for p in self.imports.iterdir() if p.is_dir()):
            if not (folder / _JOURNAL).exists() and not (folder / _DONE).exists():
                shutil.rmtree(folder, ignore_errors=True)
                dropped.append(folder.name)
        return dropped

    def files_of(self, journal: Journal) -> list[Path]:
        """Return where the files of a committed import stand in the log."""
        with self._listing():
            return [self.events / name for name in journal.files]

    @contextmanager
    def _listing(self) -> Iterator[None]:
        """Hold the list of files still, with every committed import wholly in place."""
        # A read-only copy of a log has no importer, and so nothing to wait for.
        if not os.access(self.imports, os.W_OK):
            yield
            return
        with self.committing():
            yield

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Hold the log for the moment in which files move; half-moved imports are completed."""
        with locked(self.imports / "commit.lock"):
            for journal in self.pending():
                self.move_into_place(journal)
            yield

    def _waiting(self, journal: Journal) -> list[str]:
        staging = self.imports / journal.import_id / _STAGING
        return [name for name in journal.files if (staging / name).exists()]

    def move_into_place(self, journal: Journal) -> None:
        """Move the files of a committed import into the log, or those still missing there."""
        staging = self.imports / journal.import_id / _STAGING
        folders = {self.events}
        for name in self._waiting(journal):
            target = self.events / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (staging / name).replace(target)
            folders.add(target.parent)
        for folder in folders:
            if folder.is_dir():
                sync_folder(folder)


class PendingImport:
    """One import on its way into the log; made by `EventLog.begin`."""

    def __init__(self, log: EventLog, import_id: str) -> None:
        self.import_id = import_id
        self.folder = log.imports / import_id
        self.scratch = self.folder / "scratch"
        self._log = log
        self._staging = self.folder / _STAGING
        self._files: list[str] = []
        self._rows = 0
        for path in (self.scratch, self._staging):
            make_folder(path)

    def write(self, events: pl.DataFrame) -> None:
        """Stage events: columns of `EVENT_LOG_SCHEMA`. No day may come in two calls."""
        events = events.select(
            pl.col(name).cast(dtype) for name, dtype in EVENT_LOG_SCHEMA.items()
        ).sort("timestamp", *EVENT_KEY)
        days = events.with_columns(pl.col("timestamp").dt.date().alias("day"))
        for (day,), part in days.partition_by("day", as_dict=True, include_key=False).items():
            name = f"date={day}/{self.import_id}.parquet"
            path = self._staging / name
            path.parent.mkdir(exist_ok=True)
            if path.exists():
                raise ValueError(f"{day} was written twice by the import {self.import_id}")
            part.write_parquet(path, compression="zstd", compression_level=1)
            self._files.append(name)
        self._rows += len(events)

    def commit(self, info: dict[str, Any]) -> Journal:
        """Make all that was written count, at once and for good.

        Parameters
        ----------
        info : dict
            Remembered in the journal; must be JSON.
        """
        journal = Journal(self.import_id, tuple(sorted(self._files)), self._rows, info)
        for name in journal.files:
            sync_file(self._staging / name)
        document = {
            "format_version": 1,
            "import_id": journal.import_id,
            "rows": journal.rows,
            "files": journal.files,
            "info": info,
        }
        with self._log.committing():
            write_json(self.folder / _JOURNAL, document)
            self._log.move_into_place(journal)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return journal

    def discard(self) -> None:
        """Give up an import, unless its journal says that it counts."""
        if (self.folder / _JOURNAL).exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)


def scan_files(files: Iterable[Path]) -> pl.LazyFrame:
    """Read some of the log's files lazily; an empty log when there are none."""
    paths = list(files)
    if not paths:
        return pl.LazyFrame(schema=EVENT_LOG_SCHEMA)
    return pl.scan_parquet(
        paths,
        schema=EVENT_LOG_SCHEMA,
        glob=False,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
    )


def _name(path: Path) -> str:
    """Return what a journal calls a file of the log."""
    return f"{path.parent.name}/{path.name}"


def _read_journal(path: Path) -> Journal:
    document = orjson.loads(path.read_bytes())
    return Journal(
        document["import_id"], tuple(document["files"]), document["rows"], document["info"]
    )
