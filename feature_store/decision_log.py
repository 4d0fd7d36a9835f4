"""What was shown to whom and why, kept in files: each answer's record can be read again by its id.

A worker appends records to a file of its own, so writing costs no round trip and every process of
the machine can read them at once. A file that is full or old is closed; whoever has the archive's
lease turns closed files, and those that a killed worker has left, into Parquet files by day.

::

    decisions/live/<first ms>-<worker>.open      one worker is writing it, and holds a lock on it
    decisions/live/<first ms>-<worker>.jsonl     closed
    decisions/date=2026-11-22/<first ms>-<last ms>-<worker>.parquet
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl

from feature_store.files import locked, make_folder, sync_file, sync_folder

MAX_BYTES = 16 << 20
MAX_AGE_S = 300.0
OPEN, CLOSED = ".open", ".jsonl"
UNDER_WAY_MS = 60_000
"""An answer that was under way when its person was erased is recorded at most so much later."""
_SLACK_MS = 5_000
_CLOSE = ".close"
_LOCK = ".lock"

SCHEMA: dict[str, pl.DataType] = {
    "recommendation_id": pl.String(),
    "at": pl.Datetime("ms", "UTC"),
    "person": pl.String(),
    "placement": pl.String(),
    "channel": pl.String(),
    "model_version": pl.String(),
    "rules_version": pl.Int64(),
    "personalized": pl.Boolean(),
    "item_ids": pl.List(pl.String()),
    "sources": pl.List(pl.String()),
    "record": pl.String(),
}
"""Columns of the Parquet files; ``record`` is the whole record as JSON."""

Record = dict[str, Any]
WillRemove = Callable[[Path, Counter[str]], None]
ErasedAt = Callable[[str], int]
"""Gives the time of a person's erasure in milliseconds since 1970; 0 for everybody else."""


class DecisionWriter:
    """Appends the records of one worker.

    Parameters
    ----------
    folder : Path
        ``<data dir>/decisions``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "live"
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._file: IO[bytes] | None = None
        self._path = self._folder
        self._opened_s = 0.0
        self._size = 0
        self._asked_ns = 0

    def write(self, records: Sequence[bytes], first_ms: int, now_s: float) -> int:
        """Append records; other processes see them when this returns.

        Parameters
        ----------
        records : sequence of bytes
            Each a JSON object in one line, ``recommendation_id`` first.
        first_ms : int
            When the first of the answers was made, in milliseconds since 1970.
        now_s : float
            Seconds since 1970.

        Returns
        -------
        int
            How many bytes they are.
        """
        if not records:
            return 0
        if self._file is not None and (
            self._size > MAX_BYTES or now_s - self._opened_s > MAX_AGE_S
        ):
            self.close()
        if self._file is None:
            self._open(first_ms, now_s)
        assert self._file is not None
        lines = b"\n".join(records) + b"\n"
        self._file.write(lines)
        self._file.flush()
        self._size += len(lines)
        return len(lines)

    def _open(self, first_ms: int, now_s: float) -> None:
        make_folder(self._folder)
        while True:
            self._path = self._folder / f"{first_ms:013d}-{self._name}{OPEN}"
            self._file = self._path.open("ab")
            # Whoever can lock it knows that its writer is gone.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                    break
            # Somebody sealed it before it was locked.
            self._file.close()
        self._opened_s, self._size = now_s, 0

    def close_if_due(self, now_s: float) -> None:
        """Close the file if it is old, or somebody has asked for it since the last look.

        Parameters
        ----------
        now_s : float
            Seconds since 1970.
        """
        if now_s - self._opened_s > MAX_AGE_S:
            self.close()
        try:
            asked_ns = (self._folder / _CLOSE).stat().st_mtime_ns
        except FileNotFoundError:
            return
        if asked_ns != self._asked_ns:
            self._asked_ns = asked_ns
            self.close()

    def close(self) -> None:
        """Close the file, so that it can be sealed."""
        if self._file is not None:
            with self._file:
                self._path.rename(self._path.with_suffix(CLOSED))
            self._file = None


class DecisionLog:
    """Reads, seals and forgets records.

    Parameters
    ----------
    folder : Path
        ``<data dir>/decisions``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._live = folder / "live"

    def find(self, recommendation_id: str, at_ms: int) -> Record | None:
        """Return the record of an answer.

        Parameters
        ----------
        recommendation_id : str
            Its id.
        at_ms : int
            When it was made, which the id says.

        Returns
        -------
        dict or None
            ``None`` if it is not here: not written yet, lost, or too old.
        """
        marker = b'"recommendation_id":' + orjson.dumps(recommendation_id)
        for _ in range(2):
            for path in self._live_files():
                if _first_ms(path) <= at_ms + _SLACK_MS and (line := _line_with(path, marker)):
                    record: Record = orjson.loads(line)
                    return record
            for path in self._sealed(at_ms):
                wanted = pl.col("recommendation_id") == recommendation_id
                # Read at once: an erasure may write the file anew meanwhile.
                found = pl.read_parquet(path.read_bytes()).filter(wanted).select("record")
                if len(found):
                    record = orjson.loads(found.item(0, 0))
                    return record  # noqa: RET504 (gives it its type)
            # Between the two looks a file may have been sealed.
        return None

    def _sealed(self, at_ms: int) -> Iterator[Path]:
        for days in (0, -1, 1):
            day = datetime.fromtimestamp(at_ms / 1000, UTC).date() + timedelta(days)
            for path in sorted((self.folder / f"date={day}").glob("*.parquet")):
                first, last, *_ = path.name.split("-")
                if int(first) - _SLACK_MS <= at_ms <= int(last) + _SLACK_MS:
                    yield path

    def _live_files(self) -> list[Path]:
        # Newest first: what is asked for was mostly made a moment ago.
        found = [*self._live.glob(f"*{OPEN}"), *self._live.glob(f"*{CLOSED}")]
        return sorted(found, reverse=True)

    def ask_to_close(self) -> list[Path]:
        """Ask every worker of the machine to close its file; return those that are open now."""
        make_folder(self._live)
        open_now = list(self._live.glob(f"*{OPEN}"))
        # A new file in its place: its time is another one in any case.
        marker = self._live / f"{_CLOSE}.partial"
        marker.unlink(missing_ok=True)
        marker.touch()
        marker.replace(self._live / _CLOSE)
        return open_now

    def still_open(self, asked: Iterable[Path]) -> list[Path]:
        """Return which of some open files are still written to."""
        return [path for path in asked if path.exists() and not _abandoned(path)]

    def seal(self, erased_at: ErasedAt | None = None) -> int:
        """Turn every file that nobody writes any more into Parquet; return how many records.

        Killed at any moment, the next one does the same again.

        Parameters
        ----------
        erased_at : callable, optional
            Says who was erased; their records of before, and of the minute after, are left out.
        """
        done = 0
        for path in sorted(self._live_files()):
            with self._changing():
                if not path.exists() or (path.suffix == OPEN and not _abandoned(path)):
                    continue
                records = _kept(list(_records(path)), erased_at)
                if records:
                    self._write(path, records)
                    done += len(records)
                path.unlink()
        return done

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the files: who seals must not write again what was forgotten meanwhile."""
        with locked(make_folder(self.folder) / _LOCK):
            yield

    def _write(self, source: Path, records: list[Record]) -> None:
        """Write the records of one file; named after it, so that again changes nothing."""
        frame = as_frame(records).sort("at")
        writer = source.stem.partition("-")[2]
        for (day,), part in frame.group_by(pl.col("at").dt.date(), maintain_order=True):
            folder = make_folder(self.folder / f"date={day}")
            first, last = (int(part["at"][at].timestamp() * 1000) for at in (0, -1))
            path = folder / f"{first:013d}-{last:013d}-{writer}-{_first_ms(source)}.parquet"
            partial = path.with_name(f".{path.name}.partial")
            part.write_parquet(partial, compression="zstd", statistics=True)
            sync_file(partial)
            partial.rename(path)
            sync_folder(folder)

    def drop_before(self, day: date) -> int:
        """Remove the files of days before one; return of how many days."""
        removed = 0
        for folder in self.folder.glob("date=*"):
            with contextlib.suppress(ValueError):
                if date.fromisoformat(folder.name.removeprefix("date=")) < day:
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    def scan(self, first: date | None = None, last: date | None = None) -> pl.LazyFrame:
        """Return the sealed records of some days, both included, as columns of :data:`SCHEMA`."""
        paths = [
            path
            for folder in sorted(self.folder.glob("date=*"))
            for path in sorted(folder.glob("*.parquet"))
            if (first is None or folder.name >= f"date={first}")
            and (last is None or folder.name <= f"date={last}")
        ]
        return pl.scan_parquet(paths) if paths else pl.LazyFrame(schema=SCHEMA)

    def forget(self, erased_at: ErasedAt, will_remove: WillRemove | None = None) -> Counter[str]:
        """Remove the records of erased people from the sealed files.

        Parameters
        ----------
        erased_at : callable
            Says who was erased; their records of before, and of the minute after, go.
        will_remove : callable, optional
            Is told of each file, before it is changed, how many of whom go.
        """
        removed: Counter[str] = Counter()
        with self._changing():
            for partial in self.folder.glob("date=*/.*.partial"):
                partial.unlink()
            for path in sorted(self.folder.glob("date=*/*.parquet")):
                removed += _forget(path, erased_at, will_remove)
        return removed


def _forget(path: Path, erased_at: ErasedAt, will_remove: WillRemove | None) -> Counter[str]:
    """Remove the records of erased people from a file; return how many of each."""
    people = pl.read_parquet(path, columns=["person"])["person"].unique().drop_nulls()
    erased = {person: at_ms for person in people if (at_ms := erased_at(person))}
    if not erased:
        return Counter()
    frame = pl.read_parquet(path, hive_partitioning=False)
    cut = pl.col("person").replace_strict(erased, default=None, return_dtype=pl.Int64())
    old = (pl.col("at").dt.epoch("ms") < cut + UNDER_WAY_MS).fill_null(value=False)
    gone, kept = frame.filter(old)["person"], frame.filter(~old)
    if gone.is_empty():
        return Counter()
    counts = Counter(gone.to_list())
    if will_remove is not None:
        will_remove(path, counts)
    partial = path.with_name(f".{path.name}.partial")
    kept.write_parquet(partial, compression="zstd", statistics=True)
    sync_file(partial)
    partial.rename(path)
    sync_folder(path.parent)
    return counts


def _kept(records: list[Record], erased_at: ErasedAt | None) -> list[Record]:
    if erased_at is None:
        return records
    people: set[str] = {record["person"] for record in records if record.get("person")}
    since = {one: gone_ms + UNDER_WAY_MS for one in people if (gone_ms := erased_at(one))}
    return [
        record for record in records if record["at"] >= since.get(record.get("person") or "", 0)
    ]


def as_frame(records: Sequence[Record]) -> pl.DataFrame:
    """Return records as columns of :data:`SCHEMA`.

    Parameters
    ----------
    records : sequence of dict
        ``recommendation_id``, ``at`` (milliseconds since 1970), ``person``, ``context``, ``answer``
        (the answer as it was given), and whatever else.
    """
    rows = [
        {
            "recommendation_id": record["recommendation_id"],
            "at": record["at"],
            "person": record.get("person"),
            "placement": record["answer"]["placement"],
            "channel": record["context"].get("channel"),
            "model_version": record["answer"]["model_version"],
            "rules_version": record["answer"]["rules_version"],
            "personalized": record["answer"]["personalized"],
            "item_ids": [slot["item_id"] for slot in record["answer"]["items"]],
            "sources": [slot["source"] for slot in record["answer"]["items"]],
            "record": orjson.dumps(record).decode(),
        }
        for record in records
    ]
    numbers = {**SCHEMA, "at": pl.Int64()}
    frame = pl.DataFrame(rows, schema=numbers)
    return frame.with_columns(pl.from_epoch("at", time_unit="ms").dt.replace_time_zone("UTC"))


def _first_ms(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _abandoned(path: Path) -> bool:
    """Tell whether the writer of a file is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _records(path: Path) -> Iterator[Record]:
    """Yield the records of a file; a line that a kill cut off is left out."""
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            yield orjson.loads(line)


def _line_with(path: Path, marker: bytes) -> bytes | None:
    """Return the whole line of a file in which something stands."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            at = text.find(marker)
            if at < 0:
                return None
            end = text.find(b"\n", at)
            return None if end < 0 else text[text.rfind(b"\n", 0, at) + 1 : end]
    except (FileNotFoundError, ValueError):
        return None  # sealed meanwhile, or still empty
