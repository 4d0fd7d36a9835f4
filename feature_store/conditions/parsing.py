"""Checks a condition where it enters and makes a typed tree of it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from feature_store.conditions.condition import Condition
from feature_store.conditions.tree import All, AnyOf, ConditionError, Kind, Leaf, Node, Not
from feature_store.conditions.vocabulary import ITEM, OPERATORS, Vocabulary
from feature_store.conditions.windows import escape, parse_window

MAX_DEPTH = 8
MAX_LEAVES = 100
MAX_VALUES = 10_000

_WANTED = {
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.TIME: "a time with a zone",
    Kind.MOMENT: "a time with a zone",
    Kind.ANY: "a text, a number, true or false",
}
_ORDERED = frozenset({"lt", "lte", "gt", "gte", "between"})


def parse_condition(value: object, vocabulary: Vocabulary = ITEM) -> Condition:
    """Check a condition as JSON has it.

    Parameters
    ----------
    value : object
        ``{"all": [...]}``, ``{"any": [...]}``, ``{"not": ...}`` or ``{"field", "op", "value"}``.
        The value of ``now`` with ``in`` or ``not_in`` is a weekly window, or a list of them
        (:func:`~feature_store.conditions.windows.parse_window`).
    vocabulary : Vocabulary
        Which fields there are.

    Raises
    ------
    ConditionError
        Naming the part that is wrong: an unknown field or operator, a value of a wrong type, an
        empty list, a tree that is too deep or too large, a sensitive field without the flag.
    """
    root = _parse(value, "", 0, vocabulary)
    leaves = sum(1 for _ in leaves_of(root))
    if leaves > MAX_LEAVES:
        raise ConditionError("", f"has {leaves} comparisons; {MAX_LEAVES} are allowed")
    assert isinstance(value, dict)
    return Condition(value, root)


def leaves_of(node: Node) -> Iterator[Leaf]:
    """Yield every comparison of a tree."""
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Not):
        yield from leaves_of(node.part)
    else:
        for part in node.parts:
            yield from leaves_of(part)


def _parse(value: object, pointer: str, depth: int, vocabulary: Vocabulary) -> Node:
    if depth > MAX_DEPTH:
        raise ConditionError(pointer, f"is nested more than {MAX_DEPTH} levels deep")
    if not isinstance(value, dict):
        raise ConditionError(pointer, "must be an object")
    for name, node in (("all", All), ("any", AnyOf)):
        if name in value:
            children = value[name]
            if len(value) > 1:
                raise ConditionError(pointer, f"{name!r} stands alone")
            if not isinstance(children, list) or not children:
                raise ConditionError(f"{pointer}/{name}", "must be a list that is not empty")
            return node(
                tuple(
                    _parse(child, f"{pointer}/{name}/{at}", depth + 1, vocabulary)
                    for at, child in enumerate(children)
                )
            )
    if "not" in value:
        if len(value) > 1:
            raise ConditionError(pointer, "'not' stands alone")
        return Not(_parse(value["not"], f"{pointer}/not", depth + 1, vocabulary))
    return _parse_leaf(value, pointer, vocabulary)


def _parse_leaf(leaf: dict[str, Any], pointer: str, vocabulary: Vocabulary) -> Leaf:
    unknown = set(leaf) - {"field", "op", "value"}
    if unknown:
        raise ConditionError(f"{pointer}/{escape(min(unknown))}", "is not a part of a condition")
    field, op = leaf.get("field"), leaf.get("op")
    if not isinstance(field, str):
        raise ConditionError(f"{pointer}/field", "must be the name of a field")
    try:
        kind = vocabulary.kind_of(field)
    except LookupError as error:
        raise ConditionError(f"{pointer}/field", str(error.args[0])) from None
    if field in vocabulary.sensitive and not vocabulary.allow_sensitive:
        raise ConditionError(
            f"{pointer}/field", f"{field} is sensitive; say allow_sensitive to use it"
        )
    allowed = OPERATORS[kind] | ({"contains"} if field.endswith(".title") else frozenset())
    if not isinstance(op, str) or op not in allowed:
        raise ConditionError(
            f"{pointer}/op", f"{op!r} does not work on {field}; use {', '.join(sorted(allowed))}"
        )
    value = _value(leaf.get("value"), op, kind, f"{pointer}/value")
    if kind is Kind.SEGMENT and vocabulary.segments is not None:
        _check_segments(value, vocabulary.segments, f"{pointer}/value")
    return Leaf(field, op, value, kind)


def _value(value: object, op: str, kind: Kind, pointer: str) -> Any:
    if op == "exists":
        if not isinstance(value, bool):
            raise ConditionError(pointer, "must be true or false")
        return value
    if kind is Kind.MOMENT and op in ("in", "not_in"):
        if isinstance(value, dict):
            return (parse_window(value, pointer),)
        return tuple(
            parse_window(one, f"{pointer}/{at}") for at, one in enumerate(_list(value, pointer))
        )
    if kind is Kind.CONTEXT and op in _ORDERED:
        kind = Kind.NUMBER
    if op in ("in", "not_in", "between"):
        parts = _list(value, pointer)
        if op == "between" and len(parts) != 2:
            raise ConditionError(pointer, "must be [lowest, highest]")
        return tuple(_scalar(part, kind, f"{pointer}/{at}") for at, part in enumerate(parts))
    return _scalar(value, kind, pointer)


def _list(value: object, pointer: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConditionError(pointer, "must be a list that is not empty")
    if len(value) > MAX_VALUES:
        raise ConditionError(pointer, f"has {len(value)} values; {MAX_VALUES} are allowed")
    return value


def _scalar(value: Any, kind: Kind, pointer: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not (abs(value) < 2**64 and isfinite(value)):
        raise ConditionError(pointer, "must be a number of less than 20 digits")
    good: Any = None
    if kind is Kind.NUMBER:
        good = float(value) if is_number else None
    elif kind in (Kind.TIME, Kind.MOMENT):
        good = parse_time(value)
    elif kind is Kind.BOOLEAN:
        good = value if isinstance(value, bool) else None
    elif isinstance(value, str) or (kind is Kind.ANY and isinstance(value, bool | int | float)):
        good = value
    if good is None:
        raise ConditionError(pointer, f"must be {_WANTED.get(kind, 'a text')}")
    return good


def parse_time(value: object) -> datetime | None:
    """Return a time with a zone in UTC, or ``None`` if the value is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _check_segments(value: str | tuple[str, ...], known: frozenset[str], pointer: str) -> None:
    names = (value,) if isinstance(value, str) else value
    for at, name in enumerate(names):
        if name not in known:
            place = pointer if isinstance(value, str) else f"{pointer}/{at}"
            listed = ", ".join(sorted(known)) or "none"
            raise ConditionError(place, f"unknown segment {name!r}; known: {listed}")
