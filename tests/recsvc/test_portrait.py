"""What is thought of a person: the engine's own weights, nothing that is never named."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.preferences import NO_PREFERENCES, Email, Preferences, Snooze
from feature_store.schema import ItemId
from feature_store.state import EMPTY_STATE, UserState
from feature_store.store import UserContext
from recsvc.customer.portrait import Point, Portrait, point_id, put_back, without
from recsvc.customer.telling import Teller
from recsvc.engine import recommend
from recsvc.explaining.naming import Naming
from recsvc.explaining.words import words
from recsvc.ranking.history import read_history
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import NOW_S, bought, item_ids, make_catalogue, make_snapshot, write_artifact

N = 60
NOW = datetime.fromtimestamp(NOW_S, UTC)
NEVER = "Health > Intimate"

histories = st.lists(
    st.tuples(st.integers(0, N - 1), st.integers(0, 300)), max_size=25, unique_by=lambda one: one[0]
)


def category(row: int) -> str:
    return ("Pets > Dogs", "Garden > Tools", NEVER, "Health > Teeth")[row % 4]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    artifact = write_artifact(tmp_path_factory.mktemp("models"), N)
    return make_snapshot(
        artifact,
        make_catalogue(
            item_ids(N),
            title=[f"Thing {row}" for row in range(N)],
            categories=[[category(row)] for row in range(N)],
            brand=[f"Brand {row % 8}" for row in range(N)],
        ),
    )


def portrait(
    shop: Snapshot,
    state: UserState = EMPTY_STATE,
    preferences: Preferences = NO_PREFERENCES,
    *,
    computed: dict[str, Any] | None = None,
    profiled: bool = True,
) -> Portrait:
    body = None if computed is None else orjson.dumps(computed)
    context = UserContext(state, preferences, 0, computed=body, person="u:somebody")
    naming = Naming(shop.catalogue, {NEVER})
    return Portrait(shop, context, naming, profiled=profiled, now_s=NOW_S)


@given(histories)
def test_strengths_are_the_weights_of_the_engine(
    shop: Snapshot, purchases: list[tuple[int, int]]
) -> None:
    state = bought(*purchases)
    points, withheld = portrait(shop, state).interests
    history = read_history(state, N, NOW_S)
    weights = dict(zip(history.rows.tolist(), history.weights.tolist(), strict=True))
    total = sum(weights.values())
    expected = {
        name: sum(weight for row, weight in weights.items() if category(row) == name) / total
        for name in {category(row) for row in weights} - {NEVER}
    }
    found = {point.name: point.strength for point in points if point.kind == "category"}
    assert found == pytest.approx(expected, abs=1e-4)
    secret = {row for row in weights if category(row) == NEVER}
    assert withheld == len({row % 8 for row in secret}) + bool(secret)
    for point in points:
        counted = [weights[row] for row in point.because]
        assert counted == sorted(counted, reverse=True)
        assert not secret.intersection(point.because)


@given(histories)
def test_nothing_that_is_never_named_is_said(
    shop: Snapshot, purchases: list[tuple[int, int]]
) -> None:
    said = Preferences(
        followed_categories=frozenset({NEVER}),
        # Of the first all items are in the category, of the second none; the third has none.
        followed_brands=frozenset({"Brand 2", "Brand 1", "Brand of nothing"}),
        hidden_brands=frozenset({"Brand 6"}),
        hidden_items=frozenset(ItemId(one) for one in item_ids(N)[2::4]),
    )
    drawn = portrait(shop, bought(*purchases), said)
    teller = Teller(drawn, words("de"))
    told = [teller.point(point) for point in drawn.points()]
    told += [teller.signal(signal) for signal in drawn.recent()[0]]
    text = " ".join(told)
    assert "Intimate" not in text
    for row in range(2, N, 4):
        assert f"Thing {row}“" not in text
        assert f"Thing {row}." not in text
    for secret in ("Brand 2", "Brand 6"):
        assert not [one for one in told if secret in one]
    said_openly, n_withheld = drawn.said
    assert [one.name for one in said_openly] == ["Brand 1", "Brand of nothing"]
    # A category and its two brands, and the hides.
    assert n_withheld == 3 + len(item_ids(N)[2::4])


@given(histories, st.data())
def test_a_refused_point_is_gone_and_changes_the_list(
    shop: Snapshot, purchases: list[tuple[int, int]], data: st.DataObject
) -> None:
    state = bought(*purchases)
    before = portrait(shop, state)
    points = before.interests[0]
    if not points:
        return
    point = data.draw(st.sampled_from(points))
    assert before.find(point.point_id) == point
    said = without(NO_PREFERENCES, point, NOW)
    assert without(said, point, NOW) == said
    after = portrait(shop, state, said)
    assert point.point_id not in {one.point_id for one in after.points()}
    assert [one.name for one in after.removed()] == [point.name]
    response = recommend(shop, state, said, RecommendationRequest(limit=N), NOW_S)
    assert not np.isin(point.because, response.query.history.rows).any()
    assert response.query.history.rows.tolist() == after.history.rows.tolist()
    assert put_back(said, point) == NO_PREFERENCES
    assert portrait(shop, state, put_back(said, point)).points() == before.points()


def test_computed_values_and_segments(shop: Snapshot) -> None:
    computed = {
        "stage": "active",
        "rfm": {"recency_days": 3, "frequency": 4, "r": 5, "f": 5, "m": 4, "group": "champions"},
        "clv": {"amount": "811.00", "currency": "EUR", "horizon_days": 365},
        "churn_risk": 0.04,
        "next_purchase_at": "2025-07-03T00:00:00Z",
    }
    drawn = portrait(shop, computed=computed)
    points = {point.name: point for point in drawn.points()}
    assert {*points} == {
        "stage_active", "rfm_champions", "rfm", "clv", "churn_risk", "next_purchase_at",
    }  # fmt: skip
    assert [name for name, point in points.items() if not point.removable] == [
        "rfm", "clv", "churn_risk", "next_purchase_at",
    ]  # fmt: skip
    teller = Teller(drawn, words("en"))
    assert teller.point(points["stage_active"]) == "You buy as you used to."
    assert teller.point(points["churn_risk"]).endswith("at 4 %.")
    assert "2025-07-03" in teller.point(points["next_purchase_at"])
    said = without(NO_PREFERENCES, points["stage_active"], NOW)
    left = {point.name for point in portrait(shop, preferences=said, computed=computed).points()}
    assert {*points} - left == {"stage_active"}
    assert portrait(shop, computed=computed, profiled=False).points() == []


def test_every_kind_of_point_has_words_in_every_language(shop: Snapshot) -> None:
    said = Preferences(
        interests=frozenset({"Pets"}),
        followed_categories=frozenset({"Garden"}),
        followed_brands=frozenset({"Brand 1"}),
        hidden_categories=frozenset({"Health > Teeth"}),
        hidden_brands=frozenset({"Brand 2"}),
        hidden_items=frozenset({ItemId("i00001")}),
        snoozed=(
            Snooze(item_id=ItemId("i00004"), until=NOW + timedelta(days=1)),
            Snooze(item_id=ItemId("i00005"), until=NOW),
        ),
    )
    drawn = portrait(shop, bought((0, 1)), said)
    for language in ("en", "de"):
        teller = Teller(drawn, words(language))
        for point in drawn.points():
            assert teller.point(point)
        for segment_id, segment in shop.site.segments.items():
            assert segment.built_in
            assert teller.point(Point("segment", segment_id))
            assert teller.shown_name("segment", segment_id) != segment_id
        for purpose in ("profiling", "email_marketing", "analytics"):
            for allowed in (True, False, None):
                assert teller.consent(purpose, allowed)
    for point in drawn.said[0]:
        taken_back = without(said, point, NOW)
        assert not taken_back.disowned
        assert point not in portrait(shop, preferences=taken_back).said[0]
        said = taken_back
    assert [one.item_id for one in said.snoozed] == ["i00005"], "it is over, and not shown"


@given(st.text(min_size=1, max_size=500))
def test_ids_of_points_need_no_encoding(name: str) -> None:
    found = point_id("followed_category", name)
    assert quote(found, safe="") == found
    assert len(found) <= 128
    assert found != point_id("category", name)


def test_a_portrait_of_nobody(tmp_path: Path) -> None:
    empty = make_snapshot(None, make_catalogue([]))
    drawn = portrait(empty)
    assert (drawn.points(), drawn.withheld, drawn.recent(), drawn.removed()) == ([], 0, ([], 0), [])
    assert drawn.find("category-0") is None


def test_numbers_and_days_are_written_as_the_language_does(shop: Snapshot) -> None:
    computed = {
        "clv": {"amount": "1329.5", "currency": "EUR", "horizon_days": 365},
        "next_purchase_at": "2026-11-20T00:00:00Z",
    }
    paused = Preferences(email=Email(paused_until=NOW + timedelta(days=1)))
    drawn = portrait(shop, bought((0, 1)), paused, computed=computed)
    german, english = Teller(drawn, words("de")), Teller(drawn, words("en"))
    told = " ".join(german.point(point) for point in drawn.points())
    assert "1.329,50 EUR" in told
    assert "20.11.2026" in told
    assert "1,329.50 EUR" in " ".join(english.point(point) for point in drawn.points())
    assert f"{NOW + timedelta(days=1):%d.%m.%Y}" in german.mail()
    for days, text in ((1, "At most one e-mail a day."), (7, "At most one e-mail every 7 days.")):
        often = portrait(shop, preferences=Preferences(email=Email(frequency_days=days)))
        assert Teller(often, words("en")).mail() == text
