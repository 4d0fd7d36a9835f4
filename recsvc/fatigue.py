"""Impressions that tire: what was shown again and again, and never wanted, steps back.

With `n` impressions of an item, each counting half after a week, since the person last did anything
with it, the item is ``1 / (1 + max(0, n - 3) / 3)`` times as likely to be wanted: three cost
nothing, six halve it, twenty leave about a seventh. Any event that says a taste sets `n` to 0.
Nothing is ever removed: a list of tired items is still full.

That people want less what they have been shown often, and that this fades, is measured in Lee,
Lakshmanan, Tiwari and Shah, "Modeling Impression Discounting in Large-scale Recommender Systems",
KDD 2014. The numbers here are chosen, not measured: the demo's data has no impressions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.impressions import HOUR_S, Impressions
from feature_store.signals import (
    FREE_IMPRESSIONS,
    IMPRESSION_HALF_LIFE_DAYS,
    IMPRESSIONS_TO_HALVE,
    WEIGHT_BY_CODE,
)
from feature_store.state import UserState

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]

TIRING_SOURCES = frozenset({"blend", "popular", "trending"})
"""What is tired of: guesses at what somebody wants. What goes with the page shown is its own."""

_HALF_LIFE_H = 24 * IMPRESSION_HALF_LIFE_DAYS
_FADED: F32 = np.float32(0.5) ** (np.arange(10 * _HALF_LIFE_H, dtype=np.float32) / _HALF_LIFE_H)
_FADED[-1] = 0
"""float32[hours]: what an impression of so many hours ago counts; after ten half-lives nothing."""
_SAYS_A_TASTE = np.zeros(256, dtype=bool)
_SAYS_A_TASTE[: len(WEIGHT_BY_CODE)] = WEIGHT_BY_CODE > 0


@dataclass(frozen=True, slots=True, eq=False)
class Fatigue:
    """Which items a person is tired of, as weights of candidates.

    Parameters
    ----------
    rows : ndarray of int64, shape (k,)
        Their catalogue rows, sorted.
    logs : ndarray of float32, shape (k,)
        Logarithm of the factor of each, below 0.
    total : ndarray of float32, shape (n_rows,)
        Scratch of the snapshot, all zeros; not for two threads at once.
    """

    rows: Rows
    logs: F32
    total: F32

    @property
    def weighs(self) -> bool:
        """Whether there is any."""
        return len(self.rows) > 0

    def log_weights(self, rows: Rows) -> F32:
        """Return the logarithm of the factor of each row, 0 for those that do not tire."""
        self.total[self.rows] = self.logs
        found: F32 = self.total[rows]
        self.total[self.rows] = 0
        return found


_NO_F32: F32 = np.zeros(0, dtype=np.float32)
RESTED = Fatigue(np.zeros(0, dtype=np.int64), _NO_F32, _NO_F32)
"""Tired of nothing."""


def read_fatigue(impressions: Impressions, state: UserState, total: F32, now_s: int) -> Fatigue:
    """Say what a person is tired of.

    Parameters
    ----------
    impressions : Impressions
        What the person was shown; what was shown in a later hour than `now_s` does not count.
    state : UserState
        What the person did: the `hot` part suffices.
    total : ndarray of float32, shape (n_rows,)
        Scratch of the snapshot, all zeros.
    now_s : int
        Seconds since 1970.
    """
    rows, hour = impressions.rows, now_s // HOUR_S
    if len(rows) and int(rows[-1]) >= len(total):
        # Items that this worker has not heard of yet.
        rows = rows[: np.searchsorted(rows, len(total))]
    n = len(rows)
    if n == 0:
        return RESTED
    hours = impressions.hours[:n].astype(np.int64)
    counted = _FADED.take(hour - hours, mode="clip") * impressions.counts[:n]
    starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    if not (np.add.reduceat(counted, starts) > FREE_IMPRESSIONS).any():
        return RESTED
    counted[(hours > hour) | (hours <= _wanted_hours(state, rows))] = 0
    over = np.add.reduceat(counted, starts) - np.float32(FREE_IMPRESSIONS)
    tired = np.flatnonzero(over > 0)
    if len(tired) == 0:
        return RESTED
    logs = -np.log1p(over[tired] * np.float32(1 / IMPRESSIONS_TO_HALVE))
    return Fatigue(rows[starts[tired]].astype(np.int64), logs, total)


def _wanted_hours(state: UserState, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return in which hour each row was last wanted; -1 for never."""
    n = state.n_item_facts
    says = _SAYS_A_TASTE[state.types[:n]]
    wanted, last_s = state.rows[:n][says], state.last_s[:n][says]
    if len(wanted) == 0:
        return np.full(len(rows), -1, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate(([True], wanted[1:] != wanted[:-1])))
    distinct = wanted[starts]
    hours = np.maximum.reduceat(last_s, starts).astype(np.int64) // HOUR_S
    at = np.minimum(np.searchsorted(distinct, rows), len(distinct) - 1)
    return np.where(distinct[at] == rows, hours[at], -1)
