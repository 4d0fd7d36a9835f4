"""The vector of a customer, computed from their history when it is needed.

One step of implicit alternating least squares with the item factors held fixed (Hu, Koren and
Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, equation 4): no
vector is stored, a purchase counts at once, and a customer whom the model has never seen is served
like any other. Training and serving use this same code.
"""

import numpy as np
import numpy.typing as npt

from feature_store.lapack import blas, lapack
from feature_store.values import value_class

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

DISLIKE_WEIGHT = 5.0
"""How sure a dislike makes us, in purchases made now: it is said on purpose, and rarely."""


@value_class(frozen=True, slots=True, eq=False)
class FoldedUser:
    """A customer's vector with what is needed to explain it.

    Parameters
    ----------
    vector : ndarray of float32, shape (d,)
        The customer's factors; a score is its dot product with an item's factors.
    cholesky : ndarray of float32, shape (d, d)
        Upper Cholesky factor of the normal equations.
    history : ndarray of float32, shape (k, d)
        The factors of the history items.
    confidence : ndarray of float32, shape (k,)
        The ``c`` of each.
    """

    vector: F32
    cholesky: F32
    history: F32
    confidence: F32

    def losses(self, factors: F32) -> F32:
        """Return how far scores fall when one item of the history is taken away.

        Exactly, not to first order: without item ``i`` the normal equations are other ones too.
        With ``x = A^-1 b`` they lose ``c_i y_i y_i'`` and ``(1 + c_i) y_i``, so by the formula of
        Sherman and Morrison the score of an item with factors ``y`` falls by ``(y . A^-1 y_i)
        (1 + c_i - c_i x . y_i) / (1 - c_i y_i . A^-1 y_i)``.

        Parameters
        ----------
        factors : ndarray of float32, shape (m, d)
            Factors of the items to explain.

        Returns
        -------
        ndarray of float32, shape (m, k)
            By how much the score of item ``j`` falls without item ``i`` of the history.
        """
        mine, gains = self._gains(self.history, self.confidence)
        theirs = blas.strsm(1.0, self.cholesky, factors.T, trans_a=1)
        result: F32 = theirs.T @ mine
        result *= gains
        return result

    def scores_without(self, positions: npt.NDArray[np.integer]) -> F32:
        """Return the score of each of some history items by the vector without it, shape (m,).

        Parameters
        ----------
        positions : ndarray of int, shape (m,)
            Which of the history.
        """
        history = self.history.take(positions, axis=0)
        mine, gains = self._gains(history, self.confidence.take(positions))
        result: F32 = history @ self.vector - np.einsum("ij,ij->j", mine, mine) * gains
        return result

    def _gains(self, history: F32, confidence: F32) -> tuple[F32, F32]:
        """Return ``U'^-1 y_i`` of some items in columns, and the factor of `losses` for each."""
        mine: F32 = blas.strsm(1.0, self.cholesky, history.T, trans_a=1)
        leverage = confidence * np.einsum("ij,ij->j", mine, mine)
        wanted = confidence * (np.float32(1) - history @ self.vector) + np.float32(1)
        # Below 1 by nature; rounding may take it there where next to nothing else is known.
        gains: F32 = wanted / np.maximum(np.float32(1) - leverage, np.float32(1e-6))
        return mine, gains


class FoldIn:
    """Solves for customers' vectors against fixed item factors.

    Parameters
    ----------
    item_factors : ndarray of float32, shape (n, d)
        Item factors of the model, C-contiguous.
    gram : ndarray of float32, shape (d, d)
        ``item_factors.T @ item_factors``.
    regularization : float
        The ridge term of the model, at least a little above 0.
    alpha : float
        How much one unit of weight adds to the confidence of an interaction.
    """

    def __init__(self, item_factors: F32, gram: F32, regularization: float, alpha: float) -> None:
        self.item_factors = item_factors
        self.alpha = alpha
        self.n_factors = int(item_factors.shape[1])
        self._ridge: F32 = gram + np.float32(regularization) * np.eye(
            self.n_factors, dtype=np.float32
        )

    def solve(
        self,
        model_rows: I32,
        weights: F32,
        disliked: I32 | None = None,
        more: F32 | None = None,
    ) -> FoldedUser:
        """Compute one customer's vector.

        Solves ``(Y'Y + lambda I + sum_i c_i y_i y_i') x = sum_i (1 + c_i) y_i`` with
        ``c_i = alpha * weight_i``.

        Parameters
        ----------
        model_rows : ndarray of int32, shape (k,)
            Distinct rows of the model; may be empty, which gives the zero vector.
        weights : ndarray of float32, shape (k + m,)
            Strength of each, not negative; those of `more` stand at the end.
        disliked : ndarray of int32 or None
            Rows that the customer is known not to want: a preference of 0 with the confidence of
            `DISLIKE_WEIGHT`, which draws the scores of these and of like items towards 0.
        more : ndarray of float32, shape (m, d), or None
            Factors of history items that are no rows of the model: those placed by content.

        Returns
        -------
        FoldedUser
            The vector and what explains it.
        """
        # Not "raise", which copies what it has taken once more.
        history = self.item_factors.take(model_rows, axis=0, mode="clip")
        if more is not None:
            history = np.concatenate((history, more))
        confidence = weights * np.float32(self.alpha)
        # The product of a matrix with itself is symmetric, and half of it is computed.
        scaled = history * np.sqrt(confidence)[:, None]
        normal = scaled.T @ scaled
        normal += self._ridge
        if disliked is not None and len(disliked):
            unwanted = self.item_factors.take(disliked, axis=0)
            normal += np.float32(self.alpha * DISLIKE_WEIGHT) * (unwanted.T @ unwanted)
        right = (confidence + np.float32(1)) @ history
        # Transposed it is the same matrix, in the order of columns that LAPACK does not copy.
        cholesky, vector, info = lapack.sposv(normal.T, right, overwrite_a=1, overwrite_b=1)
        if info != 0:
            raise ArithmeticError("the item factors hold values that are not finite")
        return FoldedUser(vector, cholesky, history, confidence)
