"""How far off the forecasts are: fitted on the past, held against what came after."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from training.customers.documents import day_name
from training.customers.forecast import CustomerModel, Forecast, fit_customers, stayed_away
from training.customers.histories import Histories, histories_of
from training.customers.lifecycle import STAGES, stage_codes
from training.customers.purchasing import F64

MIN_TEST_DAYS = 28
MIN_PEOPLE = 100
MIN_RATE_DAYS = 28.0
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Bounds of the risks in the reliability table."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A forecast and what came of it, customer by customer.

    Parameters
    ----------
    known : Histories
        Up to the day of the forecast.
    model : CustomerModel
        Fitted on the same.
    days : int
        Length of the time that was forecast.
    forecast : Forecast
        For that time.
    orders, value : ndarray of float64, shape (n,)
        What came.
    next_day : ndarray of float64, shape (n,)
        Day of the first order that came; NaN where none did.
    stayed_away : ndarray of bool, shape (n,)
        Who bought nothing for ``model.churn_days``.
    """

    known: Histories
    model: CustomerModel
    days: int
    forecast: Forecast
    orders: F64
    value: F64
    next_day: F64
    stayed_away: npt.NDArray[np.bool_]


def run_trial(orders: pl.DataFrame, as_of_day: int) -> Trial | None:
    """Fit on the first two thirds of the time, and forecast the last third.

    Returns
    -------
    Trial or None
        ``None`` when the last third is shorter than 28 days, or there are fewer than 100 customers
        before it, or too few who came back for a model.
    """
    first_day = orders["day"].min() if orders.height else as_of_day
    assert isinstance(first_day, int)
    days = (as_of_day - first_day + 1) // 3
    then = as_of_day - days
    known = histories_of(orders, then)
    if days < MIN_TEST_DAYS or len(known) < MIN_PEOPLE:
        return None
    model = fit_customers(orders, then, max_churn_days=days)
    if model is None:
        return None
    came = (
        orders.filter(pl.col("day") > then)
        .group_by("person")
        .agg(pl.len().alias("orders"), pl.col("value").sum(), pl.col("day").min())
        .filter(pl.col("person").is_in(pl.Series(known.person).implode()))
    )
    rows = known.rows(came["person"].to_numpy())
    n_orders, value = np.zeros(len(known)), np.zeros(len(known))
    next_day = np.full(len(known), np.nan)
    n_orders[rows], value[rows], next_day[rows] = came["orders"], came["value"], came["day"]
    return Trial(
        known=known,
        model=model,
        days=days,
        forecast=model.forecast(known, days),
        orders=n_orders,
        value=value,
        next_day=next_day,
        stayed_away=stayed_away(orders, known, model.churn_days),
    )


def report_of(trial: Trial) -> dict[str, Any]:
    """Return the errors of a trial as JSON: averages over customers, nobody's own figures."""
    known, forecast = trial.known, trial.forecast
    rate = known.orders / np.maximum(known.repeats.age + 1.0, MIN_RATE_DAYS)
    per_order = known.value / np.maximum(known.orders, 1.0)
    naive = rate * trial.days
    mean = np.full(len(known), naive.mean())
    money = trial.model.spend is not None
    return {
        "fitted_upto": day_name(known.as_of_day),
        "days": trial.days,
        "n_people": len(known),
        "orders": errors(trial.orders, {"model": forecast.orders, "own_rate": naive, "mean": mean}),
        "spend": errors(
            trial.value,
            {
                "model": forecast.value,
                "own_rate": naive * per_order,
                "mean": np.full(len(known), (naive * per_order).mean()),
            },
        )
        if money
        else None,
        "churn": churn_errors(trial),
        "next_purchase": next_errors(trial),
        "stages": _returned(trial),
    }


def errors(actual: F64, predicted: dict[str, F64]) -> dict[str, Any]:
    """Return mean absolute error, root of the mean squared error and bias of each prediction.

    Parameters
    ----------
    actual : ndarray of float64, shape (n,)
        What came.
    predicted : dict of str to ndarray of float64, shape (n,)
        Named predictions of it.
    """
    rows = {
        name: {
            "mae": float(np.abs(values - actual).mean()),
            "rmse": float(np.sqrt(((values - actual) ** 2).mean())),
            "bias": float((values - actual).mean()),
        }
        for name, values in predicted.items()
    }
    return {"actual_mean": float(actual.mean()), **rows}


def churn_errors(trial: Trial) -> dict[str, Any]:
    """Return how well the risk to stay away is calibrated.

    The Brier score is the mean squared difference between risk and outcome (Brier, 1950); that of
    everybody's mean is what a forecast must beat.
    """
    risk, stayed = trial.forecast.churn_risk, trial.stayed_away.astype(np.float64)
    raw = trial.model.process.none_within(trial.known.repeats, trial.model.churn_days)
    share = float(stayed.mean())
    bins = np.clip(np.searchsorted(EDGES, risk, side="right") - 1, 0, len(EDGES) - 2)
    table = [
        {
            "from": EDGES[at],
            "to": EDGES[at + 1],
            "n": int((bins == at).sum()),
            "predicted": float(risk[bins == at].mean()),
            "seen": float(stayed[bins == at].mean()),
        }
        for at in range(len(EDGES) - 1)
        if (bins == at).any()
    ]
    return {
        "days": trial.model.churn_days,
        "seen": share,
        "predicted": float(risk.mean()),
        "brier": float(((risk - stayed) ** 2).mean()),
        "brier_uncalibrated": float(((raw - stayed) ** 2).mean()),
        "brier_of_the_mean": share * (1.0 - share),
        "reliability": table,
    }


def next_errors(trial: Trial) -> dict[str, Any] | None:
    """Return how many days the date of the next purchase is off, among those who came.

    The baseline is the last purchase and the customer's mean interval; ``baseline_from_today``
    the same, but no earlier than the first day that is possible.
    """
    known, came = trial.known, ~np.isnan(trial.next_day)
    if not came.any():
        return None
    gaps = known.repeats.count
    everyone = float(known.repeats.last.sum() / max(gaps.sum(), 1.0))
    interval = np.where(gaps > 0, known.repeats.last / np.maximum(gaps, 1.0), everyone)
    plain = np.round(known.last_day + interval)
    dates = {
        "model": trial.forecast.next_day,
        "baseline": plain,
        "baseline_from_today": np.maximum(plain, known.as_of_day + 1.0),
    }
    off = {name: np.abs(day - trial.next_day)[came] for name, day in dates.items()}
    return {
        "n_people": int(came.sum()),
        **{
            name: {"median_days": float(np.median(days)), "mean_days": float(days.mean())}
            for name, days in off.items()
        },
    }


def _returned(trial: Trial) -> dict[str, dict[str, float]]:
    """Return how many customers of each stage bought again within ``churn_days``."""
    codes = stage_codes(trial.known, trial.model.process.interval(trial.known.repeats))
    came = ~trial.stayed_away
    return {
        name: {"n": int((codes == at).sum()), "returned": float(came[codes == at].mean())}
        for at, name in enumerate(STAGES)
        if (codes == at).any()
    }
