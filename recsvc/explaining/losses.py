"""What the score of an item would lose without one item of the history: what reasons rest on.

Computed, not estimated: the score of a new item depends on the history by the folded-in vector and
by how much was bought in its category (or of what falls under its topic), and both have a closed
form for "the same without that item". The score of an item that was bought depends on no other
item; without itself it would be a new one. Tests take each item out of the state and ask the engine
again.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.signals import FEATURES
from recsvc.ranking.features import UNSOLD_SHARE, log_scores, taste_weights
from recsvc.ranking.query import Query
from recsvc.ranking.sources import SAME_CATEGORY, SAME_DEPARTMENT

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

_GROWTH, _POPULARITY, _COLLABORATIVE, _AFFINITY = map(
    FEATURES.index, ("growth", "popularity_recent", "collaborative", "category_affinity")
)
_PSEUDO = 2.0
"""Pseudo-purchases of both affinities."""
_ROUNDING = np.float32(1e-3)
_TIE = np.float32(1e-3)


class Counted(NamedTuple):
    """How an affinity counts: ``log((sum of the weights inside + pseudo) / (all weights + 2))``.

    Parameters
    ----------
    rows : ndarray of int, shape (p,)
        Catalogue rows of what is counted, ascending.
    weights : ndarray of float64, shape (p,)
        What each counts.
    inside : ndarray of bool, shape (m, p)
        Whether it counts for each item.
    pseudo : ndarray of float, shape (m,)
        What each item has from the start, twice its share among everybody.
    varies : ndarray of bool, shape (m,)
        Whether the item's affinity depends on the history at all.
    """

    rows: Ints
    weights: F64
    inside: Mask
    pseudo: F32
    varies: Mask


def blend_losses(query: Query, rows: Ints) -> F32:
    """Return how far blended scores of items that were not bought fall without each history item.

    Parameters
    ----------
    query : Query
        With the person's history of h items.
    rows : ndarray of int, shape (m,)
        Catalogue rows.

    Returns
    -------
    ndarray of float32, shape (m, h)
        Negative where the score would rise.
    """
    losses = vector_losses(query, rows, logs=True)
    losses *= query.weights[_COLLABORATIVE]
    _add_affinity(losses, query, _counted(query, rows), float(query.weights[_AFFINITY]))
    return losses


def vector_losses(query: Query, rows: Ints, *, logs: bool) -> F32:
    """Return how far the scores by the folded-in vector fall, shape (m, h).

    Parameters
    ----------
    query : Query
        With the person's history of h items.
    rows : ndarray of int, shape (m,)
        Catalogue rows.
    logs : bool
        Whether of their logarithms, as the blend has them.
    """
    n_history, folded = len(query.history.rows), query.folded
    if folded is None:
        return np.zeros((len(rows), n_history), dtype=np.float32)
    placed, factors = query.snapshot.model.placed(rows)
    if len(placed) == 0:
        return np.zeros((len(rows), n_history), dtype=np.float32)
    found = folded.losses(factors)
    if logs:
        scores = (factors @ folded.vector)[:, None]
        found = log_scores(scores) - log_scores(scores - found)
    if len(query.known_history[0]) == n_history and len(placed) == len(rows):
        return found
    losses = np.zeros((len(rows), n_history), dtype=np.float32)
    losses[np.flatnonzero(np.isin(rows, placed))[:, None], query.folded_positions] = found
    return losses


def own_losses(query: Query, rows: Ints, features: F32) -> F32:
    """Return how far the scores of bought items fall when they are taken out of the history.

    Without its purchases an item would be scored as a new one.

    Parameters
    ----------
    query : Query
        With the person's history.
    rows : ndarray of int, shape (m,)
        Catalogue rows of bought items.
    features : ndarray of float32, shape (F, m)
        Their features.

    Returns
    -------
    ndarray of float32, shape (m,)
        Lower bounds where these are above 0, for they are cheap; else the losses.
    """
    losses: F32 = query.weights[:_GROWTH] @ features[:_GROWTH]
    bounds: F32 = losses - _most_as_new(query, rows)
    unsure = [at for at, bound in enumerate(bounds.tolist()) if bound <= 0]
    if unsure:
        bounds[unsure] = _surely(query, rows[unsure], losses[unsure])
    return bounds


def _surely(query: Query, rows: Ints, losses: F32) -> F32:
    """Return `own_losses` of those items that the cheapest bound leaves open."""
    weights, affinity = query.weights, float(query.weights[_AFFINITY])
    losses = losses - weights[_POPULARITY] * _popularity(query, rows)
    losses -= weights[_COLLABORATIVE] * log_scores(_scores_without(query, rows))
    if affinity >= 0 and query.topics is None:
        bounds: F32 = losses - affinity * _most_affinity(query, rows)
        if min(bounds.tolist()) > 0:
            return bounds
    losses -= affinity * _affinity_without(_counted(query, rows), rows)
    return losses


def _most_affinity(query: Query, rows: Ints) -> F32:
    """Return what the affinity is at most: all purchases are of the item's category."""
    model = query.snapshot.model
    # A share may be a little above 1.
    most: F32 = _ROUNDING - np.log(model.category_share[model.category_codes[rows]])
    return most


def _most_as_new(query: Query, rows: Ints) -> F32 | float:
    """Return what bought items would score at most if they were new, but for their growth.

    Infinity where there is no simple bound.
    """
    model, folded = query.snapshot.model, query.folded
    _, popularity, collaborative, affinity = query.weights[_GROWTH:].tolist()
    all_known = len(query.known_history[0]) == len(query.history.rows)
    if query.topics is not None or folded is None or not all_known:
        return np.inf
    if collaborative < 0 or affinity < 0:
        return np.inf
    model_rows = model.model_rows[rows]
    scores = model.arrays["item_factors"].take(model_rows, axis=0) @ folded.vector
    # What is wanted less than fully is wanted even less without itself; of the rest, who knows.
    scores[scores > 1] = np.inf
    most: F32 = collaborative * log_scores(scores)
    most += popularity * model.constants[model_rows, 1]
    most += affinity * _most_affinity(query, rows)
    return most


def page_losses(query: Query, source: str, rows: Ints, *, retrieved: bool) -> F32:
    """Return how far the scores of items fall without each item of the page, shape (m, a).

    Parameters
    ----------
    query : Query
        With a page of a items.
    source : {"together", "similar"}
        What the items come from.
    rows : ndarray of int, shape (m,)
        Catalogue rows.
    retrieved : bool
        Whether they are the source's own, not scored by the mean of the page alone.
    """
    if len(query.about) == 0 or query.snapshot.model.n_items == 0:
        return np.zeros((len(rows), 0), dtype=np.float32)
    if not retrieved:
        return _cosines(query, rows)
    scores = _in_table(query, source, rows)
    if source == "together":
        return scores
    absent = ~scores.any(axis=1)
    if absent.any():
        scores[absent] = _cosines(query, rows[absent])
    whole = np.ones((len(rows), 1), dtype=np.float32)
    without = np.ones(scores.shape, dtype=np.float32)
    model = query.snapshot.model
    for codes, weight in (
        (model.category_codes, SAME_CATEGORY),
        (model.department_codes, SAME_DEPARTMENT),
    ):
        mine = codes[query.about]
        alike = (codes[rows][:, None] == mine) & (mine > 0)
        n_alike = alike.sum(axis=1, keepdims=True)
        whole += weight * (n_alike > 0)
        without += weight * (n_alike - alike > 0)
    total = scores.sum(axis=1, keepdims=True)
    losses: F32 = total * whole - (total - scores) * without
    return losses


def _in_table(query: Query, source: str, rows: Ints) -> F32:
    """Return what the table of neighbours says of each item and each of the page, shape (m, a)."""
    model = query.snapshot.model
    about, wanted = model.rows_of(query.about), model.rows_of(rows)
    neighbours = model.arrays[f"{source}_rows"][about]
    scores = model.arrays[f"{source}_scores"][about] * (about >= 0)[:, None]
    hits = (neighbours == wanted[:, None, None]) & (wanted >= 0)[:, None, None]
    found: F32 = np.einsum("mak,ak->ma", hits, scores)
    return found


def _cosines(query: Query, rows: Ints) -> F32:
    """Return what each of the page's items gives to the nearness of each item, shape (m, a)."""
    found = np.zeros((len(rows), len(query.about)), dtype=np.float32)
    model = query.snapshot.model
    about, directions = model.placed(query.about)
    placed, factors = model.placed(rows)
    if len(about) and len(placed):
        directions = directions / np.maximum(np.linalg.norm(directions, axis=1), 1e-9)[:, None]
        lengths = np.maximum(np.linalg.norm(factors, axis=1), 1e-9)[:, None]
        on_page, among = np.isin(query.about, about), np.isin(rows, placed)
        found[np.ix_(among, on_page)] = factors @ directions.T / lengths
    return found


def _popularity(query: Query, rows: Ints) -> F32:
    """Return the feature of that name that bought items would have as new ones."""
    model, topics = query.snapshot.model, query.topics
    if topics is not None:
        logs = np.append(np.log(topics.share), np.log(topics.share).mean())
        found: F32 = logs[topics.at(rows)]
        return found
    found = model.constants[model.model_rows[rows], 1]
    if len(model.cold.rows):
        at = model.cold.at(rows)
        found = np.where(at >= 0, model.cold.popularity[at], found)
    return found


def _scores_without(query: Query, rows: Ints) -> F32:
    """Return the score of each history item by the vector of the history without it."""
    folded, history = query.folded, query.history
    scores = np.zeros(len(rows), dtype=np.float32)
    if folded is None:
        return scores
    if len(query.known_history[0]) == len(history.rows) and history.purchases.rows is history.rows:
        return folded.scores_without(np.searchsorted(history.rows, rows))
    at, known = _found(history.rows, rows)
    place = np.full(len(history.rows), -1)
    place[query.folded_positions] = np.arange(len(query.folded_positions))
    placed = place[at]
    known &= placed >= 0
    if known.any():
        scores[known] = folded.scores_without(placed[known])
    return scores


def _found(rows: Ints, wanted: Ints) -> tuple[Ints, Mask]:
    """Return where rows stand among others, which are ascending and not none, and whether."""
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return at, rows[at] == wanted


def _counted(query: Query, rows: Ints) -> Counted:
    """Return what the affinity of each of some items counts."""
    model, history, topics = query.snapshot.model, query.history, query.topics
    codes = model.category_codes
    if topics is not None:
        topic = topics.at(rows)
        inside = (topics.of_code[codes[history.rows]] == topic[:, None, None]).any(axis=2)
        weights = np.log(history.weights + np.float32(1))
        share, varies = topics.share[topic], topic >= 0
        return Counted(history.rows, weights.astype(np.float64), inside, _PSEUDO * share, varies)
    bought = history.purchases
    wanted = codes[rows]
    share, varies = model.category_share[wanted], wanted != 0
    if len(model.cold.rows):
        varies &= (model.cold.at(rows) < 0) | (share >= UNSOLD_SHARE)
    inside = (codes[bought.rows] == wanted[:, None]) & varies[:, None]
    weights = taste_weights(bought)
    return Counted(bought.rows, weights.astype(np.float64), inside, _PSEUDO * share, varies)


def _add_affinity(losses: F32, query: Query, counted: Counted, weight: float) -> None:
    """Add to losses what each history item gives to the affinities, which have a weight."""
    own, pseudo = counted.weights, counted.pseudo[:, None]
    mine = own * counted.inside
    sums = np.add.reduce(mine, axis=1, keepdims=True)
    left = np.maximum(sums - mine, 0)
    rest = 1 - own / (own.sum() + _PSEUDO)
    falls = np.log((sums + pseudo) / (left + pseudo) * rest)
    falls *= weight * counted.varies[:, None]
    history = query.history.rows
    if counted.rows is history:
        losses += falls
    else:
        # What is disliked counts as a purchase, but nobody is told that it is why.
        place, known = _found(history, counted.rows)
        losses[:, place[known]] += falls[:, known]


def _affinity_without(counted: Counted, rows: Ints) -> F64:
    """Return the affinity of each of some items that are counted without its own weight."""
    at, known = _found(counted.rows, rows)
    own = np.where(known, counted.weights[at], 0)
    item = np.arange(len(rows))
    sums = counted.inside @ counted.weights - own * counted.inside[item, at]
    ratio = (np.maximum(sums, 0) + counted.pseudo) / (counted.weights.sum() - own + _PSEUDO)
    return np.where(counted.varies, np.log(ratio / counted.pseudo * _PSEUDO), 0)
