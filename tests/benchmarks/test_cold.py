"""Floors for what nobody has a history of, on the purchases of every fourth household."""

import polars as pl
import pytest

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.item_columns import as_catalogue_frame
from recsvc.demo import catalogue_of, data_folder
from tests.benchmarks import cold_starts
from tests.benchmarks.cold_items import Shop, evaluate, held_out
from tests.training.test_real_purchases import purchases
from training.config import TrainConfig
from training.dataset import read_interactions, with_unknown_items
from training.split import window_start_ms

ONE_IN = 4


@pytest.fixture(scope="module")
def shop() -> Shop:
    config = TrainConfig(n_bootstrap=200, n_factors=32, n_iterations=6)
    events = read_interactions(purchases(ONE_IN))
    items = catalogue_of(data_folder() / "products.parquet").select(
        pl.col("item_id").cast(pl.String), "title", "brand", pl.concat_list("categories")
    )
    frame = as_catalogue_frame(items)
    catalogue = Catalogue(frame, *hash_ids(frame["item_id"].to_list()))
    catalogue, rows = with_unknown_items(catalogue, events)
    return Shop(events, catalogue, rows, config, window_start_ms(events, config.test_days))


@pytest.mark.slow
def test_new_items_are_placed_better_than_by_date(shop: Shop) -> None:
    rows = evaluate(shop, held_out(shop)[:1])["rows"]
    ndcg = {row["model"]: row["ndcg@20"] for row in rows}
    low = {row["model"]: row["ndcg_ci95"][0] for row in rows}
    assert low["served"] > 3 * ndcg["new"]
    assert low["served"] > 0.004


@pytest.mark.slow
def test_strangers_and_those_who_name_something_start_better(shop: Shop) -> None:
    found = cold_starts.measure(shop, cold_starts.demographics())
    rows = {row["model"]: row for row in cold_starts.report(found, shop.config)}
    assert rows["popularity_recent"]["difference"] < 0
    assert rows["interests_own"]["difference"] > -0.002
    assert rows["start"]["ndcg@20"] > 0.07
