"""Tokens of items: the same for a file, for a live change, in training and in serving."""

from typing import Any

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.content import (
    EVERY,
    MAX_ATTRIBUTE_LENGTH,
    columns_at,
    summed,
    token_hash,
    token_hashes,
    tokens_of,
)
from feature_store.item_columns import as_catalogue_frame, columns_of
from feature_store.schema import Item, ItemId

texts = st.text(max_size=12)
items = st.lists(
    st.builds(
        lambda **fields: fields,
        title=st.none() | texts,
        brand=st.none() | texts,
        categories=st.lists(
            st.lists(st.text("aBß>é", min_size=1, max_size=4), min_size=1, max_size=3).map(
                " > ".join
            ),
            max_size=3,
        ),
        attributes=st.dictionaries(
            texts,
            st.none()
            | texts
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.lists(texts, max_size=3)
            | st.dictionaries(texts, texts, max_size=2),
            max_size=3,
        ),
    ),
    max_size=6,
)


def item_of(row: int, fields: dict[str, Any]) -> Item:
    return Item(item_id=ItemId(f"i{row}"), **fields)


def catalogue_of(found: list[dict[str, Any]]) -> Catalogue:
    rows = [columns_of(item_of(row, fields)) for row, fields in enumerate(found)]
    frame = pl.DataFrame(rows) if rows else pl.DataFrame({"item_id": []})
    ids = [row["item_id"] for row in rows]
    return Catalogue(as_catalogue_frame(frame), *hash_ids(ids))


def tokens_in(catalogue: Catalogue) -> dict[int, set[str]]:
    found = tokens_of(columns_at(catalogue, np.arange(catalogue.n_rows)))
    assert found.height == found.unique().height
    return {
        row: set(found.filter(pl.col("row") == row)["token"]) for row in range(catalogue.n_rows)
    }


def test_the_tokens_of_one_item() -> None:
    fields = {
        "title": "Old Gouda, 24 Months",
        "brand": "ACME",
        "categories": ["Dairy > Cheese", "Gifts"],
        "attributes": {
            "Country": "NL", "fat": 48, "organic": True, "tags": ["hard", "NUTTY"],
            "text": "x" * (MAX_ATTRIBUTE_LENGTH + 1), "empty": "", "nested": {"a": 1},
        },
    }  # fmt: skip
    assert tokens_in(catalogue_of([fields]))[0] == {
        "c:dairy", "c:dairy > cheese", "c:gifts", "b:acme",
        "w:old", "w:gouda", "w:24", "w:months", "w:dairy", "w:cheese", "w:gifts",
        "a:country=nl", "a:fat=48", "a:organic=true", "a:tags=hard", "a:tags=nutty",
    }  # fmt: skip
    assert tokens_in(Catalogue.from_item_ids(["a", "b"])) == {0: set(), 1: set()}


@given(items, items)
def test_a_live_change_has_the_tokens_that_a_file_would_have(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    """Items upserted over a catalogue, and beyond its end, read like those of a fresh file."""
    changes = [(row, columns_of(item_of(row, fields))) for row, fields in enumerate(after)]
    live = catalogue_of(before).with_changes(changes)
    assert tokens_in(live) == tokens_in(catalogue_of([*after, *before[len(after) :]]))


def test_a_hole_has_no_tokens() -> None:
    catalogue = catalogue_of([{"title": "one"}]).with_changes(
        [(3, columns_of(item_of(3, {"title": "four"})))]
    )
    assert tokens_in(catalogue) == {0: {"w:one"}, 1: set(), 2: set(), 3: {"w:four"}}


def test_sums_are_those_of_the_known_tokens() -> None:
    known = np.sort(token_hashes([EVERY, "a", "b"]))
    place = {token: int(np.searchsorted(known, token_hash(token))) for token in (EVERY, "a", "b")}
    values = np.zeros((3, 2), dtype=np.float32)
    values[place[EVERY]], values[place["a"]], values[place["b"]] = (1, 0), (10, 1), (100, 5)
    tokens = pl.DataFrame(
        {"row": [7, 7, 2, 7, 9], "token": ["a", "b", "a", "unheard", "b"]},
        schema={"row": pl.UInt32, "token": pl.String},
    )
    sums, n_known = summed(tokens, [2, 4, 7], known, values)
    assert sums.tolist() == [[11, 1], [1, 0], [111, 6]]
    assert n_known.tolist() == [1, 0, 2]
    nothing, none = summed(tokens, [2], known[:0], values[:0])
    assert nothing.tolist() == [[0, 0]]
    assert none.tolist() == [0]
