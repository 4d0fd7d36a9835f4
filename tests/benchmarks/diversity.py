"""What variety costs and what it gains, on the purchases of a data folder.

    .venv/bin/recsvc demo --no-serve --data-dir .recsvc
    .venv/bin/python -m tests.benchmarks.diversity --data-dir .recsvc

The last 28 days are the test window; the model knows only what was before it, the blend is that of
the published model. For each setting of a placement's `diversity`: NDCG@20 and recall@20 of the
`home` list, of all items and of those that the person had not bought before; how many different
items are shown to anybody (coverage); and the mean distance of two items of a list. Prints one JSON
document.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import orjson  # noqa: E402

from feature_store.preferences import NO_PREFERENCES  # noqa: E402
from feature_store.registry import ModelRegistry  # noqa: E402
from feature_store.state import hot_of  # noqa: E402
from recsvc.engine import recommend  # noqa: E402
from recsvc.merchandising.placements import BUILT_IN  # noqa: E402
from recsvc.merchandising.site import Site  # noqa: E402
from recsvc.ranking.diversity import intra_list_distance  # noqa: E402
from recsvc.ranking.filling import Elsewhere  # noqa: E402
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

SETTINGS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)


def measure(snapshot: Snapshot, subject: Subject, config: TrainConfig) -> list[dict[str, Any]]:
    """Return a row for each setting."""
    positions, split = subject.positions(), subject.split
    rows = []
    for setting in SETTINGS:
        home = replace(BUILT_IN["home"], diversity=setting)
        tuned = replace(snapshot, site=Site(placements={"home": home}))
        row: dict[str, Any] = {"diversity": setting}
        for name, new_only in (("all", False), ("new", True)):
            lists = [_list(tuned, state, config.k, split.start_ms // 1_000, new_only=new_only)
                     for state in subject.states]  # fmt: skip
            truths = split.new_truths() if new_only else split.truths
            kept = [at for at, truth in enumerate(truths) if len(truth)]
            ranked = np.full((len(kept), config.k), -1, dtype=np.int64)
            for place, at in enumerate(kept):
                ranked[place, : len(lists[at])] = positions[lists[at]]
            wanted = [truths[at] for at in kept]
            hits = metrics.hits_of(ranked, wanted, len(split.candidates))
            n_truth = np.array([len(truth) for truth in wanted])
            row[f"ndcg_{name}"] = round(float(metrics.ndcg_at_k(hits, n_truth).mean()), 5)
            row[f"recall_{name}"] = round(float(metrics.recall_at_k(hits, n_truth).mean()), 5)
            if not new_only:
                row["items_shown"] = len(set(np.concatenate(lists).tolist()))
                distances = [intra_list_distance(tuned, one) for one in lists]
                row["distance"] = round(float(np.mean(distances)), 5)
        rows.append(row)
    return rows


def _list(
    snapshot: Snapshot, state: Any, k: int, now_s: int, *, new_only: bool
) -> npt.NDArray[np.int64]:
    known = np.unique(state.rows).astype(np.int64) if new_only else None
    response = recommend(
        snapshot,
        hot_of(state),
        NO_PREFERENCES,
        RecommendationRequest(limit=k),
        now_s,
        elsewhere=Elsewhere(known),
    )
    return np.array([chosen.row for chosen in response.chosen], dtype=np.int64)


def evaluate(shop: Shop, weights: list[float]) -> list[dict[str, Any]]:
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
            return measure(recommender.snapshot, subject, shop.config)


def main() -> None:
    """Measure, and print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    asked = parser.parse_args()
    registry = ModelRegistry(asked.data_dir / "models")
    version = registry.current()
    if version is None:
        parser.error(f"{asked.data_dir} has no model: run `recsvc demo --no-serve` there first")
    weights = registry.load(version).manifest["blend"]["weights"]["home"]
    shop = read_shop(asked.data_dir, TrainConfig())
    document = {"model": version, "rows": evaluate(shop, weights)}
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
