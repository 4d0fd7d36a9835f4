"""What is bought much, what is bought much lately, and what is bought more than it was."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.signals import DAY_S, decay

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Popularity:
    """Arrays of the artifact, float32, shape (n,).

    Parameters
    ----------
    overall, recent : ndarray
        Share of all decayed purchases, with a long and a short half-life; each sums to 1, or is all
        0 when nothing was bought.
    trending : ndarray
        How far lately's sales lie above what the long run predicts, in standard deviations; 0 for
        what does not grow.
    """

    overall: F32
    recent: F32
    trending: F32


def fit_popularity(
    rows: npt.NDArray[np.integer],
    times_s: npt.NDArray[np.int64],
    *,
    n_items: int,
    now_s: int,
    half_life_days: float,
    recent_half_life_days: float,
    weights: F32 | None = None,
) -> Popularity:
    """Count purchases, newer ones for more.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
        Model row of each purchase.
    times_s : ndarray of int64, shape (m,)
        When, in seconds since 1970.
    n_items : int
        How many items there are.
    now_s : int
        The moment from which ages are counted.
    half_life_days, recent_half_life_days : float
        Of the two popularities.
    weights : ndarray of float32, shape (m,), optional
        For how much each counts; 1 by default.
    """
    age_s = np.maximum(now_s - times_s, 0).astype(np.float32)

    def decayed(days: float) -> npt.NDArray[np.float64]:
        faded = decay(age_s, days * DAY_S).astype(np.float64)
        if weights is not None:
            faded *= weights
        totals: npt.NDArray[np.float64] = np.zeros(n_items)
        np.add.at(totals, rows, faded)
        return totals

    overall, recent = decayed(half_life_days), decayed(recent_half_life_days)
    shares = [(values / max(float(values.sum()), 1e-12)) for values in (overall, recent)]
    # Sales are counts: their standard deviation is the root of what is expected, and one is added
    # so that a first sale is no trend.
    expected = shares[0] * recent.sum()
    trending = np.maximum(recent - expected, 0.0) / np.sqrt(expected + 1.0)
    return Popularity(*(values.astype(np.float32) for values in (*shares, trending)))
