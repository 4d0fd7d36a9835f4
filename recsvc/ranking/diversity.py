"""Variety within a list: each next item is worth less the more it is like those before it.

Maximal marginal relevance (Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for
Reordering Documents and Producing Summaries", SIGIR 1998) over the best candidates. How alike two
items are is half the cosine of their factors and half whether their category is the same, so items
that the model does not know count by their category alone.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recsvc.ranking.sources import Candidates
from recsvc.snapshot import Snapshot

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.signedinteger]
Mask = npt.NDArray[np.bool_]

POOL = 120
"""Best candidates that are put in a new order: of a fixed number, so that a short list is the
beginning of a longer one."""


def similarity(snapshot: Snapshot, rows: npt.NDArray[np.integer]) -> F32:
    """Return how alike items are.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    rows : ndarray of int, shape (m,)
        Catalogue rows.

    Returns
    -------
    ndarray of float32, shape (m, m)
        From 0 to 1; 1 for two of one category that always sell to the same people.
    """
    model = snapshot.model
    model_rows = model.rows_of(rows)
    known = np.flatnonzero(model_rows >= 0)
    cosine = np.zeros((len(rows), len(rows)), dtype=np.float32)
    if len(known):
        found = model_rows[known]
        factors = model.arrays["item_factors"][found] / model.norms[found][:, None]
        cosine[np.ix_(known, known)] = np.clip(factors @ factors.T, 0, 1)
    codes = model.category_codes[rows]
    same = (codes[:, None] == codes) & (codes > 0)
    alike: F32 = (0.5 * cosine + 0.5 * same).astype(np.float32)
    return alike


def varied(
    snapshot: Snapshot, candidates: Candidates, may: Mask, n: int, diversity: float
) -> Candidates:
    """Return candidates in an order in which the first ones differ more.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    candidates : Candidates
        Of one source.
    may : ndarray of bool, shape (n_rows,)
        What may be shown.
    n : int
        How long the list will be.
    diversity : float
        0: as it was; 1: nothing but variety counts.

    Returns
    -------
    Candidates
        Sorted; a pool of the best ones in a new order, then all others as they were.
    """
    if diversity <= 0 or len(candidates.rows) == 0:
        return candidates
    order = np.flatnonzero(may[candidates.rows])
    if not candidates.is_sorted:
        order = order[np.argsort(-candidates.scores[order], kind="stable")]
    rows = candidates.rows[order]
    _, first = np.unique(rows, return_index=True)
    order = order[np.sort(first)]
    if len(order) == 0:
        return candidates
    size = min(len(order), POOL)
    pool = order[:size]
    chosen = greedy(
        _relevance(candidates, pool), similarity(snapshot, candidates.rows[pool]), n, diversity
    )
    rest = np.ones(size, dtype=bool)
    rest[chosen] = False
    places = np.concatenate((pool[chosen], pool[rest], order[size:]))
    features = None if candidates.features is None else candidates.features[:, places]
    lifts = None if candidates.lifts is None else candidates.lifts[places]
    return replace(
        candidates,
        rows=candidates.rows[places],
        scores=candidates.scores[places],
        features=features,
        lifts=lifts,
        is_sorted=True,
    )


def _relevance(candidates: Candidates, pool: npt.NDArray[np.intp]) -> F32:
    """Return the relevance of a sorted pool, 1 for the best and 0 for the last."""
    scores = candidates.scores[pool].astype(np.float32)
    if candidates.is_sorted:
        scores = -np.arange(len(pool), dtype=np.float32)
    spread = scores[0] - scores[-1]
    if spread <= 0:
        return np.ones(len(pool), dtype=np.float32)
    scaled: F32 = (scores - scores[-1]) / spread
    return scaled


def greedy(relevance: F32, alike: F32, n: int, diversity: float) -> npt.NDArray[np.intp]:
    """Return the places of `n` items, each the best beside those before it.

    Parameters
    ----------
    relevance : ndarray of float32, shape (m,)
        From 0 to 1.
    alike : ndarray of float32, shape (m, m)
        From 0 to 1.
    n : int
        How many.
    diversity : float
        Weight of variety, from 0 to 1.
    """
    wanted = (1 - diversity) * relevance
    closest = np.zeros(len(relevance), dtype=np.float32)
    places = np.empty(min(n, len(relevance)), dtype=np.intp)
    for at in range(len(places)):
        best = int(np.argmax(wanted - diversity * closest))
        places[at] = best
        wanted[best] = -np.inf
        np.maximum(closest, alike[best], out=closest)
    return places


def intra_list_distance(snapshot: Snapshot, rows: Rows) -> float:
    """Return the mean distance, 1 - similarity, of two items of a list.

    From Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005.
    """
    n = len(rows)
    if n < 2:
        return 0.0
    alike = similarity(snapshot, rows)
    return float(1 - (alike.sum() - np.trace(alike)) / (n * (n - 1)))
