"""Lists in which rules place items: pins, then slots, then caps on everything else.

The list is made from the first position on, and what stands at a position depends on the positions
before it and on the pins alone. So a short list is the beginning of a longer one, and a list that
is continued repeats nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsvc.ranking.filling import PINNED, Chosen, Portions, Stages
from recsvc.ranking.sources import Candidates, Query
from recsvc.rules import ActiveRules
from recsvc.rules.parts import Capped, Pinned, Slotted, Values

Mask = npt.NDArray[np.bool_]


def arrange(
    stages: Stages,
    query: Query,
    allowed: Mask,
    needed: int,
    rules: ActiveRules,
    without_groups: Collection[int] = (),
) -> list[Chosen]:
    """Fill a list under rules that place items.

    A pinned item that may not be shown leaves its position to a spare of its rule, or to whatever
    comes next; of two pins on one position the later rule's goes to the next free one. An item that
    is pinned further down does not come before its position. A slot takes the best item of its
    target, capped or not; all items count for the caps. When nothing else may be shown, pins and
    slots beyond the end move up.
    """
    taken = _Taken(query, rules.caps, without_groups)
    pins = place_pins(rules.pins, allowed, taken)
    slots = place_slots(rules.slots, pins)
    natural = _Stream(stages.portions(allowed, needed), taken)
    streams: dict[str, _Stream] = {}
    chosen: list[Chosen] = []
    for position in sorted({*pins, *slots}):
        natural.fill(chosen, min(position - 1, needed))
        if len(chosen) == needed:
            return chosen
        pinned = pins.get(position)
        if pinned is not None:
            chosen.append(pinned)
            continue
        slot = slots[position]
        stream = streams.get(slot.rule_id)
        if stream is None:
            inside = stages.portions_inside(slot.target, allowed, len(slot.positions))
            stream = streams[slot.rule_id] = _Stream(inside, taken, (slot.rule_id,))
        before = len(chosen)
        stream.fill(chosen, before + 1, capped=False)
        natural.fill(chosen, before + 1)
    natural.fill(chosen, needed)
    return chosen


def place_pins(pins: Sequence[Pinned], allowed: Mask, taken: "_Taken") -> dict[int, Chosen]:
    """Return what is pinned where, by rules in their order; all of it is taken."""
    placed: list[tuple[int, int, str]] = []
    occupied: set[int] = set()
    for pin in pins:
        spares = list(pin.rows[len(pin.positions) :])
        for row, wanted in zip(pin.rows, pin.positions, strict=False):
            while not _may_stand(row, allowed, taken):
                if not spares:
                    break
                row = spares.pop(0)  # noqa: PLW2901 - the spare takes its place
            else:
                position = wanted
                while position in occupied:
                    position += 1
                occupied.add(position)
                taken.add(row)
                placed.append((position, row, pin.rule_id))
    rows = np.array([row for _, row, _ in placed], dtype=np.int64)
    candidates = Candidates(rows, np.ones(len(rows), dtype=np.float32), PINNED)
    return {
        position: Chosen(row, 1.0, candidates, at, (rule_id,))
        for at, (position, row, rule_id) in enumerate(placed)
    }


def _may_stand(row: int, allowed: Mask, taken: "_Taken") -> bool:
    return 0 <= row < len(allowed) and bool(allowed[row]) and taken.is_free(row)


def place_slots(slots: Sequence[Slotted], pins: Mapping[int, Any]) -> dict[int, Slotted]:
    """Return which slot has which position; one that is occupied leaves for the next free one."""
    placed: dict[int, Slotted] = {}
    for slot in slots:
        for wanted in slot.positions:
            position = wanted
            while position in pins or position in placed:
                position += 1
            placed[position] = slot
    return placed


class _Taken:
    """What is in the list already, and how far that fills the caps."""

    def __init__(
        self, query: Query, caps: Sequence[Capped], without_groups: Collection[int]
    ) -> None:
        self.rows: set[int] = set()
        self.groups = query.snapshot.catalogue.group_codes
        self.taken_groups = set(without_groups)
        self.caps: list[tuple[Values, int, dict[Any, int]]] = [
            (cap.values, cap.most, {}) for cap in caps
        ]

    def is_free(self, row: int) -> bool:
        """Tell whether neither the item nor another variant of it is in the list."""
        if row in self.rows:
            return False
        return self.groups is None or self.groups.item(row) not in self.taken_groups

    def add(self, row: int) -> None:
        """Note that an item is in the list."""
        self.rows.add(row)
        if self.groups is not None and (group := self.groups.item(row)) >= 0:
            self.taken_groups.add(group)
        for values, _, counts in self.caps:
            for value in values[row]:
                counts[value] = counts.get(value, 0) + 1

    def is_capped(self, row: int) -> bool:
        """Tell whether a cap is reached for an item."""
        for values, most, counts in self.caps:
            for value in values[row]:
                if counts.get(value, 0) >= most:
                    return True
        return False


class _Stream:
    """Candidates, best first; what is refused once is not offered again."""

    def __init__(self, portions: Portions, taken: _Taken, rule_ids: tuple[str, ...] = ()) -> None:
        self._portions, self._taken, self._rule_ids = portions, taken, rule_ids
        self._candidates: Candidates | None = None
        self._portion: Iterator[tuple[int, int, float]] = iter(())

    def fill(self, chosen: list[Chosen], upto: int, *, capped: bool = True) -> None:
        """Add the best free items, within the caps if asked, until so many are in the list."""
        if len(chosen) >= upto:
            return
        taken, rule_ids, candidates = self._taken, self._rule_ids, self._candidates
        rows, groups, taken_groups = taken.rows, taken.groups, taken.taken_groups
        capped = capped and bool(taken.caps)
        while True:
            for position, row, score in self._portion:
                # As `is_free`, written out: this is asked for every candidate.
                if row in rows or (groups is not None and groups.item(row) in taken_groups):
                    continue
                if capped and taken.is_capped(row):
                    continue
                taken.add(row)
                assert candidates is not None
                chosen.append(Chosen(row, score, candidates, position, rule_ids))
                if len(chosen) == upto:
                    return
            found = next(self._portions, None)
            if found is None:
                return
            candidates, self._portion = found
            self._candidates = candidates
