"""Features, the folded-in vector and search, beside the formulas of their documentation."""

from math import exp, log
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.fold_in import DISLIKE_WEIGHT, FoldIn
from feature_store.schema import PURCHASE_CODE
from feature_store.signals import FEATURES
from feature_store.state import EMPTY_STATE, UserState, fold
from recsvc.ranking.features import LEAST_SCORE, personal_features
from recsvc.ranking.history import read_history
from recsvc.ranking.query import Query
from recsvc.retrieval import MATRIX_ROWS, Index
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import DAY_S, N_ALL, N_MODEL, NOW_S, write_artifact

PURCHASES = st.lists(
    # Some of them are ahead of the clock.
    st.tuples(st.integers(0, N_ALL - 1), st.integers(-DAY_S, 900 * DAY_S)), min_size=1, max_size=80
)  # fmt: skip


def state_of(purchases: list[tuple[int, int]]) -> UserState:
    rows, ages_s = zip(*purchases, strict=True)
    types = np.full(len(rows), PURCHASE_CODE, dtype=np.uint8)
    times_s = (NOW_S - np.array(ages_s)).astype(np.uint32)
    return fold(EMPTY_STATE, np.array(rows, dtype=np.uint32), types, times_s)


def half(age_days: float, half_life_days: float) -> float:
    return exp(-log(2) * age_days / half_life_days)


def expected_of(
    snapshot: Snapshot, state: UserState, vector: np.ndarray | None, row: int
) -> list[float]:
    """Compute the features of one item as ``personal_features`` documents them."""
    model, codes = snapshot.model, snapshot.model.category_codes
    at = int(model.model_rows[row])
    growth, popularity, odds, interval_s = model.constants[at].tolist()
    facts = {
        one: (int(n), max(NOW_S - int(last), 0), int(last) - int(first))
        for one, n, last, first in zip(
            state.rows.tolist(), state.counts, state.last_s, state.first_s, strict=True
        )
    }
    if row in facts:
        n, age_s, span_s = facts[row]
        days = age_s / DAY_S
        ratio = max(age_s / ((span_s + 2 * interval_s) / (n + 1)), 1e-3)
        often, per_day = n * half(days, 90), (n + 0.5) / ((age_s + span_s) / DAY_S + 14)
        repeats = [odds, odds if n == 1 else 0, log(per_day), min(ratio, 1 / ratio)]
        return [1, log(1 + often), n * half(days, 15), *repeats, growth, 0, 0, 0]
    score = 0.0
    if vector is not None and at >= 0:
        score = max(float(model.arrays["item_factors"][at] @ vector), 0)
    weights = {one: log(n + 1) * half(age_s / DAY_S, 60) for one, (n, age_s, _) in facts.items()}
    inside = sum(weight for one, weight in weights.items() if codes[one] == codes[row])
    share = float(model.category_share[codes[row]])
    affinity = log((inside + 2 * share) / ((sum(weights.values()) + 2) * share))
    if codes[row] == 0:
        affinity = 0
    return [0.0] * 7 + [growth, popularity, log(score + float(LEAST_SCORE)), affinity]


@given(PURCHASES)
def test_features_are_what_is_documented(
    snapshot: Snapshot, purchases: list[tuple[int, int]]
) -> None:
    state = state_of(purchases)
    history = read_history(state, N_ALL, NOW_S)
    query = Query(snapshot, history, np.zeros(0, dtype=np.int32), NOW_S)
    rows, features = personal_features(snapshot, history, query.vector, np.arange(N_ALL))
    assert sorted(rows.tolist()) == list(range(N_ALL))
    assert rows[: len(state.rows)].tolist() == state.rows.tolist()
    expected = [expected_of(snapshot, state, query.vector, row) for row in rows.tolist()]
    assert features.shape == (len(FEATURES), N_ALL)
    assert pytest.approx(np.array(expected), rel=1e-4, abs=1e-4) == features.T
    # What was borrowed is clean again.
    assert not snapshot.scratch.by_category.any()
    assert not snapshot.scratch.marked.any()


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 3), st.integers(0, 3))
def test_a_vector_solves_the_normal_equations(
    seed: int, n_history: int, n_disliked: int, n_more: int
) -> None:
    rng = np.random.default_rng(seed)
    d, alpha, ridge = 8, 1.5, 0.3
    items = rng.normal(size=(100, d)).astype(np.float32)
    chosen = rng.permutation(100).astype(np.int32)
    known, disliked = chosen[:n_history], chosen[n_history : n_history + n_disliked]
    more = rng.normal(size=(n_more, d)).astype(np.float32)
    weights = rng.exponential(size=n_history + n_more).astype(np.float32)
    weights[rng.random(len(weights)) < 0.2] = 0
    found = FoldIn(items, items.T @ items, ridge, alpha).solve(known, weights, disliked, more)
    history = np.concatenate((items[known], more)).astype(np.float64)
    unwanted, confidence = items[disliked].astype(np.float64), alpha * weights.astype(np.float64)
    normal = items.T.astype(np.float64) @ items + ridge * np.eye(d)
    normal += history.T @ (history * confidence[:, None])
    normal += alpha * DISLIKE_WEIGHT * unwanted.T @ unwanted
    expected = np.linalg.solve(normal, (1 + confidence) @ history)
    assert found.vector == pytest.approx(expected, rel=1e-3, abs=1e-4)
    upper = np.triu(found.cholesky)
    assert upper.T @ upper == pytest.approx(normal, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("n_indexed", [40, 3_000, MATRIX_ROWS + 1])
@pytest.mark.parametrize("named", [False, True])
def test_exact_search_finds_the_nearest(tmp_path: Path, n_indexed: int, named: bool) -> None:
    rng = np.random.default_rng(n_indexed)
    vectors = rng.normal(size=(n_indexed, 8)).astype(np.float32)
    labels = rng.permutation(2 * n_indexed)[:n_indexed] if named else np.arange(n_indexed)
    index: faiss.Index = faiss.IndexFlatIP(8)
    if named:
        index = faiss.IndexIDMap(index)
        index.add_with_ids(vectors, labels)
    else:
        index.add(vectors)
    artifact = write_artifact(tmp_path, N_MODEL)
    faiss.write_index(index, str(artifact.index_path))
    artifact.manifest["index"]["n_indexed"] = n_indexed
    searched = Index(artifact)
    for query in rng.normal(size=(5, 8)).astype(np.float32):
        nearest = labels[np.argsort(-(vectors @ query))]
        for k in (1, 39, 40, 100):
            assert set(searched.search(query, k).tolist()) == set(nearest[:k].tolist())
