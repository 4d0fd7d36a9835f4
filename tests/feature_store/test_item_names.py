"""A name is known exactly if some item has it, whatever was changed since the file was written."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from feature_store.item_columns import COLUMNS
from feature_store.item_names import FileNames, ItemNames

STEPS = st.sampled_from(["A", "B", ">", "A >", ""])
PATHS = st.lists(STEPS, min_size=1, max_size=3).map(" > ".join)
ITEMS = st.lists(
    st.tuples(st.sampled_from(["X", "Y", "Z", None]), st.lists(PATHS, max_size=2)), max_size=4
)


def columns(items: list[tuple[str | None, list[str]]]) -> list[dict[str, object]]:
    return [
        {**dict.fromkeys(COLUMNS), "brand": brand, "categories": paths} for brand, paths in items
    ]


@given(ITEMS, ITEMS, PATHS)
def test_names_are_those_that_items_have(
    file: list[tuple[str | None, list[str]]], changed: list[tuple[str | None, list[str]]], path: str
) -> None:
    frame = pl.DataFrame(columns(file), schema=COLUMNS)
    names = ItemNames(FileNames(frame)).with_items(columns(changed))
    every = [*file, *changed]
    for brand in ("X", "Y", "Z", "W"):
        assert names.has("brand", brand) == any(one == brand for one, _ in every)
    inside = any(one == path or one.startswith(f"{path} > ") for _, paths in every for one in paths)
    assert names.has("category", path) == inside
