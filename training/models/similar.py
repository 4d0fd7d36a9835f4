"""Items whose factors point the same way."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from training.progress import Report, unheard
from training.threads import one_blas_thread

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

MIN_BUYERS = 3
"""So many different people must be behind the direction of an item that is shown as similar."""
_BLOCK_ROWS = 512
_MAX_GROUP = 16
_LEAST_COSINE = np.float32(1e-6)


def fit_similar(
    item_factors: F32,
    buyers: npt.NDArray[np.integer],
    *,
    k: int,
    n_threads: int,
    report: Report = unheard,
) -> tuple[I32, F32]:
    """Find each item's nearest neighbours by the cosine of their factors.

    Parameters
    ----------
    item_factors : ndarray of float32, shape (n, d)
        Item factors.
    buyers : ndarray of int, shape (n,)
        People behind each item's factors. An item with fewer than three is nobody's neighbour: its
        direction is that of one person, and would tell what else that one bought.
    k : int
        Neighbours kept.
    n_threads : int
        Blocks that are worked on at once.
    report : callable
        Told the share that is done.

    Returns
    -------
    rows : ndarray of int32, shape (n, k)
        Neighbours, best first, ties by row, never the item itself; -1 where there are fewer.
    scores : ndarray of float32, shape (n, k)
        Cosines, above 0; 0 where there is no neighbour.
    """
    n_items = len(item_factors)
    neighbours = np.full((n_items, k), -1, dtype=np.int32)
    scores = np.zeros((n_items, k), dtype=np.float32)
    norms = np.linalg.norm(item_factors, axis=1, keepdims=True)
    directions = item_factors / np.maximum(norms, np.float32(1e-12))
    base = np.flatnonzero((buyers >= MIN_BUYERS) & (norms[:, 0] > 0)).astype(np.int32)
    if len(base) == 0 or k == 0:
        return neighbours, scores
    nearest = _Nearest(directions, base, k + 1)

    def work(start: int) -> None:
        stop = min(start + _BLOCK_ROWS, n_items)
        item, rows, values = nearest(start, stop)
        is_other = rows != item + start
        item, rows, values = item[is_other], rows[is_other], values[is_other]
        order = np.lexsort((rows, -values, item))
        item, rows, values = item[order], rows[order], values[order]
        place = np.arange(len(item)) - np.searchsorted(item, np.arange(stop - start))[item]
        kept = place < k
        neighbours[item[kept] + start, place[kept]] = rows[kept]
        scores[item[kept] + start, place[kept]] = values[kept]

    starts = range(0, n_items, _BLOCK_ROWS)
    with one_blas_thread(), ThreadPoolExecutor(n_threads) as pool:
        for done, _ in enumerate(pool.map(work, starts), start=1):
            report(done / len(starts))
    return neighbours, scores


class _Nearest:
    """Finds at least the `k` greatest cosines of a block of rows.

    The columns are cut into groups. The k-th greatest of the groups' maxima cannot lie above the
    k-th greatest cosine, and little below it; so whatever reaches that edge is all that can count,
    and nothing has to be sorted. Each thread writes its products into the same memory again: fresh
    pages would cost six times the product itself.
    """

    def __init__(self, directions: F32, base: I32, k: int) -> None:
        self._directions = directions
        self._base = base
        self._k = k
        self._group = max(1, min(_MAX_GROUP, len(base) // (8 * k)))
        n_columns = -(-len(base) // self._group) * self._group
        self._targets = np.zeros((directions.shape[1], n_columns), dtype=np.float32)
        self._targets[:, : len(base)] = directions[base].T
        self._local = threading.local()

    def __call__(self, start: int, stop: int) -> tuple[I32, I32, F32]:
        all_cosines, all_enough = self._buffers()
        cosines, enough = all_cosines[: stop - start], all_enough[: stop - start]
        np.matmul(self._directions[start:stop], self._targets, out=cosines)
        maxima = cosines.reshape(len(cosines), self._group, -1).max(axis=1)
        place = max(maxima.shape[1] - self._k, 0)
        edges = np.maximum(np.partition(maxima, place, axis=1)[:, place], _LEAST_COSINE)
        np.greater_equal(cosines, edges[:, None], out=enough)
        # In two dimensions `nonzero` takes ten times as long.
        item, column = np.divmod(np.flatnonzero(enough), enough.shape[1])
        return item.astype(np.int32), self._base[column], cosines[item, column]

    def _buffers(self) -> tuple[F32, npt.NDArray[np.bool_]]:
        shape = (_BLOCK_ROWS, self._targets.shape[1])
        try:
            buffers: tuple[F32, npt.NDArray[np.bool_]] = self._local.buffers
        except AttributeError:
            buffers = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.bool_)
            self._local.buffers = buffers
        return buffers
