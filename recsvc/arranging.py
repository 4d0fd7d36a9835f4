"""Lists in which rules place items: pins, then slots, then caps on everything else.

The list is made from the first position on, and what stands at a position depends on the positions
before it and on the pins alone. So a short list is the beginning of a longer one, and a list that
is continued repeats nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from recsvc.filling import SPARE, Chosen, Stages
from recsvc.rules import ActiveRules
from recsvc.rules.active import Capped, Pinned, Slotted
from recsvc.sources import Candidates, Query

Mask = npt.NDArray[np.bool_]
Accepts = Callable[[int], bool]

PINNED = "pinned"
"""The source of an item that a rule put where it is."""


def arrange(
    stages: Stages, query: Query, allowed: Mask, needed: int, rules: ActiveRules
) -> list[Chosen]:
    """Fill a list under rules that place items.

    A pinned item that may not be shown leaves its position to a spare of its rule, or to whatever
    comes next; of two pins on one position the later rule's goes to the next free one. An item that
    is pinned further down does not come before its position. A slot takes the best item of its
    target, capped or not; all items count for the caps. When nothing else may be shown, pins and
    slots beyond the end move up.
    """
    taken = _Taken(query, rules.caps)
    pins = place_pins(rules.pins, allowed, taken)
    slots = place_slots(rules.slots, pins)
    natural = _Stream(stages, allowed, needed)
    streams: dict[str, _Stream] = {}
    chosen: list[Chosen] = []
    beyond = sorted(position for position in {*pins, *slots} if position > needed)
    for position in chain(range(1, needed + 1), beyond):
        if len(chosen) == needed:
            break
        found: Chosen | None = pins.pop(position, None)
        if found is None and position in slots:
            slot = slots[position]
            stream = streams.get(slot.rule_id)
            if stream is None:
                inside = allowed & slot.target.mask(len(allowed))
                stream = streams[slot.rule_id] = _Stream(stages, inside, len(slot.positions))
            found = stream.next(taken.is_free)
            if found is not None:
                taken.add(found.row)
                found = found._replace(rule_ids=(slot.rule_id,))
        if found is None:
            found = natural.next(taken.is_welcome)
            if found is not None:
                taken.add(found.row)
        if found is not None:
            chosen.append(found)
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

    def __init__(self, query: Query, caps: Sequence[Capped]) -> None:
        self._rows: set[int] = set()
        self._groups = query.snapshot.catalogue.group_codes
        self._taken_groups: set[int] = set()
        self._caps = caps
        self._counts: list[Counter[Any]] = [Counter() for _ in caps]

    def is_free(self, row: int) -> bool:
        """Tell whether neither the item nor another variant of it is in the list."""
        if row in self._rows:
            return False
        return self._groups is None or self._groups.item(row) not in self._taken_groups

    def is_welcome(self, row: int) -> bool:
        """Tell whether an item is free, and no cap is reached for it."""
        return self.is_free(row) and all(
            counts[value] < cap.most
            for cap, counts in zip(self._caps, self._counts, strict=True)
            for value in cap.values_of(row)
        )

    def add(self, row: int) -> None:
        """Note that an item is in the list."""
        self._rows.add(row)
        if self._groups is not None and (group := self._groups.item(row)) >= 0:
            self._taken_groups.add(group)
        for cap, counts in zip(self._caps, self._counts, strict=True):
            counts.update(cap.values_of(row))


class _Stream:
    """Allowed candidates, best first; what is refused once is not offered again."""

    def __init__(self, stages: Stages, allowed: Mask, n: int) -> None:
        self._found = self._walk(stages, allowed, n)

    def next(self, accepts: Accepts) -> Chosen | None:
        """Return the best one that is accepted, or ``None`` at the end."""
        for chosen in self._found:
            if accepts(chosen.row):
                return chosen
        return None

    @staticmethod
    def _walk(stages: Stages, allowed: Mask, n: int) -> Iterator[Chosen]:
        for candidates, may in stages.of(allowed):
            for portion in candidates.best(may[candidates.rows], n + SPARE):
                for position, row, score in portion:
                    yield Chosen(row, score, candidates, position)
