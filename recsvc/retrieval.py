"""A model joined to the catalogue, and the search for items near a customer's vector."""

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.errors import ArtifactError
from feature_store.fold_in import FoldIn
from feature_store.mapped import MappedArray
from feature_store.signals import FEATURES
from recsvc.customer.named import Bits, Name
from recsvc.merchandising.placements import BUILT_IN, PRODUCTS
from recsvc.ranking.cold_items import ColdItems, no_cold_items, place
from recsvc.ranking.join import Join
from recsvc.ranking.kinds import KindView, view_of
from recsvc.ranking.starts import Starts
from recsvc.ranking.topics import Topics, topics_of

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
_NO_ROWS: I32 = np.zeros(0, dtype=np.int32)

TOPIC_WEIGHTS = {"popularity_recent": 0.9, "category_affinity": 1.0, "collaborative": 0.3}
"""Weights in which content is ranked otherwise than products: by topic first (``Topics``)."""

STEADY = 2_000

# One thread: a request is shorter than the time it takes to wake a second one.
faiss.omp_set_num_threads(1)


@dataclass(frozen=True, slots=True)
class IndexForm:
    """How an index wants to be asked (``manifest["index"]``).

    Parameters
    ----------
    nprobe : int
        Inverted lists that are searched; 0 for a flat index.
    augmented : bool
        Whether vectors carry one more coordinate that turns inner product into distance (Bachrach
        et al., "Speeding Up the Xbox Recommender System", RecSys 2014); a query's is 0.
    """

    nprobe: int
    augmented: bool


MATRIX_ROWS = 32_000
"""So many vectors that are searched exactly are multiplied here rather than by FAISS."""


class Index:
    """An index over the item factors of a model.

    Exact search among few vectors is one product with a matrix that has a row for each factor:
    it takes less than half as long as FAISS, which multiplies item by item.

    Parameters
    ----------
    artifact : ModelArtifact
        The model; its manifest says what form the index has.

    Raises
    ------
    ArtifactError
        If FAISS cannot read the file, or it holds another number of items than the model.
    """

    def __init__(self, artifact: ModelArtifact) -> None:
        said: dict[str, Any] = artifact.manifest["index"]
        self.form = IndexForm(int(said.get("nprobe") or 0), bool(said.get("augmented")))
        try:
            self._index = faiss.read_index(str(artifact.index_path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ArtifactError(
                f"the index of model {artifact.version} is unreadable: {error}"
            ) from error
        n_indexed = int(said.get("n_indexed", artifact.n_items))
        if self._index.ntotal != n_indexed:
            raise ArtifactError(
                f"the index of model {artifact.version} holds {self._index.ntotal} items,"
                f" its manifest says {n_indexed}"
            )
        self._columns, self._labels = _as_matrix(self._index)
        self._local = threading.local()
        self._search_c: Any = getattr(self._index, "search_c")  # noqa: B009 (FAISS patches it in)
        if self.form.nprobe:
            faiss.ParameterSpace().set_index_parameter(self._index, "nprobe", self.form.nprobe)

    def search(self, vector: F32, k: int) -> npt.NDArray[np.int64]:
        """Return model rows near a vector, in any order.

        Parameters
        ----------
        vector : ndarray of float32, shape (d,)
            A customer's factors.
        k : int
            How many; fewer come back when the probed lists hold fewer.
        """
        if self._columns is not None:
            scores = vector @ self._columns
            if k >= len(scores):
                return self._labels
            return self._labels[np.argpartition(scores, -k)[-k:]]
        scratch = self._scratch(k)
        scratch.query[0, : len(vector)] = vector
        # The wrapper around this call costs a third of the search.
        self._search_c(1, *scratch.pointers)
        found: npt.NDArray[np.int64] = scratch.labels[0]
        return found.copy() if found[-1] >= 0 else found[found >= 0]

    def _scratch(self, k: int) -> "_SearchScratch":
        """Return the buffers of the calling thread; a coordinate of the augmented form stays 0."""
        try:
            buffers: dict[int, _SearchScratch] = self._local.buffers
        except AttributeError:
            buffers = self._local.buffers = {}
        known = buffers.get(k)
        if known is None:
            known = buffers[k] = _SearchScratch(self._index.d, k)
        return known


def _as_matrix(index: Any) -> tuple[F32 | None, npt.NDArray[np.int64]]:
    """Return the vectors of a small flat index as columns, and the model row of each.

    ``None`` instead if the index is of another form, or large.
    """
    labels = np.arange(index.ntotal)
    if isinstance(index, faiss.IndexIDMap):
        labels = faiss.vector_to_array(index.id_map)
        index = faiss.downcast_index(index.index)
    if not isinstance(index, faiss.IndexFlatIP) or not 0 < index.ntotal <= MATRIX_ROWS:
        return None, labels
    rows = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return np.ascontiguousarray(rows.reshape(index.ntotal, index.d).T), labels


class _SearchScratch:
    """Buffers of a search, and the pointers that FAISS takes."""

    def __init__(self, n_dims: int, k: int) -> None:
        self.query = np.zeros((1, n_dims), dtype=np.float32)
        self.distances = np.zeros((1, k), dtype=np.float32)
        self.labels = np.zeros((1, k), dtype=np.int64)
        pointer = faiss.swig_ptr
        self.pointers = (pointer(self.query), k, pointer(self.distances), pointer(self.labels))


class JoinedModel(Join):
    """A model whose rows are joined to catalogue rows; immutable.

    Parameters
    ----------
    artifact : ModelArtifact or None
        ``None`` for a shop that has no model yet: nothing is scored, lists are filled from the
        catalogue.
    catalogue : Catalogue
        What the model's item ids are looked up in.
    files : mapping of str to MappedArray, optional
        What another process has computed for the same two (``Join``).
    """

    def __init__(
        self,
        artifact: ModelArtifact | None,
        catalogue: Catalogue,
        files: Mapping[str, MappedArray] | None = None,
    ) -> None:
        super().__init__(artifact, catalogue, files)
        self.version = artifact.version if artifact else ""
        self.cold = self._placed(catalogue, None)
        self._views: dict[frozenset[str], KindView] = {}
        self._topics: dict[frozenset[str], Topics | None] = {}
        self._see(catalogue)
        self.index = Index(artifact) if artifact and self.n_items else None
        self.starts = Starts(artifact, catalogue, self.catalogue_rows)
        self.best: dict[Name, tuple[Bits, I32]] = {}
        """Most popular items of names, with the bits that they were read from (``follows``)."""
        self.fold_in = self._fold_in()
        self.weights: F32 = self._blend_weights()
        self.topic_weights: F32 = np.array(
            [
                TOPIC_WEIGHTS.get(name, weight)
                for name, weight in zip(FEATURES, self.weights.tolist(), strict=True)
            ],
            dtype=np.float32,
        )

    def _see(self, catalogue: Catalogue) -> None:
        """Take from the catalogue what scores depend on."""
        codes = getattr(self, "category_codes", None)
        self.category_codes = catalogue.category_codes
        self.department_codes = catalogue.department_codes
        if codes is not None and np.may_share_memory(codes, self.category_codes):
            return
        popularity = self.by_catalogue_row("popularity", 0.0)
        share = np.bincount(self.category_codes, popularity, minlength=1).astype(np.float32)
        self.category_share: F32 = share + np.float32(1e-6)
        """Share of all purchases that each category code has."""

    def _placed(self, catalogue: Catalogue, before: ColdItems | None) -> ColdItems:
        """Place by content what the model does not know."""
        if self.artifact is None or self.n_items == 0:
            return no_cold_items()
        return place(self.arrays, self._knowledge, catalogue, self.model_rows, before)

    def view(self, kinds: frozenset[str]) -> KindView:
        """Return how items of some kinds are searched."""
        known = self._views.get(kinds)
        if known is None:
            known = self._views[kinds] = view_of(
                kinds,
                self._catalogue,
                self.model_rows,
                self.arrays["item_factors"],
                self.cold,
                self.popular,
            )
        return known

    def topics(self, kinds: frozenset[str]) -> Topics | None:
        """Return what items of some kinds are about, if those are a minority, not products."""
        if kinds not in self._topics:
            every = self.view(kinds).every if self.n_items else _NO_ROWS
            self._topics[kinds] = (
                topics_of(self._catalogue, every, self.category_codes, self.category_share)
                if len(every) and kinds.isdisjoint(PRODUCTS)
                else None
            )
        return self._topics[kinds]

    @cached_property
    def steady(self) -> I32:
        """Catalogue rows by the geometric mean of recent and overall popularity, at most 2,000.

        What a stranger sees first. On six windows of four weeks of grocery purchases, everybody's
        first basket in each, it has an NDCG@20 of .0946, recent popularity .0934 and overall .0942,
        and it is never more than .0012 below the better of these two.
        """
        rows = self.popular[:STEADY]
        overall = self._values("popularity", rows.astype(np.int64))
        product = (self.recent[rows] + np.float32(1e-6)) * (overall + np.float32(1e-6))
        return rows[np.argsort(-product, kind="stable")]

    def placed(self, rows: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], F32]:
        """Return those of some catalogue rows that have a place among the factors, and the place.

        Returns
        -------
        rows : ndarray of int, shape (c,)
            Of items that the model knows, or that are placed by content.
        factors : ndarray of float32, shape (c, d)
            Their factors.
        """
        model_rows = self.model_rows[rows]
        is_known = model_rows >= 0
        if is_known.all() or len(self.cold.rows) == 0:
            rows = rows[is_known]
            return rows, self._factors_at(model_rows[is_known])
        at = self.cold.at(rows)
        kept = np.flatnonzero(is_known | (at >= 0))
        factors = self._factors_at(model_rows[kept])
        is_cold = ~is_known[kept]
        factors[is_cold] = self.cold.factors[at[kept[is_cold]]]
        return rows[kept], factors

    def _factors_at(self, model_rows: I32) -> F32:
        if self.n_items == 0:
            return np.zeros((len(model_rows), 0), dtype=np.float32)
        return self.arrays["item_factors"].take(model_rows, axis=0)

    def _fold_in(self) -> FoldIn | None:
        if self.artifact is None or self.n_items == 0:
            return None
        config = self.artifact.manifest["config"]
        return FoldIn(
            self.arrays["item_factors"],
            self.arrays["gram"],
            float(config["regularization"]),
            float(config["alpha"]),
        )

    def _blend_weights(self) -> F32:
        if self.artifact is None:
            return np.zeros(len(FEATURES), dtype=np.float32)
        blend = self.artifact.manifest["blend"]
        if tuple(blend["features"]) != FEATURES:
            raise ArtifactError(
                f"the model {self.version} was blended from other features than this program"
                " computes: train again"
            )
        return np.array(blend["weights"]["home"], dtype=np.float32)

    def with_catalogue(self, catalogue: Catalogue) -> "JoinedModel":
        """Return the same model joined to a catalogue that grew or changed.

        `catalogue` is this one's catalogue with changes: known rows keep their ids.
        """
        joined = copy.copy(self)
        joined.follow(catalogue)
        joined.__dict__.pop("steady", None)
        joined._see(catalogue)  # noqa: SLF001 (another instance of this class)
        if joined.catalogue_rows is not self.catalogue_rows or not np.may_share_memory(
            joined.category_codes, self.category_codes
        ):
            joined.starts = Starts(self.artifact, catalogue, joined.catalogue_rows)
        joined.cold = joined._placed(catalogue, self.cold)  # noqa: SLF001
        joined._views, joined._topics = {}, {}  # noqa: SLF001
        # Here, off the event loop, rather than in the first request.
        for kinds in list(self._views):
            joined.topics(kinds)
        return joined

    def rows_of(self, catalogue_rows: npt.NDArray[np.integer]) -> I32:
        """Return the model row of each catalogue row; -1 for items that the model does not know."""
        rows: I32 = self.model_rows.take(catalogue_rows)
        return rows

    def warm_up(self) -> None:
        """Compute what the first request would have to wait for."""
        _ = self.popular, self.trending, self.newest, self.by_popularity, self.norms, self.constants
        _ = self.steady
        if self.n_items:
            for placement in BUILT_IN.values():
                _ = self.view(placement.kinds), self.topics(placement.kinds)
