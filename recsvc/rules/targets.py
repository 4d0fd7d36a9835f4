"""Which items a rule speaks of, kept small: packed bits, or the rows when they are few."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.integer]

_SPARSE = 32
"""A row number costs as much as 32 bits: below that density rows are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A set of catalogue rows; rows beyond what was known when it was made are not in it.

    Parameters
    ----------
    bits : ndarray of uint8 or None
        One bit a row, the first row in the highest bit.
    rows : ndarray of int32
        The rows, sorted, when `bits` is ``None``.
    """

    bits: npt.NDArray[np.uint8] | None
    rows: npt.NDArray[np.int32]

    @classmethod
    def of(cls, mask: Mask) -> "Target":
        """Keep a mask over all rows."""
        rows = np.flatnonzero(mask).astype(np.int32)
        if len(rows) * _SPARSE <= len(mask):
            return cls(None, rows)
        return cls(np.packbits(mask), rows[:0])

    def as_bits(self, n_rows: int) -> "Target":
        """Return the same set as bits, which are looked up four times as fast."""
        if self.bits is not None:
            return self
        return Target(np.packbits(self.mask(n_rows)), self.rows[:0])

    def mask(self, n_rows: int) -> Mask:
        """Return the mask over so many rows; a new array."""
        found = np.zeros(n_rows, dtype=bool)
        if self.bits is None:
            found[self.rows] = True
        else:
            count = min(n_rows, len(self.bits) * 8)
            found[:count] = np.unpackbits(self.bits, count=count).view(bool)
        return found

    def contains(self, rows: Rows) -> Mask:
        """Return which of some rows are in the set."""
        if self.bits is None:
            if not len(self.rows):
                return np.zeros(len(rows), dtype=bool)
            places = np.searchsorted(self.rows, rows)
            found: Mask = self.rows.take(places, mode="clip") == rows
            return found
        bytes_ = rows >> 3
        known = bytes_ < len(self.bits)
        shifted = self.bits.take(bytes_, mode="clip") >> (7 - (rows & 7)).astype(np.uint8)
        inside: Mask = known & (shifted & 1).astype(bool)
        return inside

    def count(self) -> int:
        """Return how many rows are in the set."""
        return len(self.rows) if self.bits is None else int(np.bitwise_count(self.bits).sum())

    def with_changes(self, rows: Rows, inside: Mask, n_rows: int) -> "Target":
        """Return the set in which some rows are, or are not; itself if nothing changed."""
        if (self.contains(rows) == inside).all():
            return self
        mask = self.mask(n_rows)
        mask[rows] = inside
        return Target.of(mask)

    @property
    def nbytes(self) -> int:
        """Memory of the set, in bytes."""
        return self.rows.nbytes + (0 if self.bits is None else self.bits.nbytes)


def stacked(targets: Sequence[Target], n_rows: int) -> npt.NDArray[np.uint8]:
    """Return the bits of several sets as one array, so that one lookup asks all of them.

    Returns
    -------
    ndarray of uint8, shape (n_bytes, n_targets)
        All bits of one byte of rows stand together.
    """
    n_bytes = (n_rows + 7) // 8
    found = np.zeros((n_bytes, len(targets)), dtype=np.uint8)
    for at, target in enumerate(targets):
        bits = np.packbits(target.mask(n_rows)) if target.bits is None else target.bits
        found[: len(bits), at] = bits[:n_bytes]
    return found


def membership(stack: npt.NDArray[np.uint8], rows: Rows) -> npt.NDArray[np.uint8]:
    """Return which rows are in which set of a stack.

    Returns
    -------
    ndarray of uint8, shape (len(rows), n_targets)
        Not zero where a row is in a set.
    """
    bit = (np.uint8(128) >> (rows & 7).astype(np.uint8))[:, None]
    found: npt.NDArray[np.uint8] = stack.take(rows >> 3, axis=0) & bit
    return found
