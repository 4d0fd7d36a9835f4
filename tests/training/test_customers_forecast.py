"""Forecasts and documents of whole shops, and the backtest that says how far off they are."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.training.test_customers import NOW, SHOP, ago, bought, documents, log
from training.customers.backtest import errors, report_of, run_trial
from training.customers.forecast import Calibration, fit_customers
from training.customers.histories import histories_of
from training.customers.purchases import Purchases, read_purchases
from training.customers.run import Customers, compute_customers

N_PEOPLE, DAYS = 600, 360


def visits(seed: int = 3) -> pl.LazyFrame:
    """Return a year of a shop: everybody has a rate and a usual amount, some stay away for good."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(1.5, 1 / 30.0, N_PEOPLE)
    usual = rng.gamma(4.0, 10.0, N_PEOPLE)
    events = [bought("p000", "a", 0, 10.0)]
    for person in range(N_PEOPLE):
        at = float(rng.uniform(0, DAYS / 2))
        while at < DAYS:
            price = float(usual[person] * rng.gamma(5.0, 0.2))
            events.append(bought(f"p{person:03d}", "ab"[person % 2], DAYS - at, price))
            at += rng.exponential(1 / rates[person]) if rng.random() > 0.04 else 2 * DAYS
    return log(*events)


@pytest.fixture(scope="module")
def shop() -> Purchases:
    return read_purchases(visits(), 60.0)


@pytest.fixture(scope="module")
def known() -> Customers:
    return compute_customers(visits(), SHOP)


def test_everybody_who_bought_has_a_whole_document(known: Customers) -> None:
    found = documents(known)
    assert len(found) == known.summary["n_people"] == N_PEOPLE
    for one in found.values():
        assert list(one) == [
            "stage", "rfm", "clv", "churn_risk", "next_purchase_at", "purchase_interval_days",
            "tastes", "as_of",
        ]  # fmt: skip
        rfm = one["rfm"]
        assert rfm["score"] == f"{rfm['r']}{rfm['f']}{rfm['m']}"
        assert rfm["monetary"]["currency"] == one["clv"]["currency"] == "EUR"
        assert float(one["clv"]["amount"]) >= 0
        assert one["clv"]["horizon_days"] == 365
        assert 0 <= one["churn_risk"] <= 1
        assert (one["next_purchase_at"] is None) == (one["stage"] == "lapsed")
        if one["next_purchase_at"] is not None:
            assert "2026-07-01T00:00:00Z" <= one["next_purchase_at"] <= "2027-06-30T00:00:00Z"
        assert one["as_of"] == "2026-06-30T20:00:00Z"
    assert sum(known.summary["stages"].values()) == N_PEOPLE
    # No customer's key is in what goes into the model's manifest.
    assert "u:" not in json.dumps(known.summary)


def test_risk_value_and_stage_tell_one_story(known: Customers) -> None:
    frame = pl.DataFrame(
        [
            {
                "stage": one["stage"],
                "risk": one["churn_risk"],
                "clv": float(one["clv"]["amount"]),
                "spent": float(one["rfm"]["monetary"]["amount"]),
                "recency": one["rfm"]["recency_days"],
            }
            for one in documents(known).values()
        ]
    )
    by_stage = dict(frame.group_by("stage").agg(pl.col("risk").mean()).iter_rows())
    assert by_stage["active"] < by_stage["at_risk"] < by_stage["lapsed"]
    assert frame.select(pl.corr("risk", "recency", method="spearman")).item() > 0.5
    # Whoever has spent much will, unless they are gone.
    active = frame.filter(pl.col("stage") == "active")
    assert active.select(pl.corr("clv", "spent", method="spearman")).item() > 0.7


def test_the_same_events_give_the_same_values(known: Customers) -> None:
    again = compute_customers(visits().reverse(), SHOP)
    assert again.frame.equals(known.frame)
    assert again.summary == known.summary


def test_forecasts_beat_naive_ones_in_a_shop_like_this(shop: Purchases) -> None:
    trial = run_trial(shop.orders, shop.as_of_day)
    assert trial is not None
    report = report_of(trial)
    assert report["days"] == (DAYS + 1) // 3
    for name in ("orders", "spend"):
        found = report[name]
        assert found["model"]["mae"] < found["own_rate"]["mae"] < found["mean"]["mae"]
        assert found["model"]["rmse"] < found["own_rate"]["rmse"]
        assert abs(found["model"]["bias"]) < 0.15 * found["actual_mean"]
    churn = report["churn"]
    assert churn["brier"] < 0.8 * churn["brier_of_the_mean"]
    assert churn["predicted"] == pytest.approx(churn["seen"], abs=0.05)
    for row in churn["reliability"]:
        if row["n"] >= 40:
            assert row["predicted"] == pytest.approx(row["seen"], abs=0.15)
    assert sum(row["n"] for row in churn["reliability"]) == report["n_people"]
    near = report["next_purchase"]
    assert near["model"]["mean_days"] < near["baseline_from_today"]["mean_days"]
    assert near["model"]["median_days"] < near["baseline"]["median_days"]
    stages = report["stages"]
    assert stages["active"]["returned"] > stages["at_risk"]["returned"]
    assert stages["at_risk"]["returned"] > stages["lapsed"]["returned"]


def test_a_trial_knows_nothing_of_what_comes_after(shop: Purchases) -> None:
    trial = run_trial(shop.orders, shop.as_of_day)
    assert trial is not None
    then = trial.known.as_of_day
    # Everything after the forecast replaced by one mad day; the forecast is the same.
    mad = shop.orders.filter(pl.col("day") <= then)
    last = mad.head(1).with_columns(pl.lit(shop.as_of_day, pl.Int32).alias("day"))
    other = run_trial(pl.concat([mad] + [last] * 500), shop.as_of_day)
    assert other is not None
    assert np.array_equal(other.forecast.orders, trial.forecast.orders)
    assert np.array_equal(other.forecast.churn_risk, trial.forecast.churn_risk)
    assert np.array_equal(other.forecast.next_day, trial.forecast.next_day)


def test_errors_are_what_they_are_called() -> None:
    found = errors(np.array([1.0, 5.0]), {"model": np.array([2.0, 2.0])})
    assert found == {
        "actual_mean": 3.0, "model": {"mae": 2.0, "rmse": pytest.approx(5**0.5), "bias": -1.0}
    }  # fmt: skip


def test_calibration_corrects_overconfidence_and_by_default_nothing() -> None:
    risks = np.array([0.0, 0.2, 0.5, 1.0])
    assert Calibration().apply(risks) == pytest.approx(risks, abs=2e-4)
    # With equal slopes it is logistic calibration: half the log odds of 1:4 are those of 1:2.
    softer = Calibration(0.0, 0.5, 0.5).apply(risks)
    assert softer[1] == pytest.approx(1 / 3)
    # With two, small risks can stay what they are while large ones are taken back.
    wary = Calibration(0.0, 1.0, 0.05).apply(risks)
    assert wary[1] == pytest.approx(0.168, abs=1e-3)
    assert 0.5 < wary[3] < 0.7
    for corrected in (softer, wary):
        assert (np.diff(corrected) > 0).all()


def test_the_next_purchase_waits_for_the_rest_of_the_gap(shop: Purchases) -> None:
    model = fit_customers(shop.orders, shop.as_of_day)
    assert model is not None
    known = histories_of(shop.orders, shop.as_of_day)
    ahead = model.next_day(known) - known.as_of_day
    assert ahead.min() >= 1
    # Somebody silent for a hundred years still has a date, a finite one.
    later = histories_of(shop.orders, shop.as_of_day + 36_500)
    assert np.isfinite(model.next_day(later)).all()
    risk = model.forecast(later, 365).churn_risk
    assert risk.min() > 0.9


# --- shops without enough of something ----------------------------------------------------------


def test_a_small_shop_has_scores_and_stages_but_no_forecast() -> None:
    lines = [bought(f"p{n}", "a", day, 2.0) for n in range(20) for day in (40, 20, n)]
    known = compute_customers(log(*lines), SHOP)
    assert known.summary["model"] is None
    assert known.summary["backtest"] is None
    one = documents(known)["u:p3"]
    assert (one["clv"], one["churn_risk"], one["next_purchase_at"]) == (None, None, None)
    assert one["stage"] == "active"
    assert one["rfm"]["monetary"] == {"amount": "6.00", "currency": "EUR"}
    assert one["rfm"]["order_value"] == {"amount": "2.00", "currency": "EUR"}
    assert 10 < one["purchase_interval_days"] < 20


def test_one_customer_who_bought_once() -> None:
    one = documents(compute_customers(log(bought("p", "a", 0)), SHOP))["u:p"]
    assert one["stage"] == "new"
    assert one["rfm"]["monetary"] is None
    assert one["rfm"]["score"] == "333"
    assert one["purchase_interval_days"] == 30.0


def test_without_prices_there_is_no_value_but_a_risk(shop: Purchases) -> None:
    events = visits().with_columns(pl.lit(None, pl.Float64).alias("unit_price"))
    known = compute_customers(events, SHOP)
    one: dict[str, Any] = documents(known)["u:p001"]
    assert (one["clv"], one["rfm"]["monetary"]) == (None, None)
    assert 0 < one["churn_risk"] < 1
    assert known.summary["median_clv"] is None
    assert known.summary["model"]["gamma_gamma"] is None
    assert known.summary["backtest"]["spend"] is None


def test_prices_without_a_currency_are_in_none() -> None:
    lines = [bought("p", "a", 0, 3.0, currency=None)]
    one = documents(compute_customers(log(*lines), SHOP))["u:p"]
    assert one["rfm"]["monetary"] == {"amount": "3.00", "currency": "XXX"}


def test_nobody_bought_anything() -> None:
    seen = {"type": "view", "user_id": "p", "item_id": "a", "timestamp": NOW}
    for events in (log(), log(seen)):
        known = compute_customers(events, SHOP)
        assert known.frame.is_empty()
        assert known.frame.columns == ["person", "computed"]
        assert known.summary == {"n_people": 0}


def test_everything_given_back() -> None:
    events = log(bought("p", "a", 3), bought("p", "a", 1, type="refund", timestamp=ago(1)))
    assert compute_customers(events, SHOP).frame.is_empty()
