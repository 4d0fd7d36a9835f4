"""From the event log to orders with a value, and to what each customer bought how much of."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from feature_store.merging import ROW_TYPE, merged_people
from feature_store.schema import EventType

DAY_S = 86_400
MAX_VALUE = 1e9
"""A line is worth no more: what is above is a mistake, and would be the shop's whole revenue."""
_BOUGHT, _RETURNED = EventType.PURCHASE.value, EventType.REFUND.value
_NEEDED = [
    "type", "user_id", "anonymous_id", "item_id", "timestamp", "quantity", "unit_price",
    "currency", "order_id",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Purchases:
    """What customers bought, less what they gave back.

    Parameters
    ----------
    orders : DataFrame
        One row an order, or a customer's day where no order is named: ``person`` (u32 code),
        ``day`` (i32, since 1970, in UTC), ``value`` (f64, in the main currency; 0 where no price
        is known).
    tastes : DataFrame
        One row a customer and item: ``person``, ``item`` (u32 codes), ``weight`` (f32: a line of
        now is 1 and halves with every half-life), ``lines`` (u32).
    prices : DataFrame
        ``item``, ``price`` (f64): the mean price paid for a piece of each item that has one.
    persons, item_ids : Series of str
        Key of each person's code (``schema.person_of``), and id of each item's, sorted.
    currency : str or None
        The main currency: that of most lines; ``None`` when no line says one.
    n_foreign : int
        Lines in other currencies. They count as purchases, but have no value.
    as_of : datetime or None
        Time of the newest event of any type, from which ages are counted; ``None`` without any.
    """

    orders: pl.DataFrame
    tastes: pl.DataFrame
    prices: pl.DataFrame
    persons: pl.Series
    item_ids: pl.Series
    currency: str | None
    n_foreign: int
    as_of: datetime | None

    @property
    def as_of_day(self) -> int:
        """Day of `as_of` since 1970."""
        return 0 if self.as_of is None else int(self.as_of.timestamp()) // DAY_S

    @property
    def priced(self) -> bool:
        """Whether any purchase has a value."""
        return bool((self.orders["value"] > 0).any())


def read_purchases(events: pl.LazyFrame, half_life_days: float) -> Purchases:
    """Read the purchases of a log.

    Parameters
    ----------
    events : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``, in any order.
    half_life_days : float
        After which a purchase says half as much about a taste.
    """
    as_of: datetime | None = events.select(pl.col("timestamp").max()).collect().item()
    if not events.filter(pl.col("type") == ROW_TYPE).head(1).collect().is_empty():
        events = merged_people(events)
    wanted = events.select(_NEEDED).filter(
        pl.col("type").is_in([_BOUGHT, _RETURNED])
        & pl.col("item_id").is_not_null()
        & pl.coalesce("user_id", "anonymous_id").is_not_null()
    )
    currency, n_foreign = _currencies(wanted)
    lines, persons, item_ids = _coded(wanted, currency)
    lines = net_of_refunds(lines)
    now_s = 0 if as_of is None else int(as_of.timestamp())
    rate = np.log(2.0) / (half_life_days * DAY_S)
    weight = (-rate * (now_s - pl.col("t_s")).clip(lower_bound=0)).exp().sum()
    orders = (
        lines.group_by("person", "order")
        .agg((pl.col("t_s").min() // DAY_S).cast(pl.Int32).alias("day"), exact_sum("value"))
        .drop("order")
        .sort("person", "day", "value")
    )
    tastes = lines.group_by("person", "item").agg(
        weight.cast(pl.Float32).alias("weight"), pl.len().alias("lines")
    )
    # Means of the same prices in another order differ in their last bits.
    price = pl.col("price").cast(pl.Float64).mean().round(4)
    prices = lines.filter(pl.col("price") > 0).group_by("item").agg(price)
    tastes, prices = tastes.sort("person", "item"), prices.sort("item")
    return Purchases(orders, tastes, prices, persons, item_ids, currency, n_foreign, as_of)


def exact_sum(column: str) -> pl.Expr:
    """Return the sum of amounts, which is the same in any order: in whole ten-thousandths."""
    return ((pl.col(column) * 10_000).round().cast(pl.Int64).sum() / 10_000).alias(column)


def _currencies(lines: pl.LazyFrame) -> tuple[str | None, int]:
    """Return the currency of most purchases with a price, and how many have another."""
    counts = (
        lines.filter((pl.col("type") == _BOUGHT) & pl.col("unit_price").is_not_null())
        .group_by("currency")
        .len()
        .drop_nulls("currency")
        .sort(["len", "currency"], descending=[True, False])
        .collect()
    )
    if counts.is_empty():
        return None, 0
    return counts["currency"][0], int(counts["len"][1:].sum())


def _coded(lines: pl.LazyFrame, currency: str | None) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """Give people and items numbers, and lines their value.

    Returns
    -------
    lines : DataFrame
        ``person``, ``item`` (u32), ``order`` (u64), ``t_s`` (i64), ``refund`` (bool), ``quantity``
        (i32 or null), ``price`` (f32 or null), ``value`` (f64 or null).
    persons, item_ids : Series of str
        Sorted.
    """
    # As `schema.person_of`, over columns.
    person = pl.coalesce("u:" + pl.col("user_id"), "a:" + pl.col("anonymous_id")).alias("person")
    ours = pl.col("currency").is_null() | (pl.col("currency") == (currency or ""))
    price = pl.when(ours & pl.col("unit_price").is_finite()).then(
        pl.col("unit_price").clip(lower_bound=0)
    )
    t_s = pl.col("timestamp").dt.epoch("s")
    # Hashes of 64 bits: two orders of one person will not share one. (A null has a hash too.)
    named = pl.col("order_id").is_not_null()
    order = pl.when(named).then(pl.col("order_id").hash()).otherwise((t_s // DAY_S).cast(pl.UInt64))
    valued = lines.select(
        person,
        "item_id",
        order.alias("order"),
        t_s.alias("t_s"),
        (pl.col("type") == _RETURNED).alias("refund"),
        "quantity",
        price.cast(pl.Float32).alias("price"),
        (price * pl.col("quantity").fill_null(1)).clip(upper_bound=MAX_VALUE).alias("value"),
    )
    persons = valued.select(pl.col("person").unique().sort()).collect(engine="streaming")
    items = valued.select(pl.col("item_id").unique().sort()).collect(engine="streaming")
    coded = (
        valued.join(persons.lazy().with_row_index("code"), on="person")
        .drop("person")
        .rename({"code": "person"})
        .join(items.lazy().with_row_index("item"), on="item_id")
        .drop("item_id")
        .collect(engine="streaming")
    )
    return coded, persons["person"], items["item_id"]


def net_of_refunds(lines: pl.DataFrame) -> pl.DataFrame:
    """Take back what was given back.

    A refund belongs to the newest purchase of the item before it that no other refund has taken:
    the two are like brackets. A refund of all pieces, or without a quantity, undoes the line; one
    of fewer takes its value, or that of as many pieces, from the line's. A refund without a
    purchase before it changes nothing.

    Parameters
    ----------
    lines : DataFrame
        ``person``, ``item``, ``t_s``, ``refund``, ``quantity``, ``price``, ``value`` and more.

    Returns
    -------
    DataFrame
        The purchases that are left, without ``refund``.
    """
    if not lines["refund"].any():
        return lines.drop("refund")
    key = ["person", "item"]
    returned = lines.filter("refund").select(key).unique()
    bought = lines.filter(~pl.col("refund"))
    untouched = bought.join(returned, on=key, how="anti").drop("refund")
    step = pl.when("refund").then(-1).otherwise(1)
    touched = (
        lines.join(returned, on=key, how="semi")
        .sort(*key, "t_s", "refund", "order")
        .with_columns(step.cum_sum().over(key).alias("sum"))
        # A refund that finds no purchase lowers the floor: nothing was open.
        .with_columns(pl.min_horizontal(pl.col("sum").cum_min().over(key), 0).alias("floor"))
        .with_columns(
            (pl.col("sum") - pl.col("floor") + pl.col("refund").cast(pl.Int32)).alias("level")
        )
    )
    # Of one level, purchases and refunds take turns: a purchase's own refund comes next.
    follows = {
        f"next_{name}": pl.col(name).shift(-1).over(*key, "level")
        for name in ("refund", "quantity", "value")
    }
    paired = touched.with_columns(**follows).filter(~pl.col("refund"))
    is_returned = pl.col("next_refund").fill_null(value=False)
    pieces = pl.col("quantity").fill_null(1)
    whole = is_returned & (pl.col("next_quantity").fill_null(pieces) >= pieces)
    taken = pl.coalesce("next_value", pl.col("price") * pl.col("next_quantity"))
    value = pl.when(is_returned).then((pl.col("value") - taken.fill_null(0)).clip(lower_bound=0))
    left = paired.filter(~whole).with_columns(value.otherwise(pl.col("value")).alias("value"))
    return pl.concat([untouched, left.select(untouched.columns)])
