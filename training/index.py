"""The search index over the item factors: the only file of training that knows FAISS.

Which form is right depends on the factors, so forms are tried and what is measured decides. The
inner product favours long vectors, and a shop's items differ in length by hundreds of times: on a
year of grocery purchases (64 factors) the 2,000 longest of 68,509 hold 95.5 % of the true best
hundred, the 4,000 longest 98.8 %, and what is served is as good with either (NDCG@20 .3629).
Looking at them all takes half as long as any inverted lists that find 95 %. So first come the
`head` forms: exact search among the longest vectors. Where lengths are alike inverted lists win,
on some factors by inner product, on others with the product turned into a distance by one more
coordinate (Bachrach et al., "Speeding Up the Xbox Recommender System Using a Euclidean
Transformation for Inner-Product Spaces", RecSys 2014).

What a searcher must know stands in the manifest: ``nprobe`` (0 for a flat index) and ``augmented``;
with ``augmented`` a query is the vector with a 0 appended, and results come by rising distance,
which is the order of falling inner product.
"""

import time
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

RECALL_AT = 100
HEAD_SIZES = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000)
HEAD_IS_CHEAP = 8_000
"""A head no larger than this is faster than inverted lists can be: they are not even built."""
NPROBES = (4, 8, 16, 32, 64, 96, 128, 192, 256)
_KMEANS_ROUNDS = 12
_TIMED_QUERIES = 200
_QUERY_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class BuiltIndex:
    """An index and what was measured about it.

    Parameters
    ----------
    index : faiss.Index
        Over the factors, row by row.
    manifest : dict
        ``form`` (``flat``, ``head``, ``ivf_ip``, ``ivf_l2``), ``n_indexed`` (items that can be
        found), ``nprobe``, ``augmented``, ``nlist``, ``recall_at_100``, ``query_us`` (one thread),
        ``n_queries``, ``tried``.
    """

    index: Any
    manifest: dict[str, Any]

    def save(self, path: str) -> None:
        """Write the index to a file."""
        faiss.write_index(self.index, path)

    def search(self, queries: F32, k: int) -> I64:
        """Return the rows nearest to each query, shape (q, k), best first; -1 where none."""
        return _search(self.index, queries, k, augmented=self.manifest["augmented"])


def build_index(
    item_factors: F32,
    queries: F32,
    *,
    exact_below: int,
    min_recall: float,
    n_threads: int,
) -> BuiltIndex:
    """Build the cheapest index that finds what exact search finds.

    Parameters
    ----------
    item_factors : ndarray of float32, shape (n, d)
        What is searched.
    queries : ndarray of float32, shape (q, d)
        Folded-in vectors of customers, short histories included. All-zero ones are passed over.
    exact_below : int
        With fewer items the index is flat.
    min_recall : float
        Least recall@100 against exact search; when no form has it, the index is flat.
    n_threads : int
        Threads that build; searching is timed on one, as it is served.
    """
    item_factors = np.ascontiguousarray(item_factors, dtype=np.float32)
    queries = queries[np.abs(queries).max(axis=1, initial=0.0) > 0]
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(n_threads)
        flat = faiss.IndexFlatIP(item_factors.shape[1])
        flat.add(item_factors)
        if len(item_factors) < exact_below or len(queries) == 0:
            faiss.omp_set_num_threads(1)
            return _as_built(flat, _flat_entry(flat, item_factors, queries), len(queries), [])
        faiss.omp_set_num_threads(1)
        edges = exact_edges(item_factors, queries, RECALL_AT)
        tried = [_flat_entry(flat, item_factors, queries)]
        head = _shortest_head(item_factors, queries, edges, min_recall, tried)
        if head is not None and head.ntotal <= HEAD_IS_CHEAP:
            return _as_built(head, tried[-1], len(queries), tried)
        faiss.omp_set_num_threads(n_threads)
        indexes = {form: _build_inverted(item_factors, form) for form in ("ivf_ip", "ivf_l2")}
        faiss.omp_set_num_threads(1)
        _try_inverted(indexes, item_factors, queries, edges, min_recall, tried)
        indexes |= {"flat": flat, "head": head}
        return _cheapest(indexes, len(queries), min_recall, tried)
    finally:
        faiss.omp_set_num_threads(before)


def _shortest_head(
    item_factors: F32, queries: F32, edges: F32, min_recall: float, tried: list[dict[str, Any]]
) -> Any:
    """Return an exact index of the fewest longest vectors that find enough, or ``None``."""
    longest_first = np.argsort(-np.square(item_factors).sum(axis=1), kind="stable")
    for size in HEAD_SIZES:
        if size >= len(item_factors):
            return None
        rows = np.ascontiguousarray(longest_first[:size], dtype=np.int64)
        index = faiss.IndexIDMap(faiss.IndexFlatIP(item_factors.shape[1]))
        index.add_with_ids(item_factors[rows], rows)
        tried.append(_entry("head", index, item_factors, queries, edges))
        if tried[-1]["recall_at_100"] >= min_recall:
            return index
    return None


def _try_inverted(
    indexes: dict[str, Any],
    item_factors: F32,
    queries: F32,
    edges: F32,
    min_recall: float,
    tried: list[dict[str, Any]],
) -> None:
    """Measure inverted lists, probing more and more of them until they find enough."""
    for form, index in indexes.items():
        for nprobe in NPROBES:
            index.nprobe = nprobe
            entry = _entry(form, index, item_factors, queries, edges)
            entry |= {"nprobe": nprobe, "nlist": int(index.nlist)}
            tried.append(entry)
            if entry["recall_at_100"] >= min_recall:
                break


def _cheapest(
    indexes: dict[str, Any], n_queries: int, min_recall: float, tried: list[dict[str, Any]]
) -> BuiltIndex:
    good = [entry for entry in tried if entry["recall_at_100"] >= min_recall]
    chosen = min(good, key=lambda entry: float(entry["query_us"]))
    index = indexes[chosen["form"]]
    if chosen["nprobe"]:
        index.nprobe = chosen["nprobe"]
    return _as_built(index, chosen, n_queries, tried)


def _as_built(
    index: Any, entry: dict[str, Any], n_queries: int, tried: list[dict[str, Any]]
) -> BuiltIndex:
    return BuiltIndex(index, {**entry, "n_queries": n_queries, "tried": tried})


def _flat_entry(flat: Any, item_factors: F32, queries: F32) -> dict[str, Any]:
    edges = exact_edges(item_factors, queries, RECALL_AT)
    return _entry("flat", flat, item_factors, queries, edges)


def _entry(form: str, index: Any, item_factors: F32, queries: F32, edges: F32) -> dict[str, Any]:
    """Measure an index as it is set."""
    augmented = form == "ivf_l2"
    found = _search(index, queries, RECALL_AT, augmented=augmented)
    return {
        "form": form,
        "n_indexed": int(index.ntotal),
        "nprobe": 0,
        "augmented": augmented,
        "nlist": 0,
        "recall_at_100": recall_of(found, item_factors, queries, edges),
        "query_us": _time_us(index, queries, augmented=augmented),
    }


def _build_inverted(item_factors: F32, form: str) -> Any:
    n_lists = 2 ** round(np.log2(2.0 * np.sqrt(len(item_factors))))
    if form == "ivf_ip":
        vectors, metric = item_factors, faiss.METRIC_INNER_PRODUCT
    else:
        vectors, metric = augmented_factors(item_factors), faiss.METRIC_L2
    width = vectors.shape[1]
    quantizer = faiss.IndexFlat(width, metric)
    index = faiss.IndexIVFFlat(quantizer, width, n_lists, metric)
    index.cp.niter = _KMEANS_ROUNDS
    index.train(vectors)
    index.add(vectors)
    return index


def augmented_factors(item_factors: F32) -> F32:
    """Add the coordinate that makes all vectors equally long.

    Then ``|q - y|^2 = |q|^2 + M^2 - 2 q.y`` for a query with 0 appended, so the nearest vector is
    the one with the greatest inner product.

    Parameters
    ----------
    item_factors : ndarray of float32, shape (n, d)
        Vectors.

    Returns
    -------
    ndarray of float32, shape (n, d + 1)
        With ``sqrt(max |y|^2 - |y|^2)`` appended.
    """
    squares = np.square(item_factors).sum(axis=1)
    extra = np.sqrt(np.maximum(squares.max(initial=0.0) - squares, 0.0))
    return np.ascontiguousarray(np.hstack([item_factors, extra[:, None]]), dtype=np.float32)


def exact_edges(item_factors: F32, queries: F32, k: int) -> F32:
    """Return the k-th best inner product of each query, shape (q,); the worst when n < k."""
    k = min(k, len(item_factors))
    edges = np.empty(len(queries), dtype=np.float32)
    for start in range(0, len(queries), _QUERY_BLOCK):
        scores = queries[start : start + _QUERY_BLOCK] @ item_factors.T
        place = scores.shape[1] - k
        edges[start : start + len(scores)] = np.partition(scores, place, axis=1)[:, place]
    return edges


def recall_of(found: I64, item_factors: F32, queries: F32, edges: F32) -> float:
    """Return how much of the exact best a search has found; 1 when there is nothing to find.

    Parameters
    ----------
    found : ndarray of int64, shape (q, k)
        Rows, -1 where a search came back short.
    item_factors, queries : ndarray of float32
        What was searched, and for what.
    edges : ndarray of float32, shape (q,)
        Result of `exact_edges`: whatever scores at least that is as good as the exact answer.
    """
    wanted = min(found.shape[1], len(item_factors))
    if len(queries) == 0 or wanted == 0:
        return 1.0
    scores = np.einsum("qkd,qd->qk", item_factors[np.maximum(found, 0)], queries)
    # Two ways to sum the same product differ in the last bits.
    slack = np.float32(1e-5) * np.maximum(np.abs(edges), np.float32(1e-6))
    hits = ((found >= 0) & (scores >= (edges - slack)[:, None])).sum(axis=1)
    return float(np.minimum(hits, wanted).mean() / wanted)


def _search(index: Any, queries: F32, k: int, *, augmented: bool) -> I64:
    if augmented:
        queries = np.hstack([queries, np.zeros((len(queries), 1), dtype=np.float32)])
    _, rows = index.search(np.ascontiguousarray(queries), min(k, max(index.ntotal, 1)))
    result: I64 = rows
    return result


def _time_us(index: Any, queries: F32, *, augmented: bool) -> float:
    """Return the median microseconds of one query, asked one at a time as in serving."""
    if len(queries) == 0:
        return 0.0
    taken = []
    for query in queries[:_TIMED_QUERIES]:
        start = time.perf_counter()
        _search(index, query[None, :], RECALL_AT, augmented=augmented)
        taken.append(time.perf_counter() - start)
    return round(float(np.median(taken)) * 1e6, 1)
