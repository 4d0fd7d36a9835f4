"""From an item's id to its row: a sorted table of fingerprints that can be memory-mapped.

The fingerprint of an id is its UTF-8 bytes read as one number, modulo two primes (M. O. Rabin,
"Fingerprinting by random polynomials", 1981, with integers): for whole columns numpy computes it
without making a Python string, for one id ``int.from_bytes`` does. Two ids may share one, so
whoever finds a row compares the id.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

_PRIMES = (2**31 - 1, 2**31 - 19)
_SLICE = 100_000
_MAX_BYTES = 1_024


def _powers(prime: int) -> I64:
    powers = [1]
    for _ in range(_MAX_BYTES - 1):
        powers.append(powers[-1] * 256 % prime)
    return np.array(powers, dtype=np.int64)


_POWERS = tuple(_powers(prime) for prime in _PRIMES)


def id_hash(item_id: str) -> int:
    """Return the stable 62-bit fingerprint under which an id is looked up."""
    number = int.from_bytes(item_id.encode("utf-8", "surrogatepass")[:_MAX_BYTES], "little")
    return number % _PRIMES[0] << 32 | number % _PRIMES[1]


def hashes_of(item_ids: pl.Series) -> U64:
    """Return the fingerprint of each id of a column; 0 for a null.

    Parameters
    ----------
    item_ids : Series of String

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    parts = [_slice_hashes(part) for part in _slices(item_ids)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def _slices(item_ids: pl.Series) -> list[pl.Series]:
    return [item_ids.slice(at, _SLICE) for at in range(0, len(item_ids), _SLICE)]


def _slice_hashes(item_ids: pl.Series) -> U64:
    text = item_ids.fill_null("").to_arrow()
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[text.offset : text.offset + len(text) + 1]
    result = np.zeros(len(text), dtype=np.uint64)
    lengths = np.diff(ends)
    filled = np.flatnonzero(lengths)
    if len(filled) == 0:
        return result
    codes = np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]].astype(np.int64)
    starts = ends[:-1] - ends[0]
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    codes[places >= _MAX_BYTES] = 0
    places = np.minimum(places, _MAX_BYTES - 1)
    halves = [
        np.add.reduceat(codes * powers[places], starts[filled]) % prime
        for prime, powers in zip(_PRIMES, _POWERS, strict=True)
    ]
    result[filled] = (halves[0] << 32 | halves[1]).astype(np.uint64)
    return result


def hash_ids(item_ids: Sequence[str | None] | pl.Series) -> tuple[U64, I32]:
    """Return sorted fingerprints of ids and the row of each; ``None`` (a hole) has no entry.

    Parameters
    ----------
    item_ids : sequence of str or None, or Series of String
        In row order.

    Returns
    -------
    hashes : ndarray of uint64, shape (m,)
    rows : ndarray of int32, shape (m,)
    """
    column = item_ids if isinstance(item_ids, pl.Series) else pl.Series(item_ids, dtype=pl.String)
    rows = np.flatnonzero(column.is_not_null().to_numpy()).astype(np.int32)
    hashes = hashes_of(column)[rows]
    order = np.argsort(hashes, kind="stable")
    return hashes[order], rows[order]


def find_rows(hashes: U64, rows: I32, known: pl.Series, wanted: pl.Series) -> I32:
    """Return the row of each id; -1 where it has none.

    Parameters
    ----------
    hashes, rows : ndarray
        Result of :func:`hash_ids` for `known`.
    known : Series of String
        All ids in row order.
    wanted : Series of String
        Ids to look up, without nulls.

    Returns
    -------
    ndarray of int32, shape (len(wanted),)
    """
    found = np.full(len(wanted), -1, dtype=np.int32)
    if len(hashes) == 0 or len(wanted) == 0:
        return found
    for start in range(0, len(wanted), _SLICE):
        part = wanted.slice(start, _SLICE)
        found[start : start + len(part)] = _find_slice(hashes, rows, known, part)
    return found


def _find_slice(hashes: U64, rows: I32, known: pl.Series, wanted: pl.Series) -> I32:
    asked = hashes_of(wanted)
    # In their order: a search that jumps about waits for memory each time.
    order = np.argsort(asked)
    places = np.empty(len(asked), dtype=np.int64)
    places[order] = np.searchsorted(hashes, asked[order])
    result = np.full(len(asked), -1, dtype=np.int32)
    open_ = np.flatnonzero(places < len(hashes))
    # Ids that share a fingerprint stand side by side: the next one is looked at until it differs.
    while len(open_):
        open_ = open_[hashes[places[open_]] == asked[open_]]
        candidates = rows[places[open_]]
        same = (known.gather(candidates) == wanted.gather(open_)).fill_null(value=False).to_numpy()
        result[open_[same]] = candidates[same]
        open_ = open_[~same]
        places[open_] += 1
        open_ = open_[places[open_] < len(hashes)]
    return result
