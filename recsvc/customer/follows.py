"""What somebody follows, brands and categories: some of it is lifted into every guess.

The first item of what is followed counts as if it were ``FOLLOW_WEIGHT`` times as likely to be
wanted, the next ones less and less: the lift less one halves with every ``HALF_LIFE`` items. And
where the person's own list is made (a blend) one item in ``ONE_IN`` is followed, as long as there
are any: a small brand is seen, and the rest of the list stays theirs. Several names take turns: the
best item of each comes before the second one of any.

The numbers are measured (``tests/benchmarks/follows.py``): twice the weight costs those who follow
what they buy anyway three times as much, and without the last rule somebody who follows something
new to them sees it in one list of a hundred.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.preferences import Preferences
from recsvc.customer.named import Bits, Name, bits_of, covered, followed_names, interest_names
from recsvc.snapshot import Snapshot

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Rows = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

FOLLOW_WEIGHT = 2.0
HALF_LIFE = 4.0
ONE_IN = 10
LIFTED = 32
"""So many items are lifted at most; the lift of the last one is next to nothing."""
FOLLOWED_SOURCES = frozenset({"blend", "popular", "trending", "new"})
"""What follows act on: guesses at what somebody wants. What goes with the page is its own."""
CANDIDATES = 100
"""Followed items that a blend scores besides those that it finds itself."""
BEST = 1_000
"""Of each name so many of the most popular items are looked at."""
MOST_RAISED = 10
"""So many items are brought in because too few are followed: one in ten of the longest list."""
_REMEMBERED = 1_000
_JUST = np.float32(1e-4)


def lifts_of(weight: float, half_life: float) -> F32:
    """Return the logs of what the followed items count, in their turns, shape (LIFTED,)."""
    share = np.float32(0.5) ** (np.arange(LIFTED, dtype=np.float32) / np.float32(half_life))
    logs: F32 = np.log1p(np.float32(weight - 1) * share)
    return logs


_LIFTS = lifts_of(FOLLOW_WEIGHT, HALF_LIFE)


@dataclass(frozen=True, slots=True, eq=False)
class Follows:
    """What one person follows.

    Parameters
    ----------
    names : tuple of Name
        Brands and categories.
    bits : tuple of ndarray of uint8
        What each covers (``named.bits_of``).
    snapshot : Snapshot or None
        Catalogue and model; ``None`` if nothing is followed.
    logs : ndarray of float32, shape (LIFTED,)
        By how much the items in their turns are lifted (`lifts_of`).
    """

    names: tuple[Name, ...]
    bits: tuple[Bits, ...]
    snapshot: Snapshot | None
    logs: F32

    @property
    def weighs(self) -> bool:
        """Whether anything is followed."""
        return len(self.names) > 0

    def names_of(self, row: int) -> tuple[str, ...]:
        """Return the followed brands and categories that an item belongs to."""
        rows = np.array([row])
        return tuple(
            name.text
            for name, bits in zip(self.names, self.bits, strict=True)
            if covered(bits, rows)[0]
        )

    def best(self, allowed: Mask | None) -> I32:
        """Return the most popular followed items that may be shown, as many of each name."""
        assert self.snapshot is not None
        share = max(1, CANDIDATES // len(self.names))
        found = []
        for name, bits in zip(self.names, self.bits, strict=True):
            rows = _most_popular(self.snapshot, name, bits)
            found.append((rows if allowed is None else rows[allowed[rows]])[:share])
        return np.concatenate(found)

    def lifts(self, rows: Rows, scores: F32, may: Mask) -> F32:
        """Return the log of how much more likely each candidate is to be wanted.

        Parameters
        ----------
        rows : ndarray of int, shape (c,)
            Catalogue rows of candidates.
        scores : ndarray of float32, shape (c,)
            Higher is better: the best of each name is lifted first.
        may : ndarray of bool, shape (c,)
            Whether they may be shown; what may not takes no turn.
        """
        logs = np.zeros(len(rows), dtype=np.float32)
        first = self._in_turn(rows, scores, may)
        logs[first] = self.logs[: len(first)]
        return logs

    def lifts_of_logs(self, rows: Rows, scores: F32, may: Mask) -> F32:
        """Return what `lifts` does, and more where too few would come into the list.

        Parameters
        ----------
        rows, may : ndarray
            As in `lifts`.
        scores : ndarray of float32, shape (c,)
            Logs, up to a constant, of how likely each candidate is to be wanted.
        """
        logs = np.zeros(len(rows), dtype=np.float32)
        first = self._in_turn(rows, scores, may)
        logs[first] = self.logs[: len(first)]
        lifted = scores + logs
        losses = np.sort(-lifted[may])
        few = first[: min(len(losses) // ONE_IN, MOST_RAISED)]
        raised = 0
        for turn, own in enumerate(lifted[few].tolist(), 1):
            # Those that were raised stand above it, and not where they do in `losses`.
            edge = -losses.item(turn * ONE_IN - 1 - raised)
            if own < edge:
                logs[few[turn - 1]] += edge - own + _JUST
                raised += 1
        return logs

    def _in_turn(self, rows: Rows, scores: F32, may: Mask) -> npt.NDArray[np.intp]:
        """Return the places of what is lifted, in its turns."""
        # As `covered`, which for several names would look up the same places again and again.
        at, shifts = rows >> 3, (rows & 7).astype(np.uint8)
        held = np.stack([bits[at] << shifts for bits in self.bits]) >= 0x80
        held &= may
        places = np.flatnonzero(held.any(axis=0) if len(held) > 1 else held[0])
        if len(places) == 0:
            return places
        places = places[np.argsort(-scores[places], kind="stable")]
        places = self._without_variants(places, rows)
        if len(held) == 1:
            return places[:LIFTED]
        held = held[:, places]
        # How many of the same name come before; of several names the one that helps most.
        turns = np.where(held, held.cumsum(axis=1), len(places) + 1).min(axis=0)
        return places[np.argsort(turns, kind="stable")[:LIFTED]]

    def _without_variants(self, places: npt.NDArray[np.intp], rows: Rows) -> npt.NDArray[np.intp]:
        """Return the places of one item of each group, the first, in order."""
        assert self.snapshot is not None
        groups = self.snapshot.catalogue.group_codes
        if groups is None:
            return places
        codes = groups[rows[places]]
        alone = codes < 0
        if alone.all():
            return places
        _, first = np.unique(np.where(alone, -1 - rows[places], codes), return_index=True)
        return places[np.sort(first)]


NO_FOLLOWS = Follows((), (), None, _LIFTS)


def read_follows(snapshot: Snapshot, preferences: Preferences, *, is_new: bool = False) -> Follows:
    """Return what somebody follows.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    preferences : Preferences
        What the person decided.
    is_new : bool
        Whether nothing is known of what they did: then they follow what interests them.
    """
    names = followed_names(preferences)
    if is_new and preferences.interests:
        names = tuple(dict.fromkeys((*names, *interest_names(snapshot.catalogue, preferences))))
    if not names:
        return NO_FOLLOWS
    bits = tuple(bits_of(snapshot.catalogue, name) for name in names)
    return Follows(names, bits, snapshot, _LIFTS)


def _most_popular(snapshot: Snapshot, name: Name, bits: Bits) -> I32:
    """Return the most popular items of a name; those without a sale come last, newest first."""
    model = snapshot.model
    known = model.best.get(name)
    if known is not None and known[0] is bits:
        return known[1]
    catalogue = snapshot.catalogue
    rows = np.flatnonzero(np.unpackbits(bits, count=catalogue.n_rows)).astype(np.int32)
    if len(rows) > BEST:
        rows = rows[np.argpartition(-model.recent[rows], BEST)[:BEST]]
    rows = rows[np.lexsort((rows, -catalogue.published_s[rows], -model.recent[rows]))]
    if len(model.best) >= _REMEMBERED:
        model.best.clear()
    model.best[name] = (bits, rows)
    return rows
