"""What is bought again, and after how long."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

F32 = npt.NDArray[np.float32]

DAY_MS = 86_400_000
DEFAULT_RATE = 0.05
DEFAULT_INTERVAL_S = 30.0 * 86_400
MIN_GAPS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """Repeat purchases.

    Parameters
    ----------
    rate : ndarray of float32, shape (n,)
        Share of an item's buyers who bought it again, drawn towards the average item.
    interval_s : ndarray of float32, shape (n,)
        Median seconds between two purchases of one person; the median of all items where fewer
        than five are known.
    prior_rate : float
        The average item's rate.
    prior_interval_s : float
        The median of all items.
    """

    rate: F32
    interval_s: F32
    prior_rate: float
    prior_interval_s: float


def fit_repeat(purchases: pl.DataFrame, n_items: int, prior: float) -> Repeat:
    """Measure repeat purchases.

    Parameters
    ----------
    purchases : DataFrame
        ``person``, ``row`` (model row) and ``t_ms``, in any order.
    n_items : int
        How many items there are.
    prior : float
        Average buyers that are added to each item's.

    Returns
    -------
    Repeat
        Two purchases within twelve hours count as one: half a basket paid apart is no return.
    """
    same_pair = (pl.col("person").diff() == 0) & (pl.col("row").diff() == 0)
    visits = (
        purchases.with_columns(pl.col("person").cast(pl.Int64))
        .sort("person", "row", "t_ms")
        .with_columns(gap_ms=pl.when(same_pair).then(pl.col("t_ms").diff()))
        .filter(pl.col("gap_ms").is_null() | (pl.col("gap_ms") > DAY_MS // 2))
    )
    gaps = visits.filter(pl.col("gap_ms").is_not_null())
    again = gaps.select("person", "row").unique()["row"].to_numpy()
    buyers = visits.filter(pl.col("gap_ms").is_null())["row"].to_numpy()
    n_again = np.bincount(again, minlength=n_items)
    n_buyers = np.bincount(buyers, minlength=n_items)
    # One buyer and one return in twenty are added, so that a young shop has a rate within (0, 1).
    prior_rate = (n_again.sum() + DEFAULT_RATE) / (n_buyers.sum() + 1.0)
    rate = (n_again + prior * prior_rate) / (n_buyers + prior)
    prior_interval_s = DEFAULT_INTERVAL_S
    interval_s = np.full(n_items, prior_interval_s, dtype=np.float32)
    if gaps.height:
        prior_interval_s = float(gaps.select(pl.col("gap_ms").median()).item()) / 1_000
        interval_s[:] = prior_interval_s
        known = (
            gaps.group_by("row")
            .agg(pl.col("gap_ms").median(), pl.len().alias("n"))
            .filter(pl.col("n") >= MIN_GAPS)
        )
        interval_s[known["row"].to_numpy()] = known["gap_ms"].to_numpy() / 1_000
    return Repeat(rate.astype(np.float32), interval_s, float(prior_rate), prior_interval_s)
