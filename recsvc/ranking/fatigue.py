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
        return len(self.rows) > 0 and bool(self.logs.any())

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
    rows = impressions.rows
    if len(rows) and int(rows[-1]) >= len(total):
        # Items that this worker has not heard of yet.
        rows = rows[: np.searchsorted(rows, len(total))]
    n = len(rows)
    if n == 0:
        return RESTED
    hour = np.uint32(now_s // HOUR_S)
    # What is ahead of the clock wraps around to a very old age.
    counted = _FADED.take(hour - impressions.hours[:n], mode="clip") * impressions.counts[:n]
    starts = np.concatenate((_ZERO, (rows[1:] != rows[:-1]).nonzero()[0] + 1))
    summed = np.add.reduceat(counted, starts)
    (often,) = (summed > FREE_IMPRESSIONS).nonzero()
    if len(often) == 0:
        return RESTED
    firsts, hours = starts[often], impressions.hours
    distinct, over = rows[firsts], summed[often] - _FREE
    since = _last_wanted_s(state, distinct) // _HOUR_S
    for place in (since >= hours[firsts]).nonzero()[0]:
        # Only what was shown after that counts, and of the hour in which it was wanted nothing.
        end = n if often[place] + 1 == len(starts) else starts[often[place] + 1]
        cells = slice(firsts[place], end)
        later = counted[cells][hours[cells] > since[place]]
        over[place] = max(0.0, later.sum() - _FREE)
    return Fatigue(distinct.astype(np.int64), -np.log1p(over * _STEP), total)


_ZERO = np.zeros(1, dtype=np.int64)
_FREE, _STEP = np.float32(FREE_IMPRESSIONS), np.float32(1 / IMPRESSIONS_TO_HALVE)
_HOUR_S = np.uint32(HOUR_S)


def _last_wanted_s(state: UserState, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return when each row, sorted and distinct, was last wanted; 0 for never."""
    n = state.n_item_facts
    known, last_s = state.rows[:n], state.last_s[:n]
    says = _SAYS_A_TASTE[state.types[:n]]
    if not says.all():
        known, last_s = known[says], last_s[says]
    if len(known) == 0:
        return np.zeros(len(rows), dtype=np.uint32)
    # The last of the facts of each row; where there are several, the newest of them.
    ends = known.searchsorted(rows, side="right")
    found: npt.NDArray[np.uint32] = last_s[ends - 1]
    found[known[ends - 1] != rows] = 0
    for place in (known[np.maximum(ends - 2, 0)] == rows).nonzero()[0]:
        found[place] = last_s[known.searchsorted(rows[place]) : ends[place]].max()
    return found
