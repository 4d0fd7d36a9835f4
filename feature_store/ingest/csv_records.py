"""Splitting CSV text into records: at full speed where it is well formed, with care elsewhere.

`scan_records` looks at a whole chunk with numpy and answers only if every quote stands where one
may stand. `careful_records` reads record by record; a broken one costs its own line, never those
after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

QUOTE, NEWLINE, RETURN = ord('"'), ord("\n"), ord("\r")
MAX_FIELD_BYTES = 65_536
"""A quoted field that is longer counts as one whose closing quote is missing."""
MAX_RECORD_BYTES = 1 << 20
"""How much text is kept back for a record that is not finished."""

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scan:
    """Where the records of a chunk begin and end.

    Parameters
    ----------
    starts, ends : ndarray of int64, shape (n,)
        Bytes; an end is where the record's newline stands.
    n_fields : ndarray of int64, shape (n,)
        How many fields each has.
    line : ndarray of int64, shape (n,)
        Newlines before it, counted from the chunk's begin.
    spans_lines : ndarray of bool, shape (n,)
        Whether a quoted field holds a newline.
    used : int
        Bytes up to the end of the last whole record.
    """

    starts: I64
    ends: I64
    n_fields: I64
    line: I64
    spans_lines: npt.NDArray[np.bool_]
    used: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its fields, or why it is not one."""

    line: int
    end: int
    fields: list[str | None] | None
    reason: str = ""
    detail: str = ""


def scan_records(chunk: bytes, delimiter: int) -> Scan | None:
    """Find the records of a chunk that begins with one.

    Parameters
    ----------
    chunk : bytes
        Text that ends with a newline; a quoted field may still be open there.
    delimiter : int
        Byte between fields.

    Returns
    -------
    Scan or None
        ``None`` if a quote stands where none may stand: the chunk needs care.
    """
    data = np.frombuffer(chunk, dtype=np.uint8)
    newlines = np.flatnonzero(data == NEWLINE)
    delimiters = np.flatnonzero(data == delimiter)
    ends = newlines
    if QUOTE in chunk:
        is_quote = data == QUOTE
        if not _quotes_stand_right(data, np.flatnonzero(is_quote), delimiter):
            return None
        inside = np.cumsum(is_quote, dtype=np.uint8) & 1
        ends = newlines[inside[newlines] == 0]
        delimiters = delimiters[inside[delimiters] == 0]
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    lines_after = np.searchsorted(newlines, ends, side="right")
    line = np.concatenate(([0], lines_after[:-1])) if len(ends) else ends
    delimiters_until = np.searchsorted(delimiters, ends)
    return Scan(
        starts=starts,
        ends=ends,
        n_fields=np.diff(delimiters_until, prepend=0) + 1,
        line=line,
        spans_lines=lines_after - line > 1,
        used=int(ends[-1]) + 1 if len(ends) else 0,
    )


def _quotes_stand_right(data: npt.NDArray[np.uint8], quotes: I64, delimiter: int) -> bool:
    """Tell whether each opening quote begins a field and each closing one ends it."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = data[np.maximum(opening - 1, 0)]
    # Quotes alternate: one that opens right after another is the second of a doubled quote.
    begins = (opening == 0) | (before == delimiter) | (before == NEWLINE) | (before == QUOTE)
    after = data[closing + 1]
    finishes = (after == delimiter) | (after == NEWLINE) | (after == QUOTE)
    finishes |= (after == RETURN) & (data[np.minimum(closing + 2, len(data) - 1)] == NEWLINE)
    return bool(begins.all() and finishes.all())


def careful_records(
    chunk: bytes, delimiter: int, n_fields: int, *, at_end: bool
) -> Iterator[Record]:
    """Read a chunk record by record.

    Parameters
    ----------
    chunk : bytes
        Text that begins with a record.
    delimiter : int
        Byte between fields.
    n_fields : int
        How many fields a record has; 0 takes any number.
    at_end : bool
        Whether nothing follows the chunk. If something does, an unfinished record at its end is
        left out, to be read with what follows.

    Yields
    ------
    Record
        Whole ones and broken ones, blank lines excepted; a broken one ends with its first line.
    """
    at, line = 0, 0
    while at < len(chunk):
        newline = chunk.find(b"\n", at)
        if newline < 0 and not at_end:
            return
        line_end = newline if newline >= 0 else len(chunk)
        if not chunk[at:line_end].strip(b"\r"):
            at, line = line_end + 1, line + 1
            continue
        found = _read_fields(chunk, at, delimiter)
        unfinished = found is None or found[1] >= len(chunk)
        if unfinished and not at_end and len(chunk) - at <= MAX_RECORD_BYTES:
            return
        record = _judge(line, found, line_end, n_fields)
        yield record
        line += 1 + chunk.count(b"\n", at, min(record.end, len(chunk)))
        at = record.end + 1


def _judge(
    line: int,
    found: tuple[list[bytes | None], int] | None,
    line_end: int,
    n_fields: int,
) -> Record:
    if found is None:
        return Record(line, line_end, None, "broken_line", "a quote is not closed, or not rightly")
    raw, end = found
    if n_fields and len(raw) != n_fields:
        detail = f"{len(raw)} fields where the header has {n_fields}"
        return Record(line, line_end, None, "broken_line", detail)
    try:
        fields = [None if value is None else value.decode() for value in raw]
    except UnicodeDecodeError as error:
        return Record(line, end, None, "wrong_encoding", not_utf8(error))
    return Record(line, end, fields)


def not_utf8(error: UnicodeDecodeError) -> str:
    """Say which bytes are wrong."""
    shown = bytes(error.object[max(0, error.start - 10) : error.end + 10])
    return f"not UTF-8 at {shown!r}"


def _read_fields(chunk: bytes, at: int, delimiter: int) -> tuple[list[bytes | None], int] | None:
    """Return the fields of the record at `at` and its end, or ``None`` if a quote is wrong."""
    separator = bytes((delimiter,))
    newline = chunk.find(b"\n", at)
    end = newline if newline >= 0 else len(chunk)
    if chunk.find(b'"', at, end) < 0:
        return [value or None for value in chunk[at:end].removesuffix(b"\r").split(separator)], end
    fields: list[bytes | None] = []
    while True:
        if chunk[at : at + 1] == b'"':
            closing = _closing_quote(chunk, at)
            if closing is None:
                return None
            fields.append(chunk[at + 1 : closing].replace(b'""', b'"') or None)
            at = closing + 1
            # The record may have gone on over a newline inside the quotes.
            newline = chunk.find(b"\n", at)
            end = newline if newline >= 0 else len(chunk)
            if chunk[at:end] in (b"", b"\r"):
                return fields, end
            if chunk[at : at + 1] != separator:
                return None
            at += 1
        else:
            comma = chunk.find(separator, at, end)
            if comma < 0:
                fields.append(chunk[at:end].removesuffix(b"\r") or None)
                return fields, end
            fields.append(chunk[at:comma] or None)
            at = comma + 1


def _closing_quote(chunk: bytes, opening: int) -> int | None:
    limit = opening + MAX_FIELD_BYTES
    at = opening + 1
    while True:
        at = chunk.find(b'"', at, limit)
        if at < 0:
            return None
        if chunk[at + 1 : at + 2] != b'"':
            return at
        at += 2
