"""Which rows fulfil an expression: evaluated once, kept small, brought up to date when asked for.

A change of the catalogue costs the masks nothing: only the rows that changed since a mask was last
asked for are evaluated again, when it is asked for again. Who asks for a thousand different masks
once does not slow down every later change.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Mask = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

MAX_MASKS = 1_024
OPEN_BYTES = 8 << 20
_OPEN_AT_LEAST = 8


class Columns(NamedTuple):
    """What some rows hold now.

    Parameters
    ----------
    frame : DataFrame
        Their columns, in their order.
    present : ndarray of bool, shape (n,)
        Whether they are not deleted; one that is fulfils nothing.
    """

    frame: pl.DataFrame
    present: Mask


Read = Callable[[Rows], Columns]
"""Returns what rows that were changed hold now."""


class _Known(NamedTuple):
    expression: pl.Expr
    bits: Bits
    version: int
    """How many changes it has seen."""


class MaskCache:
    """Masks by name: all of them as bits, those that were asked for last as booleans too.

    Parameters
    ----------
    n_rows : int
        Rows of the catalogue.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self._known: dict[str, _Known] = {}
        self._open: dict[str, tuple[Bits, Mask]] = {}
        self._most_open = max(_OPEN_AT_LEAST, OPEN_BYTES // max(n_rows, 1))
        self._changes: list[Rows] = []
        self._version = 0
        self._columns: dict[int, tuple[Rows, Columns]] = {}

    def get(self, key: str, read: Read) -> Mask | None:
        """Return a mask that is known, read-only.

        Parameters
        ----------
        key : str
            Its name.
        read : callable
            Asked for the rows that were changed since it was last asked for.
        """
        known = self._known.pop(key, None)
        if known is None:
            return None
        if known.version < self._version:
            known = self._refreshed(known, read)
        self._known[key] = known  # the last one asked for is the last to go
        bits, mask = self._open.get(key, (None, None))
        if bits is not known.bits or mask is None or len(mask) != self.n_rows:
            mask = np.unpackbits(known.bits, count=self.n_rows).view(np.bool_)
            self._keep_open(key, known.bits, mask)
        return mask

    def put(self, key: str, expression: pl.Expr, mask: Mask) -> None:
        """Keep a mask and what it was made from."""
        bits = np.packbits(mask)
        self._known[key] = _Known(expression, bits, self._version)
        for oldest in list(self._known)[:-MAX_MASKS]:
            self._known.pop(oldest, None)
        self._keep_open(key, bits, mask)

    def _keep_open(self, key: str, bits: Bits, mask: Mask) -> None:
        mask.flags.writeable = False
        self._open[key] = bits, mask
        for oldest in list(self._open)[: -self._most_open]:
            self._open.pop(oldest, None)

    def carried(self, n_rows: int, rows: Rows) -> "MaskCache":
        """Return the masks of a catalogue in which some rows are replaced or added.

        Parameters
        ----------
        n_rows : int
            Rows of that catalogue.
        rows : ndarray of int64, shape (c,)
            Which are new.
        """
        cache = MaskCache(n_rows)
        # Catalogues after one another share the list; of two that follow on the same one, one.
        is_last = len(self._changes) == self._version
        cache._changes = self._changes if is_last else self._changes[: self._version]
        cache._changes.append(rows)
        cache._version = self._version + 1
        cache._known, cache._open = dict(self._known), dict(self._open)
        return cache

    def _refreshed(self, known: _Known, read: Read) -> _Known:
        """Return a mask with what changed since it was last asked for."""
        pending = self._columns.get(known.version)
        if pending is None:
            changes = self._changes[known.version : self._version]
            rows = np.unique(np.concatenate(changes))
            pending = self._columns[known.version] = rows, read(rows)
        rows, (frame, present) = pending
        found = frame.select(known.expression.fill_null(value=False).alias("mask"))["mask"]
        # An expression without a column has one value for all.
        values = np.broadcast_to(found.to_numpy(), len(rows)) & present
        return known._replace(
            bits=_with_bits(known.bits, self.n_rows, rows, values), version=self._version
        )


def _with_bits(bits: Bits, n_rows: int, rows: Rows, values: Mask) -> Bits:
    """Set some bits of a mask; one in which nothing changes is returned as it is."""
    size = -(-n_rows // 8)
    places, shifts = rows >> 3, (7 - (rows & 7)).astype(np.uint8)
    if size == len(bits) and ((bits[places] >> shifts & 1).astype(bool) == values).all():
        return bits
    fresh = np.zeros(size, dtype=np.uint8)
    fresh[: len(bits)] = bits
    one = np.uint8(1) << shifts
    np.bitwise_and.at(fresh, places, ~one)
    np.bitwise_or.at(fresh, places, one * values.astype(np.uint8))
    return fresh
