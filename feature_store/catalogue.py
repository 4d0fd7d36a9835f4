"""The catalogue as every process holds it: columns over rows, and which of them may be shown.

A *row* is an item's number: given once, never changed, never used again within an epoch. User
states, masks and the join of a model refer to rows. The columns come from files that are
memory-mapped (``catalogue_files``); what changed since they were written lies over them as an
overlay.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store import derived_columns, showing
from feature_store.derived_columns import Derived
from feature_store.item_changes import ItemChange, apply_changes
from feature_store.item_columns import COLUMNS, as_catalogue_frame, as_document
from feature_store.item_ids import find_rows, hash_ids, id_hash
from feature_store.item_names import FileNames, ItemNames, Key, Kind
from feature_store.item_words import words_of
from feature_store.masks import Columns, MaskCache
from feature_store.schema import ItemId

_ID_CACHE = 50_000
_FEW_IDS = 64
MAX_NAMES = 1_024  # whose items are kept as bits: those that were asked for last

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

__all__ = ["Catalogue", "hash_ids", "id_hash"]


class Catalogue:
    """All items, immutable; a change makes a new one that shares the columns.

    `folder` is where its files are, or ``None`` if it has none.

    Parameters
    ----------
    frame : DataFrame
        :data:`COLUMNS`, one row an item, in row order. A hole (a row that was given but never
        written) has a null ``item_id``.
    hashes, hash_rows : ndarray of uint64 and int32
        Result of :func:`hash_ids` for the frame.
    derived : Derived or None
        Result of ``derived_columns.derive`` for the frame; ``None`` computes it when it is needed.
    words : Series or None
        Result of ``item_words.words_of`` for the frame; the same.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        hashes: npt.NDArray[np.uint64],
        hash_rows: I32,
        derived: Derived | None = None,
        words: pl.Series | None = None,
    ) -> None:
        self.frame = frame
        self._words = words
        self.n_rows = frame.height
        self.folder: Path | None = None
        self.overlay: Mapping[int, dict[str, Any]] = {}
        self._hashes = hashes
        self._hash_rows = hash_rows
        self._overlay_rows: dict[str, int] = {}
        self._ids: dict[int, ItemId] = {}
        self._base = derived
        self._arrays: Mapping[str, npt.NDArray[Any]] | None = None
        self._masks = MaskCache(frame.height)
        self.names = ItemNames(FileNames(frame))
        self._named: dict[Key, npt.NDArray[np.uint8]] = {}
        self._showable: dict[tuple[frozenset[str], str | None], showing.Showable] = {}
        self._markets: frozenset[str] | None = None
        self._has_groups: bool | None = None

    @classmethod
    def empty(cls) -> Self:
        """Return the catalogue of a new shop."""
        return cls(pl.DataFrame(schema=COLUMNS), *hash_ids([]))

    @classmethod
    def from_item_ids(cls, item_ids: Sequence[str]) -> Self:
        """Return a catalogue of bare ids, row by row: what an evaluation of a file needs."""
        frame = as_catalogue_frame(pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)}))
        frame = frame.with_columns(listed=pl.lit(value=False))
        return cls(frame, *hash_ids(frame["item_id"]))

    @property
    def base(self) -> "Catalogue":
        """The catalogue without what lies over its frame."""
        if not self.overlay and self.n_rows == self.frame.height:
            return self
        base = Catalogue(self.frame, self._hashes, self._hash_rows, self._derived, self._words)
        base.folder = self.folder
        return base

    def changed_since(self, before: "Catalogue") -> I64:
        """Return the rows, ascending, in which this differs from an earlier state of it."""
        known = before.overlay
        rows = [row for row, columns in self.overlay.items() if known.get(row) is not columns]
        return np.sort(np.array(rows, dtype=np.int64))

    # --- changes ------------------------------------------------------------------------------

    def after(self, changes: Iterable[ItemChange]) -> "Catalogue":
        """Return the catalogue after some entries of the log, in their order."""
        return self.with_changes(*apply_changes(self.columns_at, changes))

    def with_changes(
        self,
        changes: Mapping[int, dict[str, Any]] | Iterable[tuple[int, dict[str, Any]]],
        n_rows: int = 0,
    ) -> "Catalogue":
        """Return a catalogue in which some rows are replaced or added.

        Parameters
        ----------
        changes : mapping of int to dict, or iterable of (int, dict)
            Row and its columns (``item_columns.columns_of``); of several the last counts.
        n_rows : int
            Rows that there are at least; those that nobody has written are holes.
        """
        changed = dict(changes)
        n_rows = max(n_rows, self.n_rows, max(changed, default=-1) + 1)
        if not changed and n_rows == self.n_rows:
            return self
        # Nothing refers to the old one: a chain of parents would keep every version alive.
        new = Catalogue(self.frame, self._hashes, self._hash_rows, self._derived, self._words)
        new.n_rows = n_rows
        new.folder = self.folder
        new.overlay = {**self.overlay, **changed}
        added = {columns["item_id"]: row for row, columns in changed.items()}
        new._overlay_rows = {**self._overlay_rows, **added}
        rows = np.fromiter(changed, dtype=np.int64, count=len(changed))
        frame = pl.DataFrame(list(changed.values()), schema=COLUMNS)
        values = derived_columns.encode(frame, self._derived.codes)
        overlaid = np.fromiter(self.overlay, dtype=np.int64, count=len(self.overlay))
        new._arrays = derived_columns.successor(
            self._all_arrays, self._derived.files, n_rows, overlaid, (rows, values)
        )
        new._masks = self._masks.carried(n_rows, rows)
        new.names = self.names.with_items(changed)
        new._named = self._names_that_stay(new, changed)
        new._markets = self.markets.union(
            entry["market"] for columns in changed.values() for entry in columns["markets"] or ()
        )
        new._has_groups = self._groups_exist or bool((values["group_codes"] >= 0).any())
        change = showing.Change(n_rows, rows, values, list(changed.values()))
        new._showable = {
            key: known.carried(change, *key) for key, known in list(self._showable.items())
        }
        return new

    def _names_that_stay(
        self, new: "Catalogue", changed: Iterable[int]
    ) -> dict[Key, npt.NDArray[np.uint8]]:
        """Return the bits of the names that no changed row has, or had."""
        if not self._named or -(-new.n_rows // 8) != -(-self.n_rows // 8):
            return {}
        gone = self.names.keys_of(changed, self.frame.height)
        gone |= new.names.keys_of(changed, self.frame.height)
        return {key: bits for key, bits in self._named.items() if key not in gone}

    @property
    def _derived(self) -> Derived:
        if self._base is None:
            self._base = derived_columns.derive(self.frame)
        return self._base

    @property
    def _all_arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        return self._derived.arrays if self._arrays is None else self._arrays

    def _array(self, name: str) -> npt.NDArray[Any]:
        return self._all_arrays[name][: self.n_rows]

    # --- ids and rows -------------------------------------------------------------------------

    def row(self, item_id: str) -> int | None:
        """Return the row of an item, or ``None`` if the id has none."""
        at = self._overlay_rows.get(item_id)
        if at is not None:
            return at
        wanted = np.uint64(id_hash(item_id))
        position = int(np.searchsorted(self._hashes, wanted))
        while position < len(self._hashes) and self._hashes[position] == wanted:
            found = int(self._hash_rows[position])
            if self.item_id(found) == item_id:
                return found
            position += 1
        return None

    def rows(self, item_ids: Sequence[str] | pl.Series) -> I32:
        """Return the row of each id; -1 where it has none."""
        if len(item_ids) <= _FEW_IDS:
            found = (self.row(item_id) for item_id in item_ids)
            return np.array([-1 if row is None else row for row in found], dtype=np.int32)
        if not isinstance(item_ids, pl.Series):
            item_ids = pl.Series(item_ids, dtype=pl.String)
        rows = find_rows(self._hashes, self._hash_rows, self.frame["item_id"], item_ids)
        if self._overlay_rows:
            # What lies over the file may have ids that it does not know.
            missing = np.flatnonzero(rows < 0)
            known = self._overlay_rows
            rows[missing] = [known.get(item_id, -1) for item_id in item_ids.gather(missing)]
        return rows

    def item_id(self, row: int) -> ItemId | None:
        """Return the id at a row, or ``None`` for a hole."""
        known = self._ids.get(row)
        if known is not None:
            return known
        changed = self.overlay.get(row)
        value: ItemId | None = None
        if changed is not None:
            value = changed["item_id"]
        elif row < self.frame.height:
            value = self.frame.item(row, "item_id")
        if value is not None:
            if len(self._ids) >= _ID_CACHE:
                self._ids = {}
            self._ids[row] = value
        return value

    def ids_of(self, rows: Iterable[int]) -> dict[int, ItemId | None]:
        """Return the id at each row."""
        known = self._ids
        return {row: known.get(row) or self.item_id(row) for row in rows}

    def item_ids(self) -> list[str | None]:
        """Return all ids in row order, ``None`` for a hole; for small catalogues."""
        ids: list[str | None] = self.frame["item_id"].to_list()
        ids += [None] * (self.n_rows - len(ids))
        for row, columns in self.overlay.items():
            ids[row] = columns["item_id"]
        return ids

    def columns_at(self, row: int) -> Mapping[str, Any] | None:
        """Return :data:`COLUMNS` of a row, or ``None`` for a hole."""
        changed = self.overlay.get(row)
        if changed is not None:
            return changed
        if row >= self.frame.height:
            return None
        columns = self.frame.row(row, named=True)
        return None if columns["item_id"] is None else columns

    def item(self, row: int, market: str | None = None) -> dict[str, Any]:
        """Return an item as the API shows it: plain JSON values.

        Parameters
        ----------
        row : int
            Its row.
        market : str or None
            Whose availability and prices count (``item_columns.as_document``).
        """
        columns = self.overlay.get(row)
        if columns is None:
            columns = self.frame.row(row, named=True)
        return as_document(columns, market)

    @property
    def words(self) -> pl.Series:
        """The words of each item of the frame (``item_words``); those of the overlay are not in."""
        if self._words is None:
            self._words = words_of(self.frame)
        return self._words

    def is_known(self, row: int) -> bool:
        """Whether there is an item at a row: no hole, and not deleted."""
        return bool(self._array("states")[row] & derived_columns.PRESENT)

    # --- masks --------------------------------------------------------------------------------

    def mask(self, key: str, expression: pl.Expr) -> Mask:
        """Return which rows fulfil an expression over :data:`COLUMNS`.

        Parameters
        ----------
        key : str
            Names the expression; its mask is computed once, and carried over by changes.
        expression : Expr
            Boolean; null counts as false.

        Returns
        -------
        ndarray of bool, shape (n_rows,)
            Read-only; holes and deleted items are false.
        """
        known = self._masks.get(key, self._columns_above)
        if known is not None:
            return known
        mask = np.zeros(self.n_rows, dtype=bool)
        found = self.frame.select(expression.fill_null(value=False).alias("mask"))["mask"]
        mask[: self.frame.height] = found.to_numpy()
        if self.overlay:
            frame = pl.DataFrame(list(self.overlay.values()), schema=COLUMNS)
            found = frame.select(expression.fill_null(value=False).alias("mask"))["mask"]
            mask[np.fromiter(self.overlay, dtype=np.int64)] = found.to_numpy()
        mask &= (self._array("states") & derived_columns.PRESENT).view(np.bool_)
        self._masks.put(key, expression, mask)
        return mask

    def _columns_above(self, rows: I64) -> Columns:
        """Return what rows that were changed hold."""
        frame = pl.DataFrame([self.overlay[row] for row in rows.tolist()], schema=COLUMNS)
        return Columns(frame, ~frame["deleted"].to_numpy())

    def named(self, kind: Kind, text: str) -> npt.NDArray[np.uint8]:
        """Return the items of a brand, or of a category and all below it, as bits.

        Returns
        -------
        ndarray of uint8, shape (ceil(n_rows / 8),)
            As ``numpy.packbits`` makes it; the same array until one of these items changes, or rows
            are added.
        """
        key = (kind, text)
        bits = self._named.pop(key, None)
        if bits is None:
            bits = np.packbits(self.names.mask(kind, text, self.n_rows))
            for oldest in list(self._named)[: 1 - MAX_NAMES]:
                self._named.pop(oldest, None)
        self._named[key] = bits  # the last one asked for is the last to go
        return bits

    def showable(self, now_s: int, kinds: frozenset[str], market: str | None = None) -> Mask:
        """Return which rows may be shown at a time: available, published, not expired.

        Parameters
        ----------
        now_s : int
            Seconds since 1970.
        kinds : frozenset of str
            Item kinds that the placement shows.
        market : str or None
            Whose availability counts; ``None`` for the items' own.

        Returns
        -------
        ndarray of bool, shape (n_rows,)
            Read-only; computed again only when a publication or an expiry passes.
        """
        key = (kinds, market if market in self.markets else None)
        known = self._showable.get(key)
        if known is None or not known.since_s <= now_s < known.until_s:
            known = showing.showable(self._parts(), now_s, *key)
            self._showable[key] = known
            for oldest in list(self._showable)[: -showing.kept(self.n_rows)]:
                self._showable.pop(oldest, None)
        return known.mask

    def _parts(self) -> showing.Parts:
        return showing.Parts(
            self._array("states"),
            self._array("published_s"),
            self._array("expires_s"),
            self._derived.markets,
            self.overlay,
        )

    @property
    def markets(self) -> frozenset[str]:
        """Markets for which some item has availability of its own, or had."""
        if self._markets is None:
            self._markets = frozenset(self._derived.markets.spans)
        return self._markets

    @property
    def published_s(self) -> I64:
        """When each row was published, in seconds since 1970; 0 where it is not said."""
        return self._array("published_s")

    @property
    def category_codes(self) -> I32:
        """A code of each row's first category path; 0 for an item without a category."""
        return self._array("category_codes")

    @property
    def department_codes(self) -> I32:
        """A code of the path above each row's first category; 0 for none."""
        return self._array("department_codes")

    @property
    def group_codes(self) -> I64 | None:
        """The variant group of each row, -1 for none; ``None`` when no item has a group."""
        return self._array("group_codes") if self._groups_exist else None

    @property
    def _groups_exist(self) -> bool:
        if self._has_groups is None:
            self._has_groups = bool((self._array("group_codes") >= 0).any())
        return self._has_groups
