"""Random choices of customers, and the questions that are asked for them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from feature_store.impressions import HOUR_S, Impressions
from feature_store.preferences import (
    Preferences,
    Snooze,
)
from feature_store.schema import EVENT_TYPE_CODES, EventType, ItemId
from feature_store.state import EMPTY_STATE, UserState, fold
from feature_store.store import UserContext
from recsvc.answer import answer
from recsvc.answering import Question, choose
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc import rules_strategies as some
from tests.recsvc.shop import (
    NOW_S,
)

NOW = datetime.fromtimestamp(NOW_S, UTC)

some_paths = st.frozensets(st.sampled_from([*some.PATHS, "Nowhere"]), max_size=2)
some_brands = st.frozensets(st.sampled_from([*some.BRANDS, "nobody's"]), max_size=2)
snoozes = st.lists(
    st.builds(
        lambda item_id, hours: Snooze(item_id=ItemId(item_id), until=NOW + timedelta(hours=hours)),
        some.ids,
        st.sampled_from([-48, -1, 0, 1, 48]),
    ),
    max_size=3,
    unique_by=lambda one: one.item_id,
).map(tuple)
choices = st.builds(
    Preferences,
    hidden_items=st.lists(some.ids, max_size=3).map(lambda found: frozenset(map(ItemId, found))),
    hidden_brands=some_brands,
    hidden_categories=some_paths,
    snoozed=snoozes,
    followed_brands=some_brands,
    followed_categories=some_paths,
    interests=some_paths,
)


def question_of(
    request: RecommendationRequest, context: UserContext, *, profiled: bool, then_s: Any = None
) -> Question:
    return Question(
        request, context.person, context, profiled, context.person is not None, then_s, 0, (),
        time.perf_counter(),
    )  # fmt: skip


def state_of(events: list[tuple[int, EventType, int]]) -> UserState:
    rows, types, hours = zip(*events, strict=True) if events else ((), (), ())
    return fold(
        EMPTY_STATE,
        np.array(rows, dtype=np.uint32),
        np.array([EVENT_TYPE_CODES[kind] for kind in types], dtype=np.uint8),
        np.array([NOW_S - 3_600 * hour for hour in hours], dtype=np.uint32),
    )


impressions = st.lists(
    st.tuples(st.integers(0, some.MOST - 1), st.integers(4, 40)),
    max_size=5,
    unique_by=lambda x: x[0],
).map(
    lambda shown: Impressions(
        np.array(sorted(row for row, _ in shown), dtype=np.uint32),
        np.full(len(shown), NOW_S // HOUR_S - 1, dtype=np.uint32),
        np.array([count for _, count in sorted(shown)], dtype=np.uint16),
    )
)


def said_to(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    response = choose(snapshot, question, NOW_S)
    found = answer(response, question.request, "id", [])
    del found["user_id"]
    return found
