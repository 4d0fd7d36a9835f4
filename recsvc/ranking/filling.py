"""How a list is filled: sources asked one after the other, best first, until there are enough.

Where rules weigh items, or a person is tired of them, scores are weighed before anything is cut. A
weight of `w` means: as if the item were `w` times as likely to be wanted. A blend's score is a
logarithm of that, so ``log(w)`` is added; other scores grow with it, so they are multiplied (a
score below zero is divided, so that a higher weight is always better); in a ranking the score is
one over the rank. A weight of 1 changes nothing. What is buried with 0 comes after everything else
that may be shown.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from recsvc.customer.follows import FOLLOWED_SOURCES, Follows
from recsvc.merchandising.placements import Placement
from recsvc.ranking.diversity import varied
from recsvc.ranking.fatigue import TIRING_SOURCES, Fatigue
from recsvc.ranking.freshness import Freshness
from recsvc.ranking.sources import EXACT_ROWS, SOURCES, Candidates, Query, exact, popular, remaining
from recsvc.rules import ActiveRules
from recsvc.rules.targets import Target

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SPARE = 12
"""Candidates that are sorted beyond the list's length, for repeated rows and variants."""
PINNED = "pinned"
"""The source of an item that a rule put where it is."""
Portions = Iterator[tuple[Candidates, Iterator[tuple[int, int, float]]]]
"""Candidates with position, row and score of some of them, best first."""
WEIGHED = 1_000
"""Of a ranking of everything, so many that may be shown are weighed; the rest follows as it is."""


class Weights(Protocol):
    """What makes items more or less wanted: rules, and what a person was shown too often."""

    @property
    def weighs(self) -> bool:
        """Whether any weight is not 1."""

    def log_weights(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the logarithm of the weight of each row."""


class Chosen(NamedTuple):
    """One item of a list.

    Parameters
    ----------
    row : int
        Its catalogue row.
    score : float
        Its source's score; scores of different stages do not compare.
    candidates : Candidates
        Where it comes from.
    position : int
        Its place among those candidates.
    rule_ids : tuple of str
        The rules that moved or allowed it.
    """

    row: int
    score: float
    candidates: Candidates
    position: int
    rule_ids: tuple[str, ...] = ()


_new = tuple.__new__


class Elsewhere(NamedTuple):
    """What a list does not show, because it stands somewhere else.

    Parameters
    ----------
    rows : ndarray of int or None
        Catalogue rows.
    groups : collection of int
        Variant groups (``Catalogue.group_codes``) of which nothing is shown.
    """

    rows: npt.NDArray[np.integer] | None = None
    groups: Collection[int] = ()


NOWHERE = Elsewhere()


class Stages:
    """The sources of one request, asked when they are needed, the first one only once.

    Parameters
    ----------
    query : Query
        What is wanted.
    placement : Placement
        The slot.
    rules : ActiveRules
        What acts on the list.
    fatigue : Fatigue
        What the person was shown too often.
    narrow : bool
        Whether much may be forbidden: then few items that are left are scored exactly at once.
    """

    def __init__(
        self,
        query: Query,
        placement: Placement,
        rules: ActiveRules,
        fatigue: Fatigue,
        *,
        narrow: bool,
    ) -> None:
        self._query, self._source, self._placement = query, placement.source, placement
        self._rules, self._fatigue, self._narrow = rules, fatigue, narrow
        self._first: Candidates | None = None

    def of(self, allowed: Mask, *, later: bool = False) -> Iterator[tuple[Candidates, Mask]]:
        """Yield candidates, the best source first, and which rows may be shown.

        What is buried with weight 0, and after it what the person dislikes, is not forbidden, but
        comes when there is nothing else.

        Parameters
        ----------
        allowed : ndarray of bool, shape (n_rows,)
            What may be shown.
        later : bool
            Leave out what retrieval finds, and compare the others by taste alone: that is for one
            place of a list, and a blend costs a whole request.
        """
        query, source = self._query, self._source
        first = self._preferred(allowed)
        if not later:
            few = self._narrow and np.count_nonzero(first) <= EXACT_ROWS
            if not (few and source == "personal"):
                yield self._retrieved(first), first
        elif source == "personal":
            source = "due"
        yield self._weighed(exact(query, source, first), first), first
        yield self._weighed(popular(query), first), first
        yield self._weighed(remaining(query), first), first
        disliked = query.history.disliked
        if self._rules.last is not None:
            wanted = allowed.copy()
            wanted[disliked] = False
            yield remaining(query), wanted
        if len(disliked):
            yield remaining(query), allowed

    def portions(self, allowed: Mask, n: int) -> Portions:
        """Yield what may be shown, best first; about `n` will be taken."""
        placement = self._placement
        if len(placement.sources) > 1:
            yield from self._mixed(allowed, n)
        for stage, (candidates, may) in enumerate(self.of(allowed)):
            if stage == 0 and placement.diversity:
                candidates = self._varied(candidates, may, n)  # noqa: PLW2901
            for portion in candidates.among(may, n + SPARE):
                yield candidates, portion
            if not placement.fallback:
                return

    def _varied(self, candidates: Candidates, may: Mask, n: int) -> Candidates:
        return varied(self._query.snapshot, candidates, may, n, self._placement.diversity)

    def _mixed(self, allowed: Mask, n: int) -> Portions:
        """Yield from several sources in turn, as often from each as its weight says.

        Smooth weighted round-robin: whoever is owed most is next. What stands in two sources is
        taken once, by whoever comes to it first.
        """
        first = self._preferred(allowed)
        streams: dict[str, Iterator[tuple[Candidates, tuple[int, int, float]]]] = {}
        weights = {source.name: source.weight for source in self._placement.sources}
        owed = dict.fromkeys(weights, 0.0)
        for name in weights:
            found = self._weighed(SOURCES[name](self._query), first)
            if self._placement.diversity:
                found = self._varied(found, first, n)
            streams[name] = _singly(found, first, n)
        while streams:
            for name in streams:
                owed[name] += weights[name]
            name = max(streams, key=lambda one: owed[one])
            entry = next(streams[name], None)
            if entry is None:
                del streams[name]
                continue
            owed[name] -= sum(weights[one] for one in streams)
            yield entry[0], iter((entry[1],))

    def portions_inside(self, target: Target, allowed: Mask, n: int) -> Portions:
        """Yield what may be shown and is in a set of rows, best first."""
        first = self._preferred(allowed)
        candidates = self._retrieved(first)
        may = first[candidates.rows] & target.contains(candidates.rows)
        for portion in candidates.best(may, n + SPARE):
            yield candidates, portion
        # Only if these are not enough: most slots are filled by now.
        inside = allowed & target.mask(len(allowed))
        for candidates, mask in self.of(inside, later=True):
            for portion in candidates.among(mask, n + SPARE):
                yield candidates, portion

    def _preferred(self, allowed: Mask) -> Mask:
        """Return what may be shown without what is buried or disliked."""
        disliked, buried = self._query.history.disliked, self._rules.last
        if buried is not None:
            allowed = allowed & ~buried
        if len(disliked):
            allowed = allowed.copy()
            allowed[disliked] = False
        return allowed

    def _retrieved(self, may: Mask) -> Candidates:
        """Return what the placement's own source finds, weighed; computed once."""
        if self._first is None:
            self._first = SOURCES[self._source](self._query)
            if not self._first.is_sorted:
                self._first = self._weighed(self._first, may)
        return self._weighed(self._first, may) if self._first.is_sorted else self._first

    def _weighed(self, candidates: Candidates, may: Mask) -> Candidates:
        query, share = self._query, self._placement.freshness
        if share:
            fresh = Freshness(query.snapshot.catalogue.published_s, share, query.now_s)
            candidates = weighed(candidates, may, fresh)
        if candidates.source in TIRING_SOURCES:
            candidates = weighed(candidates, may, self._fatigue)
        if query.followed.weighs and candidates.source in FOLLOWED_SOURCES:
            candidates = lifted(candidates, may, query.followed)
        return weighed(candidates, may, self._rules)


def _singly(
    candidates: Candidates, may: Mask, n: int
) -> Iterator[tuple[Candidates, tuple[int, int, float]]]:
    """Yield what may be shown, best first, one row once."""
    seen: set[int] = set()
    for portion in candidates.among(may, n + SPARE):
        for entry in portion:
            if entry[1] not in seen:
                seen.add(entry[1])
                yield candidates, entry


def weighed(candidates: Candidates, may: Mask, weights: Weights) -> Candidates:
    """Return candidates with weights in their scores."""
    if not weights.weighs or len(candidates.rows) == 0:
        return candidates
    if candidates.is_sorted:
        return _weighed_ranking(candidates, may, weights)
    logs = weights.log_weights(candidates.rows)
    if candidates.features is not None:
        scores = candidates.scores + logs
    else:
        scores = candidates.scores * np.exp(np.where(candidates.scores > 0, logs, -logs))
    return replace(candidates, scores=scores)


def _weighed_ranking(candidates: Candidates, may: Mask, weights: Weights) -> Candidates:
    places = np.flatnonzero(may[candidates.rows])[:WEIGHED]
    return _reordered(candidates, places, weights.log_weights(candidates.rows[places]))


def _reordered(candidates: Candidates, places: npt.NDArray[np.intp], logs: F32) -> Candidates:
    """Return a ranking in which what stands at some places is weighed and sorted again."""
    if not logs.any():
        return candidates
    scores = candidates.scores[places] * np.exp(logs)
    order = np.argsort(-scores, kind="stable")
    moved = {"rows": candidates.rows[places[order]], "scores": scores[order]}
    if candidates.lifts is not None:
        moved["lifts"] = candidates.lifts[places[order]]
    columns = {name: getattr(candidates, name).copy() for name in moved}
    for name, values in moved.items():
        columns[name][places] = values
    return replace(candidates, **columns)


def lifted(candidates: Candidates, may: Mask, follows: Follows) -> Candidates:
    """Return candidates of which those that somebody follows count for more."""
    rows, scores = candidates.rows, candidates.scores
    if candidates.is_sorted:
        places = np.flatnonzero(may[rows])[:WEIGHED]
        logs = follows.lifts(rows[places], scores[places], np.ones(len(places), dtype=bool))
        lifts = np.zeros(len(rows), dtype=np.float32)
        lifts[places] = logs
        return _reordered(replace(candidates, lifts=lifts), places, logs)
    lifts = follows.lifts_of_logs(rows, scores, may[rows])
    return replace(candidates, scores=scores + lifts, lifts=lifts)


def fill(
    stages: Stages,
    query: Query,
    allowed: Mask,
    needed: int,
    without_groups: Collection[int] = (),
) -> list[Chosen]:
    """Take allowed candidates, best first, one variant of each group, until there are enough."""
    chosen: list[Chosen] = []
    taken: set[int] = set()
    groups = query.snapshot.catalogue.group_codes
    taken_groups = set(without_groups)
    for candidates, portion in stages.portions(allowed, needed):
        for position, row, score in portion:
            if row in taken:
                continue
            if groups is not None and (group := groups.item(row)) >= 0:
                if group in taken_groups:
                    continue
                taken_groups.add(group)
            taken.add(row)
            # As `Chosen(...)`, of which a tuple's own constructor takes a third of the time.
            chosen.append(_new(Chosen, (row, score, candidates, position, ())))
            if len(chosen) == needed:
                return chosen
    return chosen


def with_rule_ids(chosen: list[Chosen], rules: ActiveRules) -> list[Chosen]:
    """Name in each item the rules that moved or allowed it; what was pinned was not weighed."""
    if not rules.names_items:
        return chosen
    found = rules.rule_ids_of(np.array([one.row for one in chosen], dtype=np.int64))
    return [
        one if not ids else Chosen(*one[:4], one.rule_ids + _shortened(one, ids, rules))
        for one, ids in zip(chosen, found, strict=True)
    ]


def _shortened(one: Chosen, ids: tuple[str, ...], rules: ActiveRules) -> tuple[str, ...]:
    return rules.include_ids if one.candidates.source == PINNED else ids
