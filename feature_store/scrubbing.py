"""Removing people from every file of a data directory.

Who is meant is a function from a person to the time of their erasure: a look into a dictionary when
the names are known, a keyed hash when only digests are (``forgotten``). What the person did before
that time goes, what they did since they came back stays.

No file of the event log is removed: whoever has listed the log must still be able to open what was
listed. One in which nothing is left has no rows.
"""

import ast
import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from feature_store.change_log import ChangeLog
from feature_store.compaction import arrived_at
from feature_store.decision_log import DecisionLog
from feature_store.event_log import EventLog
from feature_store.files import sync_file, sync_folder, write_atomically
from feature_store.forgotten import KIND as FORGOTTEN
from feature_store.ingest.table import Progress, silent
from feature_store.merging import ROW_TYPE
from feature_store.people import NAME as PEOPLE

ErasedAt = Callable[[str], int]
"""Gives the time at which a person (``schema.person_of``) was erased, in milliseconds since 1970;
0 for everybody else."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PERSON_COLUMNS = ["user_id", "anonymous_id"]


def scrub(data_dir: Path, erased_at: ErasedAt, progress: Progress = silent) -> Counter[str]:
    """Remove erased people from all files; hold ``EventLog.importing()`` around it.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    erased_at : callable
        Says who is erased, and when they were.
    progress : Progress
        Is told how far it is.

    Returns
    -------
    Counter of str
        How many ``archived_events``, ``archived_changes``, ``decisions`` and ``rejected_rows`` are
        gone, and from how many events of others an ``anonymous_id`` was taken.
    """
    log = EventLog(data_dir)
    _remove_remains(data_dir, log)
    counts: Counter[str] = Counter()
    counts += _scrub_events(log, erased_at, progress)
    counts["archived_changes"] = _scrub_changes(ChangeLog(data_dir), erased_at)
    counts["decisions"] = DecisionLog(data_dir / "decisions").forget(erased_at)
    counts["rejected_rows"] = sum(
        _scrub_rejects(path, erased_at) for path in _rejects_files(log.imports)
    )
    _scrub_examples(data_dir / "demo.json", erased_at)
    return +counts


def merged_visitors(data_dir: Path, erased_at: ErasedAt) -> dict[str, int]:
    """Return the visitors who had become erased users, and when those were erased.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    erased_at : callable
        Says which users are erased.

    Returns
    -------
    dict of str to int
        Visitor (``a:...``) to milliseconds since 1970.
    """
    merges = EventLog(data_dir).scan().filter(pl.col("type") == ROW_TYPE)
    found: dict[str, int] = {}
    pairs = merges.select("user_id", "anonymous_id", _milliseconds()).collect()
    for user_id, anonymous_id, at_ms in pairs.iter_rows():
        gone_ms = erased_at(f"u:{user_id}")
        if at_ms < gone_ms:
            visitor = f"a:{anonymous_id}"
            found[visitor] = max(found.get(visitor, 0), gone_ms)
    return found


def also(erased_at: ErasedAt, more: Mapping[str, int]) -> ErasedAt:
    """Return a function that knows some more people; of two times the later one counts."""
    known: dict[str, int] = {}

    def both(person: str) -> int:
        # A keyed hash is not computed again for each file that names the person.
        if person not in known:
            known[person] = max(erased_at(person), more.get(person, 0))
        return known[person]

    return both


def arrived_ms(name: str) -> int | None:
    """Return until when the events of a file arrived, as its name says; ``None`` if it does not."""
    archived = name.startswith(("live-", "compact-"))
    stamp = arrived_at(name) if archived else name.partition("-")[0]
    form = "%Y%m%dT%H%M%S%f" if archived else "%Y%m%dT%H%M%S"
    with suppress(ValueError):
        return int(datetime.strptime(f"{stamp}+0000", f"{form}%z").timestamp() * 1000)
    return None


# --- the event log --------------------------------------------------------------------------------


def _scrub_events(log: EventLog, erased_at: ErasedAt, progress: Progress) -> Counter[str]:
    with log.committing():
        pass  # what was committed is in its place; nobody else commits while we hold the log
    files = [*sorted(log.events.glob("date=*/*.parquet")), *log.imports.rglob("date=*/*.parquet")]
    counts: Counter[str] = Counter()
    for done, path in enumerate(files):
        progress("event log", done, len(files))
        counts += _scrub_events_file(path, erased_at)
    progress("event log", len(files), len(files))
    return counts


def _scrub_events_file(path: Path, erased_at: ErasedAt) -> Counter[str]:
    named = pl.read_parquet(path, columns=_PERSON_COLUMNS, hive_partitioning=False)
    users = _erased(named["user_id"], "u:", erased_at)
    visitors = _erased(named["anonymous_id"], "a:", erased_at)
    if not users and not visitors:
        return Counter()
    events = pl.read_parquet(path, hive_partitioning=False)
    gone = events.select(
        pl.when(pl.col("user_id").is_not_null())
        .then(_before("user_id", users, path.name))
        .otherwise(_before("anonymous_id", visitors, path.name))
        .fill_null(value=False)
        .alias("gone"),
        _before("anonymous_id", visitors, path.name).fill_null(value=False).alias("blank"),
    )
    is_gone, blank = gone["gone"], gone["blank"] & ~gone["gone"]
    if not is_gone.any() and not blank.any():
        return Counter()
    kept = events.with_columns(
        pl.when(~blank).then(pl.col("anonymous_id")).alias("anonymous_id")
    ).filter(~is_gone)
    _replace(path, kept)
    return Counter(archived_events=int(is_gone.sum()), visitor_ids_of_others=int(blank.sum()))


def _erased(ids: pl.Series, prefix: str, erased_at: ErasedAt) -> dict[str, int]:
    found = {one: erased_at(prefix + one) for one in ids.unique().drop_nulls()}
    return {one: at_ms for one, at_ms in found.items() if at_ms}


def _before(column: str, erased: Mapping[str, int], name: str) -> pl.Expr:
    """Tell of which events the person in a column was erased after they happened, or arrived."""
    if not erased:
        return pl.lit(value=False)
    cut = pl.col(column).replace_strict(
        list(erased), list(erased.values()), default=None, return_dtype=pl.Int64()
    )
    arrived = arrived_ms(name)
    before = _milliseconds() < cut
    return before if arrived is None else before | (pl.lit(arrived) <= cut)


def _milliseconds() -> pl.Expr:
    return pl.col("timestamp").dt.epoch("ms")


def _replace(path: Path, frame: pl.DataFrame) -> None:
    partial = path.with_name(f".{path.name}.partial")
    frame.write_parquet(partial, compression="zstd", statistics=True)
    sync_file(partial)
    partial.replace(path)
    sync_folder(path.parent)


# --- the change log -------------------------------------------------------------------------------


def _scrub_changes(changes: ChangeLog, erased_at: ErasedAt) -> int:
    removed = 0
    for path in changes.files(PEOPLE):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not _is_erased(orjson.loads(line), erased_at)]
        if len(kept) < len(lines):
            removed += len(lines) - len(kept)
            write_atomically(path, b"".join(kept))
    return removed


def _is_erased(change: Mapping[str, Any], erased_at: ErasedAt) -> bool:
    if change["kind"] == FORGOTTEN:
        return False
    gone_ms = erased_at(change["person"])
    if not gone_ms:
        return False
    # By the server's clock, or by that of the process that wrote it: either says it is older.
    placed_ms = int(change["id"].partition("-")[0])
    said_ms = int(datetime.fromisoformat(change["at"]).timestamp() * 1000)
    return min(placed_ms, said_ms) <= gone_ms


# --- everything else ------------------------------------------------------------------------------


def _remove_remains(data_dir: Path, log: EventLog) -> None:
    """Remove what killed processes left half-written; nobody else writes there meanwhile."""
    if log.imports.is_dir():
        log.discard_unfinished()
        for folder in log.imports.iterdir():
            # Both are made again by whoever needs them.
            for name in ("scratch", "by_person"):
                shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("events", "imports", "changes/people"):
        for partial in (data_dir / name).rglob(".*.partial"):
            partial.unlink(missing_ok=True)


def _rejects_files(imports: Path) -> list[Path]:
    found = [*imports.glob("*rejects.*"), *imports.glob("*/rejects.*")]
    return sorted(path for path in found if path.suffix in (".csv", ".jsonl"))


def _scrub_rejects(path: Path, erased_at: ErasedAt) -> int:
    if path.suffix == ".jsonl":
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not _names(_strings(orjson.loads(line)), erased_at)]
        if len(kept) < len(lines):
            write_atomically(path, b"".join(kept))
        return len(lines) - len(kept)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    left = [row for row in rows if not _names(_strings(row), erased_at)]
    if len(left) < len(rows):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(left)
        write_atomically(path, text.getvalue().encode())
    return len(rows) - len(left)


def _names(strings: Iterable[str], erased_at: ErasedAt) -> bool:
    """Tell whether one of some values is the id of somebody erased."""
    return any(erased_at(f"u:{one}") or erased_at(f"a:{one}") for one in strings)


def _strings(value: Any) -> Iterator[str]:
    """Yield all texts in a value, also those that are written as JSON, or quoted, in another."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(name)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
        try:
            inner = orjson.loads(value) if value[:1] in "{[" else None
        except orjson.JSONDecodeError:
            inner = _QUOTED.findall(value)  # cut off
        yield from _strings(inner)
        if value[:1] in "'\"" and len(value) > 1:
            # A refused value stands there as Python writes it.
            with suppress(ValueError, SyntaxError):
                if isinstance(inner := ast.literal_eval(value), str):
                    yield from _strings(inner)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def _scrub_examples(path: Path, erased_at: ErasedAt) -> None:
    """Take erased people from the examples that the demo shows."""
    with suppress(FileNotFoundError):
        document = orjson.loads(path.read_bytes())
        named = document["user_ids"]
        kept = [user_id for user_id in named if not erased_at(f"u:{user_id}")]
        if len(kept) < len(named):
            mode = path.stat().st_mode
            document["user_ids"] = kept
            hidden = path.with_name(".demo.json.partial")
            hidden.touch(mode=mode & 0o777)
            hidden.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
            hidden.replace(path)
