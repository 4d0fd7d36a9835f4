"""What may be named to a customer: the site marks categories that are never to be.

Somebody may look over a shoulder: "because you bought" a pregnancy test is not for a screen.
"""

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.catalogue import Catalogue

_STEP = " > "


class Naming:
    """Says which items and categories may be named.

    Parameters
    ----------
    catalogue : Catalogue
        Says which categories an item is in.
    never_named : iterable of str
        Category paths; what is below one counts too, and case does not matter.
    """

    def __init__(self, catalogue: Catalogue, never_named: Iterable[str]) -> None:
        self._catalogue = catalogue
        self._paths = frozenset(path.lower() for path in never_named)

    def __bool__(self) -> bool:
        """Whether anything must not be named."""
        return bool(self._paths)

    def may_name(self, row: int) -> bool:
        """Tell whether the item at a row may be named.

        Of a deleted item nothing is known but its id, so where anything is never named, it is not
        either.
        """
        if not self._paths:
            return True
        return self._catalogue.is_known(row) and not self._unnamed[row]

    def may_name_any(self, rows: npt.NDArray[np.integer]) -> bool:
        """Tell whether one of some items may be named: of a brand, whether the brand may be.

        Of a brand that is sold in categories alone that are never named, the name says enough. One
        that has no items says nothing.
        """
        return not self._paths or len(rows) == 0 or not bool(self._unnamed[rows].all())

    def may_name_category(self, path: str) -> bool:
        """Tell whether a category may be named.

        Interests may be single steps of paths: one that ends a marked path is that category.
        """
        steps = path.lower().split(_STEP)
        for marked in self._paths:
            wanted = marked.split(_STEP)
            if steps[: len(wanted)] == wanted or steps == wanted[-len(steps) :]:
                return False
        return True

    @cached_property
    def _unnamed(self) -> npt.NDArray[np.bool_]:
        """Which rows are in a category that is never named, shape (n_rows,)."""
        marked = sorted(self._paths)
        path = pl.element().str.to_lowercase()
        inside = path.is_in(marked)
        for one in marked:
            inside |= path.str.starts_with(one + _STEP)
        expression = pl.col("categories").list.eval(inside).list.any()
        return self._catalogue.mask("never_named:" + "\n".join(marked), expression)
