import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.errors import UserError
from feature_store.registry import ModelRegistry
from recsvc.recommender import EngineRecommender
from tests.training.shop import END_MS, NOW, Line, as_events, fill_log, habits
from training.config import TrainConfig
from training.run import STAGES, TrainResult, evaluate_events, train

CONFIG = TrainConfig(n_factors=8, n_bootstrap=200, min_blend_users=20, n_threads=1)


def run(folder: Path, config: TrainConfig = CONFIG, **options: object) -> TrainResult:
    return train(folder, config, EngineRecommender, now=NOW, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    fill_log(folder, habits())
    return folder


def test_a_whole_run(tmp_path: Path) -> None:
    fill_log(tmp_path, habits())
    heard: list[tuple[str, float]] = []
    result = run(tmp_path, progress=lambda stage, share: heard.append((stage, share)))
    assert result.published
    assert result.gate.decision == "accepted"
    assert result.evaluation is not None
    registry = ModelRegistry(tmp_path / "models")
    assert registry.current() == result.version
    artifact = registry.load(result.version)
    assert artifact.n_items == 120
    manifest = artifact.manifest
    assert manifest == result.manifest
    assert manifest["train"]["n_people"] == 160
    assert manifest["train"]["last_event_at"] == "2023-11-14T22:13:20Z"
    assert manifest["blend"]["fitted"]
    assert manifest["gate"]["decision"] == "accepted"
    assert manifest["evaluation"]["rows"][-1]["model"] == "served"
    assert manifest["index"]["recall_at_100"] >= 0.95
    assert json.loads(json.dumps(manifest)) == manifest
    # Nothing but the model is left of the trials.
    assert {path.name for path in registry.models_dir.iterdir()} == {
        ".lock", "registry.json", result.version
    }  # fmt: skip
    stages = list(dict.fromkeys(stage for stage, _ in heard))
    assert stages == list(STAGES)
    for stage in stages:
        shares = [share for name, share in heard if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def test_what_is_learned_makes_sense(shop: Path) -> None:
    artifact = ModelRegistry(shop / "models").load(run(shop).version)
    arrays, ids = artifact.arrays, artifact.item_ids.to_pylist()
    assert ids == sorted(ids)
    assert arrays["popularity"].sum() == pytest.approx(1, abs=1e-4)
    assert arrays["popularity_recent"].sum() == pytest.approx(1, abs=1e-4)
    # Items number n belong to the taste n mod 4: so do the neighbours of what is bought much.
    taste = np.arange(len(ids)) % 4
    much = np.argsort(-arrays["popularity"])[:20]
    for name in ("together_rows", "similar_rows"):
        near = arrays[name][much, :5]
        assert (taste[near] == taste[much][:, None]).mean() > 0.9
    interval_days = arrays["repeat_interval_s"] / 86_400
    assert 5 < np.median(interval_days) < 20
    assert ((arrays["repeat_rate"] > 0) & (arrays["repeat_rate"] < 1)).all()
    assert arrays["first_seen_s"].min() >= END_MS // 1_000 - 120 * 86_400
    assert arrays["gram"] == pytest.approx(
        arrays["item_factors"].T @ arrays["item_factors"], rel=1e-4, abs=1e-4
    )


def test_no_person_is_in_a_model(shop: Path) -> None:
    artifact = ModelRegistry(shop / "models").load(run(shop).version)
    for file in artifact.path.iterdir():
        assert not re.search(rb"u:p\d|p\d\d\d", file.read_bytes()), file.name


def test_the_same_events_make_the_same_model(shop: Path) -> None:
    registry = ModelRegistry(shop / "models")
    first, second = (registry.load(run(shop).version) for _ in range(2))
    assert first.version != second.version
    for name, values in first.arrays.items():
        assert np.array_equal(values, second.arrays[name]), name
    assert first.manifest["blend"] == second.manifest["blend"]
    assert first.manifest["evaluation"] == second.manifest["evaluation"]


def test_a_part_of_the_events(shop: Path) -> None:
    middle = NOW.fromtimestamp(END_MS / 1_000 - 60 * 86_400, NOW.tzinfo)
    later = run(shop, start=middle, publish=False)
    assert not later.published
    assert "promote" in later.reason
    assert later.manifest["train"]["first_event_at"] >= "2023-09-15"  # type: ignore[index]
    earlier = run(shop, end=middle, publish=False)
    assert earlier.manifest["train"]["last_event_at"] < "2023-09-16"  # type: ignore[index]
    versions = ModelRegistry(shop / "models").versions()
    assert {later.version, earlier.version} <= set(versions)


def test_an_empty_shop_has_a_model_from_the_start(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.published
    assert result.evaluation is None
    assert result.gate.decision == "insufficient evidence"
    assert "no purchases" in result.gate.reason
    artifact = ModelRegistry(tmp_path / "models").load(result.version)
    assert artifact.n_items == 0
    recommender = EngineRecommender(artifact, Catalogue.from_item_ids(["a", "b"]))
    from feature_store.state import EMPTY_STATE

    shown = recommender.recommend(EMPTY_STATE, k=5, now_s=END_MS // 1_000, new_only=False)
    assert sorted(shown) == [0, 1]


SMALL: dict[str, list[Line]] = {
    "one customer": [("p", f"i{day % 5}", float(day)) for day in range(60)],
    "one item": [(f"p{n}", "i", float(n)) for n in range(60)],
    "one purchase": [("p", "i", 0.0)],
    "one moment": [(f"p{n}", f"i{n % 3}", 0.0) for n in range(9)],
}


@pytest.mark.parametrize("name", SMALL)
def test_very_small_shops(tmp_path: Path, name: str) -> None:
    fill_log(tmp_path, SMALL[name])
    result = run(tmp_path, TrainConfig(n_factors=64))
    assert result.published
    assert result.gate.decision == "insufficient evidence"
    artifact = ModelRegistry(tmp_path / "models").load(result.version)
    assert np.isfinite(artifact.arrays["item_factors"]).all()
    assert artifact.manifest["blend"]["fitted"] is False


class Nonsense(EngineRecommender):
    """An engine that shows nobody anything that they want."""

    def recommend(self, *args: object, **options: object) -> list[int]:
        return []


def test_a_model_that_is_worse_than_popularity_does_not_serve(tmp_path: Path) -> None:
    fill_log(tmp_path, habits())
    good = run(tmp_path)
    bad = train(tmp_path, CONFIG, Nonsense, now=NOW + timedelta(hours=1))
    assert not bad.published
    assert not bad.gate.passed
    assert "refused by the gate" in bad.reason
    registry = ModelRegistry(tmp_path / "models")
    assert registry.current() == good.version
    assert registry.load(bad.version).manifest["gate"]["decision"] == "refused"


def test_publishing_waits_while_it_is_on_hold(tmp_path: Path) -> None:
    fill_log(tmp_path, SMALL["one item"])
    first = run(tmp_path)
    registry = ModelRegistry(tmp_path / "models")
    registry.set_hold(True, NOW)
    second = run(tmp_path)
    assert not second.published
    assert "hold" in second.reason
    assert registry.current() == first.version


def test_old_models_are_removed(tmp_path: Path) -> None:
    fill_log(tmp_path, SMALL["one purchase"])
    config = TrainConfig(n_factors=4, keep_models=2)
    versions = [
        train(tmp_path, config, EngineRecommender, now=NOW + timedelta(days=day)).version
        for day in range(4)
    ]
    assert ModelRegistry(tmp_path / "models").versions() == versions[-2:]


def test_evaluation_needs_somebody_to_test_on() -> None:
    with pytest.raises(UserError, match="nobody bought both"):
        evaluate_events(as_events([("p", "i", 0.0)]).lazy(), CONFIG, EngineRecommender)
    with pytest.raises(UserError, match="nobody bought both"):
        evaluate_events(as_events([]).lazy(), CONFIG, EngineRecommender)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_factors": 0},
        {"k": 0},
        {"k": 101},
        {"alpha": -1.0},
        {"test_days": 0.0},
        {"regularization": 0.0},
    ],
)
def test_settings_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        TrainConfig(**bad)  # type: ignore[arg-type]


_CHILD = """
import sys
from pathlib import Path
from recsvc.recommender import EngineRecommender
from tests.training.test_run import CONFIG
from tests.training.shop import NOW
from training.run import train
print("go", flush=True)
def tell(stage, share):
    print(stage, flush=True)
train(Path(sys.argv[1]), CONFIG, EngineRecommender, now=NOW, progress=tell)
"""


def kill_at(folder: Path, stage: str, delay_s: float) -> None:
    """Train in a process of its own and kill it when it has said a stage."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    assert any(line.strip() == stage for line in child.stdout)
    time.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    child.wait()


@pytest.mark.slow
def test_killed_at_any_moment_what_served_goes_on_serving(tmp_path: Path) -> None:
    fill_log(tmp_path, habits(60, 40, 80))
    before = run(tmp_path)
    registry = ModelRegistry(tmp_path / "models")
    for stage, delay_s in [(STAGES[4], 0.0), (STAGES[5], 0.0), (STAGES[5], 0.02)]:
        kill_at(tmp_path, stage, delay_s)
        current = registry.current()
        assert current is not None
        assert current == before.version or stage == STAGES[5]
        for version in registry.versions():
            assert isinstance(registry.load(version), ModelArtifact)
    # The next run removes what is left of the killed ones, and serves.
    after = run(tmp_path)
    assert registry.current() == after.version
    assert list(registry.models_dir.glob(".*.partial")) == []
