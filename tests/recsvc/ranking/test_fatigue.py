"""What was shown again and again and never wanted steps back, and comes back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.impressions import NO_IMPRESSIONS, Impressions, fold
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.schema import EVENT_TYPE_CODES, EventType
from feature_store.state import EMPTY_STATE, UserState
from feature_store.state import add as add_states
from feature_store.state import fold as fold_state
from recsvc.engine import recommend
from recsvc.merchandising.preview import Viewer, preview
from recsvc.ranking.fatigue import RESTED, read_fatigue
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    DAY_S,
    N_ALL,
    NOW_S,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
)

HOUR = 3_600


def shown(*pairs: tuple[int, int], times: int = 1) -> Impressions:
    """Return impressions of (row, seconds ago), each so many times."""
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).repeat(times, axis=0)
    return fold(
        NO_IMPRESSIONS,
        columns[:, 0].astype(np.uint32),
        (NOW_S - columns[:, 1]).astype(np.uint32),
    )


def did(kind: EventType, row: int, ago_s: int) -> UserState:
    columns = ([row], [EVENT_TYPE_CODES[kind]], [NOW_S - ago_s])
    rows, types, times_s = (
        np.array(one, dtype=dtype)
        for one, dtype in zip(columns, (np.uint32, np.uint8, np.uint32), strict=True)
    )
    return fold_state(EMPTY_STATE, rows, types, times_s)


def factor_of(
    row: int, seen: Impressions, state: UserState = EMPTY_STATE, now_s: int = NOW_S
) -> float:
    total = np.zeros(N_ALL, dtype=np.float32)
    fatigue = read_fatigue(seen, state, total, now_s)
    factor = float(np.exp(fatigue.log_weights(np.array([row]))[0])) if fatigue.weighs else 1.0
    assert not total.any()
    return factor


@pytest.mark.parametrize(
    ("n", "factor"), [(0, 1.0), (1, 1.0), (3, 1.0), (6, 1 / 2), (9, 1 / 3), (20, 3 / 20)]
)
def test_the_factor_is_what_the_formula_says(n: int, factor: float) -> None:
    assert factor_of(5, shown((5, 0), times=n)) == pytest.approx(factor)
    assert factor_of(6, shown((5, 0), times=n)) == 1.0


def test_an_impression_counts_half_after_a_week_and_nothing_after_ten() -> None:
    fresh, week, long_ago = (shown((5, age), times=18) for age in (0, 7 * DAY_S, 70 * DAY_S))
    assert factor_of(5, fresh) == pytest.approx(1 / 6)
    assert factor_of(5, week) == pytest.approx(1 / 3)
    assert factor_of(5, long_ago) == 1.0
    # From all hours together.
    assert factor_of(5, shown((5, 0), (5, 7 * DAY_S), times=6)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("kind", "resets"),
    [
        (EventType.CLICK, True),
        (EventType.VIEW, True),
        (EventType.ADD_TO_CART, True),
        (EventType.PURCHASE, True),
        (EventType.LIKE, True),
        (EventType.DISLIKE, False),
        (EventType.REMOVE_FROM_CART, False),
        (EventType.REFUND, False),
    ],
)
def test_whoever_shows_a_taste_is_not_tired(kind: EventType, resets: bool) -> None:
    seen = shown((5, 2 * HOUR), times=20)
    assert (factor_of(5, seen, did(kind, 5, HOUR)) == 1.0) is resets
    # What was shown later counts; of another item it changes nothing.
    later = shown((5, 2 * HOUR), (5, 0), times=20)
    assert factor_of(5, later, did(EventType.CLICK, 5, HOUR)) == pytest.approx(3 / 20)
    assert factor_of(5, seen, did(EventType.CLICK, 6, HOUR)) == factor_of(5, seen) < 0.16


def test_what_was_shown_later_than_the_list_does_not_count() -> None:
    seen = shown((5, 0), times=20)
    assert factor_of(5, seen, now_s=NOW_S - 2 * HOUR) == 1.0


def test_items_that_this_worker_has_not_heard_of_are_passed_over() -> None:
    total = np.zeros(N_ALL, dtype=np.float32)
    assert read_fatigue(shown((N_ALL, 0), times=20), EMPTY_STATE, total, NOW_S) is RESTED
    both = shown((5, 0), (N_ALL + 7, 0), times=20)
    assert read_fatigue(both, EMPTY_STATE, total, NOW_S).rows.tolist() == [5]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(1, 9)), max_size=30),
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.sampled_from([EventType.CLICK, EventType.PURCHASE, EventType.REFUND]),
            st.integers(0, 5 * HOUR),
        ),
        max_size=8,
    ),
)
def test_fatigue_is_what_a_plain_loop_says(
    cells: list[tuple[int, int, int]], events: list[tuple[int, EventType, int]]
) -> None:
    now_s = NOW_S // HOUR * HOUR
    seen, state = NO_IMPRESSIONS, EMPTY_STATE
    counts = dict.fromkeys(range(7), 0.0)
    wanted = {
        row: max(
            (now_s - ago for at, kind, ago in events if at == row and kind != "refund"), default=0
        )
        for row in range(7)
    }
    for row, hours_ago, times in cells:
        at_s = now_s - hours_ago * HOUR
        columns = (np.full(times, row, dtype=np.uint32), np.full(times, at_s, dtype=np.uint32))
        seen = fold(seen, *columns)
        if at_s // HOUR > wanted[row] // HOUR:
            counts[row] += times * 0.5 ** (hours_ago / (7 * 24))
    for row, kind, ago in events:
        state = add_states(state, did(kind, row, ago + NOW_S - now_s))
    fatigue = read_fatigue(seen, state, np.zeros(N_ALL, dtype=np.float32), now_s)
    found = np.zeros(7) if not fatigue.weighs else fatigue.log_weights(np.arange(7))
    expected = [-np.log1p(max(0, counts[row] - 3) / 3) for row in range(7)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def page(snapshot: Snapshot, state: UserState, seen: Impressions, **asked: Any) -> list[int]:
    request = RecommendationRequest(**{"limit": 10, **asked})
    response = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S, impressions=seen)
    return rows_of(response)


@pytest.fixture(scope="module")
def plain(artifact: ModelArtifact) -> Snapshot:
    """Return a shop without variants, of which another would take the place of a tired one."""
    return make_snapshot(artifact, make_catalogue(item_ids(N_ALL)))


@pytest.mark.parametrize("placement", ["home", "trending"])
@pytest.mark.parametrize("state", [EMPTY_STATE, bought((3, 9), (6, 4), (40, 2))])
def test_shown_twenty_times_and_never_clicked_it_sinks(
    plain: Snapshot, placement: str, state: UserState
) -> None:
    before = page(plain, state, NO_IMPRESSIONS, placement=placement)
    first = before[0]
    tired = shown((first, HOUR), times=20)
    after = page(plain, state, tired, placement=placement)
    assert after != before
    assert first not in after[:3]
    # All others keep their order, and the list is as long as it was.
    assert [row for row in after if row != first][:9] == [row for row in before if row != first][:9]
    assert len(after) == 10
    clicked = did(EventType.CLICK, first, 0)
    popular = page(plain, EMPTY_STATE, NO_IMPRESSIONS, placement="trending")
    assert page(plain, clicked, tired, placement="trending") == popular


@pytest.mark.parametrize("placement", ["product", "together"])
def test_what_goes_with_the_page_does_not_tire(snapshot: Snapshot, placement: str) -> None:
    asked: dict[str, Any] = {"placement": placement, "item_ids": ("i00003",), "limit": 3}
    before = page(snapshot, EMPTY_STATE, NO_IMPRESSIONS, **asked)
    tired = shown(*((row, HOUR) for row in before), times=20)
    assert page(snapshot, EMPTY_STATE, tired, **asked) == before


def test_only_what_is_used_makes_a_list_personal(snapshot: Snapshot) -> None:
    def asked(seen: Impressions, preferences: Preferences = NO_PREFERENCES) -> bool:
        request = RecommendationRequest(limit=5)
        return recommend(
            snapshot, EMPTY_STATE, preferences, request, NOW_S, impressions=seen
        ).personalized

    assert asked(shown((5, 0), times=20))
    assert not asked(shown((5, 0), times=2))
    assert not asked(shown((5, 0), times=20), Preferences(personalization=False))


def test_a_preview_shows_what_is_served(plain: Snapshot) -> None:
    seen = shown((page(plain, EMPTY_STATE, NO_IMPRESSIONS)[0], HOUR), times=20)
    viewer = Viewer("ann", EMPTY_STATE, NO_PREFERENCES, {}, seen)
    both = preview(plain, plain, viewer, RecommendationRequest(limit=10), NOW_S)
    assert both.rows == (page(plain, EMPTY_STATE, seen),) * 2
    assert both.rows[0] != page(plain, EMPTY_STATE, NO_IMPRESSIONS)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, N_ALL + 5), st.integers(0, 60 * DAY_S)), max_size=900),
    st.sampled_from([EMPTY_STATE, bought((3, 9), (6, 4), (40, 2))]),
    st.integers(1, N_ALL),
)
def test_nothing_is_lost_or_repeated_however_tired_somebody_is(
    snapshot: Snapshot, pairs: list[tuple[int, int]], state: UserState, limit: int
) -> None:
    fresh = page(snapshot, state, NO_IMPRESSIONS, limit=limit)
    rows = page(snapshot, state, shown(*pairs), limit=limit)
    assert len(rows) == len(set(rows)) == len(fresh)
    whole = page(snapshot, state, NO_IMPRESSIONS, limit=N_ALL)
    assert sorted(page(snapshot, state, shown(*pairs), limit=N_ALL)) == sorted(whole)
