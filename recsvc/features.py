"""The features of a candidate for `home`, and which candidates are worth scoring.

The formulas were chosen on a year of real grocery purchases (1.47 million lines); taking any of
them away costs between .0005 and .015 of NDCG@20. Their weights are learned in every training.
"""

import numpy as np
import numpy.typing as npt

from feature_store.fold_in import FoldedUser
from feature_store.signals import DAY_S, FEATURES
from recsvc.history import History
from recsvc.snapshot import Snapshot

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.signedinteger]

NEAREST = 100
POPULAR = 50
HALF_LIFE_S = 90.0 * DAY_S
RECENT_HALF_LIFE_S = 15.0 * DAY_S
TASTE_HALF_LIFE_S = 60.0 * DAY_S

GROUPS = ("repeat", "trending", "popular", "collaborative")
"""The sources that a blended candidate can be said to come from."""
_GROUP_OF = {"growth": 1, "popularity_recent": 2, "collaborative": 3, "category_affinity": 3}
FEATURE_GROUPS = np.array([_GROUP_OF.get(name, 0) for name in FEATURES])
"""For each feature the index of its group in :data:`GROUPS`."""

_N_HISTORY = 7
_GROWTH, _POPULARITY, _COLLABORATIVE, _AFFINITY = range(_N_HISTORY, len(FEATURES))


def candidate_rows(snapshot: Snapshot, history: History, folded: FoldedUser | None) -> Rows:
    """Return catalogue rows to score: bought before, near the person's vector, popular now.

    Rows may repeat. Deeper retrieval (400 and 200) changed NDCG@20 by less than .0002.
    """
    model = snapshot.model
    bought = history.purchases.rows
    parts = [bought, model.popular[:POPULAR].astype(np.int64)]
    if folded is not None and model.index is not None:
        found = model.catalogue_rows[model.index.search(folded.vector, NEAREST)]
        parts.append(found[found >= 0].astype(np.int64))
    return np.concatenate(parts)


def personal_features(
    snapshot: Snapshot, history: History, folded: FoldedUser | None, rows: Rows
) -> F32:
    """Compute the features of candidates.

    With `n` purchases of an item, `a` days after the last and `f` days after the first of them, and
    over all purchased items unless said otherwise:

    ====================  =======================================================================
    bought                1
    frequency             log(1 + n 2^(-a/90))
    frequency_recent      n 2^(-a/15)
    repeat_rate           logit of the share of the item's buyers who bought it again
    repeat_rate_once      the same, if n = 1
    purchase_rate         log((n + 1/2) / (f + 14))
    due                   min(q, 1/q), q = a / ((f - a + 2 interval of the item) / (n + 1))
    growth                log(recent + 1e-5) - log(overall popularity + 1e-5), of every candidate
    popularity_recent     log(recent popularity + 1e-6), of items not bought
    collaborative         log(max(score of the folded-in vector, 0) + 0.01), of items not bought
    category_affinity     log((m_c + 2 g_c) / ((m + 2) g_c)), of items not bought: m_c is the
                          decayed number of purchases in the item's category, m in all, g_c the
                          category's share of all purchases
    ====================  =======================================================================

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    history : History
        The person's.
    folded : FoldedUser or None
        The person's vector.
    rows : ndarray of int, shape (c,)
        Catalogue rows within the catalogue.

    Returns
    -------
    ndarray of float32, shape (c, len(FEATURES))
        Columns as in ``signals.FEATURES``.
    """
    model = snapshot.model
    features = np.zeros((len(rows), len(FEATURES)), dtype=np.float32)
    bought, of_history = _history_features(snapshot, history)
    position = snapshot.scratch.position
    position[bought] = np.arange(len(bought), dtype=np.int32)
    at = position[rows]
    position[bought] = -1
    # The last row of `of_history` is zero: where position -1 points.
    features[:, :_N_HISTORY] = of_history[at]
    is_new = (at < 0).astype(np.float32)
    model_rows = model.model_rows[rows]
    constants = model.constants[model_rows]
    features[:, _GROWTH] = constants[:, 0]
    features[:, _POPULARITY] = constants[:, 1] * is_new
    if folded is not None:
        scores = model.arrays["item_factors"].take(model_rows, axis=0) @ folded.vector
        scores[model_rows < 0] = 0
        np.maximum(scores, 0, out=scores)
        features[:, _COLLABORATIVE] = np.log(scores + np.float32(0.01)) * is_new
    else:
        features[:, _COLLABORATIVE] = np.log(np.float32(0.01)) * is_new
    features[:, _AFFINITY] = _affinity(snapshot, history, rows) * is_new
    return features


def _history_features(snapshot: Snapshot, history: History) -> tuple[Rows, F32]:
    """Return purchased rows and their features, with a row of zeros at the end."""
    model, bought = snapshot.model, history.purchases
    rows, n, age_s, span_s = bought.rows, bought.counts, bought.age_s, bought.span_s
    result = np.zeros((len(rows) + 1, _N_HISTORY), dtype=np.float32)
    if len(rows) == 0:
        return rows, result
    found = result[:-1]
    constants = model.constants[model.model_rows[rows]]
    odds, interval_s = constants[:, 2], constants[:, 3]
    found[:, 0] = 1
    found[:, 1] = np.log1p(n * np.exp2(age_s * np.float32(-1 / HALF_LIFE_S)))
    found[:, 2] = n * np.exp2(age_s * np.float32(-1 / RECENT_HALF_LIFE_S))
    found[:, 3] = odds
    found[:, 4] = odds * (n == 1)
    first_age_days = (age_s + span_s) * np.float32(1 / DAY_S)
    found[:, 5] = np.log((n + np.float32(0.5)) / (first_age_days + np.float32(14)))
    gap_s = (span_s + 2 * interval_s) / (n + 1)
    elapsed = np.maximum(age_s / np.maximum(gap_s, 1), np.float32(1e-3))
    found[:, 6] = np.minimum(elapsed, 1 / elapsed)
    return rows, result


def _affinity(snapshot: Snapshot, history: History, rows: Rows) -> F32:
    """Return how much more a person buys of each candidate's category than everybody does."""
    codes, share = snapshot.model.category_codes, snapshot.model.category_share
    bought = history.purchases
    decayed = np.exp2(bought.age_s * np.float32(-1 / TASTE_HALF_LIFE_S))
    weights = np.log1p(bought.counts) * decayed
    by_category = np.bincount(codes[bought.rows], weights, minlength=len(share))
    ratio = (by_category + 2 * share) / ((weights.sum() + 2) * share)
    affinity: F32 = np.log(ratio).astype(np.float32)
    affinity[0] = 0
    return affinity[codes[rows]]
