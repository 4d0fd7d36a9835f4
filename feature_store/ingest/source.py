"""From what a person names (a file, a folder, a glob, ``-``) to tables that can be read."""

import glob
import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from feature_store.errors import UserError
from feature_store.ingest.csv_table import CsvTable
from feature_store.ingest.jsonl_table import JsonlTable
from feature_store.ingest.merchant import (
    MerchantText,
    MerchantXml,
    header_names,
    is_merchant_header,
    is_xml,
)
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
    ".xml": "merchant",
    ".rss": "merchant",
    ".atom": "merchant",
}
FORMATS = ("csv", "parquet", "jsonl")
FEEDS = ("merchant",)
"""Formats that hold items only."""
LATER_FORMATS = ("segment", "ga4", "retail")
ITEM_OBJECTS = frozenset({"attributes", "price", "sale_price", "markets"})
"""Objects within an item's JSON that are read as a whole."""
_SNIFFED_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"


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
    whole : set of str
        Objects within JSON that stay whole (``JsonlTable``).
    """

    path: Path | None
    name: str
    format: str
    size: int
    whole: frozenset[str] = frozenset({"attributes"})


def find_item_sources(named: str, form: str | None = None, *, mapped: bool = False) -> list[Source]:
    """Find the files of items that a person means; a product feed is told from its content.

    Parameters
    ----------
    named : str
        See `find_sources`.
    form : str, optional
        One of `FORMATS` or `FEEDS`.
    mapped : bool
        Whether the person names columns: then a table is just a table, whatever its columns.

    Returns
    -------
    list of Source
        At least one, sorted by path.

    Raises
    ------
    UserError
        If nothing is there, or its format cannot be told.
    """
    found = find_sources(named, form, FORMATS + FEEDS, guess="csv")
    if form is None:
        found = [replace(source, format=_sniffed(source, mapped=mapped)) for source in found]
    return [replace(source, whole=ITEM_OBJECTS) for source in found]


def _sniffed(source: Source, *, mapped: bool) -> str:
    """Tell a product feed from other text by its first bytes."""
    if source.format not in ("csv", "merchant"):
        return source.format
    try:
        with _binary(source) as file:
            # Standard input can be looked into, but read only once.
            peek = getattr(file, "peek", None)
            start: bytes = peek(_SNIFFED_BYTES) if peek is not None else file.read(_SNIFFED_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(source, error) from None
    if is_xml(start):
        return "merchant"
    if mapped:
        return "csv"
    header = start.removeprefix(_BOM).lstrip().split(b"\n", 1)[0].decode(errors="replace")
    return "merchant" if is_merchant_header(header_names(header)) else "csv"


def find_sources(
    named: str,
    form: str | None = None,
    formats: Sequence[str] = FORMATS,
    guess: str | None = None,
) -> list[Source]:
    """Find the files that a person means.

    Parameters
    ----------
    named : str
        A file, a folder (searched to the bottom), a glob, or ``-`` for standard input.
    form : str, optional
        One of `formats`; told from the ending if not given (standard input: CSV).
    formats : sequence of str
        The formats that can be read here.
    guess : str, optional
        What a single file is whose ending says nothing.

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
            f"{', '.join(formats)}"
        )
    if form in FEEDS and form not in formats:
        raise UserError(f"the format {form!r} holds items; use one of {', '.join(formats)}")
    if form is not None and form not in formats:
        raise UserError(f"there is no format {form!r}; use one of {', '.join(formats)}")
    if named == "-":
        return [Source(None, "standard input", form or "csv", 0)]
    path = Path(named).expanduser()
    if path.is_dir():
        return _in_folder(path, form, formats)
    if path.exists():
        return [_source(path, form, formats, guess)]
    if any(sign in named for sign in "*?["):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
        files = [match for match in matches if match.is_file()]
        if not files:
            raise UserError(f"no file matches {named}")
        return [_source(file, form, formats, guess) for file in files]
    raise UserError(f"there is no file {named}")


def _in_folder(folder: Path, form: str | None, formats: Sequence[str]) -> list[Source]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".", "_"))
    )
    fitting = [
        path for path in files if (told := format_of(path)) in formats and form in (None, told)
    ]
    if not fitting and form is not None:
        fitting = files
    if not fitting:
        endings = ", ".join(ending for ending, told in ENDINGS.items() if told in formats)
        raise UserError(f"the folder {folder} holds no file that ends in {endings}")
    return [_source(path, form, formats) for path in fitting]


def _source(
    path: Path, form: str | None, formats: Sequence[str], guess: str | None = None
) -> Source:
    form = form or format_of(path) or guess
    if form is None:
        raise UserError(f"cannot tell the format of {path} from its ending; say --format csv")
    if form not in formats:
        raise UserError(f"{path} looks like a feed of items; use one of {', '.join(formats)}")
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
            table = _table(file, source)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(source, error) from None
        yield table


def _table(file: BinaryIO, source: Source) -> Table:
    if source.format == "csv":
        return CsvTable(file, source.name)
    if source.format == "jsonl":
        return JsonlTable(file, source.name, source.whole)
    if source.format == "parquet":
        return ParquetTable(file, source.name)
    # A standard input is a stream that can be looked into; so is every file here.
    start = cast(BufferedReader, file).peek(_SNIFFED_BYTES)
    now = datetime.now(UTC)
    return (MerchantXml if is_xml(start) else MerchantText)(file, source.name, now)


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
