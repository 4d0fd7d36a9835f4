"""A condition over plain documents: of the person, the page, the request, the clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from feature_store.conditions.condition import Condition
from feature_store.conditions.meaning import OPPOSITES, Test, value_test
from feature_store.conditions.tree import All, Kind, Leaf, Node, Not
from feature_store.conditions.values import READY
from feature_store.conditions.windows import WeeklyWindow
from feature_store.values import value_class

_NOTHING: Mapping[str, Any] = {}
_NO_SEGMENTS: frozenset[str] = frozenset()


@value_class(frozen=True, slots=True)
class Scope:
    """What a condition is evaluated on.

    Parameters
    ----------
    user : mapping
        The person: ``{attributes, loyalty, computed, feedback, consent}``; empty for nobody.
    segments : frozenset of str
        Names of the segments that the person is in.
    context : mapping of str to str
        Attributes of the request.
    page : sequence of mapping
        Documents of the items on the page, as ``Catalogue.item`` gives them.
    now_s : float
        Seconds since 1970.
    item : mapping
        Document of the candidate.
    """

    user: Mapping[str, Any] = field(default_factory=dict)
    segments: frozenset[str] = _NO_SEGMENTS
    context: Mapping[str, str] = field(default_factory=dict)
    page: Sequence[Mapping[str, Any]] = ()
    now_s: float = 0.0
    item: Mapping[str, Any] = field(default_factory=dict)


Predicate = Callable[[Scope], bool]
"""A compiled condition."""
Read = Callable[[Scope], Any]


def compile_predicate(condition: Condition) -> Predicate:
    """Return a function that tells whether a condition holds in a scope.

    A comparison with a missing value is "no", and ``not`` of it "yes"; of several values, and of
    several items on the page, any will do.
    """
    return _compiled(condition.root)


def _compiled(node: Node) -> Predicate:
    if isinstance(node, Leaf):
        return _leaf(node)
    if isinstance(node, Not):
        inner = _compiled(node.part)
        return lambda scope: not inner(scope)
    parts = tuple(_compiled(part) for part in node.parts)
    if isinstance(node, All):
        return _all(parts)
    return _any(parts)


def _all(parts: tuple[Predicate, ...]) -> Predicate:
    def every(scope: Scope) -> bool:
        for part in parts:  # noqa: SIM110 - a generator costs as much as three comparisons
            if not part(scope):
                return False
        return True

    return every


def _any(parts: tuple[Predicate, ...]) -> Predicate:
    def some(scope: Scope) -> bool:
        for part in parts:  # noqa: SIM110
            if part(scope):
                return True
        return False

    return some


def _leaf(leaf: Leaf) -> Predicate:
    if leaf.op in OPPOSITES or (leaf.op == "exists" and not leaf.value):
        opposite = OPPOSITES.get(leaf.op, leaf.op)
        value = True if opposite == "exists" else leaf.value
        positive = _leaf(Leaf(leaf.field, opposite, value, leaf.kind))
        return lambda scope: not positive(scope)
    if leaf.kind is Kind.SEGMENT:
        names = frozenset(leaf.value if leaf.op == "in" else (leaf.value,))
        return lambda scope: not names.isdisjoint(scope.segments)
    if leaf.kind is Kind.MOMENT:
        return _moment(leaf)
    if leaf.kind is Kind.CONTEXT:
        return _context(leaf)
    root, _, rest = leaf.field.partition(".")
    if rest.startswith("attributes."):
        path: tuple[str, ...] = ("attributes", rest.removeprefix("attributes."))
    else:
        path = tuple(rest.split("."))
    holds = _document_test(path, leaf)
    if root == "page":
        return lambda scope: any(map(holds, scope.page))
    if root == "user":
        return lambda scope: holds(scope.user)
    return lambda scope: holds(scope.item)


def _document_test(path: tuple[str, ...], leaf: Leaf) -> Callable[[Mapping[str, Any]], bool]:
    """Return the test of a positive comparison on one document."""
    *parents, name = path
    ready = READY[leaf.kind]
    test: Test = (lambda _: True) if leaf.op == "exists" else value_test(leaf)

    def holds(document: Mapping[str, Any]) -> bool:
        for parent in parents:
            document = document.get(parent) or _NOTHING
        found = document.get(name)
        if found.__class__ is not list:
            value = None if found is None else ready(found)
            return value is not None and test(value)
        for part in found:
            value = ready(part)
            if value is not None and test(value):
                return True
        return False

    return holds


def _context(leaf: Leaf) -> Predicate:
    name = leaf.field.removeprefix("context.")
    if leaf.op == "exists":
        return lambda scope: name in scope.context
    test = value_test(leaf)
    if leaf.op in ("eq", "in", "contains"):

        def text_holds(scope: Scope) -> bool:
            found = scope.context.get(name)
            return found is not None and test(found)

        return text_holds

    def number_holds(scope: Scope) -> bool:
        try:
            return test(float(scope.context[name]))
        except (KeyError, ValueError):
            return False

    return number_holds


def _moment(leaf: Leaf) -> Predicate:
    if leaf.op == "in":
        windows = tuple(_remembered(window) for window in leaf.value)
        return lambda scope: any(is_open(scope.now_s) for is_open in windows)
    value = leaf.value
    if leaf.op == "between":
        low_s, high_s = value[0].timestamp(), value[1].timestamp()
        return lambda scope: low_s <= scope.now_s <= high_s
    value_s = value.timestamp()
    table: dict[str, Predicate] = {
        "lt": lambda scope: scope.now_s < value_s,
        "lte": lambda scope: scope.now_s <= value_s,
        "gt": lambda scope: scope.now_s > value_s,
        "gte": lambda scope: scope.now_s >= value_s,
    }
    return table[leaf.op]


def _remembered(window: WeeklyWindow) -> Callable[[float], bool]:
    """Return whether a window is open, computed anew only when that could have changed."""
    known: tuple[float, float, bool] = (0.0, 0.0, False)

    def is_open(at_s: float) -> bool:
        nonlocal known
        since_s, until_s, answer = known
        if not since_s <= at_s < until_s:
            answer, until_s = window.until(at_s)
            known = (at_s, until_s, answer)
        return answer

    return is_open
