"""What the marketers' rules cost: in a request, when they are published, when an item changes.

    .venv/bin/python -m tests.benchmarks.rules [--items 100000]

A made-up shop with factors of 64 dimensions and customers who bought 256 different items; of up to
1,000 live rules of all kinds 50 are on the placement that is asked for, and 20 of them act. Prints
one JSON document: microseconds of processor time of one request (the best of many rounds: a busy
neighbour can only add time), milliseconds for the rest.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from time import thread_time  # noqa: E402
from typing import Any  # noqa: E402

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import orjson  # noqa: E402

from feature_store.artifact import ArtifactWriter, ModelArtifact  # noqa: E402
from feature_store.catalogue import Catalogue  # noqa: E402
from feature_store.conditions import Scope  # noqa: E402
from feature_store.preferences import NO_PREFERENCES  # noqa: E402
from feature_store.signals import FEATURES  # noqa: E402
from feature_store.state import UserState  # noqa: E402
from recsvc.engine import recommend  # noqa: E402
from recsvc.requests import RecommendationRequest  # noqa: E402
from recsvc.retrieval import JoinedModel  # noqa: E402
from recsvc.rules import CheckedRule, CompiledRules, compile_rules, parse_rule  # noqa: E402
from recsvc.snapshot import Snapshot  # noqa: E402
from tests.recsvc.shop import (  # noqa: E402
    DAY_S,
    DEFAULT_WEIGHTS,
    NOW_S,
    bought,
    item_ids,
    make_catalogue,
)

N_FACTORS, N_INDEXED, N_NEAR = 64, 4_000, 20
N_HISTORY, N_CUSTOMERS = 256, 16
N_RULES, N_ON_PLACEMENT, N_ACTING = 1_000, 50, 20
N_BRANDS, N_DEPARTMENTS, N_KINDS = 400, 20, 20
ROUNDS = 40


def make_artifact(models_dir: Path, n_items: int) -> ModelArtifact:
    """Write a model of random factors; the first items are the most popular ones."""
    rng = np.random.default_rng(1)
    lengths = (1 + np.arange(n_items)) ** -0.25
    factors = rng.normal(0, 0.3, (n_items, N_FACTORS)) * lengths[:, None]
    factors = factors.astype(np.float32)
    popularity = 1 / np.arange(1, n_items + 1)
    popularity /= popularity.sum()
    near = rng.integers(0, n_items, (n_items, N_NEAR))
    scores = np.broadcast_to(np.linspace(1, 0.2, N_NEAR), near.shape)
    arrays = {
        "item_factors": factors,
        "gram": factors.T @ factors,
        "popularity": popularity,
        "popularity_recent": rng.permutation(popularity),
        "trending": rng.permutation(popularity),
        "together_rows": near,
        "together_scores": scores,
        "similar_rows": near,
        "similar_scores": scores,
        "repeat_rate": np.full(n_items, 0.3),
        "repeat_interval_s": np.full(n_items, 14.0 * DAY_S),
        "first_seen_s": NOW_S - DAY_S * rng.integers(1, 900, n_items),
    }
    with ArtifactWriter(models_dir, datetime.now(UTC)) as writer:
        for name, values in arrays.items():
            writer.array(name, values)
        writer.item_ids(item_ids(n_items))
        index = faiss.IndexFlatIP(N_FACTORS)
        index.add(factors[:N_INDEXED])
        writer.index(lambda path: faiss.write_index(index, path))
        writer.manifest |= {
            "config": {"alpha": 1.0, "regularization": 0.1},
            "index": {"form": "flat", "nprobe": 0, "n_indexed": min(N_INDEXED, n_items)},
            "blend": {"features": list(FEATURES), "weights": {"home": list(DEFAULT_WEIGHTS)}},
        }
        return writer.publish()


def make_items(n_items: int) -> Catalogue:
    """Return items with brands, categories, prices and attributes."""
    rng = np.random.default_rng(2)
    brands = [f"b{number}" for number in rng.integers(0, N_BRANDS, n_items)]
    departments = rng.integers(0, N_DEPARTMENTS, n_items)
    kinds = rng.integers(0, N_KINDS, n_items)
    colors, sizes = rng.integers(0, 12, n_items), rng.integers(30, 50, n_items)
    return make_catalogue(
        item_ids(n_items),
        brand=brands,
        categories=[[f"D{a} > K{b}"] for a, b in zip(departments, kinds, strict=True)],
        price=rng.uniform(1, 100, n_items).round(2).tolist(),
        attributes=[
            orjson.dumps({"color": f"c{a}", "size": b, "sku": str(at)}).decode()
            for at, (a, b) in enumerate(zip(colors.tolist(), sizes.tolist(), strict=True))
        ],
    )


def _target(number: int) -> dict[str, Any]:
    leaves = (
        {"field": "item.brand", "op": "eq", "value": f"b{number % N_BRANDS}"},
        {"field": "item.categories", "op": "under", "value": f"D{number % N_DEPARTMENTS}"},
        {"field": "item.attributes.color", "op": "eq", "value": f"c{number % 12}"},
        {"field": "item.price", "op": "between", "value": [number % 50, number % 50 + 3]},
        {"field": "item.attributes.size", "op": "gt", "value": 30 + number % 20},
    )
    one, other = leaves[number % 5], leaves[(number // 5) % 5]
    kind = {"field": "item.categories", "op": "contains", "value": f"D1 > K{number % N_KINDS}"}
    return {"all": [one, {"any": [other, kind]}]}


def _action(number: int, n_items: int) -> dict[str, Any]:
    kind = ("boost", "exclude", "boost", "bury", "boost", "exclude", "pin", "slot", "boost", "cap")[
        number % 10
    ]
    if kind == "pin":
        names = item_ids(n_items)[number % 1_000 : number % 1_000 + 3]
        return {"type": "pin", "item_ids": names, "positions": [1 + number % 3, 8]}
    if kind == "cap":
        return {"type": "cap", "by": "brand", "max": 3 + number % 3}
    target = _target(number)
    if kind == "slot":
        return {"type": "slot", "target": target, "positions": [4 + number % 3]}
    if kind == "exclude":
        # An exclude that hides half a shop is rare.
        brand = {"field": "item.brand", "op": "eq", "value": f"b{number % N_BRANDS}"}
        return {"type": "exclude", "target": {"all": [brand, target]}}
    return {"type": kind, "target": target, "weight": 0.5 if kind == "bury" else 1.5}


_HERE = {"field": "context.channel", "op": "eq", "value": "web"}
_AUDIENCES = (
    _HERE,
    {"all": [_HERE, {"field": "user.loyalty.tier", "op": "in", "value": ["gold", "silver"]}]},
    {"any": [{"field": "segment", "op": "eq", "value": "vip"}, _HERE]},
    {"not": {"field": "context.country", "op": "eq", "value": "FR"}},
)
_OTHERS = (
    {"field": "context.channel", "op": "eq", "value": "store"},
    {"field": "segment", "op": "eq", "value": "lapsed"},
    {"field": "user.loyalty.points", "op": "gt", "value": 9_999},
)
SCOPE = Scope(
    {"loyalty": {"tier": "gold", "points": 20}},
    frozenset({"vip", "new"}),
    {"channel": "web", "country": "DE"},
    (),
    NOW_S,
)


def make_rules(n_rules: int, n_items: int) -> list[CheckedRule]:
    """Return rules, the first 50 on ``home``; the first 20 of these act in `SCOPE`."""
    found = []
    for number in range(n_rules):
        here = number < N_ON_PLACEMENT
        audiences = _AUDIENCES if number < N_ACTING else _OTHERS
        found.append(
            parse_rule(
                {
                    "rule_id": f"r{number:04}",
                    "revision": 1,
                    "status": "live",
                    "placements": ["home"] if here else [f"p{number % 19}"],
                    "priority": number % 7,
                    "when": audiences[number % len(audiences)],
                    "action": _action(number, n_items),
                }
            )
        )
    return found


def make_customers(n_items: int) -> list[UserState]:
    """Return people who bought 256 different items, popular ones more often."""
    rng = np.random.default_rng(3)
    states = []
    for _ in range(N_CUSTOMERS):
        rows = np.unique((n_items * rng.random(4 * N_HISTORY) ** 3).astype(int))[:N_HISTORY]
        states.append(bought(*((row, int(rng.integers(1, 300))) for row in rows.tolist())))
    return states


class Shop:
    """A shop whose lists can be timed under any rules."""

    def __init__(self, folder: Path, n_items: int) -> None:
        self.n_items = n_items
        self.catalogue = make_items(n_items)
        self.model = JoinedModel(make_artifact(folder, n_items), self.catalogue)
        self.model.warm_up()
        self.customers = make_customers(n_items)

    def asking(self, rules: CompiledRules) -> Callable[[UserState], float]:
        """Return a function that asks for one customer, and says how long that took."""
        snapshot = Snapshot(self.catalogue, self.model, rules=rules)
        request = RecommendationRequest(limit=20, context=SCOPE.context)

        def ask(state: UserState) -> float:
            began_s = thread_time()
            recommend(snapshot, state, NO_PREFERENCES, request, NOW_S, scope=SCOPE)
            return thread_time() - began_s

        return ask

    def request_us(self, compiled: Sequence[CompiledRules], rounds: int = ROUNDS) -> list[float]:
        """Return the microseconds of one request under each set of rules.

        They are measured in turn; the best time of each customer counts, then the mean.
        """
        asks = [self.asking(rules) for rules in compiled]
        best = np.full((len(asks), len(self.customers)), np.inf)
        for _ in range(rounds):
            for at, state in enumerate(self.customers):
                for place, ask in enumerate(asks):
                    best[place, at] = min(best[place, at], ask(state))
        found: list[float] = (1e6 * best.mean(axis=1)).tolist()
        return found


def measure(n_items: int) -> dict[str, Any]:
    """Return what rules cost in a shop of so many items."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder), n_items)
    counts = (0, 10, 20, N_ON_PLACEMENT, 100, 300, N_RULES)
    rules = make_rules(N_RULES, n_items)
    compiled, compile_ms = [], []
    for count in counts:
        began_s = thread_time()
        compiled.append(compile_rules(rules[:count], shop.catalogue))
        compile_ms.append(1e3 * (thread_time() - began_s))
    took_us = shop.request_us(compiled)
    began_s = thread_time()
    compile_rules(rules[:-1], shop.catalogue, compiled[-1])
    one_more_ms = 1e3 * (thread_time() - began_s)
    sets_us = []
    for _ in range(ROUNDS):
        last = compiled[-1]
        fresh = CompiledRules(last.book, last.catalogue, last.targets, last.table)
        fresh.active("home", SCOPE, NOW_S)  # what all sets share is there
        other = replace(SCOPE, user={"loyalty": {"tier": "bronze"}})
        began_s = thread_time()
        fresh.active("home", other, NOW_S)
        sets_us.append(1e6 * (thread_time() - began_s))
    changed = shop.catalogue.with_changes({5: {**shop.catalogue.columns_at(5), "brand": "b7"}})  # type: ignore[dict-item]
    began_s = thread_time()
    compiled[-1].with_changes(changed, [5])
    change_ms = 1e3 * (thread_time() - began_s)
    return {
        "n_items": n_items,
        "growth": [
            {
                "rules": count,
                "request_us": round(us, 1),
                "share_of_request": round(1 - took_us[0] / us, 3),
                "compile_ms": round(ms, 1),
                "targets_mb": round(sum(one.nbytes for one in book.targets) / 1e6, 2),
            }
            for count, us, ms, book in zip(counts, took_us, compile_ms, compiled, strict=True)
        ],
        "publish_with_one_changed_ms": round(one_more_ms, 1),
        "first_request_of_an_audience_us": round(min(sets_us), 1),
        "item_changed_ms": round(change_ms, 2),
    }


def main() -> None:
    """Measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    found = measure(parser.parse_args().items)
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
