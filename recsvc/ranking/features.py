"""The features of a candidate for `home`, and which candidates are worth scoring.

The formulas were chosen on a year of real grocery purchases (1.47 million lines); taking any of
them away costs between .0005 and .015 of NDCG@20. Their weights are learned in every training.
"""

import numpy as np
import numpy.typing as npt

from feature_store.signals import DAY_S, FEATURES
from recsvc.ranking.history import History, Purchases
from recsvc.ranking.kinds import POPULAR
from recsvc.ranking.starts import Start
from recsvc.ranking.topics import Topics
from recsvc.retrieval import Index, JoinedModel
from recsvc.snapshot import Snapshot

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

NEAREST = 100
BY_TOPIC = 300
START_POPULAR = 500
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_DAYS, _FORTNIGHT = np.float32(1 / DAY_S), np.float32(14)
_SOONEST = np.float32(1e-3)

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
_FREQUENCIES, _LOGARITHMS = slice(1, 3), slice(1, 6, 4)
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
    found: list[Rows] = [popular[:START_POPULAR]]
    if start.interests is not None:
        found.append(start.interests.best)
    if model.index is not None:
        found += [_near(model, model.index, vector) for vector in start.vectors]
    return np.concatenate(found)


def _near(model: JoinedModel, index: Index, vector: F32) -> Rows:
    near = model.catalogue_rows.take(index.search(vector, NEAREST)).astype(np.int64)
    return near[near >= 0]


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
    found: list[Rows] = [view.popular]
    if len(view.rows):
        found.append(view.nearest(vector, NEAREST, allowed))
    if view.is_indexed:
        found.append(_near(model, model.index, vector))
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
    model_rows = model.model_rows.take(rows)
    growth, popularity, odds, interval_s = model.constants.take(model_rows, 0, mode="wrap").T
    features[_GROWTH] = growth
    n_bought = len(bought)
    _bought_features(
        features[:, :n_bought], history.purchases, odds[:n_bought], interval_s[:n_bought]
    )
    new = features[:, n_bought:]
    new[_POPULARITY] = popularity[n_bought:]
    new[_COLLABORATIVE] = _scores(model, vector, model_rows[n_bought:])
    _affinity(snapshot, history.purchases, others, new[_AFFINITY])
    np.log(new[_COLLABORATIVE:], out=new[_COLLABORATIVE:])
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


def _bought_features(found: F32, bought: Purchases, odds: F32, interval_s: F32) -> None:
    """Fill in what depends on the purchases of each item; the time goes by the number of calls."""
    n, age_s, span_s = bought.counts, bought.age_s, bought.span_s
    _, frequency, _, rate, once, per_day, due = found[:_N_HISTORY]
    found[0] = 1
    np.multiply(n, bought.decays[2:], out=found[_FREQUENCIES])
    frequency += _ONE
    rate[:] = odds
    np.multiply(odds, n == _ONE, out=once)
    np.divide(n + _HALF, (age_s + span_s) * _DAYS + _FORTNIGHT, out=per_day)
    # log(1 + x) rather than log1p: numpy computes it with vector instructions.
    np.log(found[_LOGARITHMS], out=found[_LOGARITHMS])
    np.divide(age_s * (n + _ONE), span_s + _TWO * interval_s, out=due)
    np.maximum(due, _SOONEST, out=due)
    np.minimum(due, np.reciprocal(due), out=due)


def _scores(model: JoinedModel, vector: F32 | None, model_rows: Rows) -> F32 | np.float32:
    """Return the scores of items that were not bought, of which the logarithm is taken.

    -1 is the row of an item that the model does not know.
    """
    if vector is None:
        return LEAST_SCORE
    scores = model.arrays["item_factors"].take(model_rows, axis=0, mode="clip") @ vector
    scores[model_rows < 0] = 0
    np.maximum(scores, _ZERO, out=scores)
    scores += LEAST_SCORE
    return scores


def log_scores(scores: F32) -> F32:
    """Return the logarithms of scores as the blend has them."""
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
        features[_COLLABORATIVE, found] = log_scores(cold.factors[at[found]] @ vector)


def taste_weights(bought: Purchases) -> F32:
    """Return what each bought item counts in the affinity to its category, shape (p,)."""
    weights: F32 = np.log(bought.counts + _ONE) * bought.decays[1]
    return weights


def _affinity(snapshot: Snapshot, bought: Purchases, rows: Rows, found: F32) -> None:
    """Fill in how much more a person buys of each item's category than everybody does."""
    codes, share = snapshot.model.category_codes, snapshot.model.category_share
    counted, own = snapshot.scratch.by_category, codes.take(bought.rows).astype(np.int64)
    weights = taste_weights(bought)
    np.add.at(counted, own, weights)
    total = np.add.reduce(weights)
    # Where no category is known, as much as everybody.
    counted[0] = total * share[0]
    wanted = codes.take(rows).astype(np.int64)
    expected, observed = share.take(wanted), counted.take(wanted)
    counted[own] = counted[0] = 0
    observed += _TWO * expected
    expected *= total + _TWO
    np.divide(observed, expected, out=found)
