"""Rules sorted for looking up: by placement, and by what their audiences need."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.conditions import (
    Condition,
    Predicate,
    Scope,
    compile_predicate,
    fields_of,
    split_equalities,
)
from recsvc.rules.clock import Clock
from recsvc.rules.model import EVERYWHERE, CheckedRule, Rule

Read = Callable[[Scope], Iterable[Any]]

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """One live rule.

    Parameters
    ----------
    number : int
        Its place among all: a higher priority first, then the lower id.
    rule : Rule
        As it was written.
    audience : int or None
        Which audience it is for; ``None``: everybody.
    target : int or None
        Which target it speaks of.
    """

    number: int
    rule: Rule
    audience: int | None
    target: int | None


class Shelf:
    """The rules of one placement, and its audiences, found by one necessary equality of each.

    Parameters
    ----------
    entries : sequence of Entry
        The rules in order.
    audiences : sequence of Condition
        All audiences.
    """

    def __init__(self, entries: Sequence[Entry], audiences: Sequence[Condition]) -> None:
        self.entries = tuple(entries)
        self._always: list[int] = []
        found: dict[str, dict[Any, list[int]]] = {}
        for audience in sorted({one.audience for one in entries if one.audience is not None}):
            needed = _best_key(audiences[audience])
            if needed is None:
                self._always.append(audience)
                continue
            field, values = needed
            for value in values:
                found.setdefault(field, {}).setdefault(value, []).append(audience)
        self._by_field = [(_reader(field), by_value) for field, by_value in found.items()]

    def present(self, scope: Scope, audiences: Sequence[Predicate]) -> tuple[int, ...]:
        """Return which audiences a scope belongs to; each is asked at most once."""
        found = [one for one in self._always if audiences[one](scope)]
        for read, by_value in self._by_field:
            maybe: set[int] = set()
            for value in read(scope):
                maybe.update(by_value.get(value, ()))
            found += [one for one in sorted(maybe) if audiences[one](scope)]
        return tuple(found)

    def acting(self, present: Sequence[int], acts: Sequence[bool]) -> list[Entry]:
        """Return the rules for some audiences, and for everybody, that act now; in order."""
        wanted = {None, *present}
        return [one for one in self.entries if one.audience in wanted and acts[one.number]]


class Book:
    """All live rules, without the items.

    Parameters
    ----------
    ordered : sequence of CheckedRule
        As :func:`in_order` has them.
    """

    def __init__(self, ordered: Sequence[CheckedRule]) -> None:
        self.rules = tuple(ordered)
        self.clock = Clock(ordered)
        self._audiences: list[Condition] = []
        self.targets: list[Condition] = []
        audience_of: dict[str, int] = {}
        target_of: dict[str, int] = {}
        self.entries = tuple(
            Entry(
                number,
                one.rule,
                _numbered(one.when, audience_of, self._audiences),
                _numbered(one.target, target_of, self.targets),
            )
            for number, one in enumerate(ordered)
        )
        self.predicates = tuple(compile_predicate(one) for one in self._audiences)
        self._shelves: dict[str, Shelf] = {}

    def shelf(self, placement: str) -> Shelf:
        """Return the rules of a placement; made when it is first asked for."""
        shelf = self._shelves.get(placement)
        if shelf is None:
            entries = [
                entry
                for entry in self.entries
                if placement in entry.rule.placements or EVERYWHERE in entry.rule.placements
            ]
            shelf = self._shelves[placement] = Shelf(entries, self._audiences)
        return shelf

    def roots(self, placement: str) -> frozenset[str]:
        """Return what audiences of a placement look at: of ``user segment page context now``."""
        return frozenset(
            field.partition(".")[0]
            for entry in self.shelf(placement).entries
            if entry.audience is not None
            for field in fields_of(self._audiences[entry.audience])
        )


def in_order(rules: Iterable[CheckedRule]) -> list[CheckedRule]:
    """Return rules as they apply: a higher priority first, then the lower id."""
    return sorted(rules, key=lambda one: (-one.rule.priority, one.rule.rule_id))


def same(some: Sequence[CheckedRule], others: Sequence[CheckedRule]) -> bool:
    """Tell whether two lists hold the very same values, which is asked often and must be cheap."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def _numbered(
    condition: Condition | None, known: dict[str, int], every: list[Condition]
) -> int | None:
    """Return the number of a condition; equal ones share it."""
    if condition is None:
        return None
    at = known.get(condition.key)
    if at is None:
        at = known[condition.key] = len(every)
        every.append(condition)
    return at


def _best_key(audience: Condition) -> tuple[str, frozenset[Any]] | None:
    """Return the equality by which an audience is looked up, or ``None``.

    Texts alone: they are equal in a dict exactly when they are equal in a condition. Not the page:
    asking for its values costs more than most audiences.
    """
    keys = [
        (field, values)
        for field, values in split_equalities(audience).items()
        if not field.startswith("page.") and all(isinstance(value, str) for value in values)
    ]
    return min(keys, key=lambda key: (len(key[1]), key[0]), default=None)


def _reader(field: str) -> Read:
    """Return a function that gives the texts of a field in a scope."""
    root, _, rest = field.partition(".")
    if root == "segment":
        return lambda scope: scope.segments
    if root == "context":
        return lambda scope: (scope.context.get(rest),)
    if rest.startswith("attributes."):
        parents: tuple[str, ...] = ("attributes",)
        name = rest.removeprefix("attributes.")
    else:
        *above, name = rest.split(".")
        parents = tuple(above)

    def read(scope: Scope) -> Iterable[Any]:
        document = scope.user
        for parent in parents:
            document = document.get(parent) or _NOTHING
        found = document.get(name)
        if isinstance(found, list):
            return [value for value in found if isinstance(value, str)]
        return (found,) if isinstance(found, str) else ()

    return read
