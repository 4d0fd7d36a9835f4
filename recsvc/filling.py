"""How a list is filled: sources asked one after the other, best first, until there are enough.

Where rules weigh items, or a person is tired of them, scores are weighed before anything is cut. A
weight of `w` means: as if the item were `w` times as likely to be wanted. A blend's score is a
logarithm of that, so ``log(w)`` is added; other scores grow with it, so they are multiplied (a
score below zero is divided, so that a higher weight is always better); in a ranking the score is
one over the rank. A weight of 1 changes nothing. What is buried with 0 comes after everything else
that may be shown.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from recsvc.fatigue import TIRING_SOURCES, Fatigue
from recsvc.placements import Placement
from recsvc.rules import ActiveRules
from recsvc.sources import EXACT_ROWS, SOURCES, Candidates, Query, exact, popular, remaining

Mask = npt.NDArray[np.bool_]

SPARE = 12
"""Candidates that are sorted beyond the list's length, for repeated rows and variants."""
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
        self._query, self._source = query, placement.source
        self._rules, self._fatigue, self._narrow = rules, fatigue, narrow
        self._first: Candidates | None = None

    def of(self, allowed: Mask) -> Iterator[tuple[Candidates, Mask]]:
        """Yield candidates, the best source first, and which rows may be shown.

        What is buried with weight 0, and after it what the person dislikes, is not forbidden, but
        comes when there is nothing else.
        """
        query, disliked, buried = self._query, self._query.history.disliked, self._rules.last
        first = allowed
        if buried is not None:
            first = allowed & ~buried
        if len(disliked):
            first = first.copy()
            first[disliked] = False
        few = self._narrow and np.count_nonzero(first) <= EXACT_ROWS
        if not (few and self._source == "personal"):
            if self._first is None:
                self._first = SOURCES[self._source](query)
            yield self._weighed(self._first, first), first
        yield self._weighed(exact(query, self._source, first), first), first
        yield self._weighed(popular(query), first), first
        yield self._weighed(remaining(query), first), first
        if buried is not None:
            wanted = allowed.copy()
            wanted[disliked] = False
            yield remaining(query), wanted
        if len(disliked):
            yield remaining(query), allowed

    def _weighed(self, candidates: Candidates, may: Mask) -> Candidates:
        if candidates.source in TIRING_SOURCES:
            candidates = weighed(candidates, may, self._fatigue)
        return weighed(candidates, may, self._rules)


def weighed(candidates: Candidates, may: Mask, weights: Weights) -> Candidates:
    """Return candidates with weights in their scores."""
    if not weights.weighs or len(candidates.rows) == 0:
        return candidates
    if candidates.is_sorted:
        return _weighed_ranking(candidates, may, weights)
    logs = weights.log_weights(candidates.rows)
    if candidates.features is not None:
        return replace(candidates, scores=candidates.scores + logs)
    factors = np.exp(np.where(candidates.scores > 0, logs, -logs))
    return replace(candidates, scores=candidates.scores * factors)


def _weighed_ranking(candidates: Candidates, may: Mask, weights: Weights) -> Candidates:
    places = np.flatnonzero(may[candidates.rows])[:WEIGHED]
    logs = weights.log_weights(candidates.rows[places])
    if not logs.any():
        return candidates
    scores = candidates.scores[places] * np.exp(logs)
    order = np.argsort(-scores, kind="stable")
    rows, all_scores = candidates.rows.copy(), candidates.scores.copy()
    rows[places], all_scores[places] = candidates.rows[places[order]], scores[order]
    return replace(candidates, rows=rows, scores=all_scores)


def fill(stages: Stages, query: Query, allowed: Mask, needed: int) -> list[Chosen]:
    """Take allowed candidates, best first, one variant of each group, until there are enough."""
    chosen: list[Chosen] = []
    taken: set[int] = set()
    groups = query.snapshot.catalogue.group_codes
    taken_groups: set[int] = set()
    for candidates, may in stages.of(allowed):
        portions = candidates.best(may[candidates.rows], needed + SPARE)
        for position, row, score in chain.from_iterable(portions):
            if row in taken:
                continue
            if groups is not None and (group := groups.item(row)) >= 0:
                if group in taken_groups:
                    continue
                taken_groups.add(group)
            taken.add(row)
            chosen.append(Chosen(row, score, candidates, position))
            if len(chosen) == needed:
                return chosen
    return chosen
