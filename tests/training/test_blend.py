import numpy as np
import pytest

from feature_store.signals import FEATURES
from feature_store.state import UserState
from tests.training.shop import habits, interactions_of
from training.blend import DEFAULT_WEIGHTS, collect, default_blend, fit_blend, shares_of
from training.config import TrainConfig
from training.dataset import Interactions
from training.people import states_of
from training.split import Split, split_at, window_start_ms

CONFIG = TrainConfig(min_blend_users=20)


def prepared() -> tuple[Interactions, Split, list[UserState], np.ndarray]:
    known = interactions_of(habits())
    split = split_at(known, window_start_ms(known, 28))
    rows = np.arange(len(known.item_ids), dtype=np.int32)
    positions = np.full(len(rows), -1, dtype=np.int32)
    positions[split.candidates] = np.arange(len(split.candidates), dtype=np.int32)
    return known, split, states_of(split.train, split.persons, rows), positions


class Planted:
    """Offers every item, with one feature that tells how good it is and noise in the others."""

    def __init__(self, split: Split, states: list[UserState], n_rows: int, column: int) -> None:
        self.n_rows = n_rows
        self.column = column
        self.wanted = {
            id(state): split.candidates[truth]
            for state, truth in zip(states, split.truths, strict=True)
        }

    def candidates(self, state: UserState, *, now_s: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(int(state.rows.sum()) + len(state.rows))
        features = rng.normal(size=(self.n_rows, len(FEATURES))).astype(np.float32)
        if self.column >= 0:
            features[self.wanted[id(state)], self.column] += 2.5
        return np.arange(self.n_rows, dtype=np.int32), features

    def recommend(self, state: UserState, *, k: int, now_s: int, new_only: bool) -> list[int]:
        raise NotImplementedError


@pytest.mark.parametrize("name", ["due", "category_affinity"])
def test_the_feature_that_tells_is_found(name: str) -> None:
    known, split, states, positions = prepared()
    planted = Planted(split, states, len(known.item_ids), FEATURES.index(name))
    blend = fit_blend(planted, split, states, positions, CONFIG)
    weights = dict(zip(FEATURES, blend.weights, strict=True))
    assert blend.fitted
    others = [abs(weight) for other, weight in weights.items() if other != name]
    assert weights[name] > 3 * max(others)
    assert blend.shares is not None
    assert sum(blend.shares) == pytest.approx(1, abs=1e-3)
    assert max(blend.shares) == blend.shares[FEATURES.index(name)]
    samples = collect(planted, split, states, positions, np.arange(len(states)))
    start = samples.ndcg(np.array(default_blend().weights), CONFIG.k, CONFIG.new_share)
    assert blend.ndcg is not None
    assert blend.ndcg > start + 0.3


def test_learned_weights_are_the_same_every_time() -> None:
    known, split, states, positions = prepared()
    planted = Planted(split, states, len(known.item_ids), 3)
    first = fit_blend(planted, split, states, positions, CONFIG)
    assert fit_blend(planted, split, states, positions, CONFIG) == first


def test_few_people_teach_nothing() -> None:
    known, split, states, positions = prepared()
    planted = Planted(split, states, len(known.item_ids), 3)
    blend = fit_blend(planted, split, states, positions, TrainConfig(min_blend_users=1_000))
    assert not blend.fitted
    assert blend.weights == [DEFAULT_WEIGHTS[name] for name in FEATURES]


def test_candidates_that_nobody_ever_bought_are_left_out() -> None:
    known, split, states, positions = prepared()
    planted = Planted(split, states, len(known.item_ids), 3)
    positions = positions.copy()
    positions[:5] = -1
    samples = collect(planted, split, states, positions, np.arange(4))
    per_user = np.bincount(samples.user)
    assert (per_user == (positions >= 0).sum()).all()
    assert samples.n_truth.tolist() == [len(truth) for truth in split.truths[:4]]


def test_the_best_are_ranked_by_score_then_by_place() -> None:
    known, split, states, positions = prepared()
    planted = Planted(split, states, len(known.item_ids), 3)
    samples = collect(planted, split, states, positions, np.arange(3))
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, len(samples.user)).astype(np.float32)
    for new_only in (False, True):
        top = samples.ranked(scores, new_only=new_only, k=7)
        for user in range(3):
            mine = np.flatnonzero((samples.user == user) & ~(samples.seen & new_only))
            expected = mine[np.argsort(-scores[mine], kind="stable")][:7]
            assert top[user].tolist() == expected.tolist()


def test_every_feature_has_a_default_weight() -> None:
    assert list(DEFAULT_WEIGHTS) == list(FEATURES)


def test_shares_are_weights_times_spreads() -> None:
    features = np.array([[0.0, 0.0, 5.0], [2.0, 8.0, 5.0]], dtype=np.float32)
    assert shares_of(np.array([2.0, -0.5, 9.0]), features) == [0.5, 0.5, 0.0]
    assert shares_of(np.zeros(3), features) is None
