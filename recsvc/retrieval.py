"""A model joined to the catalogue, and the search for items near a customer's vector."""

import copy
import threading
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
from feature_store.signals import DAY_S, FEATURES
from recsvc.cold_items import ColdItems, arrival_s, knowledge_of, no_cold_items, place
from recsvc.kinds import KindView, view_of
from recsvc.placements import BUILT_IN, PRODUCTS
from recsvc.topics import Topics, topics_of

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
_NO_ROWS: I32 = np.zeros(0, dtype=np.int32)

TOPIC_WEIGHTS = {"popularity_recent": 0.9, "category_affinity": 1.0, "collaborative": 0.3}
"""Weights in which content is ranked otherwise than products: by topic first (``Topics``)."""

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


class Index:
    """A FAISS index over the item factors of a model.

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
        self._local = threading.local()
        self._search_c: Any = getattr(self._index, "search_c")  # noqa: B009 (FAISS patches it in)
        if self.form.nprobe:
            faiss.ParameterSpace().set_index_parameter(self._index, "nprobe", self.form.nprobe)

    def search(self, vector: F32, k: int) -> npt.NDArray[np.int64]:
        """Return model rows near a vector, best first.

        Parameters
        ----------
        vector : ndarray of float32, shape (d,)
            A customer's factors.
        k : int
            How many; fewer come back when the probed lists hold fewer.
        """
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


class _SearchScratch:
    """Buffers of a search, and the pointers that FAISS takes."""

    def __init__(self, n_dims: int, k: int) -> None:
        self.query = np.zeros((1, n_dims), dtype=np.float32)
        self.distances = np.zeros((1, k), dtype=np.float32)
        self.labels = np.zeros((1, k), dtype=np.int64)
        pointer = faiss.swig_ptr
        self.pointers = (pointer(self.query), k, pointer(self.distances), pointer(self.labels))


class JoinedModel:
    """A model whose rows are joined to catalogue rows; immutable.

    Parameters
    ----------
    artifact : ModelArtifact or None
        ``None`` for a shop that has no model yet: nothing is scored, lists are filled from the
        catalogue.
    catalogue : Catalogue
        What the model's item ids are looked up in.
    """

    def __init__(self, artifact: ModelArtifact | None, catalogue: Catalogue) -> None:
        self.artifact = artifact
        self.version = artifact.version if artifact else ""
        n_items = artifact.n_items if artifact else 0
        arrays = artifact.arrays if artifact else {}
        # A view without numpy's memmap class, which slows every indexing operation.
        self.arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self.n_items = n_items
        ids = artifact.item_ids.to_pylist() if artifact else []
        self.catalogue_rows: I32 = catalogue.rows(ids)
        self.model_rows: I32 = np.full(catalogue.n_rows, -1, dtype=np.int32)
        known = self.catalogue_rows >= 0
        self.model_rows[self.catalogue_rows[known]] = np.flatnonzero(known)
        self._knowledge = knowledge_of(artifact)
        self.cold = self._placed(catalogue, None)
        self._views: dict[frozenset[str], KindView] = {}
        self._topics: dict[frozenset[str], Topics | None] = {}
        self._see(catalogue)
        self.index = Index(artifact) if artifact and n_items else None
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
        self._catalogue = catalogue
        self.category_codes = catalogue.category_codes
        self.department_codes = catalogue.department_codes
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
        if (self.catalogue_rows < 0).any():
            return JoinedModel(self.artifact, catalogue)
        joined = copy.copy(self)
        n_new = catalogue.n_rows - len(self.model_rows)
        joined.model_rows = np.append(self.model_rows, np.full(n_new, -1, dtype=np.int32))
        joined.__dict__.pop("newest", None)
        joined.__dict__.pop("recent", None)
        new_rows = np.arange(len(self.model_rows), catalogue.n_rows, dtype=np.int32)
        joined.__dict__["by_popularity"] = np.append(self.by_popularity, new_rows)
        joined._see(catalogue)  # noqa: SLF001 (another instance of this class)
        joined.cold = joined._placed(catalogue, self.cold)  # noqa: SLF001
        joined._views, joined._topics = {}, {}  # noqa: SLF001
        # Here, off the event loop, rather than in the first request.
        for kinds in list(self._views):
            joined.topics(kinds)
        return joined

    def rows_of(self, catalogue_rows: npt.NDArray[np.integer]) -> I32:
        """Return the model row of each catalogue row; -1 for items that the model does not know."""
        rows: I32 = self.model_rows[catalogue_rows]
        return rows

    def lookup(self, name: str, model_rows: I32, default: float) -> F32:
        """Return an array's values at model rows, and `default` at unknown ones (-1)."""
        if self.n_items == 0:
            return np.full(len(model_rows), default, dtype=np.float32)
        values: F32 = self.arrays[name][model_rows]
        return np.where(model_rows >= 0, values, np.float32(default))

    @cached_property
    def constants(self) -> F32:
        """What features take from the model, shape (n_items + 1, 4).

        Columns: growth, log of recent popularity, logit of the repeat rate, repeat interval in
        seconds (``features.personal_features`` has the formulas). The last row, where -1
        points, is of an item that the model does not know.
        """
        result = np.zeros((self.n_items + 1, 4), dtype=np.float32)
        prior = self._prior()
        recent = np.append(self.arrays["popularity_recent"], 0) if self.n_items else np.zeros(1)
        overall = np.append(self.arrays["popularity"], 0) if self.n_items else np.zeros(1)
        rate = np.full(self.n_items + 1, prior[0])
        interval_s = np.full(self.n_items + 1, prior[1])
        if self.n_items:
            rate[:-1] = self.arrays["repeat_rate"]
            interval_s[:-1] = self.arrays["repeat_interval_s"]
        rate = np.clip(rate, 1e-4, 1 - 1e-4)
        result[:, 0] = np.log(recent + 1e-5) - np.log(overall + 1e-5)
        result[:, 1] = np.log(recent + 1e-6)
        result[:, 2] = np.log(rate / (1 - rate))
        result[:, 3] = np.maximum(interval_s, 3_600)
        return result

    def _prior(self) -> tuple[float, float]:
        """Return repeat rate and interval in seconds of an item of which nothing is known."""
        config = self.artifact.manifest["config"] if self.artifact else {}
        return (
            float(config.get("repeat_rate_prior", 0.1)),
            float(config.get("repeat_interval_prior_s", 30 * DAY_S)),
        )

    def warm_up(self) -> None:
        """Compute what the first request would have to wait for."""
        _ = self.popular, self.trending, self.newest, self.by_popularity, self.norms, self.constants
        if self.n_items:
            for placement in BUILT_IN.values():
                _ = self.view(placement.kinds), self.topics(placement.kinds)

    def by_catalogue_row(self, name: str, default: float) -> F32:
        """Return an array of shape (n_items,) as one of shape (n_rows,).

        Parameters
        ----------
        name : str
            A key of ``artifact.ARRAYS``.
        default : float
            Value of the rows that the model does not know.
        """
        result = np.full(len(self.model_rows), default, dtype=np.float32)
        known = self.catalogue_rows >= 0
        if self.n_items:
            result[self.catalogue_rows[known]] = self.arrays[name][known]
        return result

    def _order(self, name: str) -> I32:
        values = self.by_catalogue_row(name, 0.0)
        order = np.argsort(-values, kind="stable").astype(np.int32)
        return order[: int(np.count_nonzero(values > 0))]

    @cached_property
    def recent(self) -> F32:
        """Share of each catalogue row in what was bought lately, shape (n_rows,)."""
        return self.by_catalogue_row("popularity_recent", 0.0)

    @cached_property
    def popular(self) -> I32:
        """Catalogue rows that were bought lately, most bought first."""
        return self._order("popularity_recent")

    @cached_property
    def trending(self) -> I32:
        """Catalogue rows whose sales grow, fastest first."""
        return self._order("trending")

    @cached_property
    def newest(self) -> I32:
        """Catalogue rows by publication, or else by first purchase, newest first.

        What came after training is newer than all that was bought before; of such items the last
        one comes first.
        """
        since_s = np.zeros(len(self.model_rows), dtype=np.int64)
        known = self.catalogue_rows >= 0
        if self.n_items:
            since_s[self.catalogue_rows[known]] = self.arrays["first_seen_s"][known]
        arrived_s = arrival_s(self._catalogue, self._knowledge)
        said = (self._catalogue.published_s > 0) | (since_s == 0)
        since_s = np.where(said, arrived_s, since_s)
        rows = np.arange(len(since_s))
        order = np.lexsort((np.where(rows < self._knowledge.n_rows, rows, -rows), -since_s))
        return order.astype(np.int32)[: int(np.count_nonzero(since_s > 0))]

    @cached_property
    def norms(self) -> F32:
        """Lengths of the item factors, shape (n_items,); at least a little above 0."""
        if self.n_items == 0:
            return np.zeros(0, dtype=np.float32)
        lengths: F32 = np.linalg.norm(self.arrays["item_factors"], axis=1)
        return np.maximum(lengths, np.float32(1e-9))

    @cached_property
    def by_popularity(self) -> I32:
        """All catalogue rows: by recent, then by overall popularity, then by row."""
        recent = self.recent
        overall = self.by_catalogue_row("popularity", 0.0)
        return np.lexsort((-overall, -recent)).astype(np.int32)
