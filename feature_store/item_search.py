"""Finding items by the beginnings of words and by their fields, in row order, page by page."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.item_columns import COLUMNS
from feature_store.item_words import WORDS, words_in, words_of

_SLICE = 131_072


@dataclass(frozen=True, slots=True)
class ItemSearch:
    """What is looked for; all that is given must be true of an item.

    Parameters
    ----------
    text : str
        Each of its words begins a word of the title or the brand, in any case; or the whole of it
        begins the id. Empty for any item.
    brand, kind, group_id : str or None
        The very value.
    category : str or None
        A category path; what is below it counts as well.
    available : bool or None
        What the item itself says, dates and markets aside.
    condition : Expr or None
        Over ``item_columns.COLUMNS``.
    """

    text: str = ""
    brand: str | None = None
    category: str | None = None
    kind: str | None = None
    available: bool | None = None
    group_id: str | None = None
    condition: pl.Expr | None = None

    def expression(self) -> pl.Expr:
        """Return the search over the columns of items and their words."""
        found = pl.col("item_id").is_not_null() & ~pl.col("deleted")
        for name in ("brand", "kind", "group_id", "available"):
            if (value := getattr(self, name)) is not None:
                found &= pl.col(name) == value
        if self.text:
            found &= self._has_words()
        if self.category is not None:
            path = pl.element()
            inside = (path == self.category) | path.str.starts_with(f"{self.category} > ")
            found &= pl.col("categories").list.eval(inside).list.any()
        if self.condition is not None:
            found &= self.condition
        return found.fill_null(value=False)

    def _has_words(self) -> pl.Expr:
        found = pl.col("item_id").str.starts_with(self.text)
        words = words_in(self.text)
        if words:
            begins = [pl.col(WORDS).str.contains(f" {word}", literal=True) for word in words]
            found |= pl.all_horizontal(begins)
        return found


def search(catalogue: Catalogue, wanted: ItemSearch, start: int, most: int) -> list[int]:
    """Return the rows of items that match, in their order.

    Parameters
    ----------
    catalogue : Catalogue
        Where to look.
    wanted : ItemSearch
        What for.
    start : int
        The first row that may be returned.
    most : int
        How many at most; the search ends as soon as it has them.
    """
    expression = wanted.expression().alias("found")
    overlay = catalogue.overlay
    newer = np.sort([row for row in overlay if row >= start]).astype(np.int64)
    if len(newer):
        frame = pl.DataFrame([overlay[row] for row in newer.tolist()], schema=COLUMNS)
        frame = frame.with_columns(words_of(frame))
        newer = newer[frame.select(expression)["found"].to_numpy()]
    rows: list[int] = []
    words = catalogue.words
    for at in range(start, catalogue.frame.height, _SLICE):
        part = catalogue.frame.slice(at, _SLICE).with_columns(words.slice(at, _SLICE))
        found = part.select(expression)["found"].to_numpy()
        rows += [row for row in (np.flatnonzero(found) + at).tolist() if row not in overlay]
        if len(rows) >= most:
            break
    return sorted(rows[:most] + newer.tolist())[:most]
