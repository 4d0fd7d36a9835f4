"""Measures of ranked lists; pure functions of arrays.

A list is a row of item numbers, best first, padded with -1. Definitions: Järvelin and Kekäläinen,
"Cumulated gain-based evaluation of IR techniques", TOIS 2002, with binary gains.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer]


def hits_of(lists: Ints, truths: Sequence[Ints], n_items: int) -> Hits:
    """Mark which recommended items are wanted.

    Parameters
    ----------
    lists : ndarray of int, shape (u, k)
        Item numbers below `n_items`, or -1.
    truths : sequence of u arrays of int
        What each user wanted.
    n_items : int
        How many items there are.

    Returns
    -------
    ndarray of bool, shape (u, k)
        A repeated item counts at its first place only.
    """
    hits = np.zeros(lists.shape, dtype=bool)
    wanted = np.zeros(n_items + 1, dtype=bool)
    for user, truth in enumerate(truths):
        wanted[truth] = True
        for place, item in enumerate(lists[user].tolist()):
            hits[user, place] = wanted[item]
            wanted[item] = False
        wanted[truth] = False
        wanted[-1] = False
    return hits


def recall_at_k(hits: Hits, n_truth: Ints) -> F64:
    """Return hits / wanted items of each user, shape (u,)."""
    shares: F64 = np.divide(hits.sum(axis=1), n_truth)
    return shares


def ndcg_at_k(hits: Hits, n_truth: Ints) -> F64:
    """Return the discounted gain of each user over the best possible one, shape (u,).

    The best possible list has ``min(k, wanted)`` hits at its top.
    """
    k = hits.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discounts)))
    ratios: F64 = (hits @ discounts) / ideal[np.minimum(n_truth, k)]
    return ratios


def hit_rate_at_k(hits: Hits) -> F64:
    """Return 1 for each user with a hit, else 0, shape (u,)."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def coverage(lists: Ints, n_items: int) -> float:
    """Return the share of all items that stand in anybody's list."""
    shown = np.unique(lists)
    return float((shown >= 0).sum() / max(n_items, 1))


def novelty(lists: Ints, share_of_people: F64) -> float:
    """Return the mean self-information of the recommended items, in bits.

    ``-log2`` of the share of people who bought the item before (Zhou et al., "Solving the apparent
    diversity-accuracy dilemma of recommender systems", PNAS 2010): 0 for what everybody buys.

    Parameters
    ----------
    lists : ndarray of int, shape (u, k)
        Item numbers or -1.
    share_of_people : ndarray, shape (n,)
        Above 0 for every item that can be recommended.
    """
    shown = lists[lists >= 0]
    if len(shown) == 0:
        return 0.0
    return float(-np.log2(share_of_people[shown]).mean())


def bootstrap_ci(values: F64, n_resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over users.

    Parameters
    ----------
    values : ndarray, shape (u,)
        One value a user; for a paired comparison the users' differences.
    n_resamples : int
        How often users are drawn with replacement.
    seed : int
        Same seed, same interval.
    """
    if len(values) == 0:
        return 0.0, 0.0
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for start in range(0, n_resamples, 100):
        size = (min(100, n_resamples - start), len(values))
        means[start : start + size[0]] = values[rng.integers(0, len(values), size)].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
