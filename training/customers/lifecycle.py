"""RFM scores and groups, and the stage of a customer's life with the shop."""

import numpy as np
import numpy.typing as npt
import polars as pl

from training.customers.histories import Histories
from training.customers.purchasing import F64

I64 = npt.NDArray[np.int64]

STAGES = ("new", "active", "at_risk", "lapsed")
"""Stages, in the order of a life."""
GROUPS = (
    "champions", "loyal", "potential_loyalist", "new", "promising", "need_attention",
    "about_to_sleep", "at_risk", "cant_lose", "hibernating",
)  # fmt: skip
"""The customary names of RFM groups, the best first."""

AT_RISK_INTERVALS, LAPSED_INTERVALS = 3.0, 6.0
AT_RISK_DAYS, LAPSED_DAYS = (14.0, 365.0), (60.0, 730.0)
"""Least and most days of silence after which a customer is at risk, and has lapsed."""
NEW_DAYS = 30.0
DEFAULT_INTERVAL_DAYS = 30.0
_PRIOR_INTERVALS = 2.0

# By recency (the key's first part) and frequency: the grid that most RFM tools use.
_GRID = {
    "hibernating": ((1, 2), (1, 2)),
    "at_risk": ((1, 2), (3, 4)),
    "cant_lose": ((1, 2), (5, 5)),
    "about_to_sleep": ((3, 3), (1, 2)),
    "need_attention": ((3, 3), (3, 3)),
    "loyal": ((3, 4), (4, 5)),
    "promising": ((4, 4), (1, 1)),
    "new": ((5, 5), (1, 1)),
    "potential_loyalist": ((4, 5), (2, 3)),
    "champions": ((5, 5), (4, 5)),
}


def quintiles(values: F64) -> I64:
    """Return the fifth of all customers in which each value lies: 1 for the least, 5 for the most.

    Equal values have equal scores, that of the middle of their ranks; so with many equal values
    some score may be nobody's.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    """
    n = len(values)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    ranks = pl.Series(values).rank("average").to_numpy()
    middle = (ranks - 0.5) / n
    scores: I64 = np.minimum(1 + np.floor(5.0 * middle), 5).astype(np.int64)
    return scores


def group_codes(recency: I64, frequency: I64) -> I64:
    """Return the position in `GROUPS` for scores of recency and frequency, each 1 to 5."""
    grid = np.zeros((6, 6), dtype=np.int64)
    for name, ((low, high), (few, many)) in _GRID.items():
        grid[low : high + 1, few : many + 1] = GROUPS.index(name)
    codes: I64 = grid[recency, frequency]
    return codes


def plain_interval(known: Histories) -> F64:
    """Return each customer's interval between purchases in days, where no model was fitted.

    As with a model it is drawn towards the shop's mean, which weighs two intervals; where nobody
    came back, it is 30 days.
    """
    repeats = known.repeats
    n_gaps = float(repeats.count.sum())
    mean = float(repeats.last.sum()) / n_gaps if n_gaps else DEFAULT_INTERVAL_DAYS
    interval: F64 = (repeats.last + _PRIOR_INTERVALS * mean) / (repeats.count + _PRIOR_INTERVALS)
    return interval


def stage_codes(known: Histories, interval: F64) -> I64:
    """Return the position in `STAGES` of each customer.

    Parameters
    ----------
    known : Histories
        Of n customers.
    interval : ndarray of float64, shape (n,)
        Each customer's own interval between purchases, in days.

    Notes
    -----
    `lapsed` after six own intervals without a purchase, at least 60 and at most 730 days;
    `at_risk` after three, at least 14 and at most 365 days; otherwise `new` with purchases on one
    day only, or with the first one at most 30 days ago; otherwise `active`.
    """
    elapsed = known.elapsed_days
    lapsed = elapsed > np.clip(LAPSED_INTERVALS * interval, *LAPSED_DAYS)
    at_risk = elapsed > np.clip(AT_RISK_INTERVALS * interval, *AT_RISK_DAYS)
    new = (known.days == 1) | (known.as_of_day - known.first_day <= NEW_DAYS)
    codes: I64 = np.select([lapsed, at_risk, new], [3, 2, 0], 1).astype(np.int64)
    return codes
