"""What each kind of event does to a list: it adds, undoes, sinks."""

import numpy as np
import pytest

from feature_store.preferences import NO_PREFERENCES
from feature_store.schema import EVENT_TYPE_CODES, EventType
from feature_store.state import EMPTY_STATE, UserState, fold
from recsvc.engine import recommend
from recsvc.explaining.explain import reasons
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import DAY_S, N_ALL, N_TASTES, NOW_S, rows_of


def did(*facts: tuple[EventType, int, int]) -> UserState:
    """State of somebody with events (type, row, days ago)."""
    kinds, rows, days = zip(*facts, strict=True)
    return fold(
        EMPTY_STATE,
        np.array(rows, dtype=np.uint32),
        np.array([EVENT_TYPE_CODES[kind] for kind in kinds], dtype=np.uint8),
        (NOW_S - DAY_S * np.array(days)).astype(np.uint32),
    )


BUY, REFUND, LIKE = EventType.PURCHASE, EventType.REFUND, EventType.LIKE
CART, UNCART, VIEW = EventType.ADD_TO_CART, EventType.REMOVE_FROM_CART, EventType.VIEW
DISLIKE = EventType.DISLIKE


@pytest.mark.parametrize(
    ("undone", "without"),
    [
        (((BUY, 3, 9), (BUY, 40, 5), (REFUND, 40, 4)), ((BUY, 3, 9),)),
        (((BUY, 3, 9), (CART, 40, 5), (UNCART, 40, 4)), ((BUY, 3, 9),)),
        (((BUY, 3, 9), (REFUND, 40, 4)), ((BUY, 3, 9),)),
    ],
)
def test_what_was_undone_counts_for_nothing(
    snapshot: Snapshot,
    undone: tuple[tuple[EventType, int, int], ...],
    without: tuple[tuple[EventType, int, int], ...],
) -> None:
    request = RecommendationRequest(limit=30)
    lists = [
        rows_of(recommend(snapshot, did(*facts), NO_PREFERENCES, request, NOW_S))
        for facts in (undone, without)
    ]
    assert lists[0] == lists[1]


def test_a_second_purchase_survives_one_refund(snapshot: Snapshot) -> None:
    request = RecommendationRequest(limit=1)
    state = did((BUY, 40, 9), (BUY, 40, 5), (REFUND, 40, 4))
    assert rows_of(recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)) == [40]


def test_a_dislike_sinks_the_item_and_its_like(snapshot: Snapshot) -> None:
    liked = did((LIKE, 3, 9), (LIKE, 7, 8))
    mixed = did((LIKE, 3, 9), (LIKE, 7, 8), (DISLIKE, 40, 1), (DISLIKE, 43, 1), (DISLIKE, 46, 1))
    request = RecommendationRequest(limit=30)

    def scores(state: UserState) -> tuple[list[float], list[int]]:
        response = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)
        assert response.query.folded is not None
        every = snapshot.model.arrays["item_factors"] @ response.query.folded.vector
        return [float(every[taste::N_TASTES].mean()) for taste in range(2)], rows_of(response)

    (kept_before, sunk_before), _ = scores(liked)
    (kept_after, sunk_after), rows = scores(mixed)
    assert sunk_after < 0.8 * sunk_before
    assert kept_after > 0.95 * kept_before
    assert not {40, 43, 46} & set(rows)


def test_what_is_disliked_comes_when_there_is_nothing_else(snapshot: Snapshot) -> None:
    state = did((BUY, 3, 9), (DISLIKE, 40, 1), (DISLIKE, 3, 0))
    request = RecommendationRequest(limit=100)
    rows = rows_of(recommend(snapshot, state, NO_PREFERENCES, request, NOW_S))
    items = {row: snapshot.catalogue.item(row) for row in range(N_ALL)}
    variants = {item["group_id"] or row for row, item in items.items() if item["kind"] == "product"}
    assert len(rows) == len(variants)
    assert rows[-1] == 40


def test_a_later_purchase_takes_a_dislike_back(snapshot: Snapshot) -> None:
    request = RecommendationRequest(limit=20)
    state = did((DISLIKE, 40, 9), (BUY, 40, 2))
    assert rows_of(recommend(snapshot, state, NO_PREFERENCES, request, NOW_S))[0] == 40


def test_a_view_is_named_as_a_view(snapshot: Snapshot) -> None:
    request = RecommendationRequest(limit=20)
    response = recommend(snapshot, did((VIEW, 7, 0)), NO_PREFERENCES, request, NOW_S)
    assert response.personalized
    codes = {reason.code for reason in reasons(response)}
    assert "because_you_viewed" in codes
    assert "because_you_bought" not in codes
