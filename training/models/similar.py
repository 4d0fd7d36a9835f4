"""Items whose factors point the same way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from training.progress import unheard
from training.threads import one_blas_thread

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

MIN_BUYERS = 3
_BLOCK_ROWS = 512


def fit_similar(
    item_factors: F32,
    buyers: npt.NDArray[np.integer],
    *,
    k: int,
    n_threads: int,
    report: Callable[[float], None] = unheard,
) -> tuple[I32, F32]:
    """Find each item's nearest neighbours by the cosine of their factors.

    Parameters
    ----------
    item_factors : ndarray of float32, shape (n, d)
        Item factors.
    buyers : ndarray of int, shape (n,)
        People behind each item's factors. An item with fewer than three is nobody's neighbour,
        unless that leaves too few: its direction is that of one basket.
    k : int
        Neighbours kept.
    n_threads : int
        Blocks that are worked on at once.
    report : callable
        Told the share that is done.

    Returns
    -------
    rows : ndarray of int32, shape (n, k)
        Neighbours, best first, never the item itself; -1 where there are fewer.
    scores : ndarray of float32, shape (n, k)
        Cosines, above 0; 0 where there is no neighbour.
    """
    n_items = len(item_factors)
    neighbours = np.full((n_items, k), -1, dtype=np.int32)
    scores = np.zeros((n_items, k), dtype=np.float32)
    norms = np.linalg.norm(item_factors, axis=1, keepdims=True)
    directions = item_factors / np.maximum(norms, np.float32(1e-12))
    base = np.flatnonzero((buyers >= MIN_BUYERS) & (norms[:, 0] > 0)).astype(np.int32)
    if len(base) <= k:
        base = np.flatnonzero(norms[:, 0] > 0).astype(np.int32)
    if len(base) == 0 or k == 0:
        return neighbours, scores
    targets = np.ascontiguousarray(directions[base].T)
    width = min(k + 1, len(base))

    def work(start: int) -> None:
        stop = min(start + _BLOCK_ROWS, n_items)
        cosines = directions[start:stop] @ targets
        found = np.argpartition(cosines, len(base) - width, axis=1)[:, len(base) - width :]
        # Columns in ascending order, so that the stable sort leaves ties by row.
        found.sort(axis=1)
        values = np.take_along_axis(cosines, found, axis=1)
        rows = base[found]
        values[(rows == np.arange(start, stop)[:, None]) | (values <= 0)] = 0.0
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(values, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
        rows[values == 0] = -1
        neighbours[start:stop, : rows.shape[1]] = rows
        scores[start:stop, : rows.shape[1]] = values

    starts = range(0, n_items, _BLOCK_ROWS)
    with one_blas_thread(), ThreadPoolExecutor(n_threads) as pool:
        for done, _ in enumerate(pool.map(work, starts), start=1):
            report(done / len(starts))
    return neighbours, scores
