"""Items of some kinds, as they are searched: so that banners do not drown among products.

The index of a model holds all of its items. Where the kinds that a placement shows are most of
them, the index is asked; where they are few it would return others, so their own vectors are
scored exactly, the longest ones if they are many (``training/index.py`` says why those suffice).
Items that are placed by content are in no index and always scored exactly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.catalogue import Catalogue
from recsvc.ranking.cold_items import ColdItems

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

POPULAR = 50
LONGEST = 8_000
"""Vectors of a minority that are scored exactly."""
MOST = 20_000
"""Items of a minority that are looked at by topic."""
MAJORITY = 0.5
"""From this share of the model's items on kinds are searched by the index."""


@dataclass(frozen=True, slots=True, eq=False)
class KindView:
    """What is searched for some kinds.

    Parameters
    ----------
    is_indexed : bool
        Whether the model's index is to be asked too.
    rows : ndarray of int32, shape (m,)
        Catalogue rows that are scored exactly.
    factors : ndarray of float32, shape (m, d)
        Their factors.
    norms : ndarray of float32, shape (m,)
        Their lengths; at least a little above 0.
    popular : ndarray of int32
        Catalogue rows of these kinds that are popular now, at most 50, most popular first.
    every : ndarray of int32
        All rows of a minority, known or not, the newest 20,000; none of a majority.
    """

    is_indexed: bool
    rows: I32
    factors: F32
    norms: F32
    popular: I32
    every: I32

    def nearest(self, vector: F32, k: int, allowed: Mask | None) -> I32:
        """Return the exactly scored rows with the greatest scores above 0, in any order.

        Parameters
        ----------
        vector : ndarray of float32, shape (d,)
            A customer's factors.
        k : int
            How many at most.
        allowed : ndarray of bool, shape (n_rows,), or None
            What may be shown; ``None`` for everything.
        """
        scores = self.factors @ vector
        good = scores > 0
        if allowed is not None:
            good &= allowed[self.rows]
        found = np.flatnonzero(good)
        if len(found) > k:
            found = found[np.argpartition(-scores[found], k)[:k]]
        return self.rows[found]


def view_of(
    kinds: frozenset[str],
    catalogue: Catalogue,
    model_rows: I32,
    item_factors: F32,
    cold: ColdItems,
    popular: I32,
) -> KindView:
    """Return how items of some kinds are searched.

    Parameters
    ----------
    kinds : frozenset of str
        The kinds.
    catalogue : Catalogue
        All items.
    model_rows : ndarray of int32, shape (n_rows,)
        The model row of each catalogue row, or -1.
    item_factors : ndarray of float32, shape (n, d)
        Of the model.
    cold : ColdItems
        What is placed by content.
    popular : ndarray of int32
        Catalogue rows, most popular first.
    """
    masks = [_mask_of(kind, catalogue) for kind in sorted(kinds)]
    wanted: Mask = np.logical_or.reduce(masks) if masks else np.zeros(catalogue.n_rows, dtype=bool)
    is_cold = wanted[cold.rows]
    rows, factors = cold.rows[is_cold], cold.factors[is_cold]
    is_mine = wanted & (model_rows >= 0)
    n_mine = int(np.count_nonzero(is_mine))
    is_indexed = n_mine >= MAJORITY * len(item_factors)
    if not is_indexed and n_mine:
        mine = np.flatnonzero(is_mine).astype(np.int32)
        own = item_factors.take(model_rows[mine], axis=0)
        if len(mine) > LONGEST:
            longest = np.argpartition(-np.square(own).sum(axis=1), LONGEST)[:LONGEST]
            mine, own = mine[longest], own[longest]
        rows, factors = np.concatenate((rows, mine)), np.concatenate((factors, own))
    norms = np.maximum(np.linalg.norm(factors, axis=1), np.float32(1e-9))
    every = np.flatnonzero(wanted)[-MOST:].astype(np.int32) if not is_indexed else rows[:0]
    return KindView(is_indexed, rows, factors, norms, _first(popular, wanted), every)


def _mask_of(kind: str, catalogue: Catalogue) -> Mask:
    return catalogue.mask(f"kind:{kind}", pl.col("kind") == kind)


def _first(popular: I32, wanted: Mask) -> I32:
    """Return the first 50 wanted rows; among the first thousand they mostly are."""
    head = popular[:1_000]
    found = head[wanted[head]]
    if len(found) < POPULAR:
        found = popular[wanted[popular]]
    return found[:POPULAR]
