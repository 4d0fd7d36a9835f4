"""What content says about an item: factors and popularity of one that nobody has bought yet.

Each token of the catalogue (``feature_store.content``: category paths, brand, attributes, words)
gets a vector and a number by ridge regression on the items that the model knows; a new item is the
sum of its tokens. It is the linear form of Gantner et al., "Learning Attribute-to-Feature Mappings
for Cold-Start Recommendations", ICDM 2010. An item counts by the root of its number of buyers: the
factors of what was bought once are mostly noise. The ridge is chosen on items that are held out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from feature_store.content import EVERY, token_hash, token_hashes

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

MIN_ITEMS = 5
"""A token of fewer items says more about those items than about the next one."""
MAX_TOKENS = 2**15
LEAST_POPULARITY = 1e-6
"""As in the feature ``popularity_recent``, which this stands in for."""
RIDGES = (3_000.0, 1_000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
_TUNING_ITEMS = 20_000
_TUNING_COLUMNS = 16
_FOLDS = 5
_SMALL = 2_000
_MAX_ROUNDS = 100
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What each token adds; arrays of the artifact.

    Parameters
    ----------
    tokens : ndarray of uint64, shape (v,)
        Hashes, ascending; that of ``content.EVERY`` is among them unless there are none.
    factors : ndarray of float32, shape (v, d)
        What each adds to an item's factors.
    popularity : ndarray of float32, shape (v,)
        What each adds to the log of an item's recent popularity.
    ridges : tuple of float
        What was chosen for both, in items of average weight.
    """

    tokens: U64
    factors: F32
    popularity: F32
    ridges: tuple[float, float]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return them by their names in the artifact."""
        return {
            "content_tokens": self.tokens,
            "content_factors": self.factors,
            "content_popularity": self.popularity,
        }


def no_content(n_factors: int) -> Content:
    """Return what a catalogue of bare ids teaches."""
    none = np.zeros(0, dtype=np.float32)
    empty = np.zeros((0, n_factors), dtype=np.float32)
    return Content(np.zeros(0, dtype=np.uint64), empty, none, (0.0, 0.0))


def fit_content(
    tokens: pl.DataFrame,
    item_factors: F32,
    popularity_recent: F32,
    buyers: npt.NDArray[np.integer],
    *,
    seed: int,
) -> Content:
    """Learn what tokens say.

    Parameters
    ----------
    tokens : DataFrame
        Distinct ``row`` (a model row) and ``token`` of the items that the model knows.
    item_factors : ndarray of float32, shape (n, d)
        Their factors.
    popularity_recent : ndarray of float32, shape (n,)
        Their shares of what is bought lately.
    buyers : ndarray of int, shape (n,)
        People behind each item.
    seed : int
        Of the choice of held-out items.

    Returns
    -------
    Content
        Empty when no token is common enough.
    """
    n_items, n_factors = item_factors.shape
    vocabulary = (
        tokens.group_by("token")
        .len()
        .filter(pl.col("len") >= MIN_ITEMS)
        .sort("len", "token", descending=[True, False])
        .head(MAX_TOKENS - 1)
        .with_row_index("column")
    )
    if vocabulary.is_empty():
        return no_content(n_factors)
    at = tokens.join(vocabulary, on="token")
    matrix = sp.csr_matrix(
        (np.ones(at.height, dtype=np.float32), (at["row"].to_numpy(), at["column"].to_numpy())),
        shape=(n_items, vocabulary.height),
    )
    weights = np.sqrt(np.maximum(buyers, 1)).astype(np.float32)
    weights /= weights.mean()
    logs = np.log(popularity_recent + np.float32(LEAST_POPULARITY))[:, None]
    found = [_fitted(matrix, target, weights, seed) for target in (item_factors, logs)]
    hashes = np.append(token_hashes(vocabulary["token"].to_list()), np.uint64(token_hash(EVERY)))
    order = np.argsort(hashes)
    factors, popularity = (
        np.vstack([slopes, base[None, :]])[order].astype(np.float32) for slopes, base, _ in found
    )
    return Content(hashes[order], factors, popularity[:, 0], (found[0][2], found[1][2]))


def _fitted(matrix: sp.csr_matrix, target: F32, weights: F32, seed: int) -> tuple[F32, F32, float]:
    """Return slopes, what every item has, and the ridge that was chosen."""
    ridge = _choose_ridge(matrix, target, weights, seed)
    return *_solve(matrix, target, weights, ridge), ridge


def _choose_ridge(matrix: sp.csr_matrix, target: F32, weights: F32, seed: int) -> float:
    """Return the ridge with the least weighted squared error on held-out items.

    From the strongest on: as soon as the next one is worse, weaker ones fit noise.
    """
    n_items = len(target)
    # One ridge serves all columns, and some of them show which.
    target = np.ascontiguousarray(target[:, :_TUNING_COLUMNS])
    rng = np.random.default_rng(seed)
    sample = rng.permutation(n_items)[:_TUNING_ITEMS]
    fold = np.arange(len(sample)) % _FOLDS
    # Where items are few one fold says little.
    tried = range(_FOLDS if n_items <= _SMALL else 1)
    best, least = RIDGES[0], np.inf
    for ridge in RIDGES:
        error = 0.0
        for held in tried:
            kept, out = np.sort(sample[fold != held]), np.sort(sample[fold == held])
            if len(kept) == 0 or len(out) == 0:
                return ridge
            slopes, base = _solve(matrix[kept], target[kept], weights[kept], ridge)
            missed = np.square(target[out] - matrix[out] @ slopes - base).sum(axis=1)
            error += float(weights[out] @ missed)
        if error >= least:
            break
        best, least = ridge, error
    return best


def _solve(matrix: sp.csr_matrix, target: F32, weights: F32, ridge: float) -> tuple[F32, F32]:
    """Solve a weighted ridge regression for all columns of the target at once.

    By conjugate gradients on the normal equations with a diagonal preconditioner (Saad, "Iterative
    Methods for Sparse Linear Systems", 2nd edition, algorithm 9.1): they are never formed.

    Returns
    -------
    slopes : ndarray of float32, shape (v, m)
        Of each token.
    base : ndarray of float32, shape (m,)
        The weighted mean of the target, which is not shrunk.
    """
    base: F32 = (weights @ target / weights.sum()).astype(np.float32)
    transposed = sp.csr_matrix(matrix.T)
    column = weights[:, None]
    scale = 1.0 / (transposed @ weights + np.float32(ridge))[:, None]
    right = transposed @ (column * (target - base))
    slopes = np.zeros_like(right)
    residual, direction = right, scale * right
    progress = np.sum(residual * direction, axis=0)
    least = _TOLERANCE * np.sqrt(np.square(right).sum(axis=0))
    for _ in range(_MAX_ROUNDS):
        moved = transposed @ (column * (matrix @ direction)) + np.float32(ridge) * direction
        step = progress / np.maximum(np.sum(direction * moved, axis=0), np.float32(1e-30))
        slopes = slopes + step * direction
        residual = residual - step * moved
        if (np.sqrt(np.square(residual).sum(axis=0)) <= least).all():
            break
        scaled = scale * residual
        before, progress = progress, np.sum(residual * scaled, axis=0)
        direction = scaled + progress / np.maximum(before, np.float32(1e-30)) * direction
    return slopes.astype(np.float32), base
