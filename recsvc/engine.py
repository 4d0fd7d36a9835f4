"""The one function behind every door: it chooses what this person should see, here, now.

``recommend`` is pure and synchronous: no clock, no I/O, no state that outlives the call. Filters
act before the cut, never after it: a source's candidates are masked first, and when too few are
left the next stage scores what may be shown exactly, and the last one walks the whole catalogue by
popularity. So when N items exist that may be shown, N are shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.schema import NO_PREFERENCES, Preferences
from feature_store.state import EMPTY_STATE, UserState
from recsvc.history import read_history
from recsvc.placements import Placement
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from recsvc.sources import EXACT_ROWS, SOURCES, Candidates, Query, exact, popular, remaining

Mask = npt.NDArray[np.bool_]

SPARE = 12
"""Candidates that are sorted beyond the list's length, for repeated rows and variants."""


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
    """

    row: int
    score: float
    candidates: Candidates
    position: int


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """A finished list with all that explains it.

    Parameters
    ----------
    snapshot : Snapshot
        What it was made from.
    placement : Placement
        The slot.
    chosen : list of Chosen
        The items, best first.
    query : Query
        What the sources were asked.
    personalized : bool
        Whether the person's history was used.
    """

    snapshot: Snapshot
    placement: Placement
    chosen: list[Chosen]
    query: Query
    personalized: bool


def recommend(
    snapshot: Snapshot,
    state: UserState,
    preferences: Preferences,
    request: RecommendationRequest,
    now_s: int,
    *,
    skip: int = 0,
    without_rows: npt.NDArray[np.integer] | None = None,
) -> Response:
    """Choose the items of one list.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue, model and placements.
    state : UserState
        The person's facts (the `hot` part suffices); ``EMPTY_STATE`` for nobody.
    preferences : Preferences
        What the person decided; outranks everything here.
    request : RecommendationRequest
        The question. Its ``user_id`` is not looked at: `state` is whose list it is.
    now_s : int
        Seconds since 1970, for decays and availability.
    skip : int
        How many items of the list were shown already (``after``).
    without_rows : ndarray of int or None
        Catalogue rows that must not be chosen, besides all others that must not.

    Returns
    -------
    Response
        At most ``limit`` items; fewer only when no more may be shown.

    Raises
    ------
    KeyError
        If the placement does not exist.
    """
    placement = snapshot.site.placements[request.placement]
    limit = request.limit or placement.limit
    personal = preferences.personalization and state.n_item_facts > 0
    history = read_history(state if personal else EMPTY_STATE, snapshot.catalogue.n_rows, now_s)
    about = snapshot.catalogue.rows(request.item_ids) if request.item_ids else _NO_ROWS
    query = Query(snapshot, history, about[about >= 0], now_s)
    allowed = allowed_mask(snapshot, placement, preferences, request, query, without_rows)
    narrow = request.filter is not None or preferences is not NO_PREFERENCES
    chosen = _fill(query, placement, allowed, skip + limit, narrow=narrow)
    return Response(snapshot, placement, chosen[skip:], query, personal)


_NO_ROWS = np.zeros(0, dtype=np.int32)


def allowed_mask(
    snapshot: Snapshot,
    placement: Placement,
    preferences: Preferences,
    request: RecommendationRequest,
    query: Query,
    without_rows: npt.NDArray[np.integer] | None,
) -> Mask:
    """Return which rows may be in the answer.

    Returns
    -------
    ndarray of bool, shape (n_rows,)
        Showable now and of the placement's kinds, matching the filter, not on the page, not
        excluded, not hidden.
    """
    catalogue = snapshot.catalogue
    allowed = catalogue.showable(query.now_s, placement.kinds)
    if request.filter is not None:
        allowed = allowed & catalogue.mask(request.filter.key, request.filter.expression())
    for hidden, column in (
        (preferences.hidden_brands, "brand"),
        (preferences.hidden_categories, "categories"),
    ):
        for name in hidden:
            allowed = allowed & ~_hidden_mask(snapshot, column, name)
    removed: list[npt.NDArray[np.integer]] = [query.about] if len(query.about) else []
    for item_ids in (request.exclude_item_ids, preferences.hidden_items):
        if item_ids:
            named = catalogue.rows(list(item_ids))
            removed.append(named[named >= 0])
    if without_rows is not None:
        removed.append(without_rows[without_rows < len(allowed)])
    if removed:
        if not allowed.flags.writeable:
            allowed = allowed.copy()
        for rows in removed:
            allowed[rows] = False
    return allowed


def _hidden_mask(snapshot: Snapshot, column: str, name: str) -> Mask:
    """Return the items of a brand, or of a category and all below it."""
    if column == "brand":
        expression = pl.col("brand") == name
    else:
        inside = (pl.element() == name) | pl.element().str.starts_with(f"{name} > ")
        expression = pl.col("categories").list.eval(inside).list.any()
    return snapshot.catalogue.mask(f"hidden:{column}:{name}", expression)


def _stages(
    query: Query, placement: Placement, allowed: Mask, *, narrow: bool
) -> Iterator[tuple[Candidates, Mask]]:
    """Yield candidates, the best source first, and which of them may be shown.

    Each stage is computed only when it is needed. What the person dislikes is not forbidden, but
    comes when there is nothing else.
    """
    disliked, every = query.history.disliked, allowed
    if len(disliked):
        allowed = allowed.copy()
        allowed[disliked] = False
    if not (narrow and np.count_nonzero(allowed) <= EXACT_ROWS and placement.source == "personal"):
        yield SOURCES[placement.source](query), allowed
    yield exact(query, placement.source, allowed), allowed
    yield popular(query), allowed
    yield remaining(query), allowed
    if len(disliked):
        yield remaining(query), every


def _fill(
    query: Query, placement: Placement, allowed: Mask, needed: int, *, narrow: bool
) -> list[Chosen]:
    """Take allowed candidates, best first, one variant of each group, until there are enough."""
    chosen: list[Chosen] = []
    taken: set[int] = set()
    groups = query.snapshot.catalogue.group_codes
    taken_groups: set[int] = set()
    for candidates, may in _stages(query, placement, allowed, narrow=narrow):
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
