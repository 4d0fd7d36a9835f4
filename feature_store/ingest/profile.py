"""What is in a file, before anything is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from feature_store.ingest.source import Source, open_table, read_batches
from feature_store.ingest.values import as_number, as_time

PROFILE_ROWS = 1_000_000
_EXAMPLES = 3
_TYPE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column.

    Parameters
    ----------
    name : str
        As in the file.
    type : str
        ``integer``, ``number``, ``time``, ``boolean``, ``text``, or a Parquet type.
    nulls, distinct : int
        Rows without a value; different values.
    least, greatest : str or None
        By value for numbers and times, by the alphabet for text.
    examples : tuple of str
        The first few different values.
    field : str or None
        What it would be imported as.
    """

    name: str
    type: str
    nulls: int
    distinct: int
    least: str | None
    greatest: str | None
    examples: tuple[str, ...]
    field: str | None


@dataclass(frozen=True, slots=True)
class FileProfile:
    """A file; `rows` is how many rows were looked at, all of them unless `truncated`."""

    name: str
    rows: int
    truncated: bool
    columns: tuple[ColumnProfile, ...]


def profile_file(source: Source, mapping: Mapping[str, str]) -> FileProfile:
    """Look at every column of a file, in its first million rows.

    Parameters
    ----------
    source : Source
        The file.
    mapping : mapping of str to str
        Column of each field, as an import would use it.
    """
    fields = {column: field for field, column in mapping.items()}
    with open_table(source) as table:
        frames: list[pl.DataFrame] = []
        rows, truncated = 0, False
        for batch in read_batches(source, table, table.columns):
            frames.append(batch.frame)
            rows += len(batch.frame)
            if rows >= PROFILE_ROWS:
                truncated = True
                break
        frame = pl.concat(frames) if frames else pl.DataFrame(schema=table.columns)
    columns = tuple(_column(frame[name], fields.get(name)) for name in frame.columns)
    return FileProfile(source.name, rows, truncated, columns)


def columns_of(source: Source) -> Sequence[str]:
    """Return the columns of a file."""
    with open_table(source) as table:
        return table.columns


def _column(values: pl.Series, field: str | None) -> ColumnProfile:
    if values.dtype.is_nested():
        texts = [None if value is None else str(value) for value in values.to_list()]
        values = pl.Series(values.name, texts, dtype=pl.String)
    known = values.drop_nulls()
    kind, ordered = _typed(known)
    different = known.unique(maintain_order=True)
    return ColumnProfile(
        name=values.name,
        type=kind,
        nulls=values.null_count(),
        distinct=len(different),
        least=_shown(ordered.min()),
        greatest=_shown(ordered.max()),
        examples=tuple(str(_shown(value)) for value in different.head(_EXAMPLES)),
        field=field,
    )


def _typed(known: pl.Series) -> tuple[str, pl.Series]:
    """Return the type of a column, and its values in a form whose order means something."""
    if known.dtype != pl.String:
        names = {pl.Int64: "integer", pl.Int32: "integer", pl.Float64: "number", pl.Date: "day"}
        return names.get(known.dtype.base_type(), str(known.dtype).lower()), known
    if known.is_empty():
        return "empty", known
    sample = known.head(_TYPE_ROWS)
    if sample.str.contains(r"^-?\d{1,18}$").all():
        return "integer", as_number(known)
    if as_number(sample).null_count() == 0:
        return "number", as_number(known)
    if as_time(sample, "UTC").null_count() == 0:
        return "time", as_time(known, "UTC")
    if sample.str.to_lowercase().is_in(["true", "false"]).all():
        return "boolean", known
    return "text", known


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).replace("+00:00", "")
