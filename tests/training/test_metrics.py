import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from training import metrics


def hits(*rows: str) -> metrics.Hits:
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_known_answers() -> None:
    marks = hits("x.x.", "....", "xxxx")
    n_truth = np.array([3, 2, 9])
    best3 = 1 + 1 / math.log2(3) + 1 / 2
    expected = [(1 + 1 / 2) / best3, 0.0, 1.0]
    assert metrics.ndcg_at_k(marks, n_truth) == pytest.approx(expected)
    assert metrics.recall_at_k(marks, n_truth) == pytest.approx([2 / 3, 0, 4 / 9])
    assert metrics.hit_rate_at_k(marks).tolist() == [1, 0, 1]


def test_hits_count_a_repeated_item_once_and_nothing_for_a_gap() -> None:
    lists = np.array([[4, 2, 4, -1], [-1, 0, 1, 2]])
    found = metrics.hits_of(lists, [np.array([4, 1]), np.array([1])], 5)
    assert found.tolist() == [[True, False, False, False], [False, False, True, False]]


def test_coverage_and_novelty() -> None:
    lists = np.array([[0, 1], [1, -1]])
    assert metrics.coverage(lists, 8) == 0.25
    # An item of everybody says nothing, one of every fourth 2 bits.
    assert metrics.novelty(lists, np.array([1.0, 0.25])) == pytest.approx(4 / 3)
    assert metrics.novelty(np.full((2, 3), -1), np.array([1.0])) == 0


MARKS = npst.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 12)))


@given(MARKS, st.data())
def test_laws_of_ndcg(marks: metrics.Hits, data: st.DataObject) -> None:
    n_hits = marks.sum(axis=1)
    more = data.draw(npst.arrays(np.int64, len(marks), elements=st.integers(0, 5)))
    n_truth = np.maximum(n_hits + more, 1)
    ndcg = metrics.ndcg_at_k(marks, n_truth)
    assert ((ndcg >= 0) & (ndcg <= 1 + 1e-12)).all()
    assert ((ndcg > 0) == (n_hits > 0)).all()
    # All hits first is the best order of the same hits.
    assert (metrics.ndcg_at_k(~np.sort(~marks, axis=1), n_truth) >= ndcg - 1e-12).all()
    perfect = np.arange(marks.shape[1])[None, :] < n_truth[:, None]
    assert metrics.ndcg_at_k(perfect, n_truth) == pytest.approx(np.ones(len(marks)))
    assert (metrics.recall_at_k(marks, n_truth) <= 1).all()


@given(npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)), st.integers(0, 2**31))
def test_laws_of_the_bootstrap(values: metrics.F64, seed: int) -> None:
    low, high = metrics.bootstrap_ci(values, 200, seed)
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12
    assert metrics.bootstrap_ci(values, 200, seed) == (low, high)


def test_bootstrap_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = metrics.bootstrap_ci(values, 2_000, 7)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)
    assert metrics.bootstrap_ci(np.zeros(0), 10, 0) == (0.0, 0.0)
