"""Conditions over items: a typed tree, checked where it enters, evaluated over columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson
import polars as pl

MAX_DEPTH = 8
MAX_LEAVES = 100

_TEXT = frozenset({"eq", "ne", "in", "not_in", "exists"})
_ORDERED = _TEXT | {"lt", "lte", "gt", "gte", "between"}
_ANY = _ORDERED | {"contains", "under"}
ITEM_FIELDS: dict[str, tuple[type, frozenset[str]]] = {
    "item.item_id": (str, _TEXT),
    "item.kind": (str, _TEXT),
    "item.title": (str, _TEXT | {"contains"}),
    "item.brand": (str, _TEXT),
    "item.group_id": (str, _TEXT),
    "item.categories": (list, frozenset({"contains", "under", "in", "not_in", "exists"})),
    "item.price": (float, _ORDERED),
    "item.sale_price": (float, _ORDERED),
    "item.available": (bool, frozenset({"eq", "ne", "exists"})),
    "item.published_at": (datetime, _ORDERED),
    "item.expires_at": (datetime, _ORDERED),
}
"""Fields of the candidate: the type of their values and the operators that make sense."""


class ConditionError(ValueError):
    """A condition that cannot be understood.

    Parameters
    ----------
    pointer : str
        JSON pointer to the part that is wrong, relative to the condition.
    detail : str
        What is wrong with it.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer or '/'}: {detail}")
        self.pointer = pointer
        self.detail = detail


@dataclass(frozen=True)
class Condition:
    """A checked condition over ``item.*``.

    Parameters
    ----------
    tree : dict
        The condition as it was written.
    """

    tree: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """Name of the condition: equal trees have equal names."""
        return orjson.dumps(self.tree, option=orjson.OPT_SORT_KEYS).decode()

    def expression(self) -> pl.Expr:
        """Return the condition over the columns of ``item_columns.COLUMNS``."""
        return _expression(self.tree)

    def __hash__(self) -> int:
        return hash(self.key)


def parse_condition(value: object) -> Condition:
    """Check a condition as JSON has it.

    Parameters
    ----------
    value : object
        ``{"all": [...]}``, ``{"any": [...]}``, ``{"not": ...}`` or ``{"field", "op", "value"}``.

    Raises
    ------
    ConditionError
        Naming the part that is wrong: an unknown field or operator, a value of a wrong type, an
        empty list, a tree that is too deep or too large.
    """
    leaves = _check(value, "", 0)
    if leaves > MAX_LEAVES:
        raise ConditionError("", f"has {leaves} comparisons; {MAX_LEAVES} are allowed")
    assert isinstance(value, dict)
    return Condition(value)


def _check(value: object, pointer: str, depth: int) -> int:
    """Check one node; return how many comparisons stand below it."""
    if depth > MAX_DEPTH:
        raise ConditionError(pointer, f"is nested more than {MAX_DEPTH} levels deep")
    if not isinstance(value, dict):
        raise ConditionError(pointer, "must be an object")
    for name in ("all", "any"):
        if name in value:
            children = value[name]
            if len(value) > 1:
                raise ConditionError(pointer, f"{name!r} stands alone")
            if not isinstance(children, list) or not children:
                raise ConditionError(f"{pointer}/{name}", "must be a list that is not empty")
            return sum(
                _check(child, f"{pointer}/{name}/{at}", depth + 1)
                for at, child in enumerate(children)
            )
    if "not" in value:
        if len(value) > 1:
            raise ConditionError(pointer, "'not' stands alone")
        return _check(value["not"], f"{pointer}/not", depth + 1)
    _check_leaf(value, pointer)
    return 1


def _check_leaf(leaf: dict[str, Any], pointer: str) -> None:
    unknown = set(leaf) - {"field", "op", "value"}
    if unknown:
        raise ConditionError(f"{pointer}/{min(unknown)}", "is not a part of a condition")
    field, op = leaf.get("field"), leaf.get("op")
    if not isinstance(field, str):
        raise ConditionError(f"{pointer}/field", "must be the name of a field")
    if field.startswith("item.attributes.") and len(field) > len("item.attributes."):
        kind: type = object
        allowed = _ANY - {"under"}
    elif field in ITEM_FIELDS:
        kind, allowed = ITEM_FIELDS[field]
    else:
        known = ", ".join(sorted(ITEM_FIELDS))
        raise ConditionError(
            f"{pointer}/field", f"unknown field {field!r}; known: {known}, item.attributes.*"
        )
    if not isinstance(op, str) or op not in allowed:
        raise ConditionError(
            f"{pointer}/op", f"{op!r} does not work on {field}; use {', '.join(sorted(allowed))}"
        )
    _check_value(leaf.get("value"), op, kind, f"{pointer}/value")


def _check_value(value: object, op: str, kind: type, pointer: str) -> None:
    if op == "exists":
        if not isinstance(value, bool):
            raise ConditionError(pointer, "must be true or false")
        return
    if op in ("in", "not_in", "between"):
        if not isinstance(value, list) or not value:
            raise ConditionError(pointer, "must be a list that is not empty")
        if op == "between" and len(value) != 2:
            raise ConditionError(pointer, "must be [lowest, highest]")
        for at, part in enumerate(value):
            _check_scalar(part, kind, f"{pointer}/{at}")
        return
    _check_scalar(value, kind, pointer)


def _check_scalar(value: object, kind: type, pointer: str) -> None:
    if kind is object:
        good = isinstance(value, str | int | float | bool)
    elif kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is datetime:
        good = _time(value) is not None
    elif kind is list:
        good = isinstance(value, str)
    else:
        good = isinstance(value, kind)
    if not good:
        wanted = {
            float: "a number", datetime: "a time with a zone", bool: "true or false",
            object: "a text, a number, true or false",
        }.get(kind, "a text")  # fmt: skip
        raise ConditionError(pointer, f"must be {wanted}")


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _expression(tree: dict[str, Any]) -> pl.Expr:
    if "all" in tree:
        return pl.all_horizontal([_known(child) for child in tree["all"]])
    if "any" in tree:
        return pl.any_horizontal([_known(child) for child in tree["any"]])
    if "not" in tree:
        return ~_known(tree["not"])
    field: str = tree["field"].removeprefix("item.")
    op, value = tree["op"], tree.get("value")
    if field.startswith("attributes."):
        test = _attribute_test(field.removeprefix("attributes."), op, value)
        return pl.col("attributes").map_elements(test, return_dtype=pl.Boolean)
    if field == "categories":
        return _category_expression(op, value)
    column = pl.col(field)
    if field in ("price", "sale_price"):
        column = column.cast(pl.Float64)
    if field in ("published_at", "expires_at") and op != "exists":
        value = [_time(part) for part in value] if isinstance(value, list) else _time(value)
    return _comparison(column, op, value)


def _known(tree: dict[str, Any]) -> pl.Expr:
    """Return a node in which a missing value counts as "no", so that `not` of it is "yes"."""
    return _expression(tree).fill_null(value=False)


def _comparison(column: pl.Expr, op: str, value: Any) -> pl.Expr:
    table: dict[str, Callable[[], pl.Expr]] = {
        "eq": lambda: column == value,
        "ne": lambda: (column != value) | column.is_null(),
        "in": lambda: column.is_in(value),
        "not_in": lambda: ~column.is_in(value) | column.is_null(),
        "lt": lambda: column < value,
        "lte": lambda: column <= value,
        "gt": lambda: column > value,
        "gte": lambda: column >= value,
        "between": lambda: (column >= value[0]) & (column <= value[1]),
        "contains": lambda: column.str.contains(value, literal=True),
        "exists": lambda: column.is_not_null() if value else column.is_null(),
    }
    return table[op]()


def _category_expression(op: str, value: Any) -> pl.Expr:
    column = pl.col("categories")
    if op == "exists":
        empty = column.is_null() | (column.list.len() == 0)
        return ~empty if value else empty
    if op == "contains":
        return column.list.contains(value)
    if op == "under":
        path = pl.element()
        inside = (path == value) | path.str.starts_with(f"{value} > ")
        return column.list.eval(inside).list.any()
    among = column.list.eval(pl.element().is_in(value)).list.any().fill_null(value=False)
    return among if op == "in" else ~among


def _attribute_test(name: str, op: str, value: Any) -> Callable[[str], bool]:
    """Return a test on the JSON text of an item's attributes."""

    def values(text: str) -> Sequence[Any]:
        found = orjson.loads(text).get(name)
        return found if isinstance(found, list) else [] if found is None else [found]

    def ordered(test: Callable[[Any], bool]) -> Callable[[str], bool]:
        def safe(text: str) -> bool:
            try:
                return any(test(part) for part in values(text))
            except TypeError:
                return False

        return safe

    table: dict[str, Callable[[str], bool]] = {
        "eq": lambda text: value in values(text),
        "ne": lambda text: value not in values(text),
        "in": lambda text: any(part in value for part in values(text)),
        "not_in": lambda text: not any(part in value for part in values(text)),
        "contains": lambda text: value in values(text),
        "exists": lambda text: bool(values(text)) == value,
        "lt": ordered(lambda part: bool(part < value)),
        "lte": ordered(lambda part: bool(part <= value)),
        "gt": ordered(lambda part: bool(part > value)),
        "gte": ordered(lambda part: bool(part >= value)),
        "between": ordered(lambda part: bool(value[0] <= part <= value[1])),
    }
    return table[op]
