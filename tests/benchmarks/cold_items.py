"""How well items are placed that the model has never seen, on the purchases of a data folder.

    .venv/bin/recsvc demo --no-serve --data-dir .recsvc
    .venv/bin/python -m tests.benchmarks.cold_items --data-dir .recsvc

Three protocols, all with the last 28 days as the test window and its people's lists of 20 (6 for
articles), ranked by the engine that serves:

held_out   tenths of the items are taken out of training with all their events; a list may hold
           only those, and what is wanted is what the person bought of them in the window.
first_sale items first sold in the window, which no training could know, and nothing else.
articles   made up for this test, one for each product category and of its name; wanted are the five
           categories of which the person buys most in the window.

Rows: `served` is the blend; `taste` the factors by content alone; `expected` the popularity that
content lets expect, the same list for all; `category` the mean popularity of the item's category;
`new` newest first (by the first sale, for want of a publication date); `hindsight` the true
popularity before the window, which nobody could know. Prints one JSON document.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import orjson  # noqa: E402
import polars as pl  # noqa: E402

from feature_store.catalogue import Catalogue  # noqa: E402
from feature_store.catalogue_files import CatalogueFiles  # noqa: E402
from feature_store.event_log import EventLog  # noqa: E402
from feature_store.item_columns import columns_of  # noqa: E402
from feature_store.preferences import NO_PREFERENCES  # noqa: E402
from feature_store.schema import Item, ItemId  # noqa: E402
from feature_store.state import UserState, hot_of  # noqa: E402
from recsvc.engine import recommend  # noqa: E402
from recsvc.ranking.cold_items import place_rows  # noqa: E402
from recsvc.ranking.filling import Elsewhere  # noqa: E402
from recsvc.recommender import EngineRecommender  # noqa: E402
from recsvc.requests import RecommendationRequest  # noqa: E402
from recsvc.snapshot import Snapshot  # noqa: E402
from training import metrics  # noqa: E402
from training.blend import default_blend  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.dataset import Interactions, read_interactions, with_unknown_items  # noqa: E402
from training.fit import fit  # noqa: E402
from training.items import read_content  # noqa: E402
from training.people import Folder, states_of  # noqa: E402
from training.progress import silent  # noqa: E402
from training.split import positions_of, window_start_ms  # noqa: E402
from training.workshop import Workshop  # noqa: E402

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
Lists = dict[str, npt.NDArray[np.int64]]

FOLDS = 3
ONE_IN = 10
WANTED_CATEGORIES = 5


@dataclass(frozen=True, slots=True, eq=False)
class Shop:
    """What is measured on."""

    events: Interactions
    catalogue: Catalogue
    rows: I32
    config: TrainConfig
    start_ms: int

    @property
    def now_s(self) -> int:
        return self.start_ms // 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A model that knows nothing of some items, the people, and what they wanted of those."""

    snapshot: Snapshot
    persons: U32
    states: list[UserState]
    vectors: F32
    truths: list[I32]
    cold: I32
    """Catalogue rows of the items, in the order of the truths' positions."""


def read_shop(data_dir: Path, config: TrainConfig) -> Shop:
    events = read_interactions(EventLog(data_dir).scan(None, None))
    catalogue = CatalogueFiles(data_dir / "catalogue").load().catalogue
    catalogue, rows = with_unknown_items(catalogue, events)
    return Shop(events, catalogue, rows, config, window_start_ms(events, config.test_days))


@contextmanager
def without(shop: Shop, held: U32) -> Iterator[Trial]:
    """Train without some items, and place those by their content."""
    codes = pl.Series(held, dtype=pl.UInt32).implode()
    before = shop.events.before(shop.start_ms)
    train = Interactions(
        before.frame.filter(~pl.col("item").is_in(codes)), before.persons, before.item_ids
    )
    known = train.frame["person"].unique().implode()
    wanted = shop.events.since(shop.start_ms).purchases.select("person", "item").unique()
    wanted = wanted.filter(pl.col("item").is_in(codes) & pl.col("person").is_in(known))
    persons = wanted["person"].unique().sort().to_numpy()
    states = states_of(train, persons, shop.rows)
    content = read_content(shop.catalogue, shop.rows)
    fitted = fit(train, shop.config, shop.start_ms, content=content, together=False, similar=False)
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        workshop = Workshop(
            shop.config, shop.catalogue, shop.rows, EngineRecommender, Path(folder), silent
        )
        index = workshop.index_of(fitted, train)
        with workshop.serving(fitted, index, default_blend().weights) as recommender:
            assert isinstance(recommender, EngineRecommender)
            model = recommender.snapshot.model
            model.cold = place_rows(model.arrays, shop.catalogue, np.sort(shop.rows[held]))
            yield Trial(
                recommender.snapshot,
                persons,
                states,
                Folder(fitted, shop.rows, shop.catalogue.n_rows).vectors(states),
                positions_of(wanted, persons, held),
                shop.rows[held],
            )


def rankings(trial: Trial, shop: Shop, static: dict[str, F64], k: int) -> Lists:
    """Return everybody's list by each way, as positions among the held-out items."""
    n_rows = shop.catalogue.n_rows
    position = np.full(n_rows, -1, dtype=np.int64)
    position[trial.cold] = np.arange(len(trial.cold))
    others = np.flatnonzero(position < 0)
    model = trial.snapshot.model
    at = model.cold.at(trial.cold)
    values = np.column_stack([model.cold.factors, model.cold.popularity])
    found = np.where((at >= 0)[:, None], values[at], np.float32(-99))
    lists = {name: np.tile(_top(scores, k), (len(trial.states), 1)) for name, scores in
             {"expected": found[:, -1].astype(np.float64), **static}.items()}  # fmt: skip
    taste = trial.vectors @ np.where((at >= 0)[:, None], found[:, :-1], 0).T
    lists["taste"] = np.stack([_top(scores, k) for scores in taste.astype(np.float64)])
    request = RecommendationRequest(limit=k)
    served = np.full((len(trial.states), k), -1, dtype=np.int64)
    for user, state in enumerate(trial.states):
        response = recommend(
            *(trial.snapshot, hot_of(state), NO_PREFERENCES, request, shop.now_s),
            elsewhere=Elsewhere(others),
        )
        rows = [chosen.row for chosen in response.chosen]
        served[user, : len(rows)] = position[rows]
    return {"served": served, **lists}


def _top(scores: F64, k: int) -> npt.NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")[:k]


def static_scores(trial: Trial, shop: Shop, held: U32) -> dict[str, F64]:
    """Return what needs no model of taste: one score for each held-out item."""
    codes = pl.Series(held, dtype=pl.UInt32).implode()
    mine = shop.events.frame.filter(pl.col("item").is_in(codes))
    first = mine.group_by("item").agg(pl.col("t_ms").min()).sort("item")["t_ms"].to_numpy()
    past = mine.filter(pl.col("t_ms") < shop.start_ms)
    age = (shop.start_ms - pl.col("t_ms")) / 86_400_000
    faded = past.select("item", weight=0.5 ** (age / shop.config.recent_half_life_days))
    totals = np.bincount(
        np.searchsorted(held, faded["item"].to_numpy()), faded["weight"], minlength=len(held)
    )
    model = trial.snapshot.model
    known = np.flatnonzero(model.model_rows >= 0)
    categories = model.category_codes
    size = int(categories.max(initial=0)) + 1
    sums = np.bincount(categories[known], model.recent[known], minlength=size)
    counts = np.bincount(categories[known], minlength=size)
    mean = (sums + model.recent[known].mean()) / (counts + 1)
    scores = {"new": first.astype(np.float64), "category": mean[categories[trial.cold]]}
    return scores | ({"hindsight": totals} if totals.any() else {})


def measured(found: list[tuple[Trial, Lists]], k: int, config: TrainConfig) -> list[dict[str, Any]]:
    """Return a row for each way; a person of several folds counts with the mean."""
    rows = []
    for name in found[0][1]:
        by_person: dict[int, list[tuple[float, float]]] = {}
        for trial, lists in found:
            n_truth = np.array([len(truth) for truth in trial.truths])
            hits = metrics.hits_of(lists[name], trial.truths, len(trial.cold))
            scores = zip(
                metrics.ndcg_at_k(hits, n_truth), metrics.recall_at_k(hits, n_truth), strict=True
            )
            for person, both in zip(trial.persons.tolist(), scores, strict=True):
                by_person.setdefault(person, []).append(both)
        means = np.array([np.mean(values, axis=0) for values in by_person.values()])
        low, high = metrics.bootstrap_ci(means[:, 0], config.n_bootstrap, config.seed)
        rows.append(
            {
                "model": name,
                f"ndcg@{k}": round(float(means[:, 0].mean()), 5),
                "ndcg_ci95": [round(low, 5), round(high, 5)],
                f"recall@{k}": round(float(means[:, 1].mean()), 5),
                "n_users": len(means),
            }
        )
    return rows


def evaluate(shop: Shop, folds: list[U32]) -> dict[str, Any]:
    found = []
    for held in folds:
        with without(shop, held) as trial:
            static = static_scores(trial, shop, held)
            found.append((trial, rankings(trial, shop, static, shop.config.k)))
    n_items = round(float(np.mean([len(held) for held in folds])))
    rows = measured(found, shop.config.k, shop.config)
    return {"n_items": n_items, "folds": len(folds), "rows": rows}


def held_out(shop: Shop) -> list[U32]:
    items = shop.events.before(shop.start_ms).frame["item"].unique().sort().to_numpy()
    order = np.random.default_rng(shop.config.seed).permutation(len(items))
    return [np.sort(items[order[fold::ONE_IN]]) for fold in range(FOLDS)]


def first_sales(shop: Shop) -> list[U32]:
    first = shop.events.frame.group_by("item").agg(pl.col("t_ms").min())
    fresh = first.filter(pl.col("t_ms") >= shop.start_ms)
    return [fresh["item"].sort().to_numpy()]


def articles(shop: Shop) -> dict[str, Any]:
    """Make up an article about each category, and see who gets which."""
    nothing = np.zeros(0, dtype=np.uint32)
    paths = shop.catalogue.frame["categories"].list.first().str.split(" > ").list.head(2)
    names = paths.list.join(" > ")
    window = shop.events.since(shop.start_ms).purchases
    bought = window.select(
        "person", name=names.gather(shop.rows[window["item"].to_numpy()], null_on_oob=True)
    )
    past = shop.events.before(shop.start_ms).purchases
    sold = (
        names.gather(shop.rows[past["item"].to_numpy()], null_on_oob=True)
        .drop_nulls()
        .value_counts(sort=True)
    )
    topics = sold[names.name or "categories"].to_list()
    changes = [
        (shop.catalogue.n_rows + at, columns_of(Item(
            item_id=ItemId(f"article about {topic}"), kind="content", categories=[topic],
            title=f"All about {topic.rpartition(' > ')[2]}",
        ))) for at, topic in enumerate(topics)
    ]  # fmt: skip
    counts = bought.drop_nulls().group_by("person", "name").len()
    counts = counts.filter(pl.col("name").is_in(topics)).sort(
        "person", "len", "name", descending=[False, True, False]
    )
    wanted = counts.group_by("person", maintain_order=True).head(WANTED_CATEGORIES)
    with without(shop, nothing) as trial:
        catalogue = shop.catalogue.with_changes(changes)
        known = Snapshot(catalogue, trial.snapshot.model.with_catalogue(catalogue))
        train = shop.events.before(shop.start_ms)
        persons = wanted["person"].unique().sort()
        persons = persons.filter(persons.is_in(train.frame["person"].unique().implode()))
        wanted = wanted.filter(pl.col("person").is_in(persons.implode()))
        place = {topic: at for at, topic in enumerate(topics)}
        truths = [
            np.sort(np.array([place[name] for name in part["name"]], dtype=np.int32))
            for part in wanted.sort("person", maintain_order=True).partition_by("person")
        ]
        codes = persons.to_numpy()
        states = states_of(train, codes, shop.rows)
        rows = np.array([row for row, _ in changes], dtype=np.int32)
        own = Trial(known, codes, states, np.zeros((0, 0), np.float32), truths, rows)
        k = known.site.placements["content"].limit
        lists = {"served": _content_lists(own, shop, k)}
        lists["category"] = np.tile(np.arange(k), (len(states), 1))
        rng = np.random.default_rng(shop.config.seed)
        lists["chance"] = np.stack([rng.permutation(len(topics))[:k] for _ in states])
    measured_rows = measured([(own, lists)], k, shop.config)
    return {"n_items": len(topics), "made_up": True, "rows": measured_rows}


def _content_lists(trial: Trial, shop: Shop, k: int) -> npt.NDArray[np.int64]:
    request = RecommendationRequest(placement="content", limit=k)
    return np.array(
        [
            [
                chosen.row - int(trial.cold[0])
                for chosen in recommend(
                    trial.snapshot, hot_of(state), NO_PREFERENCES, request, shop.now_s
                ).chosen
            ]
            for state in trial.states
        ]
    )


PROTOCOLS: dict[str, Callable[[Shop], dict[str, Any]]] = {
    "held_out": lambda shop: evaluate(shop, held_out(shop)),
    "first_sale": lambda shop: evaluate(shop, first_sales(shop)),
    "articles": articles,
}


def main() -> None:
    """Measure, and print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--protocol", action="append", choices=sorted(PROTOCOLS))
    asked = parser.parse_args()
    shop = read_shop(asked.data_dir, TrainConfig())
    document = {name: PROTOCOLS[name](shop) for name in asked.protocol or PROTOCOLS}
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
