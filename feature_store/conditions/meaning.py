"""What an operator means for one value: the same in columns and in documents.

A field has no value, one, or several. ``eq in lt lte gt gte between contains under`` are true when
any value fulfils them; ``ne`` and ``not_in`` are the opposite of ``eq`` and ``in``, so they are
true where there is no value; ``exists`` asks whether there is one. Values of another type than the
one compared with never fulfil anything.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from feature_store.conditions.tree import Kind, Leaf

Test = Callable[[Any], bool]

OPPOSITES = {"ne": "eq", "not_in": "in"}
"""Operators that are defined as the opposite of another."""


def value_test(leaf: Leaf) -> Test:
    """Return the test of one value, ready as :func:`reader` gives it.

    The operator is taken without its negation: for ``ne`` it is the test of ``eq``. ``exists`` has
    none: it is about whether there is a value.
    """
    op = OPPOSITES.get(leaf.op, leaf.op)
    value = leaf.value
    if op == "under":
        below = f"{value} > "
        return lambda part: part == value or part.startswith(below)
    if op == "contains" and is_substring(leaf):
        return lambda part: value in part
    if op in ("eq", "contains"):
        return _equal(value)
    if op == "in":
        return _among(value)
    return _ordered(op, value)


def is_substring(leaf: Leaf) -> bool:
    """Tell whether ``contains`` looks inside a text, and not among the values of a list."""
    return leaf.kind in (Kind.TEXT, Kind.CONTEXT)


def _equal(value: Any) -> Test:
    if isinstance(value, bool):
        return lambda part: part is value
    if isinstance(value, int | float):
        return lambda part: bool(part == value) and part is not True and part is not False
    return lambda part: bool(part == value)


def _among(values: tuple[Any, ...]) -> Test:
    if all(isinstance(value, str) for value in values):
        texts = frozenset(values)
        return lambda part: isinstance(part, str) and part in texts
    tests = [_equal(value) for value in values]
    return lambda part: any(test(part) for test in tests)


def _ordered(op: str, value: Any) -> Test:
    low = value[0] if op == "between" else value
    types = _comparable(low)
    if op == "between":
        if _comparable(value[1]) != types:
            return lambda _: False
        low, high = value
        test: Test = lambda part: low <= part <= high  # noqa: E731
    else:
        test = {
            "lt": lambda part: part < value,
            "lte": lambda part: part <= value,
            "gt": lambda part: part > value,
            "gte": lambda part: part >= value,
        }[op]
    return lambda part: part.__class__ in types and test(part)


def _comparable(value: Any) -> frozenset[type]:
    """Return the types with which a value can be compared by size."""
    if isinstance(value, bool):
        return frozenset({bool})
    if isinstance(value, int | float):
        return frozenset({int, float})
    return frozenset({datetime if isinstance(value, datetime) else str})
