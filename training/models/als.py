"""Item factors by implicit alternating least squares.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008. Only
the item factors leave this file: a customer's vector is solved from them when it is needed
(``feature_store.fold_in``).
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares

from training.progress import Report, unheard
from training.threads import one_blas_thread

F32 = npt.NDArray[np.float32]

REGULARIZATION_SCALE = 0.18
MIN_REGULARIZATION = 0.01


def regularization_of(matrix: sp.csr_matrix, n_factors: int) -> float:
    """Choose the ridge term by the size of the data.

    The ridge of a factorisation acts on its singular values as a soft threshold. Their typical
    size is the matrix's Frobenius norm over the root of the number of factors, so a share of that
    means the same for a shop of ten customers as for one of a million.

    Parameters
    ----------
    matrix : csr_matrix, shape (people, n)
        Which person has which item.
    n_factors : int
        Dimensions.
    """
    scale = np.sqrt(matrix.nnz / n_factors)
    return max(MIN_REGULARIZATION, REGULARIZATION_SCALE * float(scale))


def fit_item_factors(
    weights: sp.csr_matrix,
    *,
    n_factors: int,
    n_iterations: int,
    regularization: float,
    alpha: float,
    seed: int,
    n_threads: int,
    report: Report = unheard,
) -> F32:
    """Factorise "who has what", with more confidence where the taste weight is greater.

    Parameters
    ----------
    weights : csr_matrix of float32, shape (people, n)
        Taste weights, above 0. The preference is 1 wherever one is stored, and the confidence of
        it ``1 + alpha * weight``; elsewhere 0 with confidence 1.
    n_factors, n_iterations, regularization, alpha, seed
        See ``TrainConfig``.
    n_threads : int
        Threads that solve; BLAS itself is held to one, as they would fight each other.
    report : callable
        Told the share that is done.

    Returns
    -------
    ndarray of float32, shape (n, n_factors)
        Item factors, C-contiguous.
    """
    n_items = weights.shape[1]
    if weights.nnz == 0:
        return np.zeros((n_items, n_factors), dtype=np.float32)
    confidence = weights.copy()
    confidence.data = (1.0 + alpha * confidence.data).astype(np.float32)
    with one_blas_thread():
        model = AlternatingLeastSquares(
            factors=n_factors,
            regularization=regularization,
            # The confidences are complete; implicit's alpha would multiply them once more.
            alpha=1.0,
            iterations=n_iterations,
            random_state=seed,
            num_threads=n_threads,
            dtype=np.float32,
        )
        model.fit(
            confidence,
            show_progress=False,
            callback=lambda iteration, *_: report((iteration + 1) / n_iterations),
        )
    return np.ascontiguousarray(model.item_factors, dtype=np.float32)
