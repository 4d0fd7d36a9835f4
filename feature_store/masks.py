"""Which rows fulfil an expression: evaluated once, kept small, carried over by every change."""

from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

Mask = npt.NDArray[np.bool_]

MAX_MASKS = 1_024
OPEN_BYTES = 8 << 20
_OPEN_AT_LEAST = 8


class MaskCache:
    """Masks by name: all of them as bits, those that were asked for last as booleans too.

    Parameters
    ----------
    n_rows : int
        Rows of the catalogue.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self._bits: dict[str, tuple[pl.Expr, npt.NDArray[np.uint8]]] = {}
        self._open: dict[str, Mask] = {}
        self._most_open = max(_OPEN_AT_LEAST, OPEN_BYTES // max(n_rows, 1))

    def get(self, key: str) -> Mask | None:
        """Return a mask that is known, read-only."""
        mask = self._open.get(key)
        if mask is not None:
            return mask
        known = self._bits.get(key)
        if known is None:
            return None
        mask = np.unpackbits(known[1], count=self.n_rows).view(np.bool_)
        self._keep_open(key, mask)
        return mask

    def bits(self, key: str) -> npt.NDArray[np.uint8] | None:
        """Return a mask that is known as bits (``numpy.packbits``), not to be written to.

        Changes in which nothing of it changes hand on the same array.
        """
        known = self._bits.get(key)
        return None if known is None else known[1]

    def put(self, key: str, expression: pl.Expr, mask: Mask) -> None:
        """Keep a mask and what it was made from."""
        self._bits[key] = (expression, np.packbits(mask))
        for oldest in list(self._bits)[:-MAX_MASKS]:
            self._bits.pop(oldest, None)
        self._keep_open(key, mask)

    def _keep_open(self, key: str, mask: Mask) -> None:
        mask.flags.writeable = False
        self._open[key] = mask
        for oldest in list(self._open)[: -self._most_open]:
            self._open.pop(oldest, None)

    def carried(
        self, n_rows: int, rows: npt.NDArray[np.int64], frame: pl.DataFrame, present: Mask
    ) -> Self:
        """Return the masks of a catalogue in which some rows are replaced or added.

        Parameters
        ----------
        n_rows : int
            Rows of that catalogue.
        rows : ndarray of int64, shape (c,)
            Which are new.
        frame : DataFrame
            Their columns, in the same order.
        present : ndarray of bool, shape (c,)
            Whether they are not deleted; one that is fulfils nothing.
        """
        cache = type(self)(n_rows)
        known = list(self._bits.items())
        if not known:
            return cache
        found = frame.select(
            expression.fill_null(value=False).alias(str(at))
            for at, (_, (expression, _)) in enumerate(known)
        )
        open_ = dict(self._open)
        for at, (key, (expression, bits)) in enumerate(known):
            # An expression without a column has one value for all.
            values = np.broadcast_to(found[str(at)].to_numpy(), len(rows)) & present
            fresh = _with_bits(bits, n_rows, rows, values)
            cache._bits[key] = (expression, fresh)  # noqa: SLF001 (another instance)
            if fresh is bits and n_rows == self.n_rows and key in open_:
                cache._open[key] = open_[key]  # noqa: SLF001
        return cache


def _with_bits(
    bits: npt.NDArray[np.uint8], n_rows: int, rows: npt.NDArray[np.int64], values: Mask
) -> npt.NDArray[np.uint8]:
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
