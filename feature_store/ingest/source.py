"""From what a person names (a file, a folder, a glob, ``-``) to tables that can be read."""

import glob
import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from feature_store.errors import UserError
from feature_store.ingest.csv_table import CsvTable
from feature_store.ingest.jsonl_table import JsonlTable
from feature_store.ingest.parquet_table import ParquetTable
from feature_store.ingest.table import Batch, Table

ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
FORMATS = ("csv", "parquet", "jsonl")
LATER_FORMATS = ("segment", "ga4", "retail", "merchant")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Parameters
    ----------
    path : Path or None
        ``None`` is standard input.
    name : str
        What messages and rejects call it.
    format : str
        One of `FORMATS`.
    size : int
        Bytes on disk, for progress; 0 if unknown.
    """

    path: Path | None
    name: str
    format: str
    size: int


def find_sources(named: str, form: str | None = None) -> list[Source]:
    """Find the files that a person means.

    Parameters
    ----------
    named : str
        A file, a folder (searched to the bottom), a glob, or ``-`` for standard input.
    form : str, optional
        One of `FORMATS`; told from the ending if not given (standard input: CSV).

    Returns
    -------
    list of Source
        At least one, sorted by path.

    Raises
    ------
    UserError
        If nothing is there, or its format cannot be told.
    """
    if form in LATER_FORMATS:
        raise UserError(
            f"the format {form!r} is not yet supported in this version; use one of "
            f"{', '.join(FORMATS)}"
        )
    if form is not None and form not in FORMATS:
        raise UserError(f"there is no format {form!r}; use one of {', '.join(FORMATS)}")
    if named == "-":
        return [Source(None, "standard input", form or "csv", 0)]
    path = Path(named).expanduser()
    if path.is_dir():
        return _in_folder(path, form)
    if path.exists():
        return [_source(path, form)]
    if any(sign in named for sign in "*?["):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
        files = [match for match in matches if match.is_file()]
        if not files:
            raise UserError(f"no file matches {named}")
        return [_source(file, form) for file in files]
    raise UserError(f"there is no file {named}")


def _in_folder(folder: Path, form: str | None) -> list[Source]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".", "_"))
    )
    fitting = [path for path in files if form in (None, format_of(path)) and format_of(path)]
    if not fitting and form is not None:
        fitting = files
    if not fitting:
        raise UserError(f"the folder {folder} holds no file that ends in {', '.join(ENDINGS)}")
    return [_source(path, form) for path in fitting]


def _source(path: Path, form: str | None) -> Source:
    form = form or format_of(path)
    if form is None:
        raise UserError(f"cannot tell the format of {path} from its ending; say --format csv")
    try:
        return Source(path, str(path), form, path.stat().st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def format_of(path: Path) -> str | None:
    """Tell a format from a file's ending, with or without ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return ENDINGS.get(Path(name).suffix)


@contextmanager
def open_table(source: Source) -> Iterator[Table]:
    """Open a file as a table.

    Raises
    ------
    UserError
        If it cannot be read or is not what its format says.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_binary(source))
            table: Table
            if source.format == "csv":
                table = CsvTable(file, source.name)
            elif source.format == "jsonl":
                table = JsonlTable(file, source.name)
            else:
                table = ParquetTable(file, source.name)
        except (OSError, EOFError) as error:
            raise _unreadable(source, error) from None
        yield table


def read_batches(source: Source, table: Table, wanted: Sequence[str]) -> Iterator[Batch]:
    """Read the wanted columns of a table.

    Raises
    ------
    UserError
        If the file turns out to be damaged.
    """
    batches = table.batches(wanted)
    while True:
        try:
            batch = next(batches, None)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(source, error) from None
        if batch is None:
            return
        yield batch


def _unreadable(source: Source, error: Exception) -> UserError:
    return UserError(f"cannot read {source.name}: {getattr(error, 'strerror', None) or error}")


@contextmanager
def _binary(source: Source) -> Iterator[BinaryIO]:
    if source.path is None:
        yield sys.stdin.buffer
    elif source.path.name.lower().endswith(".gz"):
        with gzip.open(source.path, "rb") as file:
            yield cast(BinaryIO, file)
    else:
        with source.path.open("rb") as file:
            yield file
