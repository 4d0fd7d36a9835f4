"""People's states and vectors at a moment of the past, as serving would have seen them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.fold_in import FoldIn
from feature_store.schema import PURCHASE_CODE
from feature_store.signals import interaction_weights
from feature_store.state import UserState, fold_frame, hot_of
from training.dataset import DISLIKE_CODE, LIKE_CODE, UNDOES, Interactions
from training.fit import Fitted

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


def states_of(
    interactions: Interactions, persons: npt.NDArray[np.uint32], catalogue_rows: I32
) -> list[UserState]:
    """Return the states that events have made.

    Parameters
    ----------
    interactions : Interactions
        Events up to the moment in question.
    persons : ndarray of uint32, shape (u,)
        Person codes, ascending; each has an event.
    catalogue_rows : ndarray of int32, shape (items,)
        Catalogue row of each item code: what states store.

    Returns
    -------
    list of UserState
        Whole states, in the order of `persons`.
    """
    wanted = interactions.frame.filter(pl.col("person").is_in(pl.Series(persons).implode()))
    events = wanted.select(
        # Codes ascend with names, and zero-padded they do so as text too.
        pl.col("person").cast(pl.String).str.zfill(10),
        pl.Series("row", catalogue_rows[wanted["item"].to_numpy()].astype(np.uint32)),
        "type",
        (pl.col("t_ms") // 1_000).cast(pl.UInt32).alias("t_s"),
    )
    return [state for _, state in fold_frame(events)]


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """Computes people's vectors from their states, as serving does.

    Parameters
    ----------
    fitted : Fitted
        The model.
    catalogue_rows : ndarray of int32, shape (items,)
        Catalogue row of each item code.
    n_rows : int
        Rows of the catalogue.
    """

    fitted: Fitted
    catalogue_rows: I32
    n_rows: int

    def model_rows(self) -> I32:
        """Return the model row of each catalogue row, -1 where the model has none."""
        result = np.full(self.n_rows, -1, dtype=np.int32)
        result[self.catalogue_rows[self.fitted.items]] = np.arange(
            self.fitted.n_items, dtype=np.int32
        )
        return result

    def vectors(self, states: list[UserState], newest: list[int] | None = None) -> F32:
        """Fold in.

        Parameters
        ----------
        states : list of UserState
            Of u people.
        newest : list of int, optional
            Of how many of their newest items each vector is made; all of the hot state by default.

        Returns
        -------
        ndarray of float32, shape (u, d)
            Zero for a person of whom the model knows no item.
        """
        config = self.fitted.config
        fold_in = FoldIn(
            self.fitted.item_factors,
            self.fitted.arrays["gram"],
            config["regularization"],
            config["alpha"],
        )
        model_rows = self.model_rows()
        result = np.zeros((len(states), fold_in.n_factors), dtype=np.float32)
        for at, state in enumerate(states):
            rows, weights = tastes_of(state, self.fitted.now_s, newest[at] if newest else None)
            rows = model_rows[rows]
            known = rows >= 0
            if known.any():
                result[at] = fold_in.solve(rows[known], weights[known]).vector
        return result


def tastes_of(state: UserState, now_s: int, newest: int | None = None) -> tuple[I32, F32]:
    """Return catalogue rows with a taste, and its weight, of the hot part of a state.

    Parameters
    ----------
    state : UserState
        A whole state.
    now_s : int
        Seconds since 1970.
    newest : int, optional
        Keep only so many items, those with the newest events.
    """
    hot = hot_of(state)
    age_s = np.maximum(now_s - hot.last_s.astype(np.int64), 0)
    rows, at = np.unique(hot.rows, return_inverse=True)
    counts = hot.counts.astype(np.float32)
    for undone, undoing in UNDOES.items():
        taken = np.bincount(at, weights=counts * (hot.types == undoing), minlength=len(rows))
        counts = np.where(hot.types == undone, np.maximum(counts - taken[at], 0), counts)
    facts = interaction_weights(hot.types, counts, age_s.astype(np.float32))
    weights = np.bincount(at, weights=facts, minlength=len(rows)).astype(np.float32)
    weights[_disliked(hot, at, len(rows))] = 0
    youngest = np.full(len(rows), np.iinfo(np.int64).max)
    np.minimum.at(youngest, at, age_s)
    kept = np.flatnonzero(weights > 0)
    if newest is not None:
        kept = np.sort(kept[np.argsort(youngest[kept], kind="stable")[:newest]])
    return rows[kept].astype(np.int32), weights[kept]


def _disliked(state: UserState, at: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.bool_]:
    """Tell which items were disliked, and not liked or bought since."""
    newest_s = np.full((2, n), -1, dtype=np.int64)
    for place, codes in enumerate(([DISLIKE_CODE], [LIKE_CODE, PURCHASE_CODE])):
        chosen = np.isin(state.types, codes)
        np.maximum.at(newest_s[place], at[chosen], state.last_s[chosen].astype(np.int64))
    disliked: npt.NDArray[np.bool_] = newest_s[0] > newest_s[1]
    return disliked
