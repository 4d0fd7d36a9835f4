"""What each customer will do: orders, money, the risk of staying away, the next purchase."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import minimize
from scipy.special import expit, gammaincc, gammainccinv

from training.customers.histories import Histories, histories_of
from training.customers.purchasing import (
    F64,
    PRIOR_SD,
    PurchaseProcess,
    Repeats,
    fit_process,
)
from training.customers.spending import SpendModel, fit_spend

MIN_REPEAT_PEOPLE = 50
"""With fewer customers who came back there is no forecast: chance would write it."""
MAX_FIT_PEOPLE = 100_000
"""More customers would not make the few parameters any more certain, only later."""
MIN_CHURN_DAYS, MAX_CHURN_DAYS = 90, 365
_INTERVALS_TO_CHURN = 4
_ORDERS_PRIOR_DAYS = 5.0
_MIN_EITHER = 20
_CLIP = 1e-6
_SLOPES = (0.05, 3.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrects probabilities: ``sigmoid(shift + low * ln p - high * ln(1 - p))``.

    Kull, Silva Filho and Flach (2017), "Beta calibration: a well-founded and easily implemented
    improvement on logistic calibration for binary classifiers", AISTATS. The two slopes correct
    small and large risks apart; on the demo data the large ones are what is wrong.

    Parameters
    ----------
    shift, low, high : float
        0, 1 and 1 change nothing; slopes are above 0, so the order of customers stays.
    """

    shift: float = 0.0
    low: float = 1.0
    high: float = 1.0

    def apply(self, probability: F64) -> F64:
        """Return the corrected probabilities."""
        corrected: F64 = expit(self.shift + _both_logs(probability) @ [self.low, self.high])
        return corrected


def _both_logs(probability: F64) -> F64:
    """Return ``ln p`` and ``-ln(1 - p)``, shape (n, 2), of probabilities kept off 0 and 1."""
    clipped = np.clip(probability, _CLIP, 1.0 - _CLIP)
    return np.stack([np.log(clipped), -np.log1p(-clipped)], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Of n customers, in the order of their histories.

    Parameters
    ----------
    orders : ndarray of float64, shape (n,)
        Expected orders within the horizon.
    value : ndarray of float64, shape (n,)
        Expected spend within it, in the main currency, not discounted.
    churn_risk : ndarray of float64, shape (n,)
        Probability to buy nothing for ``CustomerModel.churn_days``.
    next_day : ndarray of float64, shape (n,)
        The day of the next purchase, since 1970, if there is one: the median of its distribution.
    """

    orders: F64
    value: F64
    churn_risk: F64
    next_day: F64


@dataclass(frozen=True, slots=True)
class CustomerModel:
    """Everything that is fitted on a shop's customers.

    Parameters
    ----------
    process : PurchaseProcess
        When they buy.
    spend : SpendModel or None
        What a day of purchases is worth; ``None`` when nothing has a price.
    orders_per_day : float
        Orders on a day with one, in the mean.
    regularity : float
        Result of ``Histories.regularity``.
    churn_days : int
        Without a purchase for so long a customer counts as gone.
    calibration : Calibration
        Of the risk of that.
    n_people : int
        Customers that it was fitted on.
    """

    process: PurchaseProcess
    spend: SpendModel | None
    orders_per_day: float
    regularity: float
    churn_days: int
    calibration: Calibration
    n_people: int

    def forecast(self, known: Histories, horizon_days: float) -> Forecast:
        """Say what each customer will do."""
        repeats = known.repeats
        days = self.process.expected(repeats, horizon_days)
        prior = _ORDERS_PRIOR_DAYS
        per_day = (known.orders + prior * self.orders_per_day) / (known.days + prior)
        value = np.zeros(len(known))
        if self.spend is not None:
            value = days * self.spend.expected(known.valued_days, known.day_value)
        risk = self.calibration.apply(self.process.none_within(repeats, self.churn_days))
        return Forecast(days * per_day, value, risk, self.next_day(known))

    def next_day(self, known: Histories) -> F64:
        """Return the day of each customer's next purchase, given that there is one.

        The gaps of a customer have a gamma distribution with the shop's regularity and the
        customer's own mean, drawn towards the shop's; what counts is the rest of the gap that has
        begun with the last purchase, given that it has lasted until today. Its median is taken,
        which has the least absolute error.
        """
        shape, process = self.regularity, self.process
        mean = (process.alpha + known.repeats.age) / (process.r + known.repeats.count)
        begun = shape * known.elapsed_days / mean
        lasted = gammaincc(shape, begun)
        whole = gammainccinv(shape, lasted / 2.0) * mean / shape
        # Where so long a silence has no probability left in floats, its tail is exponential.
        whole = np.where(lasted > 1e-280, whole, known.elapsed_days + np.log(2.0) * mean / shape)
        next_day: F64 = known.last_day + np.maximum(np.ceil(whole), known.elapsed_days + 1.0)
        return next_day

    def as_document(self) -> dict[str, Any]:
        """Return the parameters as JSON; no customer is in them."""
        process, spend = self.process, self.spend
        return {
            "n_people": self.n_people,
            "mbg_nbd": {
                name: float(f"{getattr(process, name):.6g}") for name in ("r", "alpha", "a", "b")
            },
            "gamma_gamma": spend
            and {name: float(f"{getattr(spend, name):.6g}") for name in ("p", "q", "gamma")},
            "orders_per_day": round(self.orders_per_day, 4),
            "regularity": round(self.regularity, 4),
            "churn_days": self.churn_days,
            "churn_calibration": {
                name: round(getattr(self.calibration, name), 4) for name in ("shift", "low", "high")
            },
        }


def fit_customers(
    orders: pl.DataFrame, as_of_day: int, max_churn_days: int = MAX_CHURN_DAYS
) -> CustomerModel | None:
    """Fit the models on the orders up to a day.

    Parameters
    ----------
    orders : DataFrame
        ``Purchases.orders``; later orders are left out.
    as_of_day : int
        Since 1970.
    max_churn_days : int
        Bound of ``CustomerModel.churn_days``: a backtest cannot see further.

    Returns
    -------
    CustomerModel or None
        ``None`` when fewer than `MIN_REPEAT_PEOPLE` came back on another day.
    """
    known = histories_of(orders, as_of_day)
    process = _process(known)
    if process is None:
        return None
    churn_days = min(_churn_days(process, known), max_churn_days)
    valued = known.valued_days > 0
    spend = None
    if valued.any():
        chosen = _sample(np.flatnonzero(valued))
        spend = fit_spend(known.valued_days[chosen], known.day_value[chosen])
    return CustomerModel(
        process=process,
        spend=spend,
        orders_per_day=float(known.orders.sum() / known.days.sum()),
        regularity=known.regularity(),
        churn_days=churn_days,
        calibration=_calibrate(orders, as_of_day, churn_days),
        n_people=len(known),
    )


def _process(known: Histories) -> PurchaseProcess | None:
    """Fit the purchase process, with customers of equal history as one row."""
    repeats = known.repeats
    if int((repeats.count > 0).sum()) < MIN_REPEAT_PEOPLE:
        return None
    rows = np.stack([repeats.count, repeats.last, repeats.age], axis=1)
    distinct, weights = np.unique(rows[_sample(np.arange(len(rows)))], axis=0, return_counts=True)
    return fit_process(Repeats(*distinct.T), weights.astype(np.float64))


def _sample(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Choose at most `MAX_FIT_PEOPLE` rows, evenly: the same ones every time."""
    if len(rows) <= MAX_FIT_PEOPLE:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_FIT_PEOPLE).astype(np.intp)]


def _churn_days(process: PurchaseProcess, known: Histories) -> int:
    """Return how long a silence means that someone is gone: four intervals, in whole months."""
    repeats = known.repeats
    came_back = repeats.count > 0
    interval = float(np.median(process.interval(repeats)[came_back]))
    months = np.ceil(_INTERVALS_TO_CHURN * interval / 30.0)
    return int(np.clip(30 * months, MIN_CHURN_DAYS, MAX_CHURN_DAYS))


def _calibrate(orders: pl.DataFrame, as_of_day: int, churn_days: int) -> Calibration:
    """Learn the correction of the risk from the last `churn_days` days, whose end is known.

    Customers come back after silences for which the model would give them up: holidays, a second
    home, a new card. On less history than twice that time, or with fewer than 20 customers on
    either side, nothing is corrected.
    """
    then = as_of_day - churn_days
    known = histories_of(orders, then)
    if len(known) == 0 or then - known.first_day.min() < churn_days:
        return Calibration()
    process = _process(known)
    if process is None:
        return Calibration()
    stayed = stayed_away(orders, known, churn_days)
    if min(stayed.sum(), (~stayed).sum()) < _MIN_EITHER:
        return Calibration()
    logs = _both_logs(process.none_within(known.repeats, churn_days))

    def loss(parameters: F64) -> float:
        linear = parameters[0] + logs @ parameters[1:]
        faint = float(np.sum((parameters - start) ** 2)) / (2.0 * PRIOR_SD**2 * len(logs))
        return float(np.mean(np.logaddexp(0.0, linear) - stayed * linear)) + faint

    start = np.array([0.0, 1.0, 1.0])
    bounds = [(-8.0, 8.0), _SLOPES, _SLOPES]
    best: Any = minimize(loss, start, method="L-BFGS-B", bounds=bounds)
    return Calibration(*(float(value) for value in best.x))


def stayed_away(orders: pl.DataFrame, known: Histories, days: int) -> npt.NDArray[np.bool_]:
    """Tell who has no order within so many days after ``known.as_of_day``."""
    after = pl.col("day").is_between(known.as_of_day + 1, known.as_of_day + days)
    came = orders.filter(after)["person"].unique().to_numpy()
    return ~np.isin(known.person, came)
