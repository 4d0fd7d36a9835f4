"""The rules that act on one list: what they remove, move, weigh and count."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from feature_store.catalogue import Catalogue
from recsvc.rules.book import Entry
from recsvc.rules.model import Boost, Bury, Cap, Exclude, IncludeOnly, Pin, Slot
from recsvc.rules.parts import Boosts, Capped, Parts
from recsvc.rules.targets import Target, membership

Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]

_NARROW = 20
"""Rules that leave a twentieth of the items, or less, leave retrieval little to find."""
_OFTEN = 32
"""Sets of rules that acted so often together get the columns of their boosts for themselves."""


class ActiveRules:
    """What a set of rules says about a list, in a form that the engine can apply.

    Parameters
    ----------
    entries : sequence of Entry
        The rules that act, in order.
    parts : Parts
        What they are made of.
    boosts : Boosts or None
        Those of the placement.
    """

    def __init__(
        self, entries: Sequence[Entry], parts: Parts, boosts: Boosts | None = None
    ) -> None:
        self.entries = tuple(entries)
        self._parts, self._n_rows = parts, parts.catalogue.n_rows
        numbers = {entry.number for entry in entries}
        every = boosts.entries if boosts is not None else ()
        acting = [at for at, one in enumerate(every) if one.number in numbers]
        weights = [_weight(every[at]) for at in acting]
        self._log_weights = np.log([weight or 1.0 for weight in weights]).astype(np.float32)
        self._boost_ids = [every[at].rule.rule_id for at in acting]
        self._stack = boosts.stack if boosts is not None and acting else None
        self._columns, self._uses = np.array(acting, dtype=np.intp), 0
        self._own: npt.NDArray[np.uint8] | None = None
        self._shared: tuple[Mask, Mask] | None = None
        self.weighs = bool(self._log_weights.any())
        of_type = self._of_type
        self.pins = tuple(parts.pin(one) for one in of_type(Pin))
        self.slots = tuple(parts.slot(one) for one in of_type(Slot))
        self.caps = tuple(_caps(of_type(Cap), parts))
        self.include_ids = tuple(one.rule.rule_id for one in of_type(IncludeOnly))
        self.permitted = self._permitted()
        kept = self._n_rows if self.permitted is None else np.count_nonzero(self.permitted)
        self.is_narrow = self.permitted is not None and bool(kept * _NARROW <= self._n_rows)
        zero = [every[at] for at, weight in zip(acting, weights, strict=True) if weight == 0]
        self.last = _union([parts.target(one) for one in zero], self._n_rows)

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def nbytes(self) -> int:
        """Memory that this set may take for itself, in bytes."""
        masks = sum(mask.nbytes for mask in (self.permitted, self.last) if mask is not None)
        masks += 0 if self.permitted is None else self.permitted.nbytes  # what is shared
        return masks + len(self._columns) * (self._n_rows // 8) + 2_000

    @property
    def arranges(self) -> bool:
        """Whether items have to be placed one by one: pins, slots, caps."""
        return bool(self.pins or self.slots or self.caps)

    @property
    def names_items(self) -> bool:
        """Whether some items carry the ids of rules that did not place them."""
        return bool(self.include_ids) or self._stack is not None

    def permit(self, allowed: Mask) -> Mask:
        """Return a mask without what rules remove.

        Parameters
        ----------
        allowed : ndarray of bool, shape (n_rows,)
            One that can be written to is changed; for one that cannot, because many requests share
            it, the result is shared too.
        """
        if self.permitted is None:
            return allowed
        if allowed.flags.writeable:
            allowed &= self.permitted
            return allowed
        shared = self._shared
        if shared is None or shared[0] is not allowed:
            found = allowed & self.permitted
            found.flags.writeable = False
            shared = self._shared = (allowed, found)
        return shared[1]

    def log_weights(self, rows: Rows) -> F32:
        """Return the logarithm of the product of all weights for each row.

        Returns
        -------
        ndarray of float32, shape (len(rows),)
            0 where no rule weighs.
        """
        found: F32 = (self._inside(rows) != 0).astype(np.float32) @ self._log_weights
        return found

    def rule_ids_of(self, rows: Rows) -> list[tuple[str, ...]]:
        """Return the rules that let each row in or weighed it."""
        found = [self.include_ids] * len(rows)
        if self._stack is not None and len(rows):
            inside = self._inside(rows).nonzero()
            for at, place in zip(inside[0].tolist(), inside[1].tolist(), strict=True):
                found[at] = (*found[at], self._boost_ids[place])
        return found

    def removed_by(self, row: int) -> list[str]:
        """Return the rules for which a row may not be shown."""
        one = np.array([row])
        return [
            entry.rule.rule_id
            for entry in self._of_type(Exclude, IncludeOnly)
            if bool(self._parts.target(entry).contains(one)[0])
            is isinstance(entry.rule.action, Exclude)
        ]

    def _of_type(self, *types: type) -> list[Entry]:
        return [one for one in self.entries if isinstance(one.rule.action, types)]

    def _inside(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return which rows are in the target of which boost that acts."""
        assert self._stack is not None
        if self._own is None:
            self._uses += 1
            if self._uses < _OFTEN:
                return membership(self._stack, rows)[:, self._columns]
            # In rows: indexing alone would leave the columns one after the other.
            self._own = np.ascontiguousarray(self._stack[:, self._columns])
        return membership(self._own, rows)

    def _permitted(self) -> Mask | None:
        """Return what neither an exclude nor an include_only removes; ``None`` for everything."""
        target = self._parts.target
        removed = _union([target(one) for one in self._of_type(Exclude)], self._n_rows)
        found = None if removed is None else ~removed
        for one in self._of_type(IncludeOnly):
            mask = target(one).mask(self._n_rows)
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


def _caps(entries: Iterable[Entry], parts: Parts) -> Iterable[Capped]:
    """Yield the caps; of several that count the same, the strictest says it all."""
    strictest: dict[tuple[str, str | None], Cap] = {}
    for one in entries:
        cap = one.rule.action
        assert isinstance(cap, Cap)
        known = strictest.setdefault((cap.by, cap.attribute), cap)
        if cap.max < known.max:
            strictest[cap.by, cap.attribute] = cap
    for cap in strictest.values():
        yield Capped(cap.max, parts.values(cap))


NO_RULES = ActiveRules((), Parts((), Catalogue.empty()))
"""What acts where no rule does."""
