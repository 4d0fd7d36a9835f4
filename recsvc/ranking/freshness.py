"""Newer items first, by as much as a placement says."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.signals import DAY_S

F32 = npt.NDArray[np.float32]
HALF_LIFE_DAYS = 14.0
MOST = 3.0
"""What freshness 1 adds to the log of the odds of an item of today: it counts 20 times."""


@dataclass(frozen=True, slots=True, eq=False)
class Freshness:
    """Weights of items by their age.

    Parameters
    ----------
    published_s : ndarray of int, shape (n_rows,)
        When each row was published, in seconds since 1970; 0 where it is not said.
    share : float
        From 0, nothing, to 1.
    now_s : int
        Seconds since 1970.
    """

    published_s: npt.NDArray[np.integer]
    share: float
    now_s: int

    @property
    def weighs(self) -> bool:
        """Whether anything is weighed."""
        return self.share > 0

    def log_weights(self, rows: npt.NDArray[np.integer]) -> F32:
        """Return what is added to the log of the odds of each row."""
        published = self.published_s[rows].astype(np.float64)
        age_days = np.maximum(self.now_s - published, 0) / DAY_S
        fresh = np.where(published > 0, np.exp2(-age_days / HALF_LIFE_DAYS), 0.0)
        weights: F32 = (MOST * self.share * fresh).astype(np.float32)
        return weights
