"""Everything that files hold of one person: log, changes, decisions, refused rows.

All of it is read in one thread, a row group or a part of a file at a time, so that a service can
read it while it answers pages.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.change_log import ChangeLog
from feature_store.decision_log import CLOSED, OPEN
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog
from feature_store.holdings.server import Wanted
from feature_store.links import ROW_TYPE
from feature_store.people import NAME as PEOPLE

_PART = 1 << 18
"""Bytes that are looked at before another thread may go on."""
_SHORTEST_ALONE = 6
"""Characters of an id that is recognised in the text of a refused row without quotes around it."""
_WHOSE = ["user_id", "anonymous_id"]

Row = dict[str, Any]


def merged_visitors(log: EventLog, user_id: str) -> set[str]:
    """Return the anonymous ids that, by the log, became a user."""
    found: set[str] = set()
    for table in _tables(log.files(), ["type", *_WHOSE]):
        mine = pc.and_(pc.equal(table["type"], ROW_TYPE), pc.equal(table["user_id"], user_id))
        if pc.any(mine).as_py():
            found.update(table.filter(mine)["anonymous_id"].to_pylist())
    return found


def log_rows(log: EventLog, wanted: Wanted) -> Iterator[list[Row]]:
    """Yield the rows of the log that are a person's, day by day.

    Parameters
    ----------
    log : EventLog
        The log.
    wanted : Wanted
        Whose.

    Yields
    ------
    list of dict
        Columns of ``event_log.EVENT_LOG_SCHEMA`` that are not null, oldest first within a file.
    """
    visitors = _strings(sorted(wanted.visitors))
    for file, group in _groups(log.files()):
        names = [name for name in EVENT_LOG_SCHEMA if name in file.schema_arrow.names]
        whose = file.read_row_group(group, columns=_WHOSE, use_threads=False)
        mine = pc.and_(
            pc.is_null(whose["user_id"]), pc.is_in(whose["anonymous_id"], value_set=visitors)
        )
        if wanted.user_id is not None:
            mine = pc.or_kleene(mine, pc.equal(whose["user_id"], wanted.user_id))
        if not pc.any(mine).as_py():
            continue
        rows = file.read_row_group(group, columns=names, use_threads=False).filter(mine)
        yield [_present(row) for row in rows.to_pylist()]


def change_rows(changes: ChangeLog, wanted: Wanted) -> Iterator[list[Row]]:
    """Yield the archived changes of a person's documents, each once, oldest first by file."""
    people = wanted.people
    needles = [orjson.dumps(person) for person in people]
    seen: set[tuple[str, str]] = set()
    for path in changes.files(PEOPLE):
        found = []
        for line in _lines_with(path, needles):
            body: Row = orjson.loads(line)
            place = (body.pop("epoch"), body.pop("id"))
            if body.get("person") in people and place not in seen:
                seen.add(place)
                found.append(body)
        if found:
            yield found


def decision_records(folder: Path, wanted: Wanted) -> Iterator[list[Row]]:
    """Yield the records of answers that were made for a person, sealed ones and live ones.

    Parameters
    ----------
    folder : Path
        ``<data dir>/decisions``.
    wanted : Wanted
        Whose.
    """
    people = wanted.people
    needles = [b'"person":' + orjson.dumps(person) for person in people]
    seen: set[str] = set()
    live = [*(folder / "live").glob(f"*{OPEN}"), *(folder / "live").glob(f"*{CLOSED}")]
    for path in sorted(live):
        found = []
        for line in _lines_with(path, needles):
            with suppress(orjson.JSONDecodeError):  # a line that is being written
                found.append(orjson.loads(line))
        yield from _fresh([one for one in found if one.get("person") in people], seen)
    # After the live ones: a file that is sealed in between is here now.
    value_set = _strings(people)
    for file, group in _groups(sorted(folder.glob("date=*/*.parquet"))):
        whose = file.read_row_group(group, columns=["person"], use_threads=False)
        mine = pc.is_in(whose["person"], value_set=value_set)
        if pc.any(mine).as_py():
            rows = file.read_row_group(group, columns=["record"], use_threads=False).filter(mine)
            yield from _fresh([orjson.loads(one) for one in rows["record"].to_pylist()], seen)


def _fresh(records: list[Row], seen: set[str]) -> Iterator[list[Row]]:
    fresh = [one for one in records if one["recommendation_id"] not in seen]
    seen.update(one["recommendation_id"] for one in fresh)
    if fresh:
        yield fresh


def reject_files(data_dir: Path) -> list[Path]:
    """Return the files of refused rows under a data directory."""
    imports = data_dir / "imports"
    return sorted({*imports.glob("*rejects*.*"), *imports.glob("*/*rejects*.*")})


def reject_rows(paths: Sequence[Path], ids: Sequence[str]) -> Iterator[list[Row]]:
    """Yield refused rows whose text names one of some ids.

    A refused row has no columns any more, only a text that says what was wrong. An id counts as
    named where it stands in quotes or alone; one of six characters or more also between others that
    belong to no word.

    Parameters
    ----------
    paths : sequence of Path
        Files of refused rows, CSV or JSON lines.
    ids : sequence of str
        User id, anonymous ids, external ids.
    """
    pattern = _naming(ids)
    for path in paths:
        found = [
            {"file": path.name, **row}
            for row in _rejects(path)
            if any(isinstance(value, str) and pattern.search(value) for value in row.values())
        ]
        if found:
            yield found


def _naming(ids: Sequence[str]) -> re.Pattern[str]:
    """Return what finds one of some ids in the text of a refused row."""
    choices = []
    for one in sorted(set(ids)):
        # As it is, and as Python writes it between quotes, of which a text may have both.
        written = repr(one)[1:-1]
        for text in sorted({one, written, repr(f"'{one}\"")[3:-2]}):
            quoted = re.escape(text)
            choices += [rf"\A{quoted}\Z", rf"""(?<=['"]){quoted}(?=['"])"""]
            if len(one) >= _SHORTEST_ALONE:
                choices.append(rf"(?<![\w-]){quoted}(?![\w-])")
    return re.compile("|".join(choices) or r"(?!)")


def _rejects(path: Path) -> Iterator[dict[str, Any]]:
    with suppress(FileNotFoundError), path.open("rb") as file:
        if path.suffix == ".jsonl":
            for line in file:
                with suppress(orjson.JSONDecodeError):
                    yield orjson.loads(line)
            return
        text = io.TextIOWrapper(file, "utf-8", "replace", newline="")
        yield from csv.DictReader(text)


def _groups(paths: Sequence[Path]) -> Iterator[tuple[pq.ParquetFile, int]]:
    for path in paths:
        # Merged into another or removed meanwhile; what it held was moved, or is gone for good.
        with suppress(FileNotFoundError), pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file, group


def _strings(values: Sequence[str]) -> pa.Array:
    # By polars: `pyarrow.array` imports pandas where it is installed, and holds up the pages.
    return pl.Series(values, dtype=pl.String).to_arrow().cast(pa.string())


def _tables(paths: Sequence[Path], columns: list[str]) -> Iterator[pa.Table]:
    for file, group in _groups(paths):
        yield file.read_row_group(group, columns=columns, use_threads=False)


def _present(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


def _lines_with(path: Path, needles: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the whole lines of a file in which one of the needles stands."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while part := file.read(_PART):
            head, newline, tail = (rest + part).rpartition(b"\n")
            if newline and any(needle in head for needle in needles):
                for line in head.split(b"\n"):
                    if any(needle in line for needle in needles):
                        yield line
            rest = tail
