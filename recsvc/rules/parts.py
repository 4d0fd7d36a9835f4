"""What many sets of acting rules have in common over one catalogue; made once, when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from feature_store.catalogue import Catalogue
from recsvc.rules.book import Entry
from recsvc.rules.model import Boost, Bury, Cap, Pin, Slot
from recsvc.rules.targets import Target, stacked

_REMEMBERED_ROWS = 20_000


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


@dataclass(frozen=True, slots=True, eq=False)
class Boosts:
    """All boosts and buries of a placement, acting or not.

    Parameters
    ----------
    entries : tuple of Entry
        The rules.
    stack : ndarray of uint8, shape (n_bytes, len(entries))
        Their targets (``targets.stacked``).
    """

    entries: tuple[Entry, ...]
    stack: npt.NDArray[np.uint8]


class Parts:
    """The targets of rules, and all that is made of them.

    Parameters
    ----------
    targets : sequence of Target
        By number.
    catalogue : Catalogue
        What they are rows of.
    """

    def __init__(self, targets: Sequence[Target], catalogue: Catalogue) -> None:
        self.targets, self.catalogue = targets, catalogue
        self._slots: dict[int, Slotted] = {}
        self._pins: dict[int, Pinned] = {}
        self._values: dict[tuple[str, str | None], Values] = {}
        self._boosts: dict[str, Boosts] = {}

    def target(self, entry: Entry) -> Target:
        """Return the target of a rule that has one."""
        assert entry.target is not None
        return self.targets[entry.target]

    def slot(self, entry: Entry) -> Slotted:
        """Return a slot with its target as bits."""
        known = self._slots.get(entry.number)
        if known is None:
            action = entry.rule.action
            assert isinstance(action, Slot)
            bits = self.target(entry).as_bits(self.catalogue.n_rows)
            known = Slotted(entry.rule.rule_id, tuple(action.positions), bits)
            self._slots[entry.number] = known
        return known

    def pin(self, entry: Entry) -> Pinned:
        """Return a pin with the rows of its items."""
        known = self._pins.get(entry.number)
        if known is None:
            action = entry.rule.action
            assert isinstance(action, Pin)
            rows = self.catalogue.rows(action.item_ids).tolist()
            known = Pinned(entry.rule.rule_id, tuple(action.positions), tuple(rows))
            self._pins[entry.number] = known
        return known

    def values(self, cap: Cap) -> Values:
        """Return by which values items are counted for a cap."""
        key = (cap.by, cap.attribute)
        known = self._values.get(key)
        if known is None:
            known = self._values[key] = Values(cap, self.catalogue)
        return known

    def boosts(self, placement: str, entries: Sequence[Entry]) -> Boosts:
        """Return the boosts and buries among the rules of a placement."""
        known = self._boosts.get(placement)
        if known is None:
            weighing = tuple(one for one in entries if isinstance(one.rule.action, Boost | Bury))
            sets = [self.target(one) for one in weighing]
            known = Boosts(weighing, stacked(sets, self.catalogue.n_rows))
            self._boosts[placement] = known
        return known
