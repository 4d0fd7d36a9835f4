"""The temporal split: who is tested on what.

The test window is the last days before the newest event, its start included; train is everything
before it. Candidates are the items bought at least once before; the people are those with a
purchase in both. A person's truth is the set of distinct candidates bought in the window (``all``),
or those of them that the person had never bought before (``new``).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from training.dataset import DAY_MS, Interactions

U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A temporal split.

    Parameters
    ----------
    train : Interactions
        Events before the window.
    start_ms : int
        Start of the window, and `now` of every decay.
    candidates : ndarray of uint32, shape (c,)
        Item codes that can be recommended, ascending: in the order of item ids.
    persons : ndarray of uint32, shape (u,)
        Codes of the people with a truth, ascending.
    truths : list of u arrays of int32
        Positions among `candidates` that each of them bought in the window.
    history : list of u arrays of int32
        Positions that each of them bought before it.
    n_train_people : int
        People with a purchase before the window.
    buyers : ndarray of int64, shape (c,)
        How many of them bought each candidate.
    """

    train: Interactions
    start_ms: int
    candidates: U32
    persons: U32
    truths: list[I32]
    history: list[I32]
    n_train_people: int
    buyers: npt.NDArray[np.int64]

    @property
    def now_s(self) -> int:
        """Start of the window in seconds."""
        return self.start_ms // 1_000

    def new_truths(self) -> list[I32]:
        """Return what each person bought in the window and never before; may be empty."""
        return [
            np.setdiff1d(truth, seen, assume_unique=True)
            for truth, seen in zip(self.truths, self.history, strict=True)
        ]


def window_start_ms(interactions: Interactions, days: float) -> int:
    """Return the start of the window of so many days before the newest event."""
    return interactions.newest_ms - round(days * DAY_MS)


def split_at(interactions: Interactions, start_ms: int, end_ms: int | None = None) -> Split:
    """Split at a moment.

    Parameters
    ----------
    interactions : Interactions
        All events.
    start_ms : int
        First moment of the window.
    end_ms : int, optional
        First moment after it; the window is open by default.
    """
    train = interactions.before(start_ms)
    window = interactions.since(start_ms)
    if end_ms is not None:
        window = window.before(end_ms)
    before = train.purchases.select("person", "item").unique()
    candidates = before["item"].unique().sort().to_numpy()
    codes = pl.Series(candidates, dtype=pl.UInt32).implode()
    people = before["person"].unique().implode()
    after = (
        window.purchases.select("person", "item")
        .unique()
        .filter(pl.col("item").is_in(codes) & pl.col("person").is_in(people))
    )
    persons = after["person"].unique().sort().to_numpy()
    mine = before.filter(pl.col("person").is_in(pl.Series(persons, dtype=pl.UInt32).implode()))
    items = before["item"].to_numpy()
    return Split(
        train,
        start_ms,
        candidates,
        persons,
        positions_of(after, persons, candidates),
        positions_of(mine, persons, candidates),
        int(before["person"].n_unique()),
        np.bincount(np.searchsorted(candidates, items), minlength=len(candidates)),
    )


def positions_of(pairs: pl.DataFrame, persons: U32, candidates: U32) -> list[I32]:
    """Return each person's items as ascending positions among the candidates.

    Parameters
    ----------
    pairs : DataFrame
        Distinct ``person`` and ``item``, both of them among the following.
    persons, candidates : ndarray of uint32
        Codes, ascending.

    Returns
    -------
    list of ndarray of int32
        One a person.
    """
    pairs = pairs.sort("person", "item")
    positions = np.searchsorted(candidates, pairs["item"].to_numpy()).astype(np.int32)
    edges = np.searchsorted(pairs["person"].to_numpy(), persons)
    return np.split(positions, edges[1:]) if len(persons) else []
