"""What each customer's orders say in numbers, as of one day."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from training.customers.purchases import exact_sum
from training.customers.purchasing import Repeats

F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]

_FEW_GAPS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """Customers who have bought, one row each, by person code.

    What is bought on one day is one purchase, however many orders it was: several tills, split
    parcels and a forgotten onion are no habit of buying.

    Parameters
    ----------
    person : ndarray of uint32, shape (n,)
        Codes, ascending.
    orders : ndarray of float64, shape (n,)
        Orders.
    days : ndarray of float64, shape (n,)
        Days with an order.
    first_day, last_day : ndarray of float64, shape (n,)
        Since 1970.
    value : ndarray of float64, shape (n,)
        Sum of all orders.
    valued_days : ndarray of float64, shape (n,)
        Days with a value above 0.
    gaps_squared : ndarray of float64, shape (n,)
        Sum of the squares of the days between one day of purchases and the next.
    as_of_day : int
        The day up to which orders are counted, that day included.
    """

    person: U32
    orders: F64
    days: F64
    first_day: F64
    last_day: F64
    value: F64
    valued_days: F64
    gaps_squared: F64
    as_of_day: int

    def __len__(self) -> int:
        return len(self.person)

    @property
    def repeats(self) -> Repeats:
        """The counts and times that the purchase process needs, in days."""
        last, age = self.last_day - self.first_day, self.as_of_day - self.first_day
        return Repeats(self.days - 1.0, last, age)

    @property
    def elapsed_days(self) -> F64:
        """Days since the last purchase."""
        elapsed: F64 = self.as_of_day - self.last_day
        return elapsed

    @property
    def day_value(self) -> F64:
        """Mean value of a day that has one; 0 where none has."""
        mean: F64 = self.value / np.maximum(self.valued_days, 1.0)
        return mean

    def regularity(self) -> float:
        """Return the shape of the gamma distribution of the gaps between a customer's purchases.

        By the method of moments, pooled over customers with at least 5 gaps: the squared mean of
        the gaps over their variance. 1 is a Poisson process, in which a purchase that is late is no
        nearer than any other; more is a habit. Between 0.5 and 5.
        """
        gaps = self.days - 1.0
        some = gaps >= _FEW_GAPS
        mean = (self.last_day - self.first_day)[some] / gaps[some]
        within = (self.gaps_squared[some] - gaps[some] * mean**2).sum()
        if not some.any() or within <= 0:
            return 1.0
        return float(np.clip(((gaps[some] - 1.0) * mean**2).sum() / within, 0.5, 5.0))

    def rows(self, person: U32) -> npt.NDArray[np.intp]:
        """Return the row of each person code; all of them are here."""
        return np.searchsorted(self.person, person)


def histories_of(orders: pl.DataFrame, as_of_day: int) -> Histories:
    """Sum up the orders up to a day.

    Parameters
    ----------
    orders : DataFrame
        ``Purchases.orders``.
    as_of_day : int
        Later orders are left out.
    """
    by_day = (
        orders.lazy()
        .filter(pl.col("day") <= as_of_day)
        .group_by("person", "day")
        .agg(pl.len().alias("orders"), exact_sum("value"))
        .sort("person", "day")
    )
    gap = pl.col("day").diff().cast(pl.Float64)
    summed = (
        by_day.group_by("person", maintain_order=True)
        .agg(
            pl.col("orders").sum(),
            pl.len().alias("days"),
            pl.col("day").min().alias("first_day"),
            pl.col("day").max().alias("last_day"),
            exact_sum("value"),
            (pl.col("value") > 0).sum().alias("valued_days"),
            (gap**2).sum().alias("gaps_squared"),
        )
        .collect()
    )
    numbers = {
        name: summed[name].cast(pl.Float64).to_numpy()
        for name in summed.columns
        if name != "person"
    }
    return Histories(person=summed["person"].to_numpy(), as_of_day=as_of_day, **numbers)
