"""Scores of what is ranked by nothing but its place in a list."""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

_known: list[F32] = [np.zeros(0, dtype=np.float32)]


def one_over_rank(n: int) -> F32:
    """Return 1, 1/2, 1/3, ..., shape (n,), read-only.

    The list may be as long as the catalogue and is asked for in every request: so it is kept.
    """
    if len(_known[0]) < n:
        ranks = np.arange(1, n + n // 16 + 1_025, dtype=np.float32)
        np.reciprocal(ranks, out=ranks)
        ranks.flags.writeable = False
        _known[0] = ranks
    return _known[0][:n]
