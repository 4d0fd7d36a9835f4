"""Rules compiled for a catalogue: made when they are published, kept up with every change.

Targets become sets of catalogue rows once, not once a request. When items change, targets are
evaluated on those items alone. Nothing here does I/O, and a published value is never changed; what
is computed on first use is only kept.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.conditions import Condition, ItemTable, Scope
from feature_store.item_columns import COLUMNS
from recsvc.rules.active import NO_RULES, ActiveRules
from recsvc.rules.book import Book, in_order, same
from recsvc.rules.model import CheckedRule
from recsvc.rules.parts import Parts
from recsvc.rules.targets import Target

_REMEMBERED_BYTES = 32 * 2**20
"""Memory for the sets of rules that acted together."""


class CompiledRules:
    """The live rules of a site over one catalogue.

    Parameters
    ----------
    book : Book
        The rules.
    catalogue : Catalogue
        The items.
    targets : tuple of Target
        The rows of each of ``book.targets``.
    table : ItemTable
        The catalogue's file, encoded.
    """

    def __init__(
        self, book: Book, catalogue: Catalogue, targets: tuple[Target, ...], table: ItemTable
    ) -> None:
        self.book, self.catalogue = book, catalogue
        self.targets, self.table = targets, table
        self._parts = Parts(targets, catalogue)
        self._known: dict[tuple[str, int, tuple[int, ...]], ActiveRules] = {}
        self._bytes = 0

    def following(self, catalogue: Catalogue) -> "CompiledRules":
        """Return the same rules over another catalogue, evaluating as little as possible."""
        if catalogue is self.catalogue:
            return self
        if catalogue.frame is not self.catalogue.frame:
            return compile_book(self.book, catalogue)
        known = self.catalogue.overlay
        changed = [row for row, one in catalogue.overlay.items() if known.get(row) is not one]
        return self.with_changes(catalogue, changed)

    def with_changes(self, catalogue: Catalogue, changed_rows: Iterable[int]) -> "CompiledRules":
        """Return the same rules over a catalogue in which some rows were changed or added.

        Parameters
        ----------
        catalogue : Catalogue
            ``self.catalogue.with_changes(...)``.
        changed_rows : iterable of int
            All rows that differ, or lie beyond what was.
        """
        rows = np.unique(np.fromiter(changed_rows, dtype=np.int64))
        targets = self.targets
        if len(rows) and targets:
            changed = _table_of(catalogue, rows)
            changed.prepare(self.book.targets)
            targets = tuple(
                target.with_changes(rows, changed.mask(condition), catalogue.n_rows)
                for target, condition in zip(targets, self.book.targets, strict=True)
            )
        return CompiledRules(self.book, catalogue, targets, self.table)

    def active(self, placement: str, scope: Scope, now_s: float) -> ActiveRules:
        """Return the rules that act on a list, put together once for the same audiences."""
        book = self.book
        shelf = book.shelf(placement)
        if not shelf.entries:
            return NO_RULES
        phase = book.clock.phase(now_s)
        present = shelf.present(scope, book.predicates)
        key = (placement, phase.serial, present)
        known = self._known.get(key)
        if known is None:
            entries = shelf.acting(present, phase.acts)
            boosts = self._parts.boosts(placement, shelf.entries)
            known = ActiveRules(entries, self._parts, boosts) if entries else NO_RULES
            self._remember(key, known)
        return known

    def _remember(self, key: tuple[str, int, tuple[int, ...]], rules: ActiveRules) -> None:
        """Keep a set of rules; the oldest ones go when all of them take too much memory."""
        self._known[key] = rules
        self._bytes += rules.nbytes
        while self._bytes > _REMEMBERED_BYTES and len(self._known) > 1:
            self._bytes -= self._known.pop(next(iter(self._known))).nbytes


def compile_rules(
    rules: Iterable[CheckedRule], catalogue: Catalogue, previous: CompiledRules | None = None
) -> CompiledRules:
    """Compile the rules that are live.

    Parameters
    ----------
    rules : iterable of CheckedRule
        Rules of any status; those that are not live are left out.
    catalogue : Catalogue
        The items.
    previous : CompiledRules or None
        What was compiled before: targets that are still the same, over the same catalogue, are
        taken from it, and so is what was encoded of the catalogue's file.
    """
    live = in_order(one for one in rules if one.rule.status == "live")
    if previous is not None and same(live, previous.book.rules):
        return previous.following(catalogue)
    return compile_book(Book(live), catalogue, previous)


def compile_book(
    book: Book, catalogue: Catalogue, previous: CompiledRules | None = None
) -> CompiledRules:
    """Compile rules that are in order already; see `compile_rules`."""
    known: dict[str, Target] = {}
    table = None
    if previous is not None and previous.catalogue.frame is catalogue.frame:
        table = previous.table
        if previous.catalogue is catalogue:
            keys = (condition.key for condition in previous.book.targets)
            known = dict(zip(keys, previous.targets, strict=True))
    if table is None:
        table = ItemTable(catalogue.frame, catalogue.rows)
    new = [condition for condition in book.targets if condition.key not in known]
    masks = _masks(new, catalogue, table)
    found = known | {
        condition.key: Target.of(mask) for condition, mask in zip(new, masks, strict=True)
    }
    return CompiledRules(
        book, catalogue, tuple(found[condition.key] for condition in book.targets), table
    )


def _masks(
    conditions: Sequence[Condition], catalogue: Catalogue, table: ItemTable
) -> Iterable[npt.NDArray[np.bool_]]:
    """Yield the mask of each condition over all rows, the changed ones included."""
    overlay = np.fromiter(catalogue.overlay, dtype=np.int64)
    changed = _table_of(catalogue, overlay)
    for one in (table, changed):
        one.prepare(conditions)
    for condition in conditions:
        mask = np.zeros(catalogue.n_rows, dtype=bool)
        mask[: catalogue.frame.height] = table.mask(condition)
        mask[overlay] = changed.mask(condition)
        yield mask


def _table_of(catalogue: Catalogue, rows: npt.NDArray[np.int64]) -> ItemTable:
    """Return the overlay's rows as a table of their own."""
    changed = [catalogue.overlay[row] for row in rows.tolist()]
    return ItemTable(pl.DataFrame(changed, schema=COLUMNS))


def applicable(compiled: CompiledRules, placement: str, scope: Scope, now_s: float) -> ActiveRules:
    """Return the rules that act on a list.

    Parameters
    ----------
    compiled : CompiledRules
        All live rules.
    placement : str
        The slot.
    scope : Scope
        Whom and what the list is for; ``scope.now_s`` is `now_s`.
    now_s : float
        Seconds since 1970.
    """
    return compiled.active(placement, scope, now_s)


NOTHING = compile_rules((), Catalogue.empty())
"""A site without rules."""
