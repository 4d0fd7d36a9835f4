"""What following costs and brings, on the purchases of the demo.

    .venv/bin/recsvc demo --no-serve --data-dir .recsvc
    .venv/bin/python -m tests.benchmarks.follows --data-dir .recsvc

The test window is the last 28 days. Customers drawn at random follow categories (two steps of a
path), and their lists of 20 are made by the engine that serves, with all of their history before:

coming    the category furthest above everybody's share in their purchases of the window: somebody
          who knows what they will want
past      the same of their purchases before the window: somebody who likes what they bought
three     the three of those
foreign   one of which they never bought anything: what a list pays for a mere wish
stranger  as `coming`, but nothing else is known of them: neither a history nor an interest

Each with several weights of the first followed item, which fall off with several half-lives.
``ndcg`` counts what was bought in the window, ``ndcg_new`` what was never bought before, in lists
without what was; ``share`` is how much of the list is followed, ``seen`` in how many lists
anything is. Prints one JSON document.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402
from math import log  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import orjson  # noqa: E402

import recsvc.engine  # noqa: E402
from feature_store.preferences import NO_PREFERENCES, Preferences  # noqa: E402
from feature_store.registry import ModelRegistry  # noqa: E402
from feature_store.state import EMPTY_STATE, UserState, hot_of  # noqa: E402
from recsvc.customer.follows import Follows, lifts_of, read_follows  # noqa: E402
from recsvc.customer.named import Name, bits_of, covered  # noqa: E402
from recsvc.ranking.filling import NOWHERE, Elsewhere  # noqa: E402
from recsvc.recommender import EngineRecommender  # noqa: E402
from recsvc.requests import RecommendationRequest  # noqa: E402
from recsvc.snapshot import Snapshot  # noqa: E402
from tests.benchmarks.cold_items import Shop, read_shop  # noqa: E402
from training import metrics  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.evaluate import Subject  # noqa: E402
from training.fit import fit  # noqa: E402
from training.items import read_content  # noqa: E402
from training.progress import silent  # noqa: E402
from training.split import split_at  # noqa: E402
from training.workshop import Workshop  # noqa: E402

SETTINGS = (
    (1.0, 1.0), (1.5, 4.0), (2.0, 2.0), (2.0, 4.0), (2.0, 8.0), (3.0, 4.0), (4.0, 4.0), (8.0, 4.0),
    (2.0, 1e9), (4.0, 1e9),
)  # fmt: skip
"""Weight and half-life; with the last two there is no end to it."""
LEAST_PURCHASES = 2
MOST_FOLLOWED = 3


class Taste:
    """In which categories who buys how much, before the window and in it."""

    def __init__(self, shop: Shop) -> None:
        paths = shop.catalogue.frame["categories"].list.first().str.split(" > ").list.head(2)
        self._names = paths.list.join(" > ").to_list()
        # Items that only events have named stand beyond the frame.
        self._names += [None] * (shop.catalogue.n_rows - len(self._names))
        self._rows = shop.rows
        self.past = self._counts(shop.events.before(shop.start_ms))
        self.coming = self._counts(shop.events.since(shop.start_ms))
        self.everybody = sum(self.past.values(), Counter[str]())

    def _counts(self, events: Any) -> dict[int, Counter[str]]:
        found: dict[int, Counter[str]] = {}
        for person, item in events.purchases.select("person", "item").rows():
            name = self._names[int(self._rows[item])]
            if name:
                found.setdefault(person, Counter())[name] += 1
        return found

    def own(self, counts: Counter[str]) -> list[str]:
        """Return categories by how far the counts are above everybody, in log-likelihood."""
        total, every = counts.total(), self.everybody.total()
        gains = {
            name: count * log(count / total / (self.everybody[name] / every))
            for name, count in counts.items()
            if count >= LEAST_PURCHASES and self.everybody[name]
        }
        return sorted(gains, key=lambda name: (-gains[name], name))[:MOST_FOLLOWED]

    def foreign(self, person: int, rng: np.random.Generator) -> list[str]:
        """Return a category that sells, of which somebody bought nothing so far."""
        known = self.past.get(person, Counter())
        names = sorted(name for name in self.everybody if name not in known)
        return [str(rng.choice(names))] if names else []


def choices(taste: Taste, person: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Return what somebody follows in each case."""
    coming = taste.own(taste.coming.get(person, Counter()))
    past = taste.own(taste.past.get(person, Counter()))
    return {
        "coming": coming[:1],
        "past": past[:1],
        "three": past if len(past) == MOST_FOLLOWED else [],
        "foreign": taste.foreign(person, rng),
        "stranger": coming[:1],
    }


def list_of(
    snapshot: Snapshot,
    state: UserState,
    followed: Sequence[str],
    shop: Shop,
    elsewhere: Elsewhere = NOWHERE,
) -> npt.NDArray[np.int64]:
    preferences = Preferences(followed_categories=frozenset(followed)) if followed else None
    start = None
    if preferences is not None and state is EMPTY_STATE:
        start = snapshot.model.starts.of_context(None, preferences)
    response = recsvc.engine.recommend(
        snapshot,
        state,
        preferences or NO_PREFERENCES,
        RecommendationRequest(limit=shop.config.k),
        shop.now_s,
        start=start,
        elsewhere=elsewhere,
    )
    return np.array([chosen.row for chosen in response.chosen], dtype=np.int64)


def share_of(snapshot: Snapshot, rows: npt.NDArray[np.int64], names: list[str]) -> float:
    """Return the share of a list that is in some categories."""
    held = np.zeros(len(rows), dtype=bool)
    for name in names:
        held |= covered(bits_of(snapshot.catalogue, Name("category", name)), rows)
    return float(held.mean())


def measure(snapshot: Snapshot, subject: Subject, shop: Shop, people: int) -> list[dict[str, Any]]:
    """Return a row for each case and setting."""
    positions, split, config = subject.positions(), subject.split, shop.config
    rng = np.random.default_rng(config.seed)
    taste = Taste(shop)
    drawn = rng.choice(len(split.persons), min(people, len(split.persons)), replace=False)
    chosen = {at: choices(taste, int(split.persons[at]), rng) for at in drawn.tolist()}
    new_truths = split.new_truths()

    def score(lists: dict[int, npt.NDArray[np.int64]], truths: list[Any]) -> float:
        kept = [at for at in lists if len(truths[at])]
        ranked = np.full((len(kept), config.k), -1, dtype=np.int64)
        for place, at in enumerate(kept):
            ranked[place, : len(lists[at])] = positions[lists[at]]
        wanted = [truths[at] for at in kept]
        hits = metrics.hits_of(ranked, wanted, len(split.candidates))
        found = metrics.ndcg_at_k(hits, np.array([len(truth) for truth in wanted]))
        return round(float(found.mean()), 5)

    rows = []
    for case in next(iter(chosen.values())):
        asked = {at: names[case] for at, names in chosen.items() if names[case]}
        for weight, half_life in ((0.0, 0.0), *SETTINGS):
            logs = lifts_of(weight or 1.0, half_life or 1.0)

            def lifted(snapshot: Snapshot, said: Preferences, logs: Any = logs) -> Follows:
                return replace(read_follows(snapshot, said), logs=logs)

            setattr(recsvc.engine, "read_follows", lifted)  # noqa: B010
            lists, fresh, shares = {}, {}, []
            for at, names in asked.items():
                known = np.unique(subject.states[at].rows).astype(np.int64)
                state = EMPTY_STATE if case == "stranger" else hot_of(subject.states[at])
                used = names if weight else []
                lists[at] = list_of(snapshot, state, used, shop)
                fresh[at] = list_of(snapshot, state, used, shop, Elsewhere(known))
                shares.append(share_of(snapshot, lists[at], names))
            rows.append(
                {
                    "case": case,
                    "weight": weight,
                    "half_life": half_life,
                    "ndcg": score(lists, split.truths),
                    "ndcg_new": score(fresh, new_truths),
                    "share": round(float(np.mean(shares)), 4),
                    "most": round(float(np.max(shares)), 2),
                    "seen": round(float(np.mean(np.array(shares) > 0)), 3),
                    "people": len(asked),
                }
            )
    return rows


def evaluate(shop: Shop, weights: list[float], people: int) -> list[dict[str, Any]]:
    """Train on what was before the window, and measure every setting in it."""
    content = read_content(shop.catalogue, shop.rows)
    split = split_at(shop.events, shop.start_ms)
    fitted = fit(
        split.train, shop.config, split.start_ms, content=content, together=False, similar=False
    )
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        workshop = Workshop(
            shop.config, shop.catalogue, shop.rows, EngineRecommender, Path(folder), silent, content
        )
        index = workshop.index_of(fitted, split.train)
        with workshop.serving(fitted, index, weights) as recommender:
            assert isinstance(recommender, EngineRecommender)
            subject = workshop.subject(split, fitted, recommender)
            return measure(recommender.snapshot, subject, shop, people)


def main() -> None:
    """Measure, and print the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--people", type=int, default=500)
    asked = parser.parse_args()
    registry = ModelRegistry(asked.data_dir / "models")
    version = registry.current()
    if version is None:
        parser.error(f"{asked.data_dir} has no model: run `recsvc demo --no-serve` there first")
    weights = registry.load(version).manifest["blend"]["weights"]["home"]
    shop = read_shop(asked.data_dir, TrainConfig())
    document = {"model": version, "rows": evaluate(shop, weights, asked.people)}
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
