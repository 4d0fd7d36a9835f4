"""The items of a model among the rows of the catalogue, and all rows in the orders that lists need.

At a million items each of these arrays takes megabytes, so one worker computes them for a pair of
model and catalogue file, all of them map the files, and a change of the catalogue touches only the
rows that it changes.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.mapped import MappedArray
from feature_store.signals import DAY_S
from recsvc.ranking.cold_items import arrival_s, knowledge_of

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Keys = tuple[Array, ...]

SLACK_ROWS = 65_536
"""Rows by which the files can be outgrown before anything is copied."""
_ROOMY = ("model_rows", "recent", "by_popularity")
_PLAIN = ("catalogue_rows", "popular", "trending", "newest", "norms", "constants")


class Join:
    """A model's arrays by catalogue row.

    Parameters
    ----------
    artifact : ModelArtifact or None
        ``None`` for a shop that has no model yet.
    catalogue : Catalogue
        What the model's item ids are looked up in.
    files : mapping of str to MappedArray, optional
        What :meth:`shareable` of such a join has computed for the same artifact and catalogue.
    """

    def __init__(
        self,
        artifact: ModelArtifact | None,
        catalogue: Catalogue,
        files: Mapping[str, MappedArray] | None = None,
    ) -> None:
        self.artifact = artifact
        self.n_items = artifact.n_items if artifact else 0
        arrays = artifact.arrays if artifact else {}
        # A view without numpy's memmap class, which slows every indexing operation.
        self.arrays: dict[str, Array] = {
            name: np.asarray(array).view(np.ndarray) for name, array in arrays.items()
        }
        self._catalogue = catalogue
        self._knowledge = knowledge_of(artifact)
        self._room: dict[str, Array] = {}
        if files is None:
            self.catalogue_rows, self.model_rows = self._looked_up(catalogue)
            return
        shared = {name: file.shared() for name, file in files.items()}
        for name in _ROOMY:
            self._room[name] = shared[name]
            self.__dict__[name] = shared[name][: catalogue.n_rows]
        self.__dict__.update({name: shared[name] for name in _PLAIN})

    def _looked_up(self, catalogue: Catalogue) -> tuple[I32, I32]:
        rows = catalogue.rows(self._item_ids())
        model_rows = np.full(catalogue.n_rows, -1, dtype=np.int32)
        known = rows >= 0
        model_rows[rows[known]] = np.flatnonzero(known)
        return rows, model_rows

    def _item_ids(self) -> pl.Series:
        if self.artifact is None:
            return pl.Series(dtype=pl.String)
        ids = pl.from_arrow(self.artifact.item_ids)
        assert isinstance(ids, pl.Series)
        return ids

    def shareable(self) -> dict[str, Array]:
        """Return what another process need not compute again, with room to grow."""
        n_rows = len(self.model_rows)
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            **{
                name: _lengthened(getattr(self, name), name, n_rows + SLACK_ROWS) for name in _ROOMY
            },
        }

    # --- changes ------------------------------------------------------------------------------

    def follow(self, catalogue: Catalogue) -> None:
        """Take over changes of the catalogue, into arrays of this object only.

        `catalogue` is this one's catalogue with changes: known rows keep their ids. Call it on a
        copy; what others hold stays as it is.
        """
        changed = catalogue.changed_since(self._catalogue)
        n_before = len(self.model_rows)
        orders = {name: self.__dict__[name] for name in _ORDERS if name in self.__dict__}
        self._room = dict(self._room)
        for name in _ROOMY:
            if name in self.__dict__:
                room = self._room.get(name, self.__dict__[name])
                self._room[name] = _lengthened(room, name, catalogue.n_rows)
                self.__dict__[name] = self._room[name][: catalogue.n_rows]
        orders["by_popularity"] = self.__dict__.get("by_popularity")
        known = changed[changed < n_before]
        before = self._newest_keys(known)
        self._catalogue = catalogue
        found = self._found(changed)
        changed = np.union1d(_moved(known, before, self._newest_keys(known)), changed[len(known) :])
        for name, order in orders.items():
            rows = changed if name == "newest" else found
            if order is not None and len(rows):
                keys: Callable[[I64], Keys] = getattr(self, f"_{name}_keys")
                self.__dict__[name] = reordered(order, rows, keys, len(self.model_rows))
                self._room.pop(name, None)

    def _found(self, changed: I64) -> I64:
        """Join items of the model that had no row until now; return the rows that they have."""
        missing = np.flatnonzero(self.catalogue_rows < 0)
        if len(missing) == 0 or len(changed) == 0:
            return np.zeros(0, dtype=np.int64)
        ids = pl.Series([self._catalogue.item_id(row) for row in changed.tolist()])
        names = self._item_ids().gather(missing)
        at = np.flatnonzero(names.is_in(ids.implode()).to_numpy())
        if len(at) == 0:
            return np.zeros(0, dtype=np.int64)
        rows = self._catalogue.rows(names.gather(at).to_list())
        self.catalogue_rows = self.catalogue_rows.copy()
        self.catalogue_rows[missing[at]] = rows
        for name in ("model_rows", "recent"):
            if name in self.__dict__:
                self._room.pop(name, None)
                self.__dict__[name] = self.__dict__[name].copy()
        self.model_rows[rows] = missing[at]
        if "recent" in self.__dict__:
            self.recent[rows] = self.arrays["popularity_recent"][missing[at]]
        return np.sort(rows.astype(np.int64))

    # --- by row -------------------------------------------------------------------------------

    def lookup(self, name: str, model_rows: npt.NDArray[np.integer], default: float) -> F32:
        """Return an array's values at model rows, and `default` at unknown ones (-1)."""
        if self.n_items == 0:
            return np.full(len(model_rows), default, dtype=np.float32)
        values: F32 = self.arrays[name][model_rows]
        return np.where(model_rows >= 0, values, np.float32(default))

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

    def _values(self, name: str, rows: I64) -> F32:
        return self.lookup(name, self.model_rows[rows], 0.0)

    @cached_property
    def recent(self) -> F32:
        """Share of each catalogue row in what was bought lately, shape (n_rows,)."""
        return self.by_catalogue_row("popularity_recent", 0.0)

    # --- orders -------------------------------------------------------------------------------

    @cached_property
    def popular(self) -> I32:
        """Catalogue rows that were bought lately, most bought first."""
        return self._ordered(self._popular_keys)

    @cached_property
    def trending(self) -> I32:
        """Catalogue rows whose sales grow, fastest first."""
        return self._ordered(self._trending_keys)

    @cached_property
    def newest(self) -> I32:
        """Catalogue rows by publication, or else by first purchase, newest first.

        What came after training is newer than all that was bought before; of such items the last
        one comes first.
        """
        return self._ordered(self._newest_keys)

    @cached_property
    def by_popularity(self) -> I32:
        """All catalogue rows: by recent, then by overall popularity, then by row."""
        return self._ordered(self._by_popularity_keys)

    def _ordered(self, keys: Callable[[I64], Keys]) -> I32:
        rows = np.arange(len(self.model_rows), dtype=np.int64)
        return _sorted(rows, keys(rows)).astype(np.int32)

    # Each returns which rows have a place at all, and then what they are ordered by.

    def _popular_keys(self, rows: I64) -> Keys:
        recent = self._values("popularity_recent", rows)
        return recent > 0, -recent, rows

    def _trending_keys(self, rows: I64) -> Keys:
        trending = self._values("trending", rows)
        return trending > 0, -trending, rows

    def _by_popularity_keys(self, rows: I64) -> Keys:
        recent = self._values("popularity_recent", rows)
        return np.ones(len(rows), dtype=bool), -recent, -self._values("popularity", rows), rows

    def _newest_keys(self, rows: I64) -> Keys:
        first_s = np.zeros(len(rows), dtype=np.int64)
        known = self.model_rows[rows] >= 0
        if self.n_items:
            first_s[known] = self.arrays["first_seen_s"][self.model_rows[rows[known]]]
        said = (self._catalogue.published_s[rows] > 0) | (first_s == 0)
        since_s = np.where(said, arrival_s(self._catalogue, self._knowledge, rows), first_s)
        return since_s > 0, -since_s, np.where(rows < self._knowledge.n_rows, rows, -rows)

    # --- by model row -------------------------------------------------------------------------

    @cached_property
    def norms(self) -> F32:
        """Lengths of the item factors, shape (n_items,); at least a little above 0."""
        if self.n_items == 0:
            return np.zeros(0, dtype=np.float32)
        lengths: F32 = np.linalg.norm(self.arrays["item_factors"], axis=1)
        return np.maximum(lengths, np.float32(1e-9))

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


_ORDERS = ("popular", "trending", "newest")


def _lengthened(array: Array, name: str, n_rows: int) -> Array:
    """Return an array with room for so many rows; the same one if it has it."""
    if n_rows <= len(array):
        return array
    size = n_rows + n_rows // 16
    if name == "by_popularity":
        # A new item is the least popular; a later one even less.
        longer = np.arange(size, dtype=array.dtype)
    else:
        longer = np.full(size, -1 if name == "model_rows" else 0, dtype=array.dtype)
    longer[: len(array)] = array
    return longer


def _sorted(rows: I64, keys: Keys) -> I64:
    """Return the rows that have a place, in the order of their keys."""
    has_place, *columns = keys
    order = np.lexsort([column[has_place] for column in reversed(columns)])
    return rows[has_place][order]


def _moved(rows: I64, before: Keys, after: Keys) -> I64:
    """Return the rows whose keys are others than they were; most changes are of other things."""
    differ = np.zeros(len(rows), dtype=bool)
    for old, new in zip(before, after, strict=True):
        differ |= old != new
    return rows[differ]


def reordered(order: I32, rows: I64, keys: Callable[[I64], Keys], n_rows: int) -> I32:
    """Return an order in which some rows have moved, appeared or gone.

    Parameters
    ----------
    order : ndarray of int32
        Rows in the order that their keys had.
    rows : ndarray of int64, shape (c,)
        Rows whose keys may be others now.
    keys : callable
        Returns for some rows whether they have a place, and the columns by which they are ordered,
        of which no two rows have all in common.
    n_rows : int
        Rows of the catalogue.
    """
    moves = np.zeros(n_rows, dtype=bool)
    moves[rows] = True
    rest = order[~moves[order]]
    moved = _sorted(rows, keys(rows))
    wanted = keys(moved)[1:]
    low = np.zeros(len(moved), dtype=np.int64)
    high = np.full(len(moved), len(rest), dtype=np.int64)
    # All at once: each step halves where each of them can stand.
    while (open_ := low < high).any():
        middle = (low + high) // 2
        at = np.minimum(middle, len(rest) - 1)
        before = _less(keys(rest[at].astype(np.int64))[1:], wanted)
        low = np.where(open_ & before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return np.insert(rest, low, moved.astype(np.int32))


def _less(left: Keys, right: Keys) -> npt.NDArray[np.bool_]:
    """Return where keys come before others."""
    less = np.zeros(len(left[0]), dtype=bool)
    equal = np.ones(len(left[0]), dtype=bool)
    for mine, theirs in zip(left, right, strict=True):
        less |= equal & (mine < theirs)
        equal &= mine == theirs
    return less
