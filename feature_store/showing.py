"""Which items may be shown: masks by kind and market that are valid until the next date passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.derived_columns import AVAILABLE, FAR_S, KIND_SHIFT, KINDS, PRESENT, Markets

Mask = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

MASK_BYTES = 16 << 20
_KEPT_AT_LEAST = 8


def kept(n_rows: int) -> int:
    """Return how many masks a catalogue keeps."""
    return max(_KEPT_AT_LEAST, MASK_BYTES // max(n_rows, 1))


@dataclass(frozen=True, slots=True)
class Parts:
    """What a mask is made of.

    Parameters
    ----------
    states, published_s, expires_s : ndarray, shape (n_rows,)
        Of ``derived_columns.COLUMNS``, changes included.
    markets : Markets
        Availability by market, of the file.
    overlay : mapping of int to dict
        Rows that differ from the file, whose own entries count instead.
    """

    states: U8
    published_s: I64
    expires_s: I64
    markets: Markets
    overlay: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that are not what they were.

    Parameters
    ----------
    n_rows : int
        Rows of the new catalogue.
    rows : ndarray of int64, shape (c,)
        Which.
    values : mapping of str to ndarray
        Their derived columns.
    columns : sequence of dict
        Their ``item_columns.COLUMNS``.
    """

    n_rows: int
    rows: I64
    values: Mapping[str, npt.NDArray[Any]]
    columns: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Showable:
    """A mask and when it is right.

    Parameters
    ----------
    since_s, until_s : int
        From and before which second.
    mask : ndarray of bool, shape (n_rows,)
        Read-only.
    """

    since_s: int
    until_s: int
    mask: Mask

    def carried(self, change: Change, kinds: frozenset[str], market: str | None) -> "Showable":
        """Return the mask of a catalogue with changes: only those rows are looked at."""
        states = change.values["states"]
        if market is not None:
            states = _in_market(states, market, enumerate(change.columns))
        dates = (change.values["published_s"], change.values["expires_s"])
        found = _shown(states, *dates, self.since_s, kinds)
        until_s = min(self.until_s, _next_date(*dates, self.since_s))
        if change.n_rows == len(self.mask) and (self.mask[change.rows] == found).all():
            return Showable(self.since_s, until_s, self.mask)
        mask = np.zeros(change.n_rows, dtype=bool)
        mask[: len(self.mask)] = self.mask
        mask[change.rows] = found
        mask.flags.writeable = False
        return Showable(self.since_s, until_s, mask)


def showable(parts: Parts, now_s: int, kinds: frozenset[str], market: str | None) -> Showable:
    """Return which rows may be shown now.

    Parameters
    ----------
    parts : Parts
        Of the catalogue.
    now_s : int
        Seconds since 1970.
    kinds : frozenset of str
        Kinds that are wanted.
    market : str or None
        Whose availability counts.
    """
    states = parts.states
    if market is not None:
        start, end = parts.markets.spans.get(market, (0, 0))
        rows = parts.markets.rows[start:end]
        said = parts.markets.available[start:end]
        if parts.overlay:
            stale = np.zeros(len(states), dtype=bool)
            stale[np.fromiter(parts.overlay, dtype=np.int64)] = True
            rows, said = rows[~stale[rows]], said[~stale[rows]]
        states = states.copy()
        states[rows] = np.where(said, states[rows] | AVAILABLE, states[rows] & ~np.uint8(AVAILABLE))
        states = _in_market(states, market, parts.overlay.items())
    mask = _shown(states, parts.published_s, parts.expires_s, now_s, kinds)
    mask.flags.writeable = False
    until_s = _next_date(parts.published_s, parts.expires_s, now_s)
    return Showable(now_s, until_s, mask)


def _in_market(states: U8, market: str, items: Any) -> U8:
    """Put the availability in a market into the states of some items, numbered as in `states`."""
    states = states.copy()
    for at, columns in items:
        for entry in columns["markets"] or ():
            if entry["market"] == market and entry["available"] is not None:
                states[at] &= ~np.uint8(AVAILABLE)
                states[at] |= np.uint8(AVAILABLE if entry["available"] else 0)
    return states


def _shown(states: U8, published_s: I64, expires_s: I64, now_s: int, kinds: frozenset[str]) -> Mask:
    wanted = np.zeros(256, dtype=bool)
    for code, kind in enumerate(KINDS):
        wanted[code << KIND_SHIFT | PRESENT | AVAILABLE] = kind in kinds
    mask = wanted[states]
    mask &= published_s <= now_s
    mask &= expires_s > now_s
    return mask


def _next_date(published_s: I64, expires_s: I64, now_s: int) -> int:
    """Return the first second after `now_s` at which an item begins or ceases to be shown."""
    coming = (dates[dates > now_s] for dates in (published_s, expires_s))
    return min((int(dates.min()) for dates in coming if len(dates)), default=FAR_S)
