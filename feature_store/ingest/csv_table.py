"""CSV files of any shape, in chunks, with the line of every row."""

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import polars as pl

from feature_store.errors import UserError
from feature_store.ingest.csv_records import (
    MAX_RECORD_BYTES,
    Record,
    Scan,
    careful_records,
    not_utf8,
    scan_records,
)
from feature_store.ingest.table import Batch, EmptyFileError, Lines, Reject, text_frame

CHUNK_BYTES = 16 << 20
_DELIMITERS = b",;\t|"
_BOM = b"\xef\xbb\xbf"


class CsvTable:
    """A CSV file: comma, semicolon, tab or bar between fields, told from its header line.

    Parameters
    ----------
    file : binary file
        Read once, front to back.
    name : str
        What messages call it.
    chunk_bytes : int
        How much is read at a time.

    Raises
    ------
    UserError
        If it has no header line, or is not text in UTF-8.
    """

    def __init__(self, file: BinaryIO, name: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.name = name
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._line = 1
        self._rest = self._first_chunk()
        self._delimiter = b","[0]
        self.columns = self._read_header()
        self._rejects: list[Reject] = []

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read all rows as text; an empty field is null."""
        before = 0
        for chunk, at_end, n_bytes in self._chunks():
            # polars drops a bare carriage return at a field's end; an id may not change so quietly.
            odd = b"\r" in chunk and chunk.count(b"\r") != chunk.count(b"\r\n")
            scan = None if odd else scan_records(chunk, self._delimiter)
            # Text that stays open for so long lacks a quote: find the line and go on behind it.
            stuck = scan is not None and (at_end or len(chunk) - scan.used > MAX_RECORD_BYTES)
            if scan is None or (stuck and scan.used < len(chunk)) or self._swallows(scan):
                batch, used = self._read_carefully(chunk, wanted, at_end=at_end)
            else:
                batch, used = self._read_fast(chunk, scan, wanted), scan.used
            self._rest = chunk[used:]
            self._line += chunk.count(b"\n", 0, used)
            yield Batch(self.name, batch.frame, batch.lines, batch.rejects, before + n_bytes)

    def _first_chunk(self) -> bytes:
        start = self._file.read(self._chunk_bytes)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(
                f"{self.name} is UTF-16, not UTF-8: convert it first, "
                "for example with `iconv -f UTF-16 -t UTF-8`"
            )
        if start[:4] == b"PAR1":
            raise UserError(f"{self.name} is a Parquet file: say --format parquet")
        return start.removeprefix(_BOM)

    def _read_header(self) -> list[str]:
        # A header is one short line; only a quoted name may hold a newline.
        while b"\n" not in self._rest and (more := self._file.read(self._chunk_bytes)):
            self._rest += more
        blank = re.match(rb"[\r\n]*", self._rest)
        skipped = blank.end() if blank else 0
        first_line = self._rest[skipped:].split(b"\n", 1)[0]
        if not first_line.strip():
            raise EmptyFileError(f"{self.name} is empty: it has no header line with column names")
        if b"\0" in first_line:
            raise UserError(f"{self.name} is not text; say what it is with --format")
        if b"\r" in first_line.rstrip(b"\r"):
            raise UserError(
                f"{self.name} ends its lines with a bare carriage return: convert it first, "
                "for example with `tr '\\r' '\\n'`"
            )
        self._delimiter = max(_DELIMITERS, key=first_line.count)
        text = self._rest[skipped:]
        header = next(careful_records(text, self._delimiter, 0, at_end=True))
        if header.fields is None:
            raise UserError(f"the header line of {self.name} cannot be read: {header.detail}")
        self._line += self._rest.count(b"\n", 0, skipped) + 1
        self._line += text.count(b"\n", 0, header.end)
        self._rest = text[header.end + 1 :]
        return unique_names(header.fields, self.name)

    def _chunks(self) -> Iterator[tuple[bytes, bool, int]]:
        """Read text that ends with a newline, the unfinished record of the last time in front."""
        n_bytes = len(self._rest)
        while True:
            more = self._file.read(self._chunk_bytes)
            n_bytes += len(more)
            text = self._rest + more
            if not more:
                if text:
                    yield text if text.endswith(b"\n") else text + b"\n", True, n_bytes
                return
            cut = text.rfind(b"\n") + 1
            if cut == 0:
                self._rest = text
                continue
            tail = text[cut:]
            yield text[:cut], False, n_bytes
            n_bytes = 0
            self._rest += tail

    def _swallows(self, scan: Scan) -> bool:
        """Tell whether two stray quotes have made one broken record of the rows between them."""
        return bool((scan.spans_lines & (scan.n_fields != len(self.columns))).any())

    def _read_fast(self, chunk: bytes, scan: Scan, wanted: Sequence[str]) -> Batch:
        data = np.frombuffer(chunk, dtype=np.uint8)
        length = scan.ends - scan.starts
        blank = (length == 0) | ((length == 1) & (data[scan.starts] == ord("\r")))
        good = (scan.n_fields == len(self.columns)) & ~blank
        rejects = [
            self._reject(int(scan.line[at]), "broken_line", self._says(int(scan.n_fields[at])))
            for at in np.flatnonzero(~good & ~blank)
        ]
        rejects += self._not_text(chunk, scan, good)
        text = chunk[: scan.used]
        if not good.all():
            text = data[: scan.used][np.repeat(good, length + 1)].tobytes()
        frame = self._parse(text, wanted)
        if frame.height != int(good.sum()):  # pragma: no cover - the two readers agree
            return self._read_carefully(chunk[: scan.used], wanted, at_end=True)[0]
        return Batch(
            self.name, frame, self._line + scan.line[good], sorted(rejects, key=lambda r: r.line)
        )

    def _not_text(self, chunk: bytes, scan: Scan, good: np.ndarray) -> list[Reject]:
        """Find rows that are not UTF-8 and take them out of `good`."""
        try:
            chunk[: scan.used].decode()
        except UnicodeDecodeError:
            rejects = []
            for at in np.flatnonzero(good):
                try:
                    chunk[scan.starts[at] : scan.ends[at]].decode()
                except UnicodeDecodeError as error:
                    good[at] = False
                    line = int(scan.line[at])
                    rejects.append(self._reject(line, "wrong_encoding", not_utf8(error)))
            return rejects
        return []

    def _parse(self, text: bytes, wanted: Sequence[str]) -> pl.DataFrame:
        if not text or not wanted:
            height = 0 if not text else text.count(b"\n")
            return pl.DataFrame(schema=dict.fromkeys(wanted, pl.String), height=height)
        return pl.read_csv(
            text,
            columns=sorted(self.columns.index(name) for name in wanted),
            has_header=False,
            schema=dict.fromkeys(self.columns, pl.String),
            infer_schema=False,
            separator=chr(self._delimiter),
            quote_char='"' if b'"' in text else None,
        ).select(wanted)

    def _read_carefully(
        self, chunk: bytes, wanted: Sequence[str], *, at_end: bool
    ) -> tuple[Batch, int]:
        rows: list[Record] = []
        rejects: list[Reject] = []
        used = 0
        for record in careful_records(chunk, self._delimiter, len(self.columns), at_end=at_end):
            used = record.end + 1
            if record.fields is None:
                rejects.append(self._reject(record.line, record.reason, record.detail))
            else:
                rows.append(record)
        places = {name: at for at, name in enumerate(self.columns)}
        frame = text_frame(
            {name: [row.fields[places[name]] for row in rows if row.fields] for name in wanted}
        )
        lines: Lines = np.array([self._line + row.line for row in rows], dtype=np.int64)
        return Batch(self.name, frame, lines, rejects), min(
            used, len(chunk)
        ) if not at_end else len(chunk)

    def _says(self, n_fields: int) -> str:
        return f"{n_fields} fields where the header has {len(self.columns)}"

    def _reject(self, line: int, reason: str, detail: str) -> Reject:
        return Reject(self.name, self._line + line, reason, detail)


def unique_names(fields: Sequence[str | None], source: str) -> list[str]:
    """Return the names of a header; one without a name is called by its place.

    Raises
    ------
    UserError
        If a name stands there twice.
    """
    names = [
        (name or "").strip() or f"column_{place}" for place, name in enumerate(fields, start=1)
    ]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"{source} has two columns of the name {min(twice)!r}: rename one")
    return names
