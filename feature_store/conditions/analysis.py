"""What can be said of a condition without evaluating it."""

from feature_store.conditions.condition import Condition
from feature_store.conditions.parsing import leaves_of
from feature_store.conditions.tree import All, AnyOf, Kind, Leaf, Node

Values = frozenset[str | bool | float]


def fields_of(condition: Condition) -> frozenset[str]:
    """Return the names of all fields that a condition speaks of, with their roots."""
    return frozenset(leaf.field for leaf in leaves_of(condition.root))


def split_equalities(condition: Condition) -> dict[str, Values]:
    """Return what must be equal for a condition to hold, for indexing.

    Returns
    -------
    dict of str to frozenset
        For a field, values of which it must have at least one. The condition can hold only where
        every field of the result has; where they all have, it still need not.
    """
    return _necessary(condition.root)


def _necessary(node: Node) -> dict[str, Values]:
    if isinstance(node, Leaf):
        if node.kind in (Kind.TIME, Kind.MOMENT) or node.op not in ("eq", "in"):
            return {}
        values = node.value if node.op == "in" else (node.value,)
        return {node.field: frozenset(values)}
    if isinstance(node, All):
        return _of_all([_necessary(part) for part in node.parts])
    if isinstance(node, AnyOf):
        return _of_any([_necessary(part) for part in node.parts])
    return {}


def _of_all(parts: list[dict[str, Values]]) -> dict[str, Values]:
    # A list may have both of two values, so they are not intersected: the smaller set is kept.
    found: dict[str, Values] = {}
    for part in parts:
        for field, values in part.items():
            known = found.get(field)
            if known is None or len(values) < len(known):
                found[field] = values
    return found


def _of_any(parts: list[dict[str, Values]]) -> dict[str, Values]:
    common = frozenset.intersection(*(frozenset(part) for part in parts))
    return {field: frozenset().union(*(part[field] for part in parts)) for field in sorted(common)}
