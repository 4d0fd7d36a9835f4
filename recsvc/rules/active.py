"""The rules that act on one list: what they remove, move, weigh and count."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from feature_store.catalogue import Catalogue
from recsvc.rules.book import Entry
from recsvc.rules.model import Boost, Bury, Cap, Exclude, IncludeOnly, Pin, Slot
from recsvc.rules.targets import Target, membership

Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]

_REMEMBERED_ROWS = 20_000
_NARROW = 20
"""Rules that leave a twentieth of the items, or less, leave retrieval little to find."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin with the rows of its items, -1 where there is none."""

    rule_id: str
    positions: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slotted:
    """A slot: positions for the best items of a target."""

    rule_id: str
    positions: tuple[int, ...]
    target: Target


class Values(dict[int, tuple[Any, ...]]):
    """By row, the values by which an item is counted for a cap; remembered once they are read.

    Its brand; its first category; or every value of an attribute, as JSON. An item without one is
    not counted.

    Parameters
    ----------
    cap : Cap
        Says which value.
    catalogue : Catalogue
        The items.
    """

    def __init__(self, cap: Cap, catalogue: Catalogue) -> None:
        super().__init__()
        self._cap = cap
        name = {"brand": "brand", "category": "categories", "attribute": "attributes"}[cap.by]
        self._name, self._column, self._overlay = name, catalogue.frame[name], catalogue.overlay

    def __missing__(self, row: int) -> tuple[Any, ...]:
        if len(self) >= _REMEMBERED_ROWS:
            self.clear()
        found = self[row] = self._read(row)
        return found

    def _read(self, row: int) -> tuple[Any, ...]:
        changed = self._overlay.get(row)
        found = self._column[row] if changed is None else changed[self._name]
        if found is None:
            return ()
        if self._cap.by == "brand":
            return (found,)
        if self._cap.by == "category":
            return tuple(found[:1])
        value = orjson.loads(found).get(self._cap.attribute)
        parts = value if isinstance(value, list) else [] if value is None else [value]
        return tuple(dict.fromkeys(map(orjson.dumps, parts)))


@dataclass(frozen=True, slots=True)
class Capped:
    """How many items may share a value, and the values of each row."""

    most: int
    values: Values


class ActiveRules:
    """What a set of rules says about a list, in a form that the engine can apply.

    Parameters
    ----------
    entries : sequence of Entry
        The rules that act, in order.
    targets : sequence of Target
        All targets.
    catalogue : Catalogue
        What the targets are rows of.
    boosts : sequence of Entry
        All boosts and buries of the placement, acting or not, in the order of the stack.
    stack : ndarray of uint8, shape (n_bytes, len(boosts))
        Their targets (``targets.stacked``).
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        targets: Sequence[Target],
        catalogue: Catalogue,
        boosts: Sequence[Entry] = (),
        stack: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.entries = tuple(entries)
        self._targets, self._n_rows = targets, catalogue.n_rows
        numbers = {entry.number for entry in entries}
        acting = [at for at, one in enumerate(boosts) if one.number in numbers]
        weights = [_weight(boosts[at]) for at in acting]
        self._log_weights = np.log([weight or 1.0 for weight in weights]).astype(np.float32)
        self._boost_ids = [boosts[at].rule.rule_id for at in acting]
        # A copy of the columns that act: one lookup then reads no others.
        self._stack = None if stack is None or not acting else stack[:, acting].copy()
        self.weighs = bool(self._log_weights.any())
        self.pins = tuple(_pins(self.entries, catalogue))
        self.slots = tuple(
            Slotted(
                one.rule.rule_id,
                tuple(one.rule.action.positions),
                self._target(one).as_bits(self._n_rows),
            )
            for one in self.entries
            if isinstance(one.rule.action, Slot)
        )
        self.caps = tuple(_caps(self.entries, catalogue))
        self.include_ids = tuple(
            one.rule.rule_id for one in self.entries if isinstance(one.rule.action, IncludeOnly)
        )
        self.permitted = self._permitted()
        kept = self._n_rows if self.permitted is None else np.count_nonzero(self.permitted)
        self.is_narrow = kept * _NARROW <= self._n_rows and self.permitted is not None
        zero = [boosts[at] for at, weight in zip(acting, weights, strict=True) if weight == 0]
        self.last = _union([self._target(one) for one in zero], self._n_rows)

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def arranges(self) -> bool:
        """Whether items have to be placed one by one: pins, slots, caps."""
        return bool(self.pins or self.slots or self.caps)

    def log_weights(self, rows: Rows) -> F32:
        """Return the logarithm of the product of all weights for each row.

        Returns
        -------
        ndarray of float32, shape (len(rows),)
            0 where no rule weighs.
        """
        assert self._stack is not None
        inside = (membership(self._stack, rows) != 0).astype(np.float32)
        found: F32 = inside @ self._log_weights
        return found

    @property
    def names_items(self) -> bool:
        """Whether some items carry the ids of rules that did not place them."""
        return bool(self.include_ids) or self._stack is not None

    def rule_ids_of(self, rows: Rows) -> list[tuple[str, ...]]:
        """Return the rules that let each row in or weighed it."""
        found = [self.include_ids] * len(rows)
        if self._stack is not None and len(rows):
            inside = membership(self._stack, rows).nonzero()
            for at, place in zip(inside[0].tolist(), inside[1].tolist(), strict=True):
                found[at] = (*found[at], self._boost_ids[place])
        return found

    def removed_by(self, row: int) -> list[str]:
        """Return the rules for which a row may not be shown."""
        one = np.array([row])
        return [
            entry.rule.rule_id
            for entry in self.entries
            if (isinstance(entry.rule.action, Exclude) and self._target(entry).contains(one)[0])
            or (
                isinstance(entry.rule.action, IncludeOnly)
                and not self._target(entry).contains(one)[0]
            )
        ]

    def _target(self, entry: Entry) -> Target:
        assert entry.target is not None
        return self._targets[entry.target]

    def _permitted(self) -> Mask | None:
        """Return what neither an exclude nor an include_only removes; ``None`` for everything."""
        removed = _union(
            [self._target(one) for one in self.entries if isinstance(one.rule.action, Exclude)],
            self._n_rows,
        )
        found = None if removed is None else ~removed
        for one in self.entries:
            if isinstance(one.rule.action, IncludeOnly):
                mask = self._target(one).mask(self._n_rows)
                found = mask if found is None else found & mask
        if found is not None:
            found.flags.writeable = False
        return found


def _union(targets: Sequence[Target], n_rows: int) -> Mask | None:
    """Return the rows that are in any of some sets; ``None`` for no sets."""
    if not targets:
        return None
    bits = np.zeros((n_rows + 7) // 8, dtype=np.uint8)
    for target in targets:
        if target.bits is not None:
            bits[: len(target.bits)] |= target.bits[: len(bits)]
    found = np.unpackbits(bits, count=n_rows).view(bool)
    for target in targets:
        if target.bits is None:
            found[target.rows] = True
    return found


def _weight(entry: Entry) -> float:
    action = entry.rule.action
    assert isinstance(action, Boost | Bury)
    return action.weight


def _pins(entries: Iterable[Entry], catalogue: Catalogue) -> Iterable[Pinned]:
    for one in entries:
        if isinstance(one.rule.action, Pin):
            rows = catalogue.rows(one.rule.action.item_ids)
            yield Pinned(one.rule.rule_id, tuple(one.rule.action.positions), tuple(rows.tolist()))


def _caps(entries: Iterable[Entry], catalogue: Catalogue) -> Iterable[Capped]:
    """Yield the caps; of several that count the same, the strictest says it all."""
    strictest: dict[tuple[str, str | None], Cap] = {}
    for one in entries:
        cap = one.rule.action
        if isinstance(cap, Cap):
            known = strictest.setdefault((cap.by, cap.attribute), cap)
            if cap.max < known.max:
                strictest[cap.by, cap.attribute] = cap
    for cap in strictest.values():
        yield Capped(cap.max, Values(cap, catalogue))


NO_RULES = ActiveRules((), (), Catalogue.empty())
"""What acts where no rule does."""
