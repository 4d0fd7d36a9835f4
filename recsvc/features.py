"""The features of a candidate for `home`, and which candidates are worth scoring.

The formulas were chosen on a year of real grocery purchases (1.47 million lines); taking any of
them away costs between .0005 and .015 of NDCG@20. Their weights are learned in every training.
"""

import numpy as np
import numpy.typing as npt

from feature_store.signals import DAY_S, FEATURES, decay_rate
from recsvc.history import History, Purchases
from recsvc.kinds import POPULAR
from recsvc.retrieval import JoinedModel
from recsvc.snapshot import Snapshot
from recsvc.starts import Start
from recsvc.topics import Topics

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

NEAREST = 100
BY_TOPIC = 300
START_POPULAR = 500
_LONG = decay_rate(90.0 * DAY_S)
_SHORT = decay_rate(15.0 * DAY_S)
_TASTE = decay_rate(60.0 * DAY_S)
_ONE = np.float32(1)

GROUPS = ("repeat", "trending", "popular", "collaborative")
"""The sources that a blended candidate can be said to come from."""
_GROUP_OF = {"growth": 1, "popularity_recent": 2, "collaborative": 3, "category_affinity": 3}
FEATURE_GROUPS = np.array([_GROUP_OF.get(name, 0) for name in FEATURES])
"""For each feature the index of its group in :data:`GROUPS`."""
LEAST_SCORE = np.float32(0.01)
"""Added to a score before its logarithm is taken."""
UNSOLD_SHARE = np.float32(2e-6)
"""The share of a category with no purchases lies below."""

_N_HISTORY = 7
_GROWTH, _POPULARITY, _COLLABORATIVE, _AFFINITY = range(_N_HISTORY, len(FEATURES))


def by_topic(snapshot: Snapshot, topics: Topics, history: History, allowed: Mask | None) -> Rows:
    """Return content about what a person is likely to care for, in any order."""
    rows, of_row = topics.rows, topics.of_row
    if allowed is not None:
        kept = allowed[rows]
        rows, of_row = rows[kept], of_row[kept]
    if len(rows) <= BY_TOPIC:
        return rows
    likely = topics.likely(snapshot.model.category_codes, history)[of_row]
    return rows[np.argpartition(-likely, BY_TOPIC)[:BY_TOPIC]]


def by_start(snapshot: Snapshot, start: Start, allowed: Mask | None) -> Rows:
    """Return what is popular, and what is near a start; rows may repeat."""
    model = snapshot.model
    popular = model.popular
    if allowed is not None:
        # Most of the first are allowed: there is no need to look at all.
        popular = popular[: 4 * START_POPULAR]
        popular = popular[allowed[popular]]
    found = [popular[:START_POPULAR]]
    if start.interests is not None:
        found.append(start.interests.best)
    if model.index is not None:
        for vector in start.vectors:
            near = model.catalogue_rows[model.index.search(vector, NEAREST)]
            found.append(near[near >= 0])
    return np.concatenate(found)


def retrieve(
    snapshot: Snapshot, vector: F32 | None, kinds: frozenset[str], allowed: Mask | None = None
) -> Rows:
    """Return catalogue rows worth scoring besides what was bought before.

    Those near the person's vector, by the index or exactly (``KindView``), and those that are
    popular now; rows may repeat. Deeper retrieval (400 and 200) changed NDCG@20 by less than .0002.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    vector : ndarray of float32, shape (d,), or None
        The person's factors.
    kinds : frozenset of str
        Item kinds that will be shown.
    allowed : ndarray of bool, shape (n_rows,), or None
        What may be shown, which exact search obeys.
    """
    model = snapshot.model
    if model.index is None:
        return model.popular[:POPULAR]
    view = model.view(kinds)
    if vector is None:
        return view.popular
    found = [view.popular]
    if len(view.rows):
        found.append(view.nearest(vector, NEAREST, allowed))
    if view.is_indexed:
        near = model.catalogue_rows[model.index.search(vector, NEAREST)]
        found.append(near[near >= 0])
    # Popular ones come last: among equals the nearest is taken first.
    return np.concatenate(found[::-1])


def personal_features(
    snapshot: Snapshot,
    history: History,
    vector: F32 | None,
    others: Rows,
    topics: Topics | None = None,
    start: Start | None = None,
) -> tuple[Rows, F32]:
    """Compute the features of everything bought before and of other candidates.

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

    For an item that is placed by its content (``ColdItems``) the popularity is that of items like
    it, and the vector meets the factors that its content gives it. With `topics` popularity and
    affinity are those of the topic instead of the item; without a topic it is an average one.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    history : History
        The person's.
    vector : ndarray of float32, shape (d,), or None
        The person's factors.
    others : ndarray of int
        Catalogue rows; those that were bought are left out here, they come first anyway.
    topics : Topics or None
        Of the others, if they are content.
    start : Start or None
        Of somebody without a history: `collaborative` is then how much better than average an item
        fits.

    Returns
    -------
    rows : ndarray of int, shape (c,)
        Catalogue rows: the bought ones, then the others.
    features : ndarray of float32, shape (len(FEATURES), c)
        One row a feature, as in ``signals.FEATURES``.
    """
    model = snapshot.model
    bought = history.purchases.rows
    marked = snapshot.scratch.marked
    marked[bought] = True
    others = others[~marked[others]]
    marked[bought] = False
    rows = np.concatenate((bought, others))
    features = np.zeros((len(FEATURES), len(rows)), dtype=np.float32)
    model_rows = model.model_rows[rows]
    constants = model.constants.take(model_rows, axis=0, mode="wrap").T
    features[_GROWTH] = constants[0]
    n_bought = len(bought)
    _bought_features(features[:, :n_bought], history.purchases, constants[2:, :n_bought])
    new = features[:, n_bought:]
    new[_POPULARITY] = constants[1, n_bought:]
    new[_COLLABORATIVE] = _collaborative(model, vector, model_rows[n_bought:])
    new[_AFFINITY] = _affinity(model, history.purchases, others)
    if len(model.cold.rows):
        _by_content(model, vector, others, new)
    if start is not None:
        at, factors = model.placed(others)
        # Rows without a place fit as badly as any.
        new[_COLLABORATIVE] = np.log(LEAST_SCORE)
        new[_COLLABORATIVE, np.isin(others, at)] = start.scores(at, factors)
    if topics is not None:
        logs = np.append(np.log(topics.share), np.log(topics.share).mean())
        likely = np.append(topics.likely(model.category_codes, history), logs[-1])
        at = topics.at(others)
        new[_POPULARITY] = logs[at]
        new[_AFFINITY] = (likely - logs)[at]
    return rows, features


def _bought_features(found: F32, bought: Purchases, constants: F32) -> None:
    """Fill in what depends on the purchases of each item."""
    n, age_s, span_s = bought.counts, bought.age_s, bought.span_s
    odds, interval_s = constants
    found[0] = 1
    # log(1 + x) rather than log1p: numpy computes it with vector instructions.
    found[1] = np.log(n * np.exp(age_s * _LONG) + _ONE)
    found[2] = n * np.exp(age_s * _SHORT)
    found[3] = odds
    found[4] = odds * (n == 1)
    first_age_days = (age_s + span_s) * np.float32(1 / DAY_S)
    found[5] = np.log((n + np.float32(0.5)) / (first_age_days + np.float32(14)))
    gap_s = (span_s + 2 * interval_s) / (n + 1)
    elapsed = np.maximum(age_s / gap_s, np.float32(1e-3))
    found[6] = np.minimum(elapsed, 1 / elapsed)


def _collaborative(model: JoinedModel, vector: F32 | None, model_rows: Rows) -> F32:
    """Return the log score of items that were not bought, -1 being the row of an unknown one."""
    if vector is None:
        return np.full(len(model_rows), np.log(LEAST_SCORE), dtype=np.float32)
    scores = model.arrays["item_factors"].take(model_rows, axis=0) @ vector
    scores[model_rows < 0] = 0
    return _log_score(scores)


def _log_score(scores: F32) -> F32:
    logs: F32 = np.log(np.maximum(scores, 0) + LEAST_SCORE)
    return logs


def _by_content(model: JoinedModel, vector: F32 | None, rows: Rows, features: F32) -> None:
    """Fill in what content says of those rows that are placed by it."""
    cold = model.cold
    at = cold.at(rows)
    found = np.flatnonzero(at >= 0)
    if len(found) == 0:
        return
    features[_POPULARITY, found] = cold.popularity[at[found]]
    # That nobody has bought of a category in which nothing was ever sold says nothing.
    unsold = model.category_share[model.category_codes[rows[found]]] < UNSOLD_SHARE
    features[_AFFINITY, found[unsold]] = 0
    if vector is not None:
        features[_COLLABORATIVE, found] = _log_score(cold.factors[at[found]] @ vector)


def taste_weights(bought: Purchases) -> F32:
    """Return what each bought item counts in the affinity to its category, shape (p,)."""
    weights: F32 = np.log(bought.counts + _ONE) * np.exp(bought.age_s * _TASTE)
    return weights


def _affinity(model: JoinedModel, bought: Purchases, rows: Rows) -> F32:
    """Return how much more a person buys of each item's category than everybody does."""
    codes, share = model.category_codes, model.category_share
    weights = taste_weights(bought)
    counted = np.bincount(codes[bought.rows], weights, minlength=len(share))
    wanted = codes[rows]
    expected = share[wanted]
    observed = counted[wanted].astype(np.float32)
    affinity: F32 = np.log((observed + 2 * expected) / (expected * (weights.sum() + 2)))
    affinity[wanted == 0] = 0
    return affinity
