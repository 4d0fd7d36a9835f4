"""What masks and scores need of the items, as arrays: computed when a catalogue is published.

Each array has one entry a row, and in a file some more, so that a catalogue that grows by a few
items can go on with the mapped file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from feature_store.item_ids import hashes_of
from feature_store.mapped import MappedArray

Array = npt.NDArray[Any]
I32 = npt.NDArray[np.int32]

KINDS = ("product", "content", "offer")
PRESENT, AVAILABLE, KIND_SHIFT = 1, 2, 2
FAR_S = 2**40
"""Later than any time that a request can be about."""
SLACK_ROWS = 65_536
CODES = "codes.json"
MARKET_ROWS, MARKET_AVAILABLE = "market_rows", "market_available"

COLUMNS: dict[str, tuple[str, int]] = {
    "states": ("uint8", 0),
    "published_s": ("int64", 0),
    "expires_s": ("int64", FAR_S),
    "category_codes": ("int32", 0),
    "department_codes": ("int32", 0),
    "group_codes": ("int64", -1),
}
"""Name, dtype and value for a hole of each array.

``states`` has :data:`PRESENT` (an item that is not deleted), :data:`AVAILABLE` and the kind in the
bits above; times are in seconds since 1970, rounded up; ``category_codes`` are codes of the first
category path, ``department_codes`` of the path above it, 0 for none; ``group_codes`` are
fingerprints of the variant group (``item_ids.id_hash``), -1 for none.
"""

_FEW = 2_000


@dataclass(frozen=True, slots=True)
class Markets:
    """Which items are available, or not, in a market by an entry of their own.

    Parameters
    ----------
    spans : mapping of str to (int, int)
        Where each market's entries stand.
    rows : ndarray of int32, shape (m,)
        Catalogue rows, sorted within a market.
    available : ndarray of bool, shape (m,)
        What the entries say.
    """

    spans: Mapping[str, tuple[int, int]]
    rows: I32
    available: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Derived:
    """All derived columns of a frame.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of :data:`COLUMNS`; at least as long as the frame.
    codes : mapping of str to dict
        Codes of category and department paths; grows, so that a code never changes.
    markets : Markets
        Availability by market.
    files : mapping of str to MappedArray
        Where the arrays are mapped from; empty for arrays of this process.
    """

    arrays: Mapping[str, Array]
    codes: Mapping[str, dict[str, int]]
    markets: Markets
    files: Mapping[str, MappedArray] = field(default_factory=dict)


def derive(frame: pl.DataFrame) -> Derived:
    """Compute the derived columns of a frame.

    Parameters
    ----------
    frame : DataFrame
        ``item_columns.COLUMNS`` in row order.
    """
    codes: dict[str, dict[str, int]] = {"category": {}, "department": {}}
    return Derived(encode(frame, codes), codes, _markets_of(frame))


def encode(frame: pl.DataFrame, codes: Mapping[str, dict[str, int]]) -> dict[str, Array]:
    """Return the arrays of some rows; paths that have no code yet get the next one."""
    first = frame["categories"].list.first()
    above = first.str.replace(r" > [^>]*$", "")
    kinds = frame["kind"].replace_strict(
        {kind: code for code, kind in enumerate(KINDS)},
        default=len(KINDS),
        return_dtype=pl.UInt8,
    )
    present = frame["item_id"].is_not_null() & ~frame["deleted"].fill_null(value=False)
    states = kinds.fill_null(len(KINDS)).to_numpy() << KIND_SHIFT
    states |= present.to_numpy() * np.uint8(PRESENT)
    states |= frame["available"].fill_null(value=False).to_numpy() * np.uint8(AVAILABLE)
    groups = hashes_of(frame["group_id"]).astype(np.int64)
    groups[frame["group_id"].is_null().to_numpy()] = -1
    return {
        "states": states,
        "published_s": _seconds(frame["published_at"], 0),
        "expires_s": _seconds(frame["expires_at"], FAR_S),
        "category_codes": _coded(first, codes["category"]),
        "department_codes": _coded(above, codes["department"]),
        "group_codes": groups,
    }


def _seconds(times: pl.Series, missing: int) -> npt.NDArray[np.int64]:
    """Return whole seconds, rounded up: a moment within a second counts from the next one on."""
    given = times.dt.epoch("ms").fill_null(missing * 1_000).to_numpy()
    return -(-given // 1_000)


def _coded(texts: pl.Series, known: dict[str, int]) -> I32:
    for text in texts.drop_nulls().unique(maintain_order=True).to_list():
        known.setdefault(text, len(known) + 1)
    if len(texts) <= _FEW:
        # A table of all paths is not made for a handful of items.
        return np.array([known.get(text, 0) for text in texts.to_list()], dtype=np.int32)
    found = texts.replace_strict(known, default=0, return_dtype=pl.Int32)
    codes: I32 = found.fill_null(0).to_numpy()
    return codes


def _markets_of(frame: pl.DataFrame) -> Markets:
    entries = (
        frame.lazy()
        .select(pl.int_range(pl.len(), dtype=pl.Int32).alias("row"), "markets")
        .filter(pl.col("markets").list.len() > 0)
        .explode("markets")
        .unnest("markets")
        .filter(pl.col("available").is_not_null())
        .select("market", "row", "available")
        .sort("market", "row")
        .collect()
    )
    sizes = entries.group_by("market", maintain_order=True).len()
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for market, size in sizes.iter_rows():
        spans[market] = (end, end + size)
        end += size
    return Markets(spans, entries["row"].to_numpy(), entries["available"].to_numpy())


def save(folder: Path, derived: Derived, n_rows: int) -> list[str]:
    """Write derived columns into a folder, with room to grow; return the names of the files.

    Parameters
    ----------
    folder : Path
        Of the catalogue's version.
    derived : Derived
        Result of :func:`derive`.
    n_rows : int
        Rows of the frame.
    """
    for name, (dtype, missing) in COLUMNS.items():
        values = np.full(n_rows + SLACK_ROWS, missing, dtype=dtype)
        values[:n_rows] = derived.arrays[name]
        np.save(folder / f"{name}.npy", values)
    np.save(folder / f"{MARKET_ROWS}.npy", derived.markets.rows)
    np.save(folder / f"{MARKET_AVAILABLE}.npy", derived.markets.available)
    document = {"codes": derived.codes, "markets": derived.markets.spans}
    (folder / CODES).write_bytes(orjson.dumps(document))
    return [*(f"{name}.npy" for name in (*COLUMNS, MARKET_ROWS, MARKET_AVAILABLE)), CODES]


def load(folder: Path) -> Derived:
    """Map what :func:`save` has written.

    Raises
    ------
    OSError, ValueError, KeyError
        If a file is missing or malformed.
    """
    files = {name: MappedArray(folder / f"{name}.npy") for name in COLUMNS}
    document = orjson.loads((folder / CODES).read_bytes())
    markets = Markets(
        {market: (int(start), int(end)) for market, (start, end) in document["markets"].items()},
        MappedArray(folder / f"{MARKET_ROWS}.npy").shared(),
        MappedArray(folder / f"{MARKET_AVAILABLE}.npy").shared(),
    )
    arrays = {name: file.shared() for name, file in files.items()}
    return Derived(arrays, document["codes"], markets, files)


def successor(
    old: Mapping[str, Array],
    files: Mapping[str, MappedArray],
    n_rows: int,
    overlaid: npt.NDArray[np.int64],
    changed: tuple[npt.NDArray[np.int64], Mapping[str, Array]],
) -> dict[str, Array]:
    """Return the arrays of a catalogue in which some rows are replaced or added.

    An array in which nothing changes is the old one itself; another is a fresh mapping of the file
    with all that lies over it, so that it takes memory for the pages that differ.

    Parameters
    ----------
    old : mapping of str to ndarray
        Arrays of the catalogue before.
    files : mapping of str to MappedArray
        Where the first arrays were mapped from; may be empty.
    n_rows : int
        Rows of the new catalogue.
    overlaid : ndarray of int64
        Rows in which `old` differs from the files.
    changed : ndarray of int64 and mapping of str to ndarray
        Rows, and their new values.
    """
    rows, values = changed
    result: dict[str, Array] = {}
    for name, (dtype, missing) in COLUMNS.items():
        array = old[name]
        if n_rows <= len(array) and (array[rows] == values[name]).all():
            result[name] = array
            continue
        file = files.get(name)
        if file is not None and n_rows <= file.shape[0]:
            fresh = file.own()
            fresh[overlaid] = array[overlaid]
        else:
            fresh = np.full(n_rows + n_rows // 16, missing, dtype=dtype)
            fresh[: len(array)] = array[: len(fresh)]
        fresh[rows] = values[name]
        fresh.flags.writeable = False
        result[name] = fresh
    return result
