"""What a person was shown: how often which item, hour by hour, apart from what the person did.

A page view shows twenty items and says little of any. It must not rewrite a person's state, so what
was shown has a packed value of its own, read with the state and written by itself. What it means
(``recsvc/ranking/fatigue.py``) is computed when it is read; here are only the facts.

A *cell* counts the impressions of one item in one hour. The 512 newest cells are kept, the newest
hours first and within an hour the lower rows. Which cells are kept depends on row and hour alone,
never on a count, so a cell that was dropped once would be dropped again whatever comes later, and
none comes back with a part of its count: adding is commutative and exact in any order of arrival.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.schema import EVENT_TYPE_CODES, EventType

MAX_CELLS = 512
MAX_COUNT = 0xFFFF
"""A count stops here: so many in one hour is no person."""
HOUR_S = 3_600
FORMAT_VERSION = 1

U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]

_HEADER = struct.Struct("<BxH")
_CODE = EVENT_TYPE_CODES[EventType.IMPRESSION]


@dataclass(frozen=True, slots=True, eq=False)
class Impressions:
    """What one person was shown.

    Parameters
    ----------
    rows : ndarray of uint32, shape (n,)
        Catalogue rows, sorted; with `hours` they are the unique key of a cell. n is at most 512.
    hours : ndarray of uint32, shape (n,)
        Whole hours since 1970; ascending within a row.
    counts : ndarray of uint16, shape (n,)
        How many impressions, at most 65,535.
    """

    rows: U32
    hours: U32
    counts: U16

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Impressions) and pack(self) == pack(other)

    def __hash__(self) -> int:
        return hash(pack(self))


_NO_U32: U32 = np.zeros(0, dtype=np.uint32)
NO_IMPRESSIONS = Impressions(_NO_U32, _NO_U32, np.zeros(0, dtype=np.uint16))


def _summed(rows: U32, hours: U32, counts: npt.NDArray[np.uint32]) -> Impressions:
    """Return the impressions of cells that may repeat, in any order."""
    keys = rows.astype(np.uint64) << np.uint64(32) | hours.astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    counts = np.minimum(np.add.reduceat(counts[order], starts), MAX_COUNT)
    rows, hours = rows[order][starts], hours[order][starts]
    if len(rows) > MAX_CELLS:
        # Stable: within an hour the lower rows come first.
        kept = np.sort(np.argsort(~hours, kind="stable")[:MAX_CELLS])
        rows, hours, counts = rows[kept], hours[kept], counts[kept]
    return Impressions(rows, hours, counts.astype(np.uint16))


def add(one: Impressions, other: Impressions) -> Impressions:
    """Sum what comes from disjoint sets of events."""
    if len(other.rows) == 0:
        return one
    if len(one.rows) == 0:
        return other
    return _summed(
        np.concatenate((one.rows, other.rows)),
        np.concatenate((one.hours, other.hours)),
        np.concatenate((one.counts, other.counts)).astype(np.uint32),
    )


def fold(impressions: Impressions, rows: U32, times_s: U32) -> Impressions:
    """Add single impressions: of one person, of these catalogue rows, at these times.

    Parameters
    ----------
    impressions : Impressions
        What is known so far.
    rows, times_s : ndarray of uint32, shape (k,)
        Row and time (seconds since 1970) of each, in any order.
    """
    if len(rows) == 0:
        return impressions
    ones = np.ones(len(rows), dtype=np.uint32)
    return add(impressions, _summed(rows, times_s // np.uint32(HOUR_S), ones))


def pack(impressions: Impressions) -> bytes:
    """Write impressions as bytes; none pack to no bytes at all, so that they need no key."""
    n = len(impressions.rows)
    if n == 0:
        return b""
    return b"".join(
        (
            _HEADER.pack(FORMAT_VERSION, n),
            impressions.rows.tobytes(),
            impressions.hours.tobytes(),
            impressions.counts.tobytes(),
        )
    )


def unpack(data: bytes | None) -> Impressions:
    """Read packed impressions without copying them.

    Raises
    ------
    ValueError
        If the bytes are of another format version or of another length than they say.
    """
    if not data:
        return NO_IMPRESSIONS
    version, n = _HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise ValueError(f"impressions of format {version}; this program reads {FORMAT_VERSION}")
    if len(data) != _HEADER.size + 10 * n:
        raise ValueError(f"packed impressions of {len(data)} bytes are truncated or corrupt")
    words = np.frombuffer(data, np.uint32, 2 * n, _HEADER.size)
    counts = np.frombuffer(data, np.uint16, n, _HEADER.size + 8 * n)
    return Impressions(words[:n], words[n:], counts)


def fold_frame(events: pl.DataFrame) -> Iterator[tuple[str, Impressions]]:
    """Fold the impressions of many people at once.

    Parameters
    ----------
    events : DataFrame
        ``facts.fact_frame``: ``person``, ``row``, ``type`` and ``t_s``, in any order; only
        impressions count.

    Yields
    ------
    tuple of (str, Impressions)
        Each person who was shown something, sorted by ``person``, with what `fold` would give.
    """
    cells = (
        events.filter(pl.col("type") == _CODE)
        .group_by("person", "row", (pl.col("t_s") // HOUR_S).alias("hour"))
        .agg(pl.len().clip(upper_bound=MAX_COUNT).cast(pl.UInt16).alias("count"))
        .sort("person", "hour", "row", descending=[False, True, False])
        .group_by("person", maintain_order=True)
        .head(MAX_CELLS)
        .sort("person", "row", "hour")
    )
    runs = cells.group_by("person", maintain_order=True).len()
    columns = [cells[name].to_numpy() for name in ("row", "hour", "count")]
    start = 0
    for person, n in runs.iter_rows():
        yield person, Impressions(*(column[start : start + n] for column in columns))
        start += n
