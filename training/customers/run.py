"""Everything that is computed of customers, from the event log to a document for each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.schema import EventType, format_time
from feature_store.signals import SIGNALS
from training.customers.backtest import report_of, run_trial
from training.customers.documents import as_json, columns_of
from training.customers.forecast import fit_customers
from training.customers.histories import histories_of
from training.customers.lifecycle import STAGES
from training.customers.purchases import Purchases, read_purchases
from training.customers.tastes import tastes_of
from training.progress import Report, unheard

HORIZON_DAYS = 365
"""Of the expected lifetime value."""


@dataclass(frozen=True, slots=True)
class Customers:
    """The outcome.

    Parameters
    ----------
    frame : DataFrame
        One row for everybody with a purchase: ``person`` (str, ``schema.person_of``), ``computed``
        (str, a JSON object; ``docs/customers.md`` has an example).
    summary : dict
        Parameters, counts and errors as JSON; nobody's own figures are in it.
    """

    frame: pl.DataFrame
    summary: dict[str, Any]


def compute_customers(
    events: pl.LazyFrame, catalogue: Catalogue, report: Report = unheard
) -> Customers:
    """Compute the values of everybody with a purchase.

    Ages are counted from the newest event, so the same events give the same values.

    Parameters
    ----------
    events : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``.
    catalogue : Catalogue
        Brands and categories of items.
    report : callable
        Told the share that is done.
    """
    report(0.0)
    purchases = read_purchases(events, SIGNALS[EventType.PURCHASE].half_life_days)
    if purchases.orders.is_empty():
        report(1.0)
        empty = pl.DataFrame(schema={"person": pl.String, "computed": pl.String})
        return Customers(empty, {"n_people": 0})
    report(0.4)
    known = histories_of(purchases.orders, purchases.as_of_day)
    model = fit_customers(purchases.orders, purchases.as_of_day)
    forecast = None if model is None else model.forecast(known, HORIZON_DAYS)
    report(0.6)
    trial = run_trial(purchases.orders, purchases.as_of_day)
    report(0.7)
    tastes = tastes_of(purchases, catalogue)
    report(0.9)
    columns = columns_of(known, model, forecast)
    frame = as_json(columns, tastes, purchases, HORIZON_DAYS)
    summary = {
        **_summary(purchases, columns),
        "horizon_days": HORIZON_DAYS,
        "model": None if model is None else model.as_document(),
        "backtest": None if trial is None else report_of(trial),
    }
    report(1.0)
    return Customers(frame, summary)


def _summary(purchases: Purchases, columns: pl.DataFrame) -> dict[str, Any]:
    """Return counts and medians."""
    stages = columns["stage"]
    worth = columns["clv"] if purchases.priced else columns["clv"].clear()
    risk = columns["churn_risk"].drop_nulls()
    return {
        "n_people": columns.height,
        "n_orders": purchases.orders.height,
        "as_of": None if purchases.as_of is None else format_time(purchases.as_of),
        "currency": purchases.currency,
        "n_lines_in_other_currencies": purchases.n_foreign,
        "stages": {name: int((stages == name).sum()) for name in STAGES},
        "median_clv": _rounded(worth.median(), 2),
        "mean_clv": _rounded(worth.mean(), 2),
        "mean_churn_risk": _rounded(risk.mean(), 4),
        "median_interval_days": _rounded(float(np.median(columns["interval_days"])), 1),
    }


def _rounded(value: Any, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
