from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.signals import FEATURES
from feature_store.state import UserState
from recsvc.recommender import EngineRecommender
from tests.training.shop import Line, as_events, bare_catalogue, habits, interactions_of
from training.blend import DEFAULT_WEIGHTS
from training.config import TrainConfig
from training.evaluate import Evaluation, Subject, evaluate
from training.fit import fit
from training.gate import judge
from training.people import states_of
from training.progress import silent
from training.run import evaluate_events
from training.sources import by_own_history, by_score, by_vectors
from training.split import Split, split_at, window_start_ms
from training.workshop import Workshop

CONFIG = TrainConfig(n_factors=8, min_blend_users=20, n_bootstrap=200, k=4, n_threads=1)


def subject_of(lines: list[Line], recommender: Any = None) -> Subject:
    known = interactions_of(lines)
    split = split_at(known, window_start_ms(known, 28))
    rows = np.arange(len(known.item_ids), dtype=np.int32)
    fitted = fit(split.train, CONFIG, split.start_ms, similar=False)
    states = states_of(split.train, split.persons, rows)
    return Subject(split, fitted, states, rows, len(rows), recommender)


TINY: list[Line] = [
    # Before the window: A is bought three times, B and C twice, D once.
    ("p", "A", 60), ("p", "A", 50), ("p", "B", 60),
    ("q", "A", 60), ("q", "C", 60), ("q", "C", 50), ("r", "B", 60), ("r", "D", 60),
    # In the window.
    ("p", "C", 5), ("p", "B", 5), ("q", "A", 4), ("r", "D", 0), ("r", "C", 1),
]  # fmt: skip


def test_rankings_by_hand() -> None:
    subject = subject_of(TINY)
    split = subject.split
    assert [truth.tolist() for truth in split.truths] == [[1, 2], [0], [2, 3]]
    scores = np.array([3, 2, 2, 1], dtype=np.float32)
    # Ties by item id; the history is masked for `new`.
    everything = by_score(scores, split, 4, new_only=False)
    assert everything.tolist() == [[0, 1, 2, 3]] * 3
    new = by_score(scores, split, 4, new_only=True)
    assert new.tolist() == [[2, 3, -1, -1], [1, 3, -1, -1], [0, 2, -1, -1]]
    own = by_own_history(subject.states, subject.positions(), split, 4, new_only=False)
    assert own.tolist() == [[0, 1, 2, 3], [2, 0, 1, 3], [1, 3, 0, 2]]
    nothing_new = by_own_history(subject.states, subject.positions(), split, 4, new_only=True)
    assert nothing_new.tolist() == [[2, 3, -1, -1], [1, 3, -1, -1], [0, 2, -1, -1]]
    vectors = np.eye(3, dtype=np.float32)
    factors = np.array([[0, 1, 1], [0, 3, 1], [2, 1, 1], [0, 2, 1]], dtype=np.float32)
    ranked = by_vectors(vectors, factors, split, 3, new_only=False)
    assert ranked.tolist() == [[2, 0, 1], [1, 3, 0], [0, 1, 2]]
    assert by_vectors(vectors, factors, split, 9, new_only=True)[:, :3].tolist() == [
        [2, 3, -1], [1, 3, -1], [0, 2, -1]
    ]  # fmt: skip


def test_the_table_by_hand() -> None:
    result = evaluate(subject_of(TINY), CONFIG)
    gain = 1 / np.log2(np.arange(2, 6))
    best = np.cumsum(gain)
    row = result.row("repeat", "all")
    assert row is not None
    expected = [
        (gain[1] + gain[2]) / best[1],  # p: B second, C third of two wanted
        gain[1] / best[0],  # q: A second
        (gain[1] + gain[3]) / best[1],  # r: D second, C fourth
    ]
    assert result.ndcg["repeat", "all"] == pytest.approx(expected)
    assert row["ndcg"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert row["recall"] == row["hit_rate"] == 1.0
    assert row["coverage"] == 1.0
    assert row["n_users"] == 3
    low, high = row["ndcg_ci95"]
    assert min(expected) - 1e-5 <= low <= row["ndcg"] <= high <= max(expected) + 1e-5
    new = result.row("popularity", "new")
    assert new is not None
    assert new["n_users"] == 2  # q bought nothing new
    document = result.document
    assert (document["protocol"], document["k"], document["n_candidates"]) == ("temporal", 4, 4)
    assert [row["model"] for row in document["rows"][::2]] == [
        "popularity", "popularity_recent", "repeat", "together", "als"
    ]  # fmt: skip
    assert result.row("served", "all") is None


class Oracle:
    """Knows what everybody will buy; or the contrary."""

    def __init__(self, split: Split, states: list[UserState], *, right: bool = True) -> None:
        self.answers = {
            id(state): [int(row) for row in split.candidates[truth]]
            for state, truth in zip(states, split.truths, strict=True)
        }
        self.right = right

    def candidates(self, state: UserState, *, now_s: int) -> tuple[Any, Any]:
        raise NotImplementedError

    def recommend(self, state: UserState, *, k: int, now_s: int, new_only: bool) -> list[int]:
        wanted = self.answers[id(state)]
        if new_only:
            wanted = [row for row in wanted if row not in state.rows]
        return wanted[:k] if self.right else []


def test_what_knows_the_future_scores_one_and_the_gate_judges_it() -> None:
    subject = subject_of(habits())
    results = {}
    for right in (True, False):
        oracle = Oracle(subject.split, subject.states, right=right)
        whole = Subject(
            subject.split,
            subject.fitted,
            subject.states,
            subject.catalogue_rows,
            subject.n_rows,
            oracle,
        )
        results[right] = evaluate(whole, CONFIG)
    for subset in ("all", "new"):
        served = results[True].row("served", subset)
        assert served is not None
        assert served["ndcg"] == served["hit_rate"] == 1.0
    accepted = judge(results[True], 1.0, 1, CONFIG)
    assert (accepted.decision, accepted.passed) == ("accepted", True)
    assert accepted.ndcg_difference_ci95 is not None
    assert accepted.ndcg_difference_ci95[0] > 0
    refused = judge(results[False], 1.0, 1, CONFIG)
    assert (refused.decision, refused.passed) == ("refused", False)
    assert "worse than popularity" in refused.reason
    few = judge(results[False], 1.0, 1, TrainConfig(min_gate_users=10_000))
    assert (few.decision, few.passed) == ("insufficient evidence", True)
    assert "people to test on" in few.reason
    assert judge(results[True], 0.94, 1, CONFIG).decision == "refused"
    assert judge(None, 1.0, 0, CONFIG).reason == "there are no purchases yet"
    assert judge(None, 1.0, 9, CONFIG).decision == "insufficient evidence"


def test_a_tie_with_popularity_passes_the_gate() -> None:
    same = np.full(200, 0.1)
    even = Evaluation({"rows": []}, {("served", "all"): same, ("popularity", "all"): same})
    assert judge(even, 1.0, 1, CONFIG).decision == "accepted"
    noise = np.random.default_rng(0).normal(-0.001, 0.1, 200)
    close = Evaluation({"rows": []}, {("served", "all"): same + noise, ("popularity", "all"): same})
    assert judge(close, 1.0, 1, CONFIG).decision == "accepted"


def test_the_engine_beats_its_parts() -> None:
    events = as_events(habits()).lazy()
    result = evaluate_events(events, CONFIG, EngineRecommender)
    ndcg = {(row["model"], row["subset"]): row["ndcg"] for row in result.document["rows"]}
    assert ndcg["served", "all"] > 2 * ndcg["popularity", "all"]
    assert ndcg["served", "all"] > ndcg["als", "all"]
    assert ndcg["served", "all"] > ndcg["repeat", "all"] - 0.02
    assert ndcg["served", "new"] > 1.2 * ndcg["popularity", "new"]
    assert ndcg["als", "new"] > ndcg["repeat", "new"]


def test_breaking_one_source_makes_what_is_served_fall(tmp_path: Path) -> None:
    subject = subject_of(habits())
    weights = dict(DEFAULT_WEIGHTS)
    whole = served_with(subject, {}, weights, tmp_path)
    shuffled = np.random.default_rng(0).permutation(subject.fitted.item_factors)
    without_taste = served_with(subject, {"item_factors": shuffled}, weights, tmp_path)
    assert without_taste["new"] < 0.8 * whole["new"]
    recent = subject.fitted.arrays["popularity_recent"]
    misled = served_with(subject, {"popularity_recent": recent.max() - recent}, weights, tmp_path)
    assert misled["new"] < 0.8 * whole["new"]
    without_repeat = served_with(
        subject, {}, weights | {"frequency": 0.0, "purchase_rate": 0.0}, tmp_path
    )
    assert without_repeat["all"] < 0.9 * whole["all"]
    assert without_repeat["new"] == whole["new"]


def served_with(
    subject: Subject, changed: dict[str, Any], weights: dict[str, float], folder: Path
) -> dict[str, float]:
    """Return the NDCG of the engine by subset, with some arrays and weights replaced."""
    fitted = replace(subject.fitted, arrays={**subject.fitted.arrays, **changed})
    train = subject.split.train
    shop = Workshop(
        CONFIG, bare_catalogue(train), subject.catalogue_rows, EngineRecommender, folder, silent
    )
    index = shop.index_of(fitted, train)
    with shop.serving(fitted, index, [weights[name] for name in FEATURES]) as recommender:
        result = evaluate(shop.subject(subject.split, fitted, recommender), CONFIG)
    assert list(folder.iterdir()) == []
    rows = {subset: result.row("served", subset) for subset in ("all", "new")}
    return {subset: row["ndcg"] for subset, row in rows.items() if row}
