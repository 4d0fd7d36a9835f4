"""Which items a brand has, and a category with all below it: found without a look at any other.

Customers may hide and follow as many names as they like, of items or of nothing: a name costs what
its own items cost, and changes of the catalogue cost the names of the items that change.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Kind = Literal["brand", "category"]
Key = tuple[Kind, str]
Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

_STEP = " > "


class _Rows(NamedTuple):
    """Rows of each value of a column: those of ``places[value]``, one after the other."""

    places: Mapping[str, int]
    rows: I32
    ends: npt.NDArray[np.int64]

    def of(self, place: int) -> I32:
        """Return the rows of a value."""
        return self.rows[self.ends[place - 1] if place else 0 : self.ends[place]]


class FileNames:
    """The names of a catalogue's file, read when they are first asked for.

    Parameters
    ----------
    frame : DataFrame
        ``item_columns.COLUMNS``.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def has(self, kind: Kind, text: str) -> bool:
        """Tell whether an item of the file has a name."""
        return text in (self._brands.places if kind == "brand" else self._inside)

    def rows(self, kind: Kind, text: str) -> Iterator[I32]:
        """Yield the rows of a name, some at a time; a row may come twice."""
        if kind == "brand":
            if (place := self._brands.places.get(text)) is not None:
                yield self._brands.of(place)
            return
        for place in self._inside.get(text, ()):
            yield self._paths.of(place)

    def keys_of(self, rows: npt.NDArray[np.integer]) -> set[Key]:
        """Return the names of some rows of the file."""
        found = self._frame.select("brand", "categories")[rows]
        return {key for one in found.iter_rows(named=True) for key in _keys_of(one)}

    @cached_property
    def _brands(self) -> _Rows:
        return _rows_of(self._frame.select("brand").with_row_index("row"), "brand")

    @cached_property
    def _paths(self) -> _Rows:
        frame = self._frame.select("categories").with_row_index("row").explode("categories")
        return _rows_of(frame, "categories")

    @cached_property
    def _inside(self) -> Mapping[str, list[int]]:
        """The places of the paths at or below each path."""
        found: dict[str, list[int]] = {}
        for path, place in self._paths.places.items():
            for one in _with_parents(path):
                found.setdefault(one, []).append(place)
        return found


def _rows_of(frame: pl.DataFrame, column: str) -> _Rows:
    grouped = frame.drop_nulls(column).group_by(column).agg(pl.col("row").cast(pl.Int32))
    places = {text: place for place, text in enumerate(grouped[column].to_list())}
    rows = grouped["row"].explode().to_numpy() if places else np.zeros(0, dtype=np.int32)
    ends = grouped["row"].list.len().cast(pl.Int64).cum_sum().to_numpy()
    return _Rows(places, rows, ends)


class ItemNames:
    """The brands of items, and their category paths with all paths above them.

    Parameters
    ----------
    file : FileNames
        Those of a file.
    """

    def __init__(self, file: FileNames) -> None:
        self._file = file
        self._keys: Mapping[int, frozenset[Key]] = {}
        """Names of each row that was changed since the file was written."""
        self._rows: Mapping[Key, frozenset[int]] = {}
        """The same by name; none may be left of one."""

    def has(self, kind: Kind, text: str) -> bool:
        """Tell whether some item has a name, or had it since the file was written."""
        return (kind, text) in self._rows or self._file.has(kind, text)

    def mask(self, kind: Kind, text: str, n_rows: int) -> Mask:
        """Return the items of a brand, or of a category and all below it; a new array."""
        found = np.zeros(n_rows, dtype=np.bool_)
        for rows in self._file.rows(kind, text):
            found[rows] = True
        if self._keys:
            found[self._changed] = False
            found[list(self._rows.get((kind, text), ()))] = True
        return found

    @cached_property
    def _changed(self) -> npt.NDArray[np.int64]:
        return np.fromiter(self._keys, dtype=np.int64, count=len(self._keys))

    def keys_of(self, rows: Iterable[int], file_rows: int) -> set[Key]:
        """Return all names of some rows.

        Parameters
        ----------
        rows : iterable of int
            Catalogue rows.
        file_rows : int
            How many rows the file has.
        """
        found: set[Key] = set()
        filed = []
        for row in rows:
            if row in self._keys:
                found |= self._keys[row]
            elif row < file_rows:
                filed.append(row)
        return found | self._file.keys_of(np.array(filed)) if filed else found

    def with_items(self, changed: Mapping[int, Mapping[str, Any]]) -> "ItemNames":
        """Return the names with those of changed items, by row."""
        new = ItemNames(self._file)
        keys, rows = dict(self._keys), dict(self._rows)
        for row, columns in changed.items():
            for key in keys.get(row, ()):
                rows[key] -= {row}
            keys[row] = frozenset(_keys_of(columns))
            for key in keys[row]:
                rows[key] = rows.get(key, frozenset()) | {row}
        new._keys, new._rows = keys, rows
        return new


def _keys_of(columns: Mapping[str, Any]) -> Iterator[Key]:
    if columns["brand"]:
        yield "brand", columns["brand"]
    for path in columns["categories"] or ():
        for one in _with_parents(path):
            yield "category", one


def _with_parents(path: str) -> Iterator[str]:
    """Yield a path and all above it."""
    yield path
    at = path.find(_STEP)
    while at >= 0:
        yield path[:at]
        at = path.find(_STEP, at + 1)
