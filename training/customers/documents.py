"""The computed values of each customer as JSON: what ``GET /v1/users/{user_id}`` shows."""

from datetime import date, datetime

import numpy as np
import polars as pl

from feature_store.schema import format_time
from training.customers.forecast import CustomerModel, Forecast
from training.customers.histories import Histories
from training.customers.lifecycle import (
    GROUPS,
    STAGES,
    group_codes,
    plain_interval,
    quintiles,
    stage_codes,
)
from training.customers.purchases import Purchases

NO_CURRENCY = "XXX"
"""ISO 4217's code for none, as prices of items have it."""
_MAX_AHEAD_DAYS = 365.0
_LAPSED = STAGES.index("lapsed")


def columns_of(
    known: Histories, model: CustomerModel | None, forecast: Forecast | None
) -> pl.DataFrame:
    """Return what is computed of each customer, in plain columns.

    Returns
    -------
    DataFrame
        ``person`` (u32), ``stage``, ``interval_days``, ``recency_days``, ``frequency``,
        ``monetary``, ``order_value``, ``r``, ``f``, ``m``, ``group``, and, null without a model,
        ``clv``, ``churn_risk``, ``next_day`` (null for who has lapsed).
    """
    interval = plain_interval(known) if model is None else model.process.interval(known.repeats)
    stages = stage_codes(known, interval)
    r, f, m = quintiles(-known.elapsed_days), quintiles(known.orders), quintiles(known.value)
    columns: dict[str, object] = {
        "person": known.person,
        "stage": np.array(STAGES)[stages],
        "interval_days": interval.round(1),
        "recency_days": known.elapsed_days.astype(np.int64),
        "frequency": known.orders.astype(np.int64),
        "monetary": known.value,
        "order_value": known.value / np.maximum(known.orders, 1.0),
        "r": r,
        "f": f,
        "m": m,
        "group": np.array(GROUPS)[group_codes(r, f)],
    }
    if forecast is None:
        nothing = pl.Series([None], dtype=pl.Float64).new_from_index(0, len(known))
        columns |= {"clv": nothing, "churn_risk": nothing, "next_day": nothing}
        return pl.DataFrame(columns)
    ahead = forecast.next_day - known.as_of_day
    gone = (stages == _LAPSED) | (ahead > _MAX_AHEAD_DAYS)
    columns |= {
        "clv": forecast.value,
        "churn_risk": forecast.churn_risk.round(4),
        "next_day": np.where(gone, np.nan, forecast.next_day),
    }
    return pl.DataFrame(columns).with_columns(pl.col("next_day").fill_nan(None))


def as_json(
    columns: pl.DataFrame, tastes: pl.DataFrame, purchases: Purchases, horizon_days: int
) -> pl.DataFrame:
    """Return the documents.

    Parameters
    ----------
    columns : DataFrame
        Result of `columns_of`.
    tastes : DataFrame
        Result of ``tastes.tastes_of``.
    purchases : Purchases
        For names, the currency and the time.
    horizon_days : int
        Of the lifetime value.

    Returns
    -------
    DataFrame
        ``person`` (str, ``schema.person_of``) and ``computed`` (str, a JSON object).
    """
    as_of = purchases.as_of
    assert as_of is not None, "there are customers, so there are events"
    rows = columns.join(tastes, on="person", how="left", maintain_order="left")
    currency = purchases.currency or NO_CURRENCY

    def money(name: str, *more: pl.Expr) -> pl.Expr:
        # The contract writes amounts as text.
        amount = pl.col(name).round(2).cast(pl.Decimal(18, 2)).cast(pl.String)
        fields = pl.struct(amount.alias("amount"), pl.lit(currency).alias("currency"), *more)
        worth = pl.lit(purchases.priced) & pl.col(name).is_not_null()
        return pl.when(worth).then(fields).alias(name)

    score = pl.concat_str(pl.col("r", "f", "m").cast(pl.String)).alias("score")
    rfm = pl.struct(
        "recency_days", "frequency", money("monetary"), money("order_value"), "r", "f", "m", score,
        "group",
    )  # fmt: skip
    at = pl.from_epoch(pl.col("next_day").cast(pl.Int64), time_unit="d").cast(pl.Date)
    document = pl.struct(
        "stage",
        rfm.alias("rfm"),
        money("clv", pl.lit(horizon_days).alias("horizon_days")),
        "churn_risk",
        at.dt.strftime("%Y-%m-%dT00:00:00Z").alias("next_purchase_at"),
        pl.col("interval_days").alias("purchase_interval_days"),
        pl.struct("categories", "category_shares", "brands", "brand_shares", "price_band").alias(
            "tastes"
        ),
        pl.lit(format_time(as_of)).alias("as_of"),
    )
    names = purchases.persons.gather(rows["person"])
    return rows.select(names.alias("person"), document.struct.json_encode().alias("computed"))


def day_name(day: int) -> str:
    """Return a day since 1970 as ``2026-01-31``."""
    return date.fromordinal(datetime(1970, 1, 1).toordinal() + day).isoformat()  # noqa: DTZ001
