"""The one function behind every door: it chooses what this person should see, here, now.

``recommend`` is pure and synchronous: no clock, no I/O, no state that outlives the call. Filters
act before the cut, never after it: a source's candidates are masked first, and when too few are
left the next stage scores what may be shown exactly, and the last one walks the whole catalogue by
popularity. So when N items exist that may be shown, N are shown.
"""

import numpy as np
import numpy.typing as npt

from feature_store.conditions import Scope
from feature_store.impressions import NO_IMPRESSIONS, Impressions
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.state import EMPTY_STATE, UserState
from feature_store.values import value_class
from recsvc.customer.disowned import owned
from recsvc.customer.follows import read_follows
from recsvc.customer.hiding import hidden, hides_anything
from recsvc.merchandising.markets import market_of
from recsvc.merchandising.placements import PRODUCTS, Placement
from recsvc.ranking.arranging import arrange
from recsvc.ranking.fatigue import RESTED, read_fatigue
from recsvc.ranking.filling import NOWHERE, Chosen, Elsewhere, Stages, fill, with_rule_ids
from recsvc.ranking.history import read_history
from recsvc.ranking.sources import Query
from recsvc.ranking.starts import NOTHING_SAID, Start
from recsvc.requests import RecommendationRequest
from recsvc.rules import NO_RULES, ActiveRules, applicable
from recsvc.snapshot import Snapshot

Mask = npt.NDArray[np.bool_]


@value_class(frozen=True, slots=True, eq=False)
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
    rules : ActiveRules
        The rules that acted.
    skip : int
        How many items of the list stand before the first of these.
    preferences : Preferences
        What the person decided.
    asked_s : float
        When it was asked for, in seconds since 1970: what is snoozed then is hidden.
    """

    snapshot: Snapshot
    placement: Placement
    chosen: list[Chosen]
    query: Query
    personalized: bool
    rules: ActiveRules = NO_RULES
    skip: int = 0
    preferences: Preferences = NO_PREFERENCES
    asked_s: float = 0.0


def recommend(
    snapshot: Snapshot,
    state: UserState,
    preferences: Preferences,
    request: RecommendationRequest,
    now_s: int,
    *,
    impressions: Impressions = NO_IMPRESSIONS,
    scope: Scope | None = None,
    start: Start | None = None,
    skip: int = 0,
    elsewhere: Elsewhere = NOWHERE,
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
    impressions : Impressions
        What the person was shown: what was never wanted steps back.
    scope : Scope or None
        What the audiences of rules see: the person, the page, the request (``people.scope_of``);
        and the time by which rules start and end and snoozes are over, also in the continuation of
        a list, whose decays are those of its beginning. Without it they see the request alone, at
        `now_s`.
    start : Start or None
        What is known of the taste of somebody without a history; of anybody else it is not used.
    skip : int
        How many items of the list were shown already (``after``).
    elsewhere : Elsewhere
        What must not be chosen, besides all others that must not.

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
    if scope is None:
        scope = Scope(context=request.context, now_s=now_s)
    state = owned(state, preferences, snapshot.catalogue)
    personal = preferences.personalization and state.n_item_facts > 0
    history = read_history(state if personal else EMPTY_STATE, snapshot.catalogue.n_rows, now_s)
    fatigue = RESTED
    if preferences.personalization:
        fatigue = read_fatigue(impressions, state, snapshot.scratch.total, now_s)
    query = Query(snapshot, history, _about(snapshot, request), now_s, placement.kinds)
    if preferences is not NO_PREFERENCES and preferences.personalization:
        is_new = state.n_item_facts == 0
        query.followed = read_follows(snapshot, preferences, is_new=is_new)
    if preferences.personalization and state.n_item_facts == 0:
        query.start = start
        if start is None and query.followed.weighs:
            query.start = NOTHING_SAID
        personal = query.start is not None
    rules = applicable(snapshot.rules, placement.name, scope, scope.now_s)
    allowed = allowed_mask(
        snapshot, placement, preferences, request, query, elsewhere.rows, scope.now_s
    )
    query.allowed = allowed = rules.permit(allowed)
    narrow = rules.is_narrow or _forbids_much(placement, request, preferences)
    stages = Stages(query, placement, rules, fatigue, narrow=narrow)
    if rules.arranges:
        chosen = arrange(stages, query, allowed, skip + limit, rules, elsewhere.groups)
    else:
        chosen = fill(stages, query, allowed, skip + limit, elsewhere.groups)
    if rules:
        chosen = with_rule_ids(chosen, rules)
    personal = personal or fatigue.weighs or query.followed.weighs
    return Response(
        *(snapshot, placement, chosen[skip:], query, personal, rules, skip),
        *(preferences, scope.now_s),
    )


_NO_ROWS = np.zeros(0, dtype=np.int32)


def _about(snapshot: Snapshot, request: RecommendationRequest) -> npt.NDArray[np.int32]:
    """Return the rows of the page's items."""
    if not request.item_ids:
        return _NO_ROWS
    rows = snapshot.catalogue.rows(request.item_ids)
    return rows[rows >= 0]


def _forbids_much(
    placement: Placement, request: RecommendationRequest, preferences: Preferences
) -> bool:
    return (
        request.filter is not None
        or placement.filter is not None
        or hides_anything(preferences)
        or placement.kinds != PRODUCTS
    )


def allowed_mask(
    snapshot: Snapshot,
    placement: Placement,
    preferences: Preferences,
    request: RecommendationRequest,
    query: Query,
    without_rows: npt.NDArray[np.integer] | None,
    asked_s: float,
) -> Mask:
    """Return which rows may be in the answer; what is snoozed is hidden as of `asked_s`.

    Returns
    -------
    ndarray of bool, shape (n_rows,)
        Showable now and of the placement's kinds, matching the filter, not on the page, not
        excluded, not hidden.
    """
    catalogue = snapshot.catalogue
    allowed = catalogue.showable(query.now_s, placement.kinds, market_of(request.context))
    if snapshot.recalled is not None:
        allowed = allowed & ~snapshot.recalled
    for condition in (request.filter, placement.filter):
        if condition is not None:
            allowed = allowed & catalogue.mask(condition.key, condition.expression())
    removed: list[npt.NDArray[np.integer]] = [query.about] if len(query.about) else []
    if request.exclude_item_ids:
        named = catalogue.rows(list(request.exclude_item_ids))
        removed.append(named[named >= 0])
    if hides_anything(preferences):
        hidden_rows, mask = hidden(catalogue, preferences, asked_s)
        removed.append(hidden_rows)
        if mask is not None:
            allowed = np.greater(allowed, mask)
    if without_rows is not None:
        removed.append(without_rows[without_rows < len(allowed)])
    if removed:
        if not allowed.flags.writeable:
            allowed = allowed.copy()
        for rows in removed:
            allowed[rows] = False
    return allowed
