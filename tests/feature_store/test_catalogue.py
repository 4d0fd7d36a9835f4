"""The catalogue: ids, rows and masks; an overlay equals a fresh build; damage is refused."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.catalogue import MAX_NAMES, Catalogue, hash_ids
from feature_store.catalogue_files import CatalogueFiles, merged_frame
from feature_store.conditions import ConditionError, parse_condition
from feature_store.errors import ArtifactError
from feature_store.item_columns import COLUMNS, as_catalogue_frame, columns_of, stub_columns
from feature_store.schema import Item, ItemId
from feature_store.store import Store

ids_strategy = st.lists(
    st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable()), unique=True, max_size=90
)
PRODUCTS = frozenset({"product"})


def item(item_id: str, **fields: object) -> Item:
    return Item.model_validate({"item_id": item_id, **fields})


def build(items: list[Item]) -> Catalogue:
    ids = [ItemId(one.item_id) for one in items]
    columns = pl.DataFrame([columns_of(one) for one in items], schema=COLUMNS)
    return Catalogue(as_catalogue_frame(columns), *hash_ids(ids))


@given(ids_strategy, ids_strategy)
def test_every_id_finds_its_row_and_no_other(ids: list[str], others: list[str]) -> None:
    catalogue = Catalogue.from_item_ids(ids)
    assert [catalogue.row(one) for one in ids] == list(range(len(ids)))
    assert catalogue.rows(ids).tolist() == list(range(len(ids)))
    assert [catalogue.item_id(row) for row in range(len(ids))] == ids
    for other in set(others) - set(ids):
        assert catalogue.row(other) is None
    assert (catalogue.rows(sorted(set(others) - set(ids))) == -1).all()


items_strategy = st.lists(
    st.builds(
        lambda number, brand, available, paths: item(
            f"i{number}", brand=brand, available=available, categories=paths
        ),
        st.integers(0, 12),
        st.sampled_from([None, "A", "B"]),
        st.booleans(),
        st.lists(st.sampled_from(["Food", "Food > Fruit", "Foodie", "Toys"]), max_size=3),
    ),
    max_size=40,
)


@given(items_strategy, items_strategy)
def test_an_overlay_equals_a_catalogue_built_afresh(first: list[Item], later: list[Item]) -> None:
    rows: dict[str, int] = {}
    for one in first + later:
        rows.setdefault(one.item_id, len(rows))
    base = build(list({one.item_id: one for one in first}.values()))
    first_rows = list(dict.fromkeys(rows[one.item_id] for one in first))
    assert first_rows == list(range(base.n_rows))
    overlaid = base.with_changes([(rows[one.item_id], columns_of(one)) for one in later])
    newest: dict[str, Item] = {one.item_id: one for one in first + later}
    afresh = build([newest[item_id] for item_id in rows])
    assert [overlaid.item(row) for row in rows.values()] == [
        afresh.item(row) for row in rows.values()
    ]
    condition = parse_condition(
        {"any": [
            {"field": "item.categories", "op": "under", "value": "Food"},
            {"not": {"field": "item.brand", "op": "eq", "value": "A"}},
        ]}
    )  # fmt: skip
    for catalogue in (overlaid, afresh):
        expected = [
            any(path == "Food" or path.startswith("Food > ") for path in one.categories)
            or one.brand != "A"
            for one in (newest[item_id] for item_id in rows)
        ]
        assert catalogue.mask(condition.key, condition.expression()).tolist() == expected
        assert catalogue.showable(0, PRODUCTS).tolist() == [
            newest[item_id].available for item_id in rows
        ]


def test_publication_and_expiry_take_effect_to_the_second() -> None:
    catalogue = build(
        [
            item("soon", published_at="2026-01-01T00:00:10Z"),
            item("gone", expires_at="2026-01-01T00:00:20Z"),
        ]
    )
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    seen = [catalogue.showable(start + s, PRODUCTS).tolist() for s in (0, 9, 10, 19, 20)]
    assert seen == [[False, True], [False, True], [True, True], [True, True], [True, False]]


def test_an_item_is_written_as_the_contract_says() -> None:
    fields = {
        "price": {"amount": "15.5", "currency": "EUR"},
        "categories": ["A > B"],
        "attributes": {"size": 3},
        "published_at": "2026-01-01T01:00:00+01:00",
    }
    document = build([item("a/b", **fields)]).item(0)
    assert document["price"] == {"amount": "15.50", "currency": "EUR"}
    assert document["published_at"] == "2026-01-01T00:00:00Z"
    assert document["attributes"] == {"size": 3}
    assert document["sale_price"] is None


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ([], ""),
        ({"all": []}, "/all"),
        ({"any": [{"field": "item.colour", "op": "eq", "value": "x"}]}, "/any/0/field"),
        ({"field": "item.price", "op": "under", "value": 3}, "/op"),
        ({"field": "item.price", "op": "lt", "value": "3"}, "/value"),
        ({"field": "item.brand", "op": "in", "value": []}, "/value"),
        ({"field": "item.brand", "op": "in", "value": ["x", 3]}, "/value/1"),
        ({"field": "item.published_at", "op": "lt", "value": "2026-01-01"}, "/value"),
        ({"not": {"field": "item.brand", "op": "eq", "value": "x", "note": 1}}, "/not/note"),
    ],
)
def test_a_bad_condition_is_refused_with_a_pointer(value: object, pointer: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_condition(value)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("eq", "L", [True, False, False]),
        ("contains", "M", [False, True, False]),
        ("exists", False, [False, False, True]),
        ("gt", 3, [False, False, False]),
        ("not_in", ["L"], [False, True, True]),
    ],
)
def test_attributes_are_compared_as_json(op: str, value: object, expected: list[bool]) -> None:
    catalogue = build(
        [
            item("a", attributes={"size": "L"}),
            item("b", attributes={"size": ["S", "M"]}),
            item("c"),
        ]
    )
    condition = parse_condition({"field": "item.attributes.size", "op": op, "value": value})
    assert catalogue.mask(condition.key, condition.expression()).tolist() == expected


def test_a_file_that_was_altered_or_cut_is_refused(tmp_path: Path) -> None:
    files = CatalogueFiles(tmp_path)
    assert files.load().catalogue.n_rows == 0
    frame = as_catalogue_frame(pl.DataFrame({"item_id": ["a", "b"]}))
    version = files.publish(frame, 0)
    assert files.load().catalogue.item_ids() == ["a", "b"]
    for name in ("items.arrow", "id_hash.npy"):
        path = tmp_path / version / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-5])
        with pytest.raises(ArtifactError, match="damaged"):
            files.load()
        path.write_bytes(whole[:-5] + b"xxxxx")
        with pytest.raises(ArtifactError, match="damaged"):
            files.load()
        path.write_bytes(whole)
    assert files.load().catalogue.row("b") == 1


def test_rows_that_were_never_written_are_holes() -> None:
    frame = merged_frame(Catalogue.empty(), pl.DataFrame({"item_id": ["a", "d"]}), [0, 3])
    catalogue = Catalogue(frame, *hash_ids(frame["item_id"].to_list()))
    assert catalogue.n_rows == 4
    assert catalogue.showable(0, PRODUCTS).tolist() == [True, False, False, True]
    changed = catalogue.with_changes([(6, stub_columns("x"))])
    assert changed.showable(0, PRODUCTS).tolist() == [True, False, False, True, *[False] * 2, True]
    assert np.flatnonzero(changed.mask("all", pl.lit(value=True))).tolist() == [0, 3, 6]


async def test_an_import_keeps_rows_and_trims_the_log(tmp_path: Path, store: Store) -> None:
    files = CatalogueFiles(tmp_path)
    (stub,) = await store.catalogue.rows_of(["seen first in an event"])
    await store.catalogue.import_items(files, pl.DataFrame({"item_id": ["a", "b"]}))
    (later,) = await store.catalogue.rows_of(["later"])
    await store.catalogue.import_items(
        files, pl.DataFrame({"item_id": ["b", "c"], "title": ["B", "C"]})
    )
    loaded = files.load()
    assert loaded.catalogue.item_ids() == ["seen first in an event", "a", "b", "later", "c"]
    assert (stub, later) == (0, 3)
    assert loaded.catalogue.item(2)["title"] == "B"
    assert await store.catalogue.changes_since(loaded.sequence) == []
    assert await store.catalogue.changes_since(0) is None
    await store._redis.flushall()
    assert await store.catalogue.restore(loaded.catalogue, loaded.sequence)
    store.catalogue._known.clear()
    assert await store.catalogue.rows_of(["c", "new", "a"]) == [4, 5, 1]


async def test_a_hole_is_not_given_again(tmp_path: Path, store: Store) -> None:
    files = CatalogueFiles(tmp_path)
    files.publish(merged_frame(Catalogue.empty(), pl.DataFrame({"item_id": ["a", "d"]}), [0, 3]), 0)
    loaded = files.load()
    assert await store.catalogue.restore(loaded.catalogue, loaded.sequence)
    assert await store.catalogue.rows_of(["d", "e"]) == [3, 4]


def test_names_are_found_when_more_were_asked_for_than_are_kept() -> None:
    """Thousands of customers hide as many brands."""
    frame = pl.DataFrame(
        {"item_id": [f"i{at}" for at in range(20)], "brand": [f"b{at}" for at in range(20)]}
    )
    catalogue = Catalogue(as_catalogue_frame(frame), *hash_ids(frame["item_id"]))

    def rows(name: int) -> list[int]:
        found = catalogue.named("brand", f"b{name}")
        return np.flatnonzero(np.unpackbits(found, count=20)).tolist()

    names = [*range(20), *range(20, MAX_NAMES + 40)]
    for name in (*names, *range(30), *names):
        assert rows(name) == ([name] if name < 20 else [])


def test_a_change_costs_the_masks_nothing_until_they_are_asked_for() -> None:
    """A thousand filters that somebody asked for once must not slow down every later change."""
    first = Catalogue.from_item_ids([f"i{at}" for at in range(20)])
    asked = 0

    def count(values: pl.Series) -> pl.Series:
        nonlocal asked
        asked += 1
        return values == "changed"

    def mask(catalogue: Catalogue) -> list[int]:
        expression = pl.col("title").map_batches(count, return_dtype=pl.Boolean)
        return np.flatnonzero(catalogue.mask("title", expression)).tolist()

    def changed(catalogue: Catalogue, row: int, **more: object) -> Catalogue:
        columns = dict(catalogue.columns_at(row) or stub_columns(f"i{row}"))
        return catalogue.with_changes({row: {**columns, "title": "changed", **more}})

    assert mask(first) == []
    before, catalogue = asked, first
    for row in (3, 5, 3, 22):
        catalogue = changed(catalogue, row)
    assert asked == before
    for _ in range(2):
        assert mask(catalogue) == [3, 5, 22]
        assert asked == before + 1
    assert mask(changed(catalogue, 5, deleted=True)) == [3, 22]
    # Two that follow on the same one do not see each other's changes.
    one, other = changed(first, 7), changed(first, 8)
    assert [mask(either) for either in (one, other, one)] == [[7], [8], [7]]
