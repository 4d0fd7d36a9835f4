"""Which brands and categories some item has: what is asked of anything else need not be searched.

Customers may hide and follow names that no item has, as many as they like.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

import polars as pl

_STEP = " > "


class FileNames:
    """The names of a catalogue's file, read when they are first asked for.

    Parameters
    ----------
    frame : DataFrame
        ``item_columns.COLUMNS``.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    @cached_property
    def brands(self) -> frozenset[str]:
        """All brands."""
        return frozenset(self._frame["brand"].unique().drop_nulls().to_list())

    @cached_property
    def categories(self) -> frozenset[str]:
        """All category paths, and all above them."""
        return _with_parents(self._frame["categories"].explode().unique().drop_nulls().to_list())


class ItemNames:
    """The brands of items, and their category paths with all paths above them.

    Parameters
    ----------
    file : FileNames
        Those of a file.
    brands, categories : frozenset of str
        Those that came since.
    """

    def __init__(
        self,
        file: FileNames,
        brands: frozenset[str] = frozenset(),
        categories: frozenset[str] = frozenset(),
    ) -> None:
        self._file, self._brands, self._categories = file, brands, categories

    def has(self, kind: Literal["brand", "category"], text: str) -> bool:
        """Tell whether some item has a name, or had it since the file was written."""
        if kind == "brand":
            return text in self._brands or text in self._file.brands
        return text in self._categories or text in self._file.categories

    def with_items(self, changed: Iterable[Mapping[str, Any]]) -> "ItemNames":
        """Return the names with those of changed items; names that are gone may stay."""
        items = list(changed)
        brands = {one["brand"] for one in items if one["brand"]}
        paths = {path for one in items for path in one["categories"] or ()}
        categories = self._categories | _with_parents(paths)
        return ItemNames(self._file, self._brands | brands, categories)


def _with_parents(paths: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for path in paths:
        found.add(path)
        found.update(path[:at] for at in range(len(path)) if path.startswith(_STEP, at))
    return frozenset(found)
