"""What every reader hands on: batches of rows that know where they came from."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from feature_store.errors import UserError

Progress = Callable[[str, int, int], None]
"""Told how far a step is: its name, what is done, and of how much (0 if unknown)."""

Lines = npt.NDArray[np.int64]


def silent(step: str, done: int, total: int) -> None:
    """Report no progress."""


class EmptyFileError(UserError):
    """The file holds nothing at all, not even a header."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken.

    Parameters
    ----------
    source : str
        File that it stands in.
    line : int
        Line of the file where it begins, counted from 1; of a Parquet file, the row.
    reason : str
        One of a few fixed words, counted in summaries.
    detail : str
        What exactly was wrong.
    """

    source: str
    line: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one file.

    Parameters
    ----------
    source : str
        What messages call the file.
    frame : DataFrame
        The wanted columns under their names in the file.
    lines : ndarray of int64, shape (frame.height,)
        Line of the file where each row begins, counted from 1.
    rejects : list of Reject
        Rows between them that could not even be read.
    n_bytes : int
        How much of the file the batch used up, for progress.
    """

    source: str
    frame: pl.DataFrame
    lines: Lines
    rejects: list[Reject] = field(default_factory=list)
    n_bytes: int = 0

    def parts(self, n_rows: int) -> Iterator["Batch"]:
        """Yield the batch in parts of at most `n_rows`, for work that makes an object of a row."""
        yield replace(self, frame=self.frame[:n_rows], lines=self.lines[:n_rows])
        for at in range(n_rows, self.frame.height, n_rows):
            part = slice(at, at + n_rows)
            yield Batch(self.source, self.frame[part], self.lines[part])


class Table(Protocol):
    """A file that has been opened: its columns, then its rows."""

    name: str
    columns: list[str]

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read all rows, once; only the columns in `wanted`."""


class RejectLog:
    """Counts refused rows by reason and writes each to a file, which appears with the first.

    Parameters
    ----------
    path : Path or None
        ``*.jsonl`` gets JSON lines, anything else CSV; ``None`` counts only.

    Raises
    ------
    UserError
        If the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._file: TextIO | None = None
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"cannot write the rejects to {path}: there is no such folder")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def total(self) -> int:
        """How many rows were refused."""
        return self.counts.total()

    @property
    def written_to(self) -> Path | None:
        """Where the refused rows can be read; ``None`` if there are none."""
        return self.path if self._file is not None else None

    def add(self, rejects: Sequence[Reject]) -> None:
        """Count and write some refused rows."""
        if not rejects:
            return
        self.counts.update(reject.reason for reject in rejects)
        if self.path is None:
            return
        file = self._file or self._open(self.path)
        if self.path.suffix == ".jsonl":
            file.writelines(orjson.dumps(reject).decode() + "\n" for reject in rejects)
        else:
            csv.writer(file, lineterminator="\n").writerows(
                (reject.source, reject.line, reject.reason, reject.detail) for reject in rejects
            )
        # Whoever looks into the file after a crash finds what was refused so far.
        file.flush()

    def _open(self, path: Path) -> TextIO:
        try:
            file = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise UserError(f"cannot write the rejects to {path}: {error.strerror}") from None
        if path.suffix != ".jsonl":
            file.write("source,line,reason,detail\n")
        self._file = file
        return file


def text_frame(columns: dict[str, list[Any]]) -> pl.DataFrame:
    """Build a frame of text columns."""
    return pl.DataFrame(
        {name: pl.Series(name, values, dtype=pl.String) for name, values in columns.items()}
    )
