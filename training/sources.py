"""The single sources as recommenders of their own: what the blend has to beat.

Each function returns full rankings' first `k`: lists of candidate positions (see ``split``), ties
by item id, -1 where fewer candidates are left. With `new_only` a person's history is masked.
"""

import numpy as np
import numpy.typing as npt

from feature_store.artifact import Recommender
from feature_store.schema import PURCHASE_CODE
from feature_store.signals import DAY_S, decay
from feature_store.state import UserState, hot_of
from training.models.together import top_of
from training.split import Split

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

REPEAT_HALF_LIFE_DAYS = 90.0
TOGETHER_ITEMS = 30
_BLOCK_USERS = 64


def _masked(split: Split, user: int, *, new_only: bool) -> I32:
    return split.history[user] if new_only else np.zeros(0, dtype=np.int32)


def by_score(scores: F32, split: Split, k: int, *, new_only: bool) -> I32:
    """Rank by one score for everybody.

    Parameters
    ----------
    scores : ndarray of float32, shape (c,)
        Of each candidate.
    split : Split
        Whom to recommend to.
    k : int
        Length of the lists.
    new_only : bool
        Whether to mask each person's history.
    """
    order = np.argsort(-scores, kind="stable").astype(np.int32)
    is_masked = np.zeros(len(scores), dtype=bool)
    lists = np.full((len(split.persons), k), -1, dtype=np.int32)
    for user in range(len(lists)):
        masked = _masked(split, user, new_only=new_only)
        is_masked[masked] = True
        head = order[: k + len(masked)]
        head = head[~is_masked[head]][:k]
        lists[user, : len(head)] = head
        is_masked[masked] = False
    return lists


def by_vectors(vectors: F32, factors: F32, split: Split, k: int, *, new_only: bool) -> I32:
    """Rank by the inner product of each person's vector with the candidates' factors.

    Parameters
    ----------
    vectors : ndarray of float32, shape (u, d)
        Of people.
    factors : ndarray of float32, shape (c, d)
        Of candidates.
    split, k, new_only
        See `by_score`.
    """
    lists = np.full((len(split.persons), k), -1, dtype=np.int32)
    if len(factors) == 0:
        return lists
    targets = np.ascontiguousarray(factors.T)
    buffer = np.empty((_BLOCK_USERS, len(factors)), dtype=np.float32)
    place = max(len(factors) - k, 0)
    for start in range(0, len(lists), _BLOCK_USERS):
        block = vectors[start : start + _BLOCK_USERS]
        scores = np.matmul(block, targets, out=buffer[: len(block)])
        for offset in range(len(block)):
            scores[offset, _masked(split, start + offset, new_only=new_only)] = -np.inf
        # Whatever is as good as the k-th best, so that ties at the edge fall by item id too.
        edges = np.partition(scores, place, axis=1)[:, place]
        found = np.flatnonzero((scores >= edges[:, None]) & (scores > -np.inf))
        user, item = np.divmod(found, len(factors))
        order = np.lexsort((item, -scores.ravel()[found], user))
        user, item = user[order], item[order]
        rank = np.arange(len(user)) - np.searchsorted(user, np.arange(len(block)))[user]
        user, item, rank = user[rank < k], item[rank < k], rank[rank < k]
        lists[start + user, rank] = item
    return lists


def by_own_history(
    states: list[UserState], positions: I32, split: Split, k: int, *, new_only: bool
) -> I32:
    """Rank by how often somebody bought an item, newer purchases for more.

    Parameters
    ----------
    states : list of UserState
        Whole states of the people.
    positions : ndarray of int32, shape (rows,)
        Candidate position of each catalogue row; -1 for none.
    split, k, new_only
        See `by_score`. Whatever was never bought scores 0 and follows by item id.
    """
    lists = np.full((len(states), k), -1, dtype=np.int32)
    for user, state in enumerate(states):
        bought = state.types == PURCHASE_CODE
        age_s = np.maximum(split.now_s - state.last_s[bought].astype(np.int64), 0)
        faded = decay(age_s.astype(np.float32), REPEAT_HALF_LIFE_DAYS * DAY_S)
        rows = positions[state.rows[bought]]
        masked = _masked(split, user, new_only=new_only)
        scores = state.counts[bought] * faded
        lists[user] = _ranked(scores, rows, masked, len(split.candidates), k)
    return lists


def by_baskets(
    states: list[UserState],
    positions: I32,
    neighbours: tuple[I32, F32],
    split: Split,
    k: int,
    *,
    new_only: bool,
) -> I32:
    """Rank by what shares baskets with somebody's newest items.

    Parameters
    ----------
    states, positions
        See `by_own_history`.
    neighbours : tuple of ndarray, each of shape (c, j)
        Positions (-1 for none) and scores of each candidate's basket neighbours.
    split, k, new_only
        See `by_score`.
    """
    rows_of, scores_of = neighbours
    lists = np.full((len(states), k), -1, dtype=np.int32)
    for user, state in enumerate(states):
        hot = hot_of(state)
        bought = np.flatnonzero(hot.types == PURCHASE_CODE)
        newest = bought[np.argsort(-hot.last_s[bought].astype(np.int64), kind="stable")]
        about = positions[hot.rows[newest[:TOGETHER_ITEMS]]]
        about = about[about >= 0]
        near, values = rows_of[about].ravel(), scores_of[about].ravel()
        rows, at = np.unique(near[near >= 0], return_inverse=True)
        scores = np.bincount(at, weights=values[near >= 0], minlength=len(rows)).astype(np.float32)
        masked = _masked(split, user, new_only=new_only)
        lists[user] = _ranked(scores, rows.astype(np.int32), masked, len(split.candidates), k)
    return lists


def by_engine(
    recommender: Recommender,
    states: list[UserState],
    positions: I32,
    split: Split,
    k: int,
    *,
    new_only: bool,
) -> I32:
    """Return what is served; an item that is no candidate takes its place and is a miss (-1)."""
    lists = np.full((len(states), k), -1, dtype=np.int32)
    for user, state in enumerate(states):
        rows = recommender.recommend(state, k=k, now_s=split.now_s, new_only=new_only)[:k]
        lists[user, : len(rows)] = positions[rows]
    return lists


def _ranked(scores: F32, rows: I32, masked: I32, n_candidates: int, k: int) -> I32:
    """Return the first `k` of a full ranking in which all but `rows` score 0."""
    usable = (rows >= 0) & (scores > 0)
    if len(masked):
        usable &= ~np.isin(rows, masked)
    rows, scores = rows[usable], scores[usable]
    head = rows[top_of(scores, rows, k)]
    if len(head) < k:
        # Enough of the first items, by id, that some remain after all that is taken.
        rest = np.arange(min(n_candidates, k + len(masked) + len(head)), dtype=np.int32)
        rest = rest[~np.isin(rest, np.concatenate((masked, head)))]
        head = np.concatenate((head, rest))[:k]
    result = np.full(k, -1, dtype=np.int32)
    result[: len(head)] = head
    return result
