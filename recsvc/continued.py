"""The next items of a list that was begun before (``after``)."""

import numpy as np

from recsvc.answer import read_recommendation_id
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.merchandising.markets import market_of
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot

CONTINUED_WITHIN_S = 86_400


def continued(request: RecommendationRequest) -> tuple[int | None, int]:
    """Return when the list was begun that a request continues, and how many items were shown.

    Raises
    ------
    InvalidRequestError
        If ``after`` is not the id of a recommendation.
    """
    if request.after is None:
        return None, 0
    try:
        return read_recommendation_id(request.after)
    except ValueError as error:
        raise InvalidRequestError(FieldError("#/after", str(error))) from error


def list_time_s(
    snapshot: Snapshot, request: RecommendationRequest, then_s: int | None, now_s: int
) -> int:
    """Return the time that decays refer to: in the continuation of a list, that of its beginning.

    So its order is the same. But what may be shown is a matter of now: if it has changed since, the
    time is now.
    """
    if then_s is None or not now_s - CONTINUED_WITHIN_S <= then_s <= now_s:
        return now_s
    kinds = snapshot.site.placements[request.placement].kinds
    catalogue = snapshot.catalogue
    market = market_of(request.context)
    before = catalogue.showable(then_s, kinds, market)
    after = catalogue.showable(now_s, kinds, market)
    return then_s if before is after or np.array_equal(before, after) else now_s
