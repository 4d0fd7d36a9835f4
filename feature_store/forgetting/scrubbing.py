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
from feature_store.forgetting.deliveries import adopt_erasures
from feature_store.forgetting.ledger import KIND as FORGOTTEN
from feature_store.ingest.table import Progress, silent
from feature_store.merging import ROW_TYPE
from feature_store.people import NAME as PEOPLE

ErasedAt = Callable[[str], int]
"""Gives the time at which a person (``schema.person_of``) was erased, in milliseconds since 1970;
0 for everybody else."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_TOKEN = re.compile(r"""[^\s'"`,;()<>{}\[\]]{6,}""")
"""What may be an id in the middle of a text; a shorter one may be any number."""
_PERSON_COLUMNS = ["user_id", "anonymous_id"]


Counts = Counter[tuple[str, str]]
"""How many of each kind are gone of each person."""


WillRemove = Callable[[str, Mapping[tuple[str, str], int]], None]
"""Is told, before anything is removed from a file, which file, and how many of what of whom."""


def scrub(
    data_dir: Path,
    erased_at: ErasedAt,
    progress: Progress = silent,
    will_remove: WillRemove = lambda *_: None,
) -> Counts:
    """Remove erased people from all files; hold ``EventLog.importing()`` around it.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    erased_at : callable
        Says who is erased, and when they were.
    progress : Progress
        Is told how far it is.
    will_remove : callable
        Is told of each file before it is changed.

    Returns
    -------
    Counter of (str, str)
        How many ``archived_events``, ``archived_changes``, ``decisions`` and ``rejected_rows`` are
        gone of each person, and from how many ``events_of_others`` their name was taken.
    """
    log = EventLog(data_dir)
    _remove_remains(data_dir, log)
    counts = _scrub_events(log, erased_at, progress, will_remove)
    # Before the changes, which alone know what else the people were called.
    others_names = _external_ids(ChangeLog(data_dir), erased_at)
    for path in _rejects_files(log.imports):
        counts += _scrub_rejects(path, erased_at, others_names, will_remove)
    counts += _scrub_changes(ChangeLog(data_dir), erased_at, will_remove)
    records = DecisionLog(data_dir / "decisions")
    if records.folder.is_dir():
        records.seal()

        def tell(path: Path, gone: Mapping[str, int]) -> None:
            will_remove(path.name, {("decisions", one): count for one, count in gone.items()})

        decisions = records.forget(erased_at, tell)
        counts += Counter({("decisions", person): count for person, count in decisions.items()})
    _scrub_examples(data_dir / "demo.json", erased_at)
    return counts


def scrub_forgotten(data_dir: Path, progress: Progress = silent) -> int:
    """Remove everybody of whom the folder itself says, by digests, that they were erased.

    For a folder whose server is lost, or that comes from a backup; hold ``EventLog.importing()``
    around it. What ``erasures.jsonl`` knows alone stands in the change log afterwards.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    progress : Progress
        Is told how far it is.

    Returns
    -------
    int
        How many events, changes and records are gone.
    """
    ledger = adopt_erasures(data_dir)
    if not any(cut.erased_ms for cut in ledger.cuts.values()):
        return 0
    known: dict[str, int] = {}

    def erased_at(person: str) -> int:
        # A keyed hash is not computed again for each file that names the person.
        if person not in known:
            known[person] = ledger.cut_of(person).erased_ms
        return known[person]

    for visitor, user in merged_visitors(data_dir, erased_at).items():
        known[visitor] = max(erased_at(visitor), erased_at(user))
    return scrub(data_dir, erased_at, progress).total()


def merged_visitors(data_dir: Path, erased_at: ErasedAt) -> dict[str, str]:
    """Return the visitors who had become erased users before those were erased.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    erased_at : callable
        Says which users are erased.

    Returns
    -------
    dict of str to str
        Visitor (``a:...``) to user (``u:...``).
    """
    merges = EventLog(data_dir).scan().filter(pl.col("type") == ROW_TYPE)
    pairs = merges.select("user_id", "anonymous_id", _milliseconds()).collect()
    return {
        f"a:{anonymous_id}": f"u:{user_id}"
        for user_id, anonymous_id, at_ms in pairs.iter_rows()
        # Who was erased since was nobody's visitor any more when the user was erased again.
        if erased_at(f"a:{anonymous_id}") <= at_ms < erased_at(f"u:{user_id}")
    }


def arrived_ms(name: str) -> int | None:
    """Return until when the events of a file arrived, as its name says; ``None`` if it does not."""
    archived = name.startswith(("live-", "compact-"))
    stamp = arrived_at(name) if archived else name.partition("-")[0]
    form = "%Y%m%dT%H%M%S%f" if archived else "%Y%m%dT%H%M%S"
    with suppress(ValueError):
        return int(datetime.strptime(f"{stamp}+0000", f"{form}%z").timestamp() * 1000)
    return None


# --- the event log --------------------------------------------------------------------------------


def _scrub_events(
    log: EventLog, erased_at: ErasedAt, progress: Progress, will_remove: WillRemove
) -> Counts:
    with log.committing():
        pass  # what was committed is in its place; nobody else commits while we hold the log
    files = [*sorted(log.events.glob("date=*/*.parquet")), *log.imports.rglob("date=*/*.parquet")]
    counts: Counts = Counter()
    for done, path in enumerate(files):
        progress("event log", done, len(files))
        counts += _scrub_events_file(log, path, erased_at, will_remove)
    progress("event log", len(files), len(files))
    return counts


def _scrub_events_file(
    log: EventLog, path: Path, erased_at: ErasedAt, will_remove: WillRemove
) -> Counts:
    named = pl.read_parquet(path, columns=_PERSON_COLUMNS, hive_partitioning=False)
    users = _erased(named["user_id"], "u:", erased_at)
    visitors = _erased(named["anonymous_id"], "a:", erased_at)
    if not users and not visitors:
        return Counter()
    events = pl.read_parquet(path, hive_partitioning=False)
    old_user, old_visitor = (
        events.select(_before(column, erased, path.name).fill_null(value=False).alias("old"))["old"]
        for column, erased in (("user_id", users), ("anonymous_id", visitors))
    )
    alone = events["user_id"].is_null()
    gone = old_user | (old_visitor & alone)
    blank = old_visitor & ~gone
    if not gone.any() and not blank.any():
        return Counter()
    hidden = pl.when(~blank).then(pl.col("anonymous_id")).alias("anonymous_id")
    counts = (
        _counted("archived_events", "u:", events["user_id"].filter(old_user))
        + _counted("archived_events", "a:", events["anonymous_id"].filter(old_visitor & alone))
        + _counted("events_of_others", "a:", events["anonymous_id"].filter(blank))
    )
    will_remove(f"{path.parent.name}/{path.name}", counts)
    _replace(log, path, events.with_columns(hidden).filter(~gone))
    return counts


def _counted(kind: str, prefix: str, ids: pl.Series) -> Counts:
    return Counter({(kind, f"{prefix}{one}"): count for one, count in ids.value_counts().rows()})


def _erased(ids: pl.Series, prefix: str, erased_at: ErasedAt) -> dict[str, int]:
    found = {one: erased_at(prefix + one) for one in ids.unique().drop_nulls()}
    return {one: at_ms for one, at_ms in found.items() if at_ms}


def _before(column: str, erased: Mapping[str, int], name: str) -> pl.Expr:
    """Tell of which events the person in a column was erased after they happened, or arrived."""
    if not erased:
        return pl.repeat(value=False, n=pl.len())
    cut = pl.col(column).replace_strict(
        list(erased), list(erased.values()), default=None, return_dtype=pl.Int64()
    )
    arrived = arrived_ms(name)
    before = _milliseconds() < cut
    return before if arrived is None else before | (pl.lit(arrived) <= cut)


def _milliseconds() -> pl.Expr:
    return pl.col("timestamp").dt.epoch("ms")


def _replace(log: EventLog, path: Path, frame: pl.DataFrame) -> None:
    partial = path.with_name(f".{path.name}.partial")
    frame.write_parquet(partial, compression="zstd", statistics=True)
    sync_file(partial)
    with log.replacing():
        partial.replace(path)
    sync_folder(path.parent)


# --- the change log -------------------------------------------------------------------------------


def _scrub_changes(changes: ChangeLog, erased_at: ErasedAt, will_remove: WillRemove) -> Counts:
    counts: Counts = Counter()
    for path in changes.files(PEOPLE):
        kept, gone = [], Counter[tuple[str, str]]()
        for line in path.read_bytes().splitlines(keepends=True):
            change = orjson.loads(line)
            if _is_erased(change, erased_at):
                gone["archived_changes", change["person"]] += 1
            else:
                kept.append(line)
        if gone:
            counts += gone
            will_remove(path.name, gone)
            write_atomically(path, b"".join(kept))
    return counts


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


def _external_ids(changes: ChangeLog, erased_at: ErasedAt) -> dict[str, str]:
    """Return the ids that erased people had in other systems, each with the person."""
    found: dict[str, str] = {}
    for path in changes.files(PEOPLE):
        for line in path.read_bytes().splitlines():
            if b'"external_ids"' in line:
                change = orjson.loads(line)
                ids = (change["body"] or {}).get("external_ids") or {}
                if ids and _is_erased(change, erased_at):
                    found.update(dict.fromkeys(ids.values(), change["person"]))
    return found


def _scrub_rejects(
    path: Path, erased_at: ErasedAt, names: Mapping[str, str], will_remove: WillRemove
) -> Counts:
    gone: Counts = Counter()

    def is_kept(record: Any) -> bool:
        person = _named(_strings(record), erased_at, names)
        if person is not None:
            gone["rejected_rows", person] += 1
        return person is None

    if path.suffix == ".jsonl":
        lines = path.read_bytes().splitlines(keepends=True)
        content = b"".join(line for line in lines if is_kept(orjson.loads(line)))
    else:
        text = io.StringIO()
        with path.open(encoding="utf-8", newline="") as file:
            rows = (row for row in csv.reader(file) if is_kept(row))
            csv.writer(text, lineterminator="\n").writerows(rows)
        content = text.getvalue().encode()
    if gone:
        will_remove(f"{path.parent.name}/{path.name}", gone)
        write_atomically(path, content)
    return gone


def _named(strings: Iterable[str], erased_at: ErasedAt, names: Mapping[str, str]) -> str | None:
    """Return somebody erased who is called as one of some values."""
    for one in strings:
        if one in names:
            return names[one]
        for person in (f"u:{one}", f"a:{one}"):
            if erased_at(person):
                return person
    return None


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
        for token in _TOKEN.findall(value):
            yield from (token, token.rstrip(".:!?"))
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
