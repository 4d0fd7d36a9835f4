"""A condition over the columns of items, for polars."""

from collections.abc import Callable
from typing import Any

import orjson
import polars as pl

from feature_store.conditions.meaning import OPPOSITES, value_test
from feature_store.conditions.tree import All, Kind, Leaf, Node, Not
from feature_store.conditions.values import values_in


def expression(node: Node) -> pl.Expr:
    """Return a tree over the columns of ``item_columns.COLUMNS``; never null.

    Raises
    ------
    ValueError
        If it speaks of anything but ``item.*``.
    """
    if isinstance(node, Leaf):
        return _leaf(node)
    if isinstance(node, Not):
        return ~expression(node.part)
    parts = [expression(part) for part in node.parts]
    return pl.all_horizontal(parts) if isinstance(node, All) else pl.any_horizontal(parts)


def _leaf(leaf: Leaf) -> pl.Expr:
    root, _, name = leaf.field.partition(".")
    if root != "item":
        raise ValueError(f"{leaf.field} is not a field of an item")
    if name.startswith("attributes."):
        test = attribute_test(leaf)
        column = pl.col("attributes").fill_null("{}")
        return column.map_elements(test, return_dtype=pl.Boolean)
    if leaf.op in OPPOSITES:
        opposite = Leaf(leaf.field, OPPOSITES[leaf.op], leaf.value, leaf.kind)
        return ~_leaf(opposite)
    column = pl.col(name)
    if leaf.kind is Kind.PATHS:
        return _paths(column, leaf.op, leaf.value)
    if leaf.op == "exists":
        return column.is_not_null() if leaf.value else column.is_null()
    if leaf.kind is Kind.NUMBER:
        column = column.cast(pl.Float64)
    if leaf.kind is Kind.TIME:
        column = column.cast(pl.Datetime("us", "UTC"))
    return _comparison(column, leaf.op, leaf.value).fill_null(value=False)


def _comparison(column: pl.Expr, op: str, value: Any) -> pl.Expr:
    table: dict[str, Callable[[], pl.Expr]] = {
        "eq": lambda: column == value,
        "in": lambda: column.is_in(list(value)),
        "lt": lambda: column < value,
        "lte": lambda: column <= value,
        "gt": lambda: column > value,
        "gte": lambda: column >= value,
        "between": lambda: (column >= value[0]) & (column <= value[1]),
        "contains": lambda: column.str.contains(value, literal=True),
    }
    return table[op]()


def _paths(column: pl.Expr, op: str, value: Any) -> pl.Expr:
    path = pl.element()
    if op == "exists":
        some = column.list.len().fill_null(0) > 0
        return some if value else ~some
    if op == "contains":
        found = column.list.contains(value)
    elif op == "under":
        inside = (path == value) | path.str.starts_with(f"{value} > ")
        found = column.list.eval(inside).list.any()
    else:
        found = column.list.eval(path.is_in(list(value))).list.any()
    return found.fill_null(value=False)


def attribute_test(leaf: Leaf) -> Callable[[str], bool]:
    """Return a comparison with an attribute as a test on the JSON text of all attributes."""
    name = leaf.field.removeprefix("item.attributes.")
    if leaf.op == "exists":
        wanted = leaf.value
        return lambda text: bool(values_in(orjson.loads(text).get(name), leaf.kind)) is wanted
    test, opposite = value_test(leaf), leaf.op in OPPOSITES
    return lambda text: (
        any(map(test, values_in(orjson.loads(text).get(name), leaf.kind))) is not opposite
    )
