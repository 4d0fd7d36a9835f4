"""What is bought in one basket."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.progress import Report, unheard

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

MAX_BASKET = 200
MIN_PAIRS = 2
_BLOCK_ROWS = 4_096


def fit_together(
    baskets: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    *,
    n_items: int,
    k: int,
    shrinkage: float,
    report: Report = unheard,
) -> tuple[I32, F32]:
    """Find the items that share baskets more often than chance would have it.

    The score is the cosine of two items' basket vectors with `shrinkage` empty baskets added to
    both: ``n_ij / sqrt((n_i + shrinkage) (n_j + shrinkage))``.

    Parameters
    ----------
    baskets, rows : ndarray of int, shape (m,)
        Basket and model row of each purchase; repeated pairs count once.
    n_items : int
        How many items there are.
    k : int
        Neighbours kept.
    shrinkage : float
        See above; pairs that met once only are left out.
    report : callable
        Told the share that is done.

    Returns
    -------
    rows : ndarray of int32, shape (n, k)
        Neighbours of each item, best first, ties by row; -1 where there are fewer.
    scores : ndarray of float32, shape (n, k)
        Their scores; 0 where there is none.
    """
    neighbours = np.full((n_items, k), -1, dtype=np.int32)
    scores = np.zeros((n_items, k), dtype=np.float32)
    if len(rows) == 0 or k == 0:
        return neighbours, scores
    incidence = _incidence(baskets, rows, n_items)
    counts = np.asarray(incidence.sum(axis=0), dtype=np.float32).ravel()
    scale = (1.0 / np.sqrt(counts + np.float32(shrinkage))).astype(np.float32)
    by_item = incidence.T.tocsr()
    for start in range(0, n_items, _BLOCK_ROWS):
        block = (by_item[start : start + _BLOCK_ROWS] @ incidence).tocsr()
        for offset in range(block.shape[0]):
            row = start + offset
            inside = slice(block.indptr[offset], block.indptr[offset + 1])
            columns, met = block.indices[inside], block.data[inside]
            kept = (met >= MIN_PAIRS) & (columns != row)
            columns, values = columns[kept], met[kept] * scale[columns[kept]]
            best = top_of(values, columns, k)
            neighbours[row, : len(best)] = columns[best]
            scores[row, : len(best)] = values[best] * scale[row]
        report(min(1.0, (start + _BLOCK_ROWS) / n_items))
    return neighbours, scores


def _incidence(
    baskets: npt.NDArray[np.integer], rows: npt.NDArray[np.integer], n_items: int
) -> sp.csr_matrix:
    """Return which basket holds which item; baskets of a whole warehouse are left out."""
    _, basket_rows = np.unique(baskets, return_inverse=True)
    incidence = sp.csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (basket_rows, rows)),
        shape=(int(basket_rows.max()) + 1, n_items),
    )
    incidence.data[:] = 1.0
    sizes = np.diff(incidence.indptr)
    return incidence[np.flatnonzero((sizes > 1) & (sizes <= MAX_BASKET))]


def top_of(values: F32, rows: npt.NDArray[np.integer], k: int) -> npt.NDArray[np.intp]:
    """Return positions of the `k` greatest values, greatest first, ties by row.

    Parameters
    ----------
    values : ndarray of float32, shape (m,)
        Scores.
    rows : ndarray of int, shape (m,)
        What they belong to.
    k : int
        How many at most.
    """
    positions = np.arange(len(values))
    if len(values) > k:
        # Everything at least as good as the k-th, so that ties at the edge fall by row too.
        edge = np.partition(values, len(values) - k)[len(values) - k]
        positions = np.flatnonzero(values >= edge)
    order = np.lexsort((rows[positions], -values[positions]))[:k]
    result: npt.NDArray[np.intp] = positions[order]
    return result
