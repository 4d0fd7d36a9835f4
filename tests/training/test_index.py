from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.index import augmented_factors, build_index, exact_edges, recall_of

F32 = npt.NDArray[np.float32]


def factors(n_items: int = 6_000, d: int = 8, *, long_tail: bool = False, seed: int = 0) -> F32:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_items, d)).astype(np.float32)
    if long_tail:
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        values *= (1.0 / (1.0 + np.arange(n_items)) ** 0.7)[:, None].astype(np.float32)
    return values


def built(values: F32, queries: F32, **changes: Any) -> Any:
    chosen = {"exact_below": 1_000, "min_recall": 0.95, "n_threads": 2} | changes
    return build_index(values, queries, **chosen)


def test_few_items_are_searched_exactly() -> None:
    values, queries = factors(50), factors(20, seed=1)
    index = built(values, queries)
    assert (index.manifest["form"], index.manifest["nprobe"]) == ("flat", 0)
    assert index.manifest["recall_at_100"] == 1.0
    expected = np.argsort(-(queries @ values.T), axis=1)[:, :5]
    assert index.search(queries, 5).tolist() == expected.tolist()


@pytest.mark.parametrize("long_tail", [False, True])
def test_many_items_are_found_well_enough(long_tail: bool) -> None:
    values, queries = factors(9_000, long_tail=long_tail), factors(60, seed=1)
    index = built(values, queries)
    said = index.manifest
    found = index.search(queries, 100)
    edges = exact_edges(values, queries, 100)
    assert said["recall_at_100"] >= 0.95
    assert recall_of(found, values, queries, edges) == pytest.approx(said["recall_at_100"])
    assert said["form"] in {entry["form"] for entry in said["tried"]}
    assert said["tried"][0]["form"] == "flat"
    assert said["query_us"] > 0


def test_no_form_is_good_enough_but_the_exact_one() -> None:
    index = built(factors(9_000), factors(30, seed=2), min_recall=1.0001 - 1e-4)
    assert index.manifest["recall_at_100"] == 1.0


def test_a_search_of_the_file_finds_the_same(tmp_path: Path) -> None:
    values, queries = factors(5_000, long_tail=True), factors(9, seed=3)
    index = built(values, queries)
    index.save(str(tmp_path / "index.faiss"))
    again = faiss.read_index(str(tmp_path / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    if index.manifest["augmented"]:
        queries = np.hstack([queries, np.zeros((len(queries), 1), dtype=np.float32)])
    if index.manifest["nprobe"]:
        faiss.ParameterSpace().set_index_parameter(again, "nprobe", index.manifest["nprobe"])
    assert again.search(queries, 20)[1].tolist() == index.search(queries[:, :8], 20).tolist()


def test_people_without_a_vector_are_not_asked_for() -> None:
    values, queries = factors(40), factors(6, seed=1)
    queries[::2] = 0
    assert built(values, queries).manifest["n_queries"] == 3
    assert built(values, queries[::2]).manifest["recall_at_100"] == 1.0
    empty = built(np.zeros((0, 4), dtype=np.float32), np.zeros((0, 4), dtype=np.float32))
    assert empty.manifest["recall_at_100"] == 1.0
    assert empty.index.ntotal == 0


def test_recall_counts_what_is_as_good_as_the_exact_answer() -> None:
    values = np.array([[3.0], [2.0], [2.0], [1.0]], dtype=np.float32)
    queries = np.ones((1, 1), dtype=np.float32)
    edges = exact_edges(values, queries, 2)
    assert edges.tolist() == [2.0]

    def recall(*rows: int) -> float:
        return recall_of(np.array([rows]), values, queries, edges)

    assert recall(0, 1) == recall(2, 0) == 1.0
    assert recall(0, 3) == recall(0, -1) == 0.5
    assert recall(-1, -1) == 0.0


@settings(deadline=None)
@given(st.integers(0, 1_000))
def test_the_nearest_augmented_vector_has_the_greatest_product(seed: int) -> None:
    values, query = factors(30, 4, seed=seed), factors(1, 4, seed=seed + 1)
    longer = augmented_factors(values)
    lengths = np.linalg.norm(longer, axis=1)
    assert lengths == pytest.approx(np.full(30, lengths[0]), rel=1e-4)
    distances = np.linalg.norm(longer - np.append(query[0], 0), axis=1)
    products = values @ query[0]
    assert products[np.argmin(distances)] == pytest.approx(products.max(), rel=1e-4)
