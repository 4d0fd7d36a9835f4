"""Parquet files, a few row groups at a time."""

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from feature_store.errors import UserError
from feature_store.ingest.table import Batch

BATCH_ROWS = 200_000


class ParquetTable:
    """A Parquet file; the fields of a struct are reached as ``outer.inner``.

    Parameters
    ----------
    file : binary file
        If it cannot be sought, it is read into memory.
    name : str
        What messages call it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file if file.seekable() else io.BytesIO(file.read())
        try:
            self._parquet = parquet.ParquetFile(self._file)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{name} is not a Parquet file, or damaged: {_line(error)}") from None
        self._size = self._file.seek(0, io.SEEK_END)
        self.columns: list[str] = []
        for column in self._parquet.schema_arrow:
            if pa.types.is_struct(column.type):
                self.columns.extend(f"{column.name}.{inner.name}" for inner in column.type)
            else:
                self.columns.append(column.name)

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read all rows with their types; a row's line is its number in the file, from 1."""
        n_rows = self._parquet.metadata.num_rows
        flat = set(self._parquet.schema_arrow.names)
        roots = sorted({name if name in flat else name.split(".")[0] for name in wanted})
        done = 0
        try:
            for part in self._parquet.iter_batches(BATCH_ROWS, columns=roots):
                rows = pl.DataFrame(pa.Table.from_batches([part]))
                picked = rows.select(
                    pl.col(name)
                    if name in flat
                    else pl.col(name.split(".")[0]).struct.field(name.split(".", 1)[1]).alias(name)
                    for name in wanted
                )
                lines = np.arange(done + 1, done + 1 + part.num_rows, dtype=np.int64)
                done += part.num_rows
                yield Batch(self.name, picked, lines, [], self._size * part.num_rows // n_rows)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.name} is damaged after row {done}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
