"""What an item is made of, as tokens: from them the place of a new item among others is guessed.

Training learns what each token says about factors and popularity; serving adds up the tokens of
items that the model has not seen. Both read tokens by this one function.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.item_columns import COLUMNS

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

EVERY = ""
"""A token that every item has: what is said of an item of which nothing else is known."""

MAX_ATTRIBUTE_LENGTH = 64
"""A longer value is a text that belongs to one item, not something that items share."""

_WORD = r"[\p{L}\p{N}]{2,}"
_READ = ("item_id", "kind", "title", "brand", "categories", "attributes")


def token_hash(token: str) -> int:
    """Return the stable 64-bit hash under which an artifact names a token."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def token_hashes(tokens: Sequence[str]) -> U64:
    """Return the hash of each token."""
    return np.fromiter(map(token_hash, tokens), dtype=np.uint64, count=len(tokens))


def columns_at(catalogue: Catalogue, rows: npt.NDArray[np.integer]) -> pl.DataFrame:
    """Return what tokens are read from, for some rows of a catalogue.

    Returns
    -------
    DataFrame
        ``row`` (u32) and columns of ``item_columns.COLUMNS``; holes are left out, and rows stand in
        any order.
    """
    schema = {name: COLUMNS[name] for name in _READ}
    overlay = catalogue.overlay
    is_filed = np.array([row not in overlay for row in rows.tolist()], dtype=bool)
    filed = rows[is_filed & (rows < catalogue.frame.height)]
    changed = rows[~is_filed].tolist()
    above = [{name: overlay[row][name] for name in _READ} for row in changed]
    frames = [
        catalogue.frame.select(_READ)[filed].with_columns(row=pl.Series(filed, dtype=pl.UInt32)),
        pl.DataFrame(above, schema=schema).with_columns(row=pl.Series(changed, dtype=pl.UInt32)),
    ]
    return pl.concat(frames).filter(pl.col("item_id").is_not_null())


def tokens_of(items: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct tokens of items.

    A token is a category path or a beginning of one (``c:Food > Cheese``), a brand (``b:acme``), an
    attribute with its value (``a:colour=red``, one for each value of a list), or a word of the
    title or of a category (``w:cheese``): so an article called "Cheese for beginners" is near the
    products whose category names cheese. Letters are in lower case.

    Parameters
    ----------
    items : DataFrame
        Result of `columns_at`.

    Returns
    -------
    DataFrame
        ``row`` (u32) and ``token`` (str).
    """
    paths = items.select("row", path="categories").explode("path").drop_nulls()
    steps = paths.select("row", step=pl.col("path").str.to_lowercase().str.split(" > "))
    depth = steps["step"].list.len().max() or 0
    assert isinstance(depth, int)
    parts = [
        _named("c:", steps.filter(pl.col("step").list.len() >= n), _beginning(n))
        for n in range(1, depth + 1)
    ]
    parts.append(_named("b:", items, pl.col("brand").str.to_lowercase()))
    for frame, column in ((items, "title"), (paths, "path")):
        words = pl.col(column).str.to_lowercase().str.extract_all(_WORD)
        parts.append(_named("w:", frame.select("row", words.alias("w")).explode("w"), pl.col("w")))
    parts.append(_attribute_tokens(items))
    return pl.concat(parts).unique()


def _beginning(n: int) -> pl.Expr:
    return pl.col("step").list.head(n).list.join(" > ")


def _named(kind: str, frame: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    return frame.select("row", token=kind + value).drop_nulls()


def _attribute_tokens(items: pl.DataFrame) -> pl.DataFrame:
    """Read attributes, each distinct text once."""
    texts = items["attributes"].drop_nulls().unique(maintain_order=True)
    texts = texts.filter(texts != "{}")
    read = pl.DataFrame(
        {"attributes": texts, "token": [_attributes(text) for text in texts.to_list()]},
        schema={"attributes": pl.String, "token": pl.List(pl.String)},
    )
    joined = items.select("row", "attributes").join(read, on="attributes")
    return joined.explode("token").select("row", "token").drop_nulls()


def _attributes(text: str) -> list[str]:
    found: dict[str, Any] = orjson.loads(text)
    return attribute_tokens(found)


def attribute_tokens(attributes: Mapping[str, Any]) -> list[str]:
    """Return the tokens of attributes, of an item or of a person: one for each name and value."""
    return [
        f"a:{name.lower()}={shown}"
        for name, value in attributes.items()
        for part in (value if isinstance(value, list) else [value])
        if (shown := _shown(part)) is not None
    ]


def _shown(value: object) -> str | None:
    """Return a value as a token has it; ``None`` for what items do not share."""
    if isinstance(value, str):
        return value.lower() if 0 < len(value) <= MAX_ATTRIBUTE_LENGTH else None
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    return None


def summed(
    tokens: pl.DataFrame, rows: Iterable[int], known: U64, values: F32
) -> tuple[F32, npt.NDArray[np.int64]]:
    """Add up what is known of the tokens of items.

    Parameters
    ----------
    tokens : DataFrame
        Result of `tokens_of`.
    rows : iterable of int
        Of which items, distinct; in this order is the result.
    known : ndarray of uint64, shape (v,)
        Hashes of tokens, ascending.
    values : ndarray of float32, shape (v, m)
        What each of them adds.

    Returns
    -------
    sums : ndarray of float32, shape (len(rows), m)
        Of each item, that of :data:`EVERY` included.
    n_known : ndarray of int64, shape (len(rows),)
        How many of its own tokens are known; where it is 0 nothing is known of the item.
    """
    place = {row: at for at, row in enumerate(rows)}
    sums = np.zeros((len(place), values.shape[1]), dtype=np.float32)
    counts = np.zeros(len(place), dtype=np.int64)
    if len(known) == 0:
        return sums, counts
    at = np.array([place.get(row, -1) for row in tokens["row"].to_list()], dtype=np.int64)
    hashes = token_hashes(tokens["token"].to_list())
    found = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    hit = (known[found] == hashes) & (at >= 0)
    np.add.at(sums, at[hit], values[found[hit]])
    np.add.at(counts, at[hit], 1)
    base = int(np.searchsorted(known, np.uint64(token_hash(EVERY))))
    if base < len(known) and known[base] == token_hash(EVERY):
        sums += values[base]
    return sums, counts
