"""What is known of a person: facts per item, and one pure function that adds events to them.

Facts are stored, meaning is computed: per item and event type a state keeps how often, when first
and when last, as integers. Weights and half-lives are applied when it is read. Adding is
commutative and associative, so a state equals a recomputation from the log in any order of arrival.

A state is stored in two packed values. ``hot`` holds the 256 newest distinct items and the session,
and is all that a page reads; ``rest`` holds everything older and is read by writes only.

What a person says of the shop rather than of an item is a fact too, of a *pseudo row* at the top of
the range (``feature_store/feedback.py`` says which). Pseudo rows are few, so they are always hot.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.schema import EVENT_TYPE_CODES, FEEDBACK_EVENTS, ITEM_EVENTS
from feature_store.values import value_class

FIRST_PSEUDO_ROW = 0xFFFF_0000
"""No item has this catalogue row or a later one."""
HOT_ITEMS = 256
SESSION_EVENTS = 50
FORMAT_VERSION = 1

U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]

_HEADER = struct.Struct("<BxHI")
FOLDED_CODES = frozenset(EVENT_TYPE_CODES[kind] for kind in ITEM_EVENTS | FEEDBACK_EVENTS)
"""Codes of the event types that change a state; others live in the log only."""


@value_class(frozen=True, slots=True, eq=False)
class UserState:
    """The facts of one person.

    Parameters
    ----------
    rows : ndarray of uint32, shape (n,)
        Catalogue rows and pseudo rows, sorted; with `types` they are the unique key of a fact.
    types : ndarray of uint8, shape (n,)
        Event type codes (``schema.EVENT_TYPE_CODES``).
    counts : ndarray of uint32, shape (n,)
        How many distinct events.
    first_s, last_s : ndarray of uint32, shape (n,)
        Time of the first and the last of them, in seconds since 1970.
    session_rows, session_types, session_s : ndarray, shape (m,)
        The newest single events about items, newest first; m is at most 50.
    """

    rows: U32
    types: U8
    counts: U32
    first_s: U32
    last_s: U32
    session_rows: U32
    session_types: U8
    session_s: U32

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserState) and pack(self) == pack(other)

    def __hash__(self) -> int:
        return hash(pack(self))

    @property
    def n_item_facts(self) -> int:
        """How many of the facts are about items: the first so many; the others are pseudo rows."""
        n = len(self.rows)
        if n and self.rows[-1] >= FIRST_PSEUDO_ROW:
            return int(np.searchsorted(self.rows, FIRST_PSEUDO_ROW))
        return n


_IS_FOLDED = np.isin(np.arange(256), sorted(FOLDED_CODES))
_NO_U32: U32 = np.zeros(0, dtype=np.uint32)
_NO_U8: U8 = np.zeros(0, dtype=np.uint8)
_COLUMNS = tuple(UserState.__dataclass_fields__)
_LAST_SECOND = np.uint32(np.iinfo(np.uint32).max)
EMPTY_STATE = UserState(_NO_U32, _NO_U8, _NO_U32, _NO_U32, _NO_U32, _NO_U32, _NO_U8, _NO_U32)


def _summed(columns: Sequence[npt.NDArray[Any]]) -> UserState:
    """Return the state of columns whose keys may repeat and whose session is in any order."""
    rows, types, counts, first_s, last_s, session_rows, session_types, session_s = columns
    keys = rows.astype(np.uint64) << np.uint64(8) | types.astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    keys = keys[starts]
    # Ties in time fall by type and row, so that the order of arrival is irrelevant.
    newest = np.lexsort((session_rows, session_types, _LAST_SECOND - session_s))[:SESSION_EVENTS]
    return UserState(
        (keys >> np.uint64(8)).astype(np.uint32),
        (keys & np.uint64(0xFF)).astype(np.uint8),
        np.add.reduceat(counts[order], starts, dtype=np.uint32),
        np.minimum.reduceat(first_s[order], starts),
        np.maximum.reduceat(last_s[order], starts),
        session_rows[newest],
        session_types[newest],
        session_s[newest],
    )


def add(state: UserState, other: UserState) -> UserState:
    """Sum two whole states of one person that come from disjoint sets of events."""
    if len(other.rows) == 0:
        return state
    if len(state.rows) == 0:
        return other
    return _summed(
        [np.concatenate((getattr(state, name), getattr(other, name))) for name in _COLUMNS]
    )


def fold(state: UserState, rows: U32, types: U8, times_s: U32) -> UserState:
    """Add distinct events to a state.

    Parameters
    ----------
    state : UserState
        What is known so far: all of it (`hot` and `rest` joined).
    rows, types, times_s : ndarray, shape (k,)
        Catalogue row, type code and time (seconds since 1970) of each event, in any order. Types
        that say nothing about an item are passed over.

    Returns
    -------
    UserState
        The sum; `state` is unchanged.
    """
    known = _IS_FOLDED[types]
    if not known.all():
        rows, types, times_s = rows[known], types[known], times_s[known]
    if len(rows) == 0:
        return state
    ones = np.ones(len(rows), dtype=np.uint32)
    about = rows < FIRST_PSEUDO_ROW
    session = (rows[about], types[about], times_s[about])
    return add(state, _summed((rows, types, ones, times_s, times_s, *session)))


def items_of(state: UserState) -> UserState:
    """Return a state without its pseudo rows."""
    n = state.n_item_facts
    if n == len(state.rows):
        return state
    return UserState(
        *_facts(state, slice(n)), state.session_rows, state.session_types, state.session_s
    )


def _facts(
    state: UserState, chosen: npt.NDArray[np.bool_] | slice
) -> tuple[U32, U8, U32, U32, U32]:
    return (
        state.rows[chosen],
        state.types[chosen],
        state.counts[chosen],
        state.first_s[chosen],
        state.last_s[chosen],
    )


def split(state: UserState) -> tuple[UserState, UserState]:
    """Divide a whole state into what pages read and what only writes read.

    Returns
    -------
    hot : UserState
        All facts of the 256 items with the newest last event and of pseudo rows, and the session.
    rest : UserState
        The facts of every other item, without a session.
    """
    n = state.n_item_facts
    rows = state.rows[:n]
    starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    if n == 0 or len(starts) <= HOT_ITEMS:
        return state, EMPTY_STATE
    newest_s = np.maximum.reduceat(state.last_s[:n], starts)
    by_age = np.lexsort((starts, _LAST_SECOND - newest_s))
    item_is_hot = np.zeros(len(starts), dtype=bool)
    item_is_hot[by_age[:HOT_ITEMS]] = True
    is_hot = np.ones(len(state.rows), dtype=bool)
    is_hot[:n] = np.repeat(item_is_hot, np.diff(starts, append=n))
    hot = UserState(
        *_facts(state, is_hot), state.session_rows, state.session_types, state.session_s
    )
    return hot, UserState(*_facts(state, ~is_hot), _NO_U32, _NO_U8, _NO_U32)


def join(hot: UserState, rest: UserState) -> UserState:
    """Undo :func:`split`: the whole state of a person."""
    if len(rest.rows) == 0:
        return hot
    rows = np.concatenate((hot.rows, rest.rows))
    types = np.concatenate((hot.types, rest.types))
    order = np.lexsort((types, rows))
    return UserState(
        rows[order],
        types[order],
        np.concatenate((hot.counts, rest.counts))[order],
        np.concatenate((hot.first_s, rest.first_s))[order],
        np.concatenate((hot.last_s, rest.last_s))[order],
        hot.session_rows,
        hot.session_types,
        hot.session_s,
    )


def hot_of(state: UserState) -> UserState:
    """Return what a page would read of a whole state."""
    return split(state)[0]


def pack(state: UserState) -> bytes:
    """Write a state as bytes: a header with the format's version, then the columns.

    An empty state packs to no bytes at all, so that it needs no key.
    """
    n, m = len(state.rows), len(state.session_rows)
    if n == 0 and m == 0:
        return b""
    return b"".join(
        (
            _HEADER.pack(FORMAT_VERSION, m, n),
            state.rows.tobytes(),
            state.counts.tobytes(),
            state.first_s.tobytes(),
            state.last_s.tobytes(),
            state.session_rows.tobytes(),
            state.session_s.tobytes(),
            state.types.tobytes(),
            state.session_types.tobytes(),
        )
    )


def unpack(data: bytes | None) -> UserState:
    """Read a packed state without copying its columns.

    Raises
    ------
    ValueError
        If the bytes are of another format version or of another length than they say.
    """
    if not data:
        return EMPTY_STATE
    version, m, n = _HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise ValueError(f"a packed state of format {version}; this program reads {FORMAT_VERSION}")
    words = 4 * n + 2 * m
    if len(data) != _HEADER.size + 4 * words + n + m:
        raise ValueError(f"a packed state of {len(data)} bytes is truncated or corrupt")
    u32 = np.frombuffer(data, np.uint32, words, _HEADER.size)
    u8 = np.frombuffer(data, np.uint8, n + m, _HEADER.size + 4 * words)
    return UserState(
        u32[:n],
        u8[:n],
        u32[n : 2 * n],
        u32[2 * n : 3 * n],
        u32[3 * n : 4 * n],
        u32[4 * n : 4 * n + m],
        u8[n:],
        u32[4 * n + m :],
    )


def fold_frame(events: pl.DataFrame) -> Iterator[tuple[str, UserState]]:
    """Fold the events of many people at once, for imports, rebuilds and evaluation.

    Parameters
    ----------
    events : DataFrame
        Facts of distinct events (``facts.fact_frame``): ``person`` (str), ``row`` (u32, catalogue
        or pseudo row), ``type`` (u8, code) and ``t_s`` (u32, seconds since 1970), in any order.

    Yields
    ------
    tuple of (str, UserState)
        Each person who has an event of a folded type, sorted by ``person``, with the same state
        that :func:`fold` would give.
    """
    events = events.filter(pl.col("type").is_in(sorted(FOLDED_CODES)))
    facts = (
        events.group_by("person", "row", "type")
        .agg(
            pl.len().cast(pl.UInt32).alias("count"),
            pl.col("t_s").min().alias("first_s"),
            pl.col("t_s").max().alias("last_s"),
        )
        .sort("person", "row", "type")
    )
    newest = (
        events.filter(pl.col("row") < FIRST_PSEUDO_ROW)
        .select("person", "row", "type", "t_s")
        .sort("person", "t_s", "type", "row", descending=[False, True, False, False])
        .group_by("person", maintain_order=True)
        .head(SESSION_EVENTS)
    )
    persons = facts["person"].unique(maintain_order=True)
    facts_at, newest_at = _starts(facts, persons), _starts(newest, persons)
    fact_columns = [
        facts[name].to_numpy() for name in ("row", "type", "count", "first_s", "last_s")
    ]
    session_columns = [newest[name].to_numpy() for name in ("row", "type", "t_s")]
    for index, person in enumerate(persons):
        facts_of = slice(facts_at[index], facts_at[index + 1])
        newest_of = slice(newest_at[index], newest_at[index + 1])
        yield (
            person,
            UserState(
                *(column[facts_of] for column in fact_columns),
                *(column[newest_of] for column in session_columns),
            ),
        )


def _starts(frame: pl.DataFrame, persons: pl.Series) -> list[int]:
    """Return where the rows of each person begin in a frame sorted by person, and its height."""
    counted = frame.group_by("person", maintain_order=True).len()
    ends = (
        persons.to_frame()
        .join(counted, on="person", how="left", maintain_order="left")
        .select(pl.col("len").fill_null(0).cum_sum())
        .to_series()
    )
    return [0, *ends.to_list()]
