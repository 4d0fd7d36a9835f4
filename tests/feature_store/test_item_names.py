"""A name is known exactly if some item has it, whatever was changed since the file was written."""

from typing import Any

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from feature_store.item_columns import COLUMNS
from feature_store.item_names import FileNames, ItemNames

STEPS = st.sampled_from(["A", "B", ">", "A >", ""])
PATHS = st.lists(STEPS, min_size=1, max_size=3).map(" > ".join)
ITEM = st.tuples(st.sampled_from(["X", "Y", "Z", None]), st.lists(PATHS, max_size=2))
ITEMS = st.lists(ITEM, max_size=4)
Item = tuple[str | None, list[str]]


def columns(item: Item) -> dict[str, Any]:
    brand, paths = item
    return {**dict.fromkeys(COLUMNS), "brand": brand, "categories": paths}


@given(ITEMS, st.lists(st.tuples(st.integers(0, 5), ITEM), max_size=8), PATHS)
def test_names_are_those_that_items_have(
    file: list[Item], changes: list[tuple[int, Item]], path: str
) -> None:
    frame = pl.DataFrame([columns(one) for one in file], schema=COLUMNS)
    names, n_rows = ItemNames(FileNames(frame)), 6
    now, had = dict(enumerate(file)), [*file]
    for row, item in changes:
        names = names.with_items({row: columns(item)})
        now[row] = item
        had.append(item)
    for brand in ("X", "Y", "Z", "W"):
        mask = names.mask("brand", brand, n_rows)
        assert set(np.flatnonzero(mask)) == {row for row, (one, _) in now.items() if one == brand}
        assert names.has("brand", brand) == any(one == brand for one, _ in had)

    def is_inside(item: Item) -> bool:
        return any(one == path or one.startswith(f"{path} > ") for one in item[1])

    mask = names.mask("category", path, n_rows)
    assert set(np.flatnonzero(mask)) == {row for row, item in now.items() if is_inside(item)}
    assert names.has("category", path) == any(is_inside(item) for item in had)
    for row in range(n_rows):
        keys = names.keys_of([row], len(file))
        item = now.get(row, (None, []))
        assert {text for kind, text in keys if kind == "brand"} == {item[0]} - {None}
        assert (("category", path) in keys) == is_inside(item)
