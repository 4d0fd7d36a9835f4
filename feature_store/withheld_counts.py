"""How often which item was bought by people of whom nothing is stored: lines that add up.

A line is ``{"epoch", "id", "items": {item id: [purchases, pieces]}}``; it names nobody. Lines of
one epoch come in the order of their places, so a place that is not after the last one is the same
line again. Many lines become one, which has the place of the last of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
import polars as pl

from feature_store.schema import Event, EventType

NAME = "withheld"
"""Name of these lines in the change log."""


class Count(NamedTuple):
    """How often an item was bought.

    Parameters
    ----------
    purchases : int
        Events; one that was sent again is counted again.
    pieces : int
        Pieces in all of them.
    """

    purchases: int = 0
    pieces: int = 0

    def plus(self, purchases: int, pieces: int) -> "Count":
        """Return the sum."""
        return Count(self.purchases + purchases, self.pieces + pieces)


Counts = dict[str, Count]


def add(counts: Counts, items: Mapping[str, Iterable[int]]) -> Counts:
    """Add the items of a line to some counts, in place."""
    for item_id, numbers in items.items():
        counts[item_id] = counts.get(item_id, Count()).plus(*numbers)
    return counts


def counts_of(events: Iterable[Event]) -> Counts:
    """Count the purchases among events; without a quantity it is one piece."""
    counts: Counts = {}
    for event in events:
        if event.type is EventType.PURCHASE and event.item_id is not None:
            add(counts, {event.item_id: (1, 1 if event.quantity is None else event.quantity)})
    return counts


def counts_in(events: pl.DataFrame) -> Counts:
    """Count the purchases among imported events (columns of ``event_log.EVENT_LOG_SCHEMA``)."""
    bought = (
        events.filter(pl.col("type") == EventType.PURCHASE.value, pl.col("item_id").is_not_null())
        .group_by("item_id")
        .agg(pl.len(), pl.col("quantity").fill_null(1).cast(pl.Int64).sum())
    )
    return {item_id: Count(*numbers) for item_id, *numbers in bought.sort("item_id").iter_rows()}


class Summing:
    """Adds lines up by epoch, each of them once."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, ...]] = {}
        self._counts: dict[str, Counts] = {}

    def take(self, epoch: str, place: str, body: Mapping[str, Any]) -> None:
        """Take a line, or leave it if it was taken before."""
        parts = tuple(map(int, place.split("-")))
        if parts > self._last.get(epoch, ()):
            self._last[epoch] = parts
            add(self._counts.setdefault(epoch, {}), body["items"])

    def take_lines(self, content: bytes) -> None:
        """Take the lines of a file."""
        for line in content.splitlines():
            body = orjson.loads(line)
            self.take(body["epoch"], body["id"], body)

    def total(self) -> Counts:
        """Return the sum of everything."""
        total: Counts = {}
        for counts in self._counts.values():
            add(total, counts)
        return total

    def lines(self) -> bytes:
        """Return one line for each epoch, which stands for all that were taken."""
        found = []
        for epoch, place in self._last.items():
            items = {item_id: list(count) for item_id, count in self._counts[epoch].items()}
            line = {"epoch": epoch, "id": "-".join(map(str, place)), "items": items}
            found.append(orjson.dumps(line) + b"\n")
        return b"".join(found)


def summed(content: bytes) -> bytes:
    """Return lines as few: what `ChangeLog` does to the files of this kind."""
    summing = Summing()
    summing.take_lines(content)
    return summing.lines()
