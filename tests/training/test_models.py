import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from feature_store.fold_in import FoldIn
from training.models.als import fit_item_factors, regularization_of
from training.models.popularity import fit_popularity
from training.models.repeat import DEFAULT_INTERVAL_S, fit_repeat
from training.models.similar import fit_similar
from training.models.together import fit_together, top_of

DAY_S = 86_400
F32 = np.float32


# --- ALS ----------------------------------------------------------------------------------------


def checkerboard(size: int = 20) -> sp.csr_matrix:
    """Even people have even items, odd ones odd items; everybody lacks one of theirs."""
    board = (np.add.outer(np.arange(size), np.arange(size)) % 2 == 0).astype(F32)
    np.fill_diagonal(board, 0)
    return sp.csr_matrix(board)


def factors_of(matrix: sp.csr_matrix, d: int = 4, alpha: float = 2.0, n: int = 12) -> np.ndarray:
    return fit_item_factors(
        matrix,
        n_factors=d,
        n_iterations=n,
        regularization=regularization_of(matrix, d),
        alpha=alpha,
        seed=3,
        n_threads=1,
    )


def test_als_completes_the_checkerboard() -> None:
    board = checkerboard()
    factors = factors_of(board)
    ridge = regularization_of(board, 4)
    fold_in = FoldIn(factors, factors.T @ factors, ridge, 2.0)
    for person in range(board.shape[0]):
        history = board[person].indices
        scores = factors @ fold_in.solve(history, np.ones(len(history), F32)).vector
        is_mine = np.arange(len(scores)) % 2 == person % 2
        assert scores[is_mine].min() > scores[~is_mine].max() + 0.3
        assert scores[person] > 0.5  # the one that is missing


def test_als_is_the_same_every_time_and_reports() -> None:
    heard: list[float] = []
    first = fit_item_factors(
        checkerboard(),
        n_factors=4,
        n_iterations=3,
        regularization=0.1,
        alpha=1.0,
        seed=9,
        n_threads=2,
        report=heard.append,
    )
    second = fit_item_factors(
        checkerboard(),
        n_factors=4,
        n_iterations=3,
        regularization=0.1,
        alpha=1.0,
        seed=9,
        n_threads=1,
    )
    assert np.allclose(first, second, atol=1e-5)
    assert heard == pytest.approx([1 / 3, 2 / 3, 1])
    assert first.dtype == F32
    assert first.flags.c_contiguous


def test_als_of_very_little() -> None:
    assert factors_of(sp.csr_matrix((0, 3), dtype=F32)).tolist() == [[0.0] * 4] * 3
    assert factors_of(sp.csr_matrix((0, 0), dtype=F32)).shape == (0, 4)
    one = factors_of(sp.csr_matrix(np.ones((1, 1), F32)), d=64)
    assert np.isfinite(one).all()


def test_regularization_means_the_same_for_every_size() -> None:
    small, large = checkerboard(10), checkerboard(40)
    assert regularization_of(large, 4) / regularization_of(small, 4) == pytest.approx(4, rel=0.1)
    assert regularization_of(small, 16) == pytest.approx(regularization_of(small, 4) / 2)
    assert regularization_of(sp.csr_matrix((1, 1), dtype=F32), 4) == 0.01


# --- popularity ---------------------------------------------------------------------------------


def popularity(rows: list[int], days: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    now_s = 1_700_000_000
    found = fit_popularity(
        np.array(rows, dtype=np.int32),
        np.array([now_s - round(day * DAY_S) for day in days]),
        n_items=3,
        now_s=now_s,
        half_life_days=100,
        recent_half_life_days=10,
    )
    return found.overall, found.recent, found.trending


def test_popularity_counts_and_fades() -> None:
    overall, recent, _ = popularity([0, 1, 1], [0, 100, 100])
    assert overall == pytest.approx([0.5, 0.5, 0])
    assert recent == pytest.approx([1 / (1 + 2**-9), 2**-9 / (1 + 2**-9), 0])


def test_what_grows_trends_and_what_is_steady_does_not() -> None:
    steady = [(0, float(day)) for day in range(200)]
    grown = [(1, float(day) / 5) for day in range(100)]
    rows, days = zip(*steady, *grown, strict=True)
    _, _, trending = popularity(list(rows), list(days))
    assert trending[1] > 1
    assert trending[0] == trending[2] == 0


def test_popularity_of_nothing() -> None:
    assert [values.tolist() for values in popularity([], [])] == [[0, 0, 0]] * 3


# --- repeat purchases ---------------------------------------------------------------------------


def purchases(*lines: tuple[int, int, float]) -> pl.DataFrame:
    """Return (person, row, day) as purchases."""
    return pl.DataFrame(
        [(person, row, round(day * DAY_S * 1_000)) for person, row, day in lines],
        schema={"person": pl.UInt32, "row": pl.Int32, "t_ms": pl.Int64},
        orient="row",
    )


def test_repeat_rates_and_intervals() -> None:
    lines = [(person, 0, 7.0 * visit) for person in range(3) for visit in range(3)]
    lines += [(0, 1, 0.0), (1, 1, 0.0), (1, 1, 0.2)]  # half a basket paid apart is no return
    found = fit_repeat(purchases(*lines), 3, prior=1.0)
    prior = (3 + 0.05) / (5 + 1)
    assert found.prior_rate == pytest.approx(prior)
    assert found.rate == pytest.approx([(3 + prior) / 4, prior / 3, prior])
    assert found.interval_s == pytest.approx([7 * DAY_S] * 3)
    assert ((found.rate > 0) & (found.rate < 1)).all()


def test_one_person_s_purchase_is_no_return_of_another() -> None:
    found = fit_repeat(purchases((1, 0, 0), (0, 0, 5), (2, 0, 9)), 1, prior=1.0)
    assert found.rate[0] < 0.05
    assert found.interval_s[0] == DEFAULT_INTERVAL_S


def test_repeat_of_nothing() -> None:
    found = fit_repeat(purchases(), 2, prior=10.0)
    assert found.rate == pytest.approx([0.05, 0.05])
    assert found.interval_s.tolist() == [DEFAULT_INTERVAL_S] * 2


# --- baskets ------------------------------------------------------------------------------------


def test_together_known_answers() -> None:
    baskets = np.array([1, 1, 2, 2, 2, 3, 3, 4, 9, 9, 10, 10])
    rows = np.array([0, 1, 0, 1, 1, 0, 2, 2, 1, 3, 0, 1])
    people = np.array([7, 7, 8, 8, 8, 7, 7, 7, 8, 8, 9, 9])
    found, scores = fit_together(baskets, rows, people, n_items=4, k=2, shrinkage=1.0)
    # Three people had 0 and 1; every other pair was one person's. A basket of one is no basket.
    assert found.tolist() == [[1, -1], [0, -1], [-1, -1], [-1, -1]]
    expected = 3 / np.sqrt((4 + 1) * (4 + 1))
    assert scores[:, 0] == pytest.approx([expected, expected, 0, 0])


@pytest.mark.parametrize("n_people", [1, 2, 3, 4])
def test_together_of_few_people_says_nothing(n_people: int) -> None:
    """However often they bought it: it would tell what one of them bought."""
    baskets = np.repeat(np.arange(40), 2)
    people = baskets % n_people
    found, _ = fit_together(baskets, np.tile([0, 1], 40), people, n_items=2, k=1, shrinkage=1.0)
    assert found.tolist() == ([[1], [0]] if n_people >= 3 else [[-1], [-1]])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=80, unique=True
    ),
    st.integers(1, 5),
)
def test_together_is_what_counting_finds(lines: list[tuple[int, int]], n_people: int) -> None:
    baskets, rows = np.array(lines).T
    found, scores = fit_together(baskets, rows, baskets % n_people, n_items=7, k=6, shrinkage=2.0)
    held = {basket: {row for one, row in lines if one == basket} for basket, _ in lines}
    held = {basket: items for basket, items in held.items() if len(items) > 1}
    n_held = [sum(row in items for items in held.values()) for row in range(7)]
    for row in range(7):
        expected = {}
        for other in set(range(7)) - {row}:
            both = [basket for basket, items in held.items() if {row, other} <= items]
            if len({basket % n_people for basket in both}) >= 3:
                product = (n_held[row] + 2) * (n_held[other] + 2)
                expected[other] = len(both) / np.sqrt(product)
        mine = {int(one): float(score) for one, score in zip(found[row], scores[row], strict=True)}
        mine.pop(-1, None)
        assert mine == pytest.approx(expected)


def test_together_keeps_the_best_and_ties_fall_by_row() -> None:
    baskets = np.repeat(np.arange(4), 4)
    rows = np.tile([3, 1, 2, 0], 4)
    found, scores = fit_together(baskets, rows, baskets, n_items=4, k=2, shrinkage=10.0)
    assert found.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert (scores > 0).all()


def test_together_of_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    found, scores = fit_together(none, none, none, n_items=2, k=3, shrinkage=1.0)
    assert found.tolist() == [[-1] * 3] * 2
    assert scores.sum() == 0
    assert fit_together(none, none, none, n_items=2, k=0, shrinkage=1.0)[0].shape == (2, 0)


@given(
    npst.arrays(F32, st.integers(0, 30), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    st.integers(1, 12),
)
def test_top_of_is_a_sort(values: np.ndarray, k: int) -> None:
    rows = np.random.default_rng(len(values)).permutation(len(values))
    expected = np.lexsort((rows, -values))[:k]
    assert top_of(values, rows, k).tolist() == expected.tolist()


# --- similar items ------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 10_000))
def test_similar_is_what_brute_force_finds(n_items: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_items, 3)).astype(F32)
    factors[rng.random(n_items) < 0.1] = 0
    buyers = rng.integers(0, 9, n_items)
    found, scores = fit_similar(factors, buyers, k=k, n_threads=2)
    lengths = np.linalg.norm(factors, axis=1)
    base = (buyers >= 3) & (lengths > 0)
    directions = factors / np.maximum(lengths, 1e-12)[:, None]
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    cosines[:, ~base] = -1
    expected = -np.sort(-cosines, axis=1)[:, :k]
    expected = np.pad(np.where(expected > 1e-6, expected, 0), ((0, 0), (0, k - expected.shape[1])))
    assert scores == pytest.approx(expected, abs=1e-5)
    for item in range(n_items):
        near = found[item][found[item] >= 0]
        assert len(set(near.tolist())) == len(near)
        assert item not in near
        assert base[near].all()


def test_similar_over_many_groups_and_blocks() -> None:
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(2_000, 8)).astype(F32)
    heard: list[float] = []
    found, scores = fit_similar(factors, np.full(2_000, 9), k=10, n_threads=2, report=heard.append)
    directions = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    assert scores == pytest.approx(-np.sort(-cosines, axis=1)[:, :10], abs=1e-5)
    assert np.take_along_axis(cosines, found, axis=1) == pytest.approx(scores, abs=1e-5)
    assert heard[-1] == 1.0


def test_similar_of_nothing() -> None:
    found, _ = fit_similar(np.zeros((0, 4), F32), np.zeros(0, np.int64), k=5, n_threads=1)
    assert found.shape == (0, 5)
    alone, _ = fit_similar(np.ones((1, 4), F32), np.ones(1, np.int64), k=2, n_threads=1)
    assert alone.tolist() == [[-1, -1]]
