"""What is bought in one basket, by enough different people.

Customers are shown what goes together. What one person alone put into one basket, however often, is
that person's own affair: a pair counts only if at least `MIN_PEOPLE` people had it.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.progress import Report, unheard

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

MAX_BASKET = 200
MIN_PEOPLE = 3
"""So many different people must have had both of two items in one basket."""
_BLOCK_ROWS = 4_096


def fit_together(
    baskets: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    people: npt.NDArray[np.integer],
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
    baskets, rows, people : ndarray of int, shape (m,)
        Basket, model row and person of each purchase; repeated pairs count once. All of a basket is
        one person's.
    n_items : int
        How many items there are.
    k : int
        Neighbours kept.
    shrinkage : float
        See above; pairs of fewer than three people are left out.
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
    incidence, owners = _incidence(baskets, rows, people, n_items)
    counts = np.asarray(incidence.sum(axis=0), dtype=np.float32).ravel()
    scale = (1.0 / np.sqrt(counts + np.float32(shrinkage))).astype(np.float32)
    by_item = incidence.T.tocsr()
    for start in range(0, n_items, _BLOCK_ROWS):
        block = _met(by_item[start : start + _BLOCK_ROWS], incidence, owners)
        for offset in range(block.shape[0]):
            row = start + offset
            inside = slice(block.indptr[offset], block.indptr[offset + 1])
            columns, met = block.indices[inside], block.data[inside]
            kept = columns != row
            columns, values = columns[kept], met[kept] * scale[columns[kept]]
            best = top_of(values, columns, k)
            neighbours[row, : len(best)] = columns[best]
            scores[row, : len(best)] = values[best] * scale[row]
        report(min(1.0, (start + _BLOCK_ROWS) / n_items))
    return neighbours, scores


def _met(block: sp.csr_matrix, incidence: sp.csr_matrix, owners: I32) -> sp.csr_matrix:
    """Return in how many baskets items met, of the pairs that enough people had.

    Parameters
    ----------
    block : csr_matrix of float32, shape (b, n_baskets)
        Which basket holds each of some items.
    incidence : csr_matrix of float32, shape (n_baskets, n_items)
        Which basket holds which item.
    owners : ndarray of int32, shape (n_baskets,)
        Whose each basket is.

    Returns
    -------
    csr_matrix of float32, shape (b, n_items)
        Without the pairs of fewer than `MIN_PEOPLE` people.
    """
    n_rows = block.shape[0]
    item = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(block.indptr))
    # One row for each item and person, so that baskets of one person can be told apart.
    keys, of_key = np.unique(
        item * (int(owners.max(initial=0)) + 1) + owners[block.indices], return_inverse=True
    )
    by_person = sp.csr_matrix(
        (block.data, (of_key, block.indices)), shape=(len(keys), block.shape[1])
    )
    met = (by_person @ incidence).tocsr()
    item_of_key = keys // (int(owners.max(initial=0)) + 1)
    summing = sp.csr_matrix(
        (np.ones(len(keys), dtype=np.float32), (item_of_key, np.arange(len(keys)))),
        shape=(n_rows, len(keys)),
    )
    total = (summing @ met).tocsr()
    met.data[:] = 1.0
    people = (summing @ met).tocsr()
    # The same entries stand in both, in the same order once they are sorted.
    total.sort_indices()
    people.sort_indices()
    total.data[people.data < MIN_PEOPLE] = 0
    total.eliminate_zeros()
    return total


def _incidence(
    baskets: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    people: npt.NDArray[np.integer],
    n_items: int,
) -> tuple[sp.csr_matrix, I32]:
    """Return which basket holds which item, and whose it is; a whole warehouse's are left out."""
    _, first, basket_rows = np.unique(baskets, return_index=True, return_inverse=True)
    incidence = sp.csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (basket_rows, rows)),
        shape=(int(basket_rows.max()) + 1, n_items),
    )
    incidence.data[:] = 1.0
    sizes = np.diff(incidence.indptr)
    kept = np.flatnonzero((sizes > 1) & (sizes <= MAX_BASKET))
    return incidence[kept], people[first[kept]].astype(np.int32)


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
