"""What a state means now: weights and decays applied to the facts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.schema import PURCHASE_CODE, EventType
from feature_store.signals import DAY_S, SIGNALS, decay_rate, interaction_weights
from feature_store.state import UserState

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

# A purchase has weight 1; every other weight is relative to it.
_PURCHASE_RATE = decay_rate(SIGNALS[EventType.PURCHASE].half_life_days * DAY_S)


@dataclass(frozen=True, slots=True, eq=False)
class Purchases:
    """What somebody bought, one entry a distinct item.

    Parameters
    ----------
    rows : ndarray of int64, shape (p,)
        Catalogue rows, sorted.
    counts : ndarray of float32, shape (p,)
        How often.
    age_s, span_s : ndarray of float32, shape (p,)
        Seconds since the last purchase, and between the first and the last one.
    """

    rows: I64
    counts: F32
    age_s: F32
    span_s: F32


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What somebody did, as collaborative filtering weighs it.

    Parameters
    ----------
    rows : ndarray of int64, shape (h,)
        Catalogue rows of all items with a weight, sorted.
    weights : ndarray of float32, shape (h,)
        Sum over event types of ``signals.interaction_weights``.
    bought : ndarray of bool, shape (h,)
        Whether a purchase is among the events.
    purchases : Purchases
        The purchases alone.
    """

    rows: I64
    weights: F32
    bought: npt.NDArray[np.bool_]
    purchases: Purchases


def read_history(state: UserState, n_rows: int, now_s: int) -> History:
    """Apply weights and decays to the facts of a state.

    Parameters
    ----------
    state : UserState
        Facts; those of event types without a weight are passed over.
    n_rows : int
        Rows of the catalogue; facts of items that this worker has not heard of yet are left out.
    now_s : int
        Seconds since 1970.
    """
    # Facts are sorted by row, so what is beyond the catalogue stands at the end.
    n = len(state.rows)
    if n and int(state.rows[-1]) >= n_rows:
        n = int(np.searchsorted(state.rows, n_rows))
    types, rows = state.types[:n], state.rows[:n].astype(np.int64)
    last_s, counts = state.last_s[:n], state.counts[:n].astype(np.float32)
    age_s = np.maximum(now_s - last_s.astype(np.int64), 0).astype(np.float32)
    span_s = (last_s - state.first_s[:n]).astype(np.float32)
    is_purchase = types == PURCHASE_CODE
    if is_purchase.all():
        weights = counts * np.exp(age_s * _PURCHASE_RATE)
        return History(rows, weights, is_purchase, Purchases(rows, counts, age_s, span_s))
    weights = interaction_weights(types, counts, age_s)
    purchases = Purchases(*(column[is_purchase] for column in (rows, counts, age_s, span_s)))
    starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    summed = np.maximum(np.add.reduceat(weights, starts), 0)
    bought = np.logical_or.reduceat(is_purchase, starts)
    kept = summed > 0
    return History(rows[starts][kept], summed[kept], bought[kept], purchases)
