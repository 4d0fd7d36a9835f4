"""The catalogue as every process holds it: columns over rows, and which of them may be shown.

A *row* is an item's number: given once, never changed, never used again within an epoch. User
states, masks and the join of a model refer to rows. The columns come from a file that is
memory-mapped (``catalogue_files``); what changed since it was written lies over it as an overlay.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.item_columns import COLUMNS, as_catalogue_frame, as_document
from feature_store.schema import ItemId

_FAR_S = np.int64(2**40)
_ID_CACHE = 200_000
_FEW_IDS = 64

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]


def id_hash(item_id: str) -> int:
    """Return the stable 64-bit hash under which an id is looked up."""
    digest = hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def hash_ids(item_ids: Sequence[str | None]) -> tuple[npt.NDArray[np.uint64], I32]:
    """Return sorted hashes of ids and the row of each; ``None`` (a hole) has no entry."""
    rows = np.array([row for row, item in enumerate(item_ids) if item is not None], dtype=np.int32)
    hashes = np.array([id_hash(item) for item in item_ids if item is not None], dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    return hashes[order], rows[order]


class Catalogue:
    """All items, immutable; a change makes a new one that shares the columns.

    Parameters
    ----------
    frame : DataFrame
        :data:`COLUMNS`, one row an item, in row order. A hole (a row that was given but never
        written) has a null ``item_id``.
    hashes, hash_rows : ndarray of uint64 and int32
        Result of :func:`hash_ids` for the frame.
    overlay : mapping of int to dict
        Rows that differ from the frame or lie beyond it, with all columns.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        hashes: npt.NDArray[np.uint64],
        hash_rows: I32,
        overlay: Mapping[int, dict[str, Any]] | None = None,
    ) -> None:
        self.frame = frame
        self._hashes = hashes
        self._hash_rows = hash_rows
        self.overlay: Mapping[int, dict[str, Any]] = overlay or {}
        self._overlay_rows = {row["item_id"]: at for at, row in self.overlay.items()}
        self.n_rows = max(frame.height, max(self.overlay, default=-1) + 1)
        self._ids: dict[int, ItemId] = {}
        self._masks: dict[str, Mask] = {}
        self._showable: dict[frozenset[str], tuple[int, int, Mask]] = {}
        self._codes: dict[str, dict[str, int]] = {}
        self._parent: Catalogue | None = None
        self._changed: Mapping[int, dict[str, Any]] = {}

    @classmethod
    def empty(cls) -> Self:
        """Return the catalogue of a new shop."""
        return cls(pl.DataFrame(schema=COLUMNS), *hash_ids([]))

    @classmethod
    def from_item_ids(cls, item_ids: Sequence[str]) -> Self:
        """Return a catalogue of bare ids, row by row: what an evaluation of a file needs."""
        frame = as_catalogue_frame(pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)}))
        frame = frame.with_columns(listed=pl.lit(value=False))
        return cls(frame, *hash_ids(item_ids))

    def with_changes(self, changes: Iterable[tuple[int, dict[str, Any]]]) -> "Catalogue":
        """Return a catalogue in which some rows are replaced or added.

        Parameters
        ----------
        changes : iterable of (int, dict)
            Row and its columns (:func:`columns_of`), oldest first.
        """
        changed = dict(changes)
        overlay = {**self.overlay, **changed}
        catalogue = Catalogue(self.frame, self._hashes, self._hash_rows, overlay)
        # Columns are carried over now: a chain of parents would keep every version alive.
        catalogue._parent, catalogue._changed, catalogue._codes = self, changed, self._codes
        _ = catalogue.published_s, catalogue.category_codes, catalogue.group_codes
        _ = catalogue.department_codes
        catalogue._carry_showable(self)
        catalogue._parent, catalogue._changed = None, {}
        return catalogue

    def _carry_showable(self, old: "Catalogue") -> None:
        """Take over the masks of an older catalogue and evaluate the changed rows alone."""
        if not self._changed:
            return
        frame = pl.DataFrame(list(self._changed.values()), schema=COLUMNS)
        rows = np.fromiter(self._changed, dtype=np.int64)
        for kinds, (since_s, old_until_s, mask) in old._showable.items():  # noqa: SLF001
            now = datetime.fromtimestamp(since_s, UTC)
            grown = np.zeros(self.n_rows, dtype=bool)
            grown[: len(mask)] = mask
            grown[rows] = frame.select(_showable_at(now, kinds).alias("mask"))["mask"].to_numpy()
            grown.flags.writeable = False
            until_s = min(old_until_s, _next_change_s([frame], now))
            self._showable[kinds] = (since_s, until_s, grown)

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

    def rows(self, item_ids: Sequence[str]) -> I32:
        """Return the row of each id; -1 where it has none."""
        if len(item_ids) <= _FEW_IDS:
            found = (self.row(item_id) for item_id in item_ids)
            return np.array([-1 if row is None else row for row in found], dtype=np.int32)
        every = pl.DataFrame({"item_id": pl.Series(self.item_ids(), dtype=pl.String)})
        wanted = pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)})
        joined = wanted.join(
            every.with_row_index("row"), on="item_id", how="left", maintain_order="left"
        )
        rows: I32 = joined["row"].cast(pl.Int32).fill_null(-1).to_numpy()
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
            value = self.frame["item_id"][row]
        if value is not None:
            if len(self._ids) >= _ID_CACHE:
                self._ids.clear()
            self._ids[row] = value
        return value

    def ids_of(self, rows: Iterable[int]) -> dict[int, ItemId | None]:
        """Return the id at each row."""
        known = self._ids
        return {row: known.get(row) or self.item_id(row) for row in rows}

    def item_ids(self) -> list[str | None]:
        """Return all ids in row order; ``None`` for a hole."""
        ids: list[str | None] = self.frame["item_id"].to_list()
        ids += [None] * (self.n_rows - len(ids))
        for row, columns in self.overlay.items():
            ids[row] = columns["item_id"]
        return ids

    def item(self, row: int) -> dict[str, Any]:
        """Return an item as the API shows it: plain JSON values."""
        columns = self.overlay.get(row)
        return as_document(self.frame.row(row, named=True) if columns is None else columns)

    # --- masks --------------------------------------------------------------------------------

    def mask(self, key: str, expression: pl.Expr) -> Mask:
        """Return which rows fulfil an expression over :data:`COLUMNS`.

        Parameters
        ----------
        key : str
            Names the expression; its mask is computed once for this catalogue.
        expression : Expr
            Boolean; null counts as false.

        Returns
        -------
        ndarray of bool, shape (n_rows,)
            Read-only; holes are false.
        """
        known = self._masks.get(key)
        if known is not None:
            return known
        known = self._evaluate(expression & pl.col("item_id").is_not_null())
        if len(self._masks) >= 256:
            self._masks.pop(next(iter(self._masks)))
        self._masks[key] = known
        return known

    def showable(self, now_s: int, kinds: frozenset[str]) -> Mask:
        """Return which rows may be shown at a time: available, published, not expired.

        Parameters
        ----------
        now_s : int
            Seconds since 1970.
        kinds : frozenset of str
            Item kinds that the placement shows.

        Returns
        -------
        ndarray of bool, shape (n_rows,)
            Read-only; computed again only when a publication or an expiry passes.
        """
        known = self._showable.get(kinds)
        if known is not None and known[0] <= now_s < known[1]:
            return known[2]
        now = datetime.fromtimestamp(now_s, UTC)
        mask = self._evaluate(_showable_at(now, kinds))
        self._showable[kinds] = (now_s, _next_change_s(self._frames(), now), mask)
        return mask

    @cached_property
    def published_s(self) -> npt.NDArray[np.int64]:
        """When each row was published, in seconds since 1970; 0 where it is not said."""
        return self._column(
            "published_s",
            lambda frame: frame["published_at"].dt.epoch("s").fill_null(0).to_numpy(),
        )

    @cached_property
    def category_codes(self) -> I32:
        """A code of each row's first category path; 0 for an item without a category."""
        first = pl.col("categories").list.first()
        return self._codes_of("category_codes", first, missing=0)

    @cached_property
    def department_codes(self) -> I32:
        """A code of the path above each row's first category; 0 for none."""
        above = pl.col("categories").list.first().str.replace(r" > [^>]*$", "")
        return self._codes_of("department_codes", above, missing=0)

    @cached_property
    def group_codes(self) -> I32 | None:
        """The variant group of each row, -1 for none; ``None`` when no item has a group."""
        codes = self._every_group_code
        return codes if (codes >= 0).any() else None

    @cached_property
    def _every_group_code(self) -> I32:
        return self._codes_of("_every_group_code", pl.col("group_id"), missing=-1)

    def _codes_of(self, name: str, text: pl.Expr, missing: int) -> I32:
        known = self._codes.setdefault(name, {})

        def encode(frame: pl.DataFrame) -> I32:
            values = frame.select(text.alias("text"))["text"]
            for value in values.drop_nulls().unique(maintain_order=True).to_list():
                known.setdefault(value, len(known) + (missing == 0))
            found = values.replace_strict(known, default=missing, return_dtype=pl.Int32)
            codes: I32 = found.fill_null(missing).to_numpy()
            return codes

        return self._column(name, encode, missing)

    def _column(
        self, name: str, encode: Callable[[pl.DataFrame], npt.NDArray[Any]], missing: int = 0
    ) -> npt.NDArray[Any]:
        """Return a column over all rows; a catalogue with changes encodes those alone."""
        old = None if self._parent is None else getattr(self._parent, name)
        if old is None:
            old = encode(self.frame)
            changed = self.overlay
        else:
            changed = self._changed
        result = np.full(self.n_rows, missing, dtype=old.dtype)
        result[: len(old)] = old
        if changed:
            rows = np.fromiter(changed, dtype=np.int64)
            result[rows] = encode(pl.DataFrame(list(changed.values()), schema=COLUMNS))
        return result

    def _frames(self) -> list[pl.DataFrame]:
        frames = [self.frame]
        if self.overlay:
            frames.append(pl.DataFrame(list(self.overlay.values()), schema=COLUMNS))
        return frames

    def _evaluate(self, expression: pl.Expr) -> Mask:
        mask = np.zeros(self.n_rows, dtype=bool)
        base, *overlay = (
            frame.select(expression.fill_null(value=False).alias("mask"))["mask"].to_numpy()
            for frame in self._frames()
        )
        mask[: len(base)] = base
        if overlay:
            mask[np.fromiter(self.overlay, dtype=np.int64)] = overlay[0]
        mask.flags.writeable = False
        return mask


def _showable_at(now: datetime, kinds: frozenset[str]) -> pl.Expr:
    published, expires = pl.col("published_at"), pl.col("expires_at")
    return (
        pl.col("item_id").is_not_null()
        & pl.col("available")
        & pl.col("kind").is_in(sorted(kinds))
        & (published.is_null() | (published <= now))
        & (expires.is_null() | (expires > now))
    ).fill_null(value=False)


def _next_change_s(frames: list[pl.DataFrame], now: datetime) -> int:
    """Return the first second after `now` at which an item begins or ends to be showable."""
    moments = []
    for frame in frames:
        for name in ("published_at", "expires_at"):
            moment = frame[name].filter(frame[name] > now).min()
            if isinstance(moment, datetime):
                moments.append(-int(-moment.timestamp() // 1))
    return min(moments, default=int(_FAR_S))
