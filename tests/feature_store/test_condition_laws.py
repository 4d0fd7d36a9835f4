"""One law: a condition means the same over columns, over many encoded ones, over documents."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.conditions import (
    ConditionError,
    ItemTable,
    Scope,
    Vocabulary,
    compile_predicate,
    parse_condition,
)
from feature_store.item_columns import COLUMNS, as_catalogue_frame, columns_of
from feature_store.schema import Item

brands = st.sampled_from(["A", "B", "a b", ""])
paths = st.sampled_from(["Food", "Food > Fruit", "Foodie", "Toys > Big > Red"])
prices = st.integers(0, 40_000).map(lambda n: f"{n / 10_000:.4f}") | st.just("9999999999.9999")
times = st.integers(0, 3_000).map(
    lambda ms: datetime.fromtimestamp(1_767_225_600 + ms / 1_000, UTC).isoformat()
)
attribute_values = (
    st.sampled_from(["L", "M", "", True, False, 0, 1, 2.5, None, {"deep": 1}])
    | st.lists(st.sampled_from(["L", "S", 1, True, None, "x"]), max_size=3)
)  # fmt: skip
items_strategy = st.lists(
    st.fixed_dictionaries(
        {"categories": st.lists(paths, max_size=3), "available": st.booleans()},
        optional={
            "kind": st.sampled_from(["product", "content"]),
            "title": st.sampled_from(["", "Red shoe", "A.c", "RED"]),
            "brand": brands,
            "group_id": st.sampled_from(["g", "h"]),
            "price": prices.map(lambda amount: {"amount": amount, "currency": "EUR"}),
            "published_at": times,
            "expires_at": times,
            "attributes": st.dictionaries(
                st.sampled_from(["size", "a.b", "ü"]), attribute_values, max_size=3
            ),
        },
    ),
    min_size=1,
    max_size=12,
)

_scalars: dict[str, st.SearchStrategy[Any]] = {
    "item.item_id": st.sampled_from(["i0", "i1", "i/x"]),
    "item.kind": st.sampled_from(["product", "content"]),
    "item.title": st.sampled_from(["", "Red", "A.c", ".*"]),
    "item.brand": brands,
    "item.group_id": st.sampled_from(["g", "x"]),
    "item.categories": paths,
    "item.price": prices.map(float) | st.integers(0, 4),
    "item.sale_price": prices.map(float),
    "item.available": st.booleans(),
    "item.published_at": times,
    "item.expires_at": times,
    "item.attributes.size": st.sampled_from(["L", "", "M", True, False, 0, 1, 1.0, 2.5]),
    "item.attributes.a.b": st.sampled_from(["x", 1]),
    "item.attributes.ü": st.sampled_from(["S", False]),
}


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(sorted(_scalars)))
    op = draw(st.sampled_from(
        ["eq", "ne", "in", "not_in", "lt", "lte", "gt", "gte", "between", "contains", "under",
         "exists"]
    ))  # fmt: skip
    value: Any = draw(_scalars[field])
    if op == "exists":
        value = draw(st.booleans())
    elif op == "between":
        value = [value, draw(_scalars[field])]
    elif op in ("in", "not_in"):
        value = draw(st.lists(_scalars[field], min_size=1, max_size=3))
    return {"field": field, "op": op, "value": value}


def understood(tree: dict[str, Any]) -> bool:
    try:
        parse_condition(tree)
    except ConditionError:
        return False
    return True


trees = st.recursive(
    leaves().filter(understood),
    lambda children: st.one_of(
        st.lists(children, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(children, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        children.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)


def build(documents: list[dict[str, Any]]) -> Catalogue:
    items = [
        Item.model_validate({"item_id": f"i{at}", **document})
        for at, document in enumerate(documents)
    ]
    frame = pl.DataFrame([columns_of(one) for one in items], schema=COLUMNS)
    return Catalogue(as_catalogue_frame(frame), *hash_ids([one.item_id for one in items]))


@settings(deadline=None)
@given(items_strategy, trees)
def test_columns_and_documents_agree(documents: list[dict[str, Any]], tree: dict[str, Any]) -> None:
    catalogue, condition = build(documents), parse_condition(tree)
    holds = compile_predicate(condition)
    by_column = catalogue.mask(condition.key, condition.expression()).tolist()
    assert by_column == [holds(Scope(item=catalogue.item(row))) for row in range(len(documents))]
    for table in (ItemTable(catalogue.frame), ItemTable(catalogue.frame, catalogue.rows)):
        assert table.mask(condition).tolist() == by_column


@settings(deadline=None)
@given(items_strategy, leaves().filter(understood))
def test_not_is_the_opposite_and_missing_is_no(
    documents: list[dict[str, Any]], leaf: dict[str, Any]
) -> None:
    catalogue = build(documents)
    one, other = parse_condition(leaf), parse_condition({"not": leaf})
    seen = [catalogue.mask(each.key, each.expression()).tolist() for each in (one, other)]
    assert all(yes != no for yes, no in zip(*seen, strict=True))


DECLARED = Vocabulary(item_attributes={"n": float, "t": datetime, "s": list, "b": bool, "x": str})
DOCUMENTS: list[dict[str, Any]] = [
    {"attributes": {"n": 3, "t": "2026-01-01T00:00:00Z", "s": ["a", "b"], "b": True, "x": "y"}},
    {"attributes": {"n": True, "t": "soon", "s": "a", "b": 1, "x": ["y"]}},
    {"attributes": {"n": {"amount": "2.5"}, "t": 5, "s": [1], "x": None}},
    {},
]


@pytest.mark.parametrize(
    ("name", "op", "value", "expected"),
    [
        ("n", "gte", 2.5, [True, False, True, False]),
        ("t", "lt", "2026-01-01T02:00:00+01:00", [True, False, False, False]),
        ("t", "eq", "2026-01-01T00:00:00Z", [True, False, False, False]),
        ("s", "contains", "a", [True, True, False, False]),
        ("b", "ne", True, [False, True, True, True]),
        ("x", "in", ["y"], [True, True, False, False]),
        ("n", "exists", False, [False, True, False, True]),
    ],
)
def test_declared_attributes_have_values_of_their_type_alone(
    name: str, op: str, value: Any, expected: list[bool]
) -> None:
    tree = {"field": f"item.attributes.{name}", "op": op, "value": value}
    condition, catalogue = parse_condition(tree, DECLARED), build(DOCUMENTS)
    assert catalogue.mask(condition.key, condition.expression()).tolist() == expected
    assert ItemTable(catalogue.frame).mask(condition).tolist() == expected
    holds = compile_predicate(condition)
    assert [holds(Scope(item=catalogue.item(row))) for row in range(4)] == expected
