"""What a state means now: weights and decays applied to the facts."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.schema import EVENT_TYPE_CODES, PURCHASE_CODE, EventType
from feature_store.signals import DAY_S, SIGNALS, decay_rate, interaction_weights
from feature_store.state import UserState

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

# A purchase has weight 1; every other weight is relative to it.
_NOTHING: I64 = np.zeros(0, dtype=np.int64)
_UNDOES = (
    (EVENT_TYPE_CODES[EventType.REFUND], PURCHASE_CODE),
    (EVENT_TYPE_CODES[EventType.REMOVE_FROM_CART], EVENT_TYPE_CODES[EventType.ADD_TO_CART]),
)
_DISLIKES = (EVENT_TYPE_CODES[EventType.DISLIKE],)
_LIKES = (EVENT_TYPE_CODES[EventType.LIKE], PURCHASE_CODE)

HALF_LIVES_DAYS = (SIGNALS[EventType.PURCHASE].half_life_days, 60.0, 90.0, 15.0)
"""Of a purchase: for the folded-in vector, for affinities, for how often, for how often lately."""
_RATES = np.array([[decay_rate(days * DAY_S)] for days in HALF_LIVES_DAYS], dtype=np.float32)


class Purchases(NamedTuple):
    """What somebody bought, one entry a distinct item.

    Parameters
    ----------
    rows : ndarray of int64, shape (p,)
        Catalogue rows, sorted.
    counts : ndarray of float32, shape (p,)
        How often.
    age_s, span_s : ndarray of float32, shape (p,)
        Seconds since the last purchase, and between the first and the last one.
    decays : ndarray of float32, shape (len(HALF_LIVES_DAYS), p)
        How much is left of the last purchase after each of these half-lives.
    """

    rows: I64
    counts: F32
    age_s: F32
    span_s: F32
    decays: F32


class History(NamedTuple):
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
        The purchases alone, less what was refunded.
    disliked : ndarray of int64
        Catalogue rows of what the person dislikes; none of them is in `rows`.
    """

    rows: I64
    weights: F32
    bought: npt.NDArray[np.bool_]
    purchases: Purchases
    disliked: I64


class Facts(NamedTuple):
    """The columns of a state with ages instead of times."""

    rows: I64
    types: npt.NDArray[np.uint8]
    counts: F32
    age_s: F32
    span_s: F32


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
    age_s = np.maximum(np.subtract(now_s, last_s, dtype=np.int64), 0).astype(np.float32)
    span_s = (last_s - state.first_s[:n]).astype(np.float32)
    is_purchase = types == PURCHASE_CODE
    if np.count_nonzero(is_purchase) == n:
        purchases = _purchases(rows, counts, age_s, span_s)
        return History(rows, counts * purchases.decays[0], is_purchase, purchases, _NOTHING)
    facts = Facts(rows, types, counts, age_s, span_s)
    return _mixed_history(facts)


def _purchases(rows: I64, counts: F32, age_s: F32, span_s: F32) -> Purchases:
    decays = _RATES * age_s
    return Purchases(rows, counts, age_s, span_s, np.exp(decays, out=decays))


def _mixed_history(facts: Facts) -> History:
    """Weigh facts of several types: some undo others, and a dislike outweighs what came before."""
    starts = np.flatnonzero(np.concatenate(([True], facts.rows[1:] != facts.rows[:-1])))
    items = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(facts.rows)))
    counts = facts.counts.copy()
    for undoing, undone in _UNDOES:
        undo = facts.types == undoing
        if undo.any():
            taken = np.bincount(items[undo], facts.counts[undo], minlength=len(starts))
            chosen = facts.types == undone
            counts[chosen] = np.maximum(counts[chosen] - taken[items[chosen]], 0)
    disliked = _disliked(facts, items, len(starts))
    weights = interaction_weights(facts.types, counts, facts.age_s)
    summed = np.add.reduceat(weights, starts)
    kept = (summed > 0) & ~disliked
    is_purchase = (facts.types == PURCHASE_CODE) & (counts > 0)
    bought = np.logical_or.reduceat(is_purchase, starts)
    columns = (facts.rows, counts, facts.age_s, facts.span_s)
    return History(
        facts.rows[starts][kept],
        summed[kept],
        bought[kept],
        _purchases(*(column[is_purchase] for column in columns)),
        facts.rows[starts][disliked],
    )


def _disliked(facts: Facts, items: I64, n_items: int) -> npt.NDArray[np.bool_]:
    """Tell which items were disliked, and not liked or bought again since."""
    since_s = np.full((2, n_items), np.inf, dtype=np.float32)
    for place, codes in enumerate((_DISLIKES, _LIKES)):
        chosen = np.isin(facts.types, codes)
        np.minimum.at(since_s[place], items[chosen], facts.age_s[chosen])
    disliked: npt.NDArray[np.bool_] = since_s[0] < since_s[1]
    return disliked
