"""The laws of the engine on a small shop whose answers are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.conditions import parse_condition
from feature_store.item_columns import stub_columns
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.schema import ItemId
from feature_store.state import EMPTY_STATE, UserState, pack
from recsvc.answer import answer, new_recommendation_id, read_recommendation_id
from recsvc.engine import recommend
from recsvc.explaining.explain import reasons
from recsvc.merchandising.placements import BUILT_IN
from recsvc.recommender import EngineRecommender
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    N_ALL,
    N_MODEL,
    N_TASTES,
    NOW_S,
    ON_PRODUCTS,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
)

states = st.builds(
    lambda purchases: bought(*purchases),
    st.lists(st.tuples(st.integers(0, N_ALL + 5), st.integers(0, 400)), max_size=30),
)
some_ids = st.lists(st.sampled_from(item_ids(N_ALL + 3)), max_size=40, unique=True).map(tuple)
requests = st.builds(
    RecommendationRequest,
    placement=st.sampled_from(sorted(BUILT_IN)),
    limit=st.integers(1, 100),
    item_ids=st.lists(st.sampled_from(item_ids(N_ALL + 3)), max_size=5, unique=True).map(tuple),
    exclude_item_ids=some_ids,
    filter=st.sampled_from(
        [
            None,
            parse_condition({"field": "item.brand", "op": "in", "value": ["b0", "b3"]}),
            parse_condition({"field": "item.categories", "op": "under", "value": "Food > F1"}),
            parse_condition({"field": "item.brand", "op": "eq", "value": "nobody's"}),
        ]
    ),
)
preferences_strategy = st.builds(
    Preferences,
    hidden_items=some_ids.map(frozenset),
    hidden_brands=st.sampled_from([frozenset(), frozenset({"b1"}), frozenset({"b1", "b2"})]),
    hidden_categories=st.sampled_from([frozenset(), frozenset({"Food > F2"}), frozenset({"Food"})]),
)


def may_be_shown(
    snapshot: Snapshot, preferences: Preferences, request: RecommendationRequest
) -> set[int]:
    """What the contract allows, item by item and without masks."""
    found = set()
    for row in range(N_ALL):
        item = snapshot.catalogue.item(row)
        paths = item["categories"]
        hidden = (
            item["item_id"] in preferences.hidden_items
            or item["brand"] in preferences.hidden_brands
            or any(
                path == category or path.startswith(category + " > ")
                for category in preferences.hidden_categories
                for path in paths
            )
        )
        matches = {
            None: True,
            "in": item["brand"] in ("b0", "b3"),
            "under": "Food > F1" in paths,
            "eq": False,
        }[None if request.filter is None else request.filter.tree["op"]]
        named = item["item_id"] in (*request.item_ids, *request.exclude_item_ids)
        of_kind = item["kind"] in BUILT_IN[request.placement].kinds
        if matches and not hidden and not named and of_kind:
            found.add(row)
    return found


@given(states, preferences_strategy, requests)
def test_only_what_may_be_shown_is_shown_and_the_list_is_full(
    snapshot: Snapshot,
    state: UserState,
    preferences: Preferences,
    request_: RecommendationRequest,
) -> None:
    before = pack(state)
    rows = rows_of(recommend(snapshot, state, preferences, request_, NOW_S))
    allowed = may_be_shown(snapshot, preferences, request_)
    assert set(rows) <= allowed
    assert len(rows) == len(set(rows))
    variants = {snapshot.catalogue.item(row)["group_id"] or f"alone {row}" for row in allowed}
    assert len(rows) == min(request_.limit or 0, len(variants))
    shown = [snapshot.catalogue.item(row)["group_id"] for row in rows]
    shown_groups = [group for group in shown if group is not None]
    assert len(shown_groups) == len(set(shown_groups))
    assert pack(state) == before
    assert not snapshot.scratch.marked.any()
    assert (snapshot.scratch.total == 0).all()


@given(states, requests)
def test_the_same_question_has_the_same_answer(
    snapshot: Snapshot, state: UserState, request_: RecommendationRequest
) -> None:
    first, second = (
        answer(recommend(snapshot, state, NO_PREFERENCES, request_, NOW_S), request_, "id", [])
        for _ in range(2)
    )
    assert first == second


@given(states, requests, st.integers(0, 50))
def test_a_continued_list_goes_on_where_it_ended(
    snapshot: Snapshot, state: UserState, request_: RecommendationRequest, skip: int
) -> None:
    limit = request_.limit or 0
    whole = rows_of(
        recommend(snapshot, state, NO_PREFERENCES,
                  RecommendationRequest(placement=request_.placement, limit=skip + limit), NOW_S)
    )  # fmt: skip
    tail = rows_of(
        recommend(
            snapshot, state, NO_PREFERENCES,
            RecommendationRequest(placement=request_.placement, limit=limit), NOW_S, skip=skip,
        )
    )  # fmt: skip
    assert tail == whole[skip:]


def test_all_but_seven_of_ninety_thousand_hidden(artifact: ModelArtifact) -> None:
    ids = item_ids(90_000)
    left = [1, 5, 59, 60, 40_000, 77_777, 89_999]
    brands = ["kept" if row in left else "hidden" for row in range(len(ids))]
    big = make_snapshot(artifact, make_catalogue(ids, brand=brands))
    preferences = Preferences(hidden_brands=frozenset({"hidden"}))
    for placement in ON_PRODUCTS:
        for state in (EMPTY_STATE, bought((0, 1), (4, 9))):
            request = RecommendationRequest(placement=placement, limit=20)
            rows = rows_of(recommend(big, state, preferences, request, NOW_S))
            assert sorted(rows) == left


def test_a_full_list_when_99_percent_are_filtered(artifact: ModelArtifact) -> None:
    ids = item_ids(90_000)
    brands = ["kept" if row % 100 == 50 else "other" for row in range(len(ids))]
    big = make_snapshot(artifact, make_catalogue(ids, brand=brands))
    condition = parse_condition({"field": "item.brand", "op": "eq", "value": "kept"})
    for placement in ON_PRODUCTS:
        request = RecommendationRequest(
            placement=placement, limit=100, filter=condition, item_ids=(ItemId("i00001"),)
        )
        rows = rows_of(recommend(big, bought((0, 1)), NO_PREFERENCES, request, NOW_S))
        assert len(rows) == 100
        assert all(row % 100 == 50 for row in rows)


def test_what_cannot_be_bought_is_not_shown(artifact: ModelArtifact) -> None:
    available = [row % 2 == 0 for row in range(N_ALL)]
    half = make_snapshot(artifact, make_catalogue(item_ids(N_ALL), available=available))
    for placement in ON_PRODUCTS:
        request = RecommendationRequest(placement=placement, limit=100)
        rows = rows_of(recommend(half, bought((1, 2), (3, 1)), NO_PREFERENCES, request, NOW_S))
        assert sorted(rows) == [row for row in range(N_ALL) if row % 2 == 0]


def test_taste_is_recognised(snapshot: Snapshot) -> None:
    for taste in range(N_TASTES):
        state = bought(*((taste + N_TASTES * step, 5) for step in range(7, 11)))
        request = RecommendationRequest(limit=12)
        response = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)
        assert response.personalized
        collaborative = [
            chosen.row
            for chosen, reason in zip(response.chosen, reasons(response), strict=True)
            if reason.source == "collaborative"
        ]
        assert len(collaborative) >= 5
        assert all(row % N_TASTES == taste for row in collaborative)


def test_a_new_customer_and_an_unknown_page_are_normal(snapshot: Snapshot) -> None:
    for placement in ON_PRODUCTS:
        for page in ((), (ItemId("nobody knows this"),), (ItemId("i00089"),)):
            request = RecommendationRequest(placement=placement, limit=10, item_ids=page)
            response = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, request, NOW_S)
            assert len(response.chosen) == 10
            assert not response.personalized


def test_an_empty_shop_has_empty_answers_and_a_shop_without_a_model_full_ones() -> None:
    request = RecommendationRequest(limit=10)
    empty = make_snapshot(None, make_catalogue([]))
    assert rows_of(recommend(empty, bought((3, 1)), NO_PREFERENCES, request, NOW_S)) == []
    stocked = make_snapshot(None, make_catalogue(item_ids(30)))
    for placement in ON_PRODUCTS:
        request = RecommendationRequest(placement=placement, limit=10)
        response = recommend(stocked, bought((3, 1), (99, 2)), NO_PREFERENCES, request, NOW_S)
        assert len(response.chosen) == 10


def test_personalization_off_uses_nothing_of_the_history(snapshot: Snapshot) -> None:
    request = RecommendationRequest(limit=20)
    off = Preferences(personalization=False)
    refused = recommend(snapshot, bought((3, 1), (6, 2)), off, request, NOW_S)
    nobody = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, request, NOW_S)
    assert not refused.personalized
    assert rows_of(refused) == rows_of(nobody)


def test_a_purchase_counts_at_once(snapshot: Snapshot) -> None:
    request = RecommendationRequest(limit=5)
    before = recommend(snapshot, bought((3, 30)), NO_PREFERENCES, request, NOW_S)
    after = recommend(snapshot, bought((3, 30), (41, 0)), NO_PREFERENCES, request, NOW_S)
    assert 41 not in rows_of(before)
    assert 41 in rows_of(after)


def test_a_changed_catalogue_equals_one_built_afresh(artifact: ModelArtifact) -> None:
    grown = make_snapshot(artifact, make_catalogue(item_ids(N_MODEL)))
    changes = [(row, stub_columns(name)) for row, name in enumerate(item_ids(70))][N_MODEL:]
    catalogue = grown.catalogue.with_changes(changes)
    joined = Snapshot(catalogue, grown.model.with_catalogue(catalogue))
    afresh = make_snapshot(artifact, make_catalogue(item_ids(70)))
    for placement in ON_PRODUCTS:
        request = RecommendationRequest(placement=placement, limit=70, item_ids=(ItemId("i00004"),))
        lists = [
            rows_of(recommend(one, bought((1, 4), (65, 2)), NO_PREFERENCES, request, NOW_S))
            for one in (joined, afresh)
        ]
        assert lists[0] == lists[1]


def test_evaluation_sees_what_is_served(artifact: ModelArtifact, snapshot: Snapshot) -> None:
    recommender = EngineRecommender(artifact, snapshot.catalogue)
    state = bought((3, 1), (8, 9), (30, 3))
    request = RecommendationRequest(limit=20)
    served = rows_of(recommend(snapshot, state, NO_PREFERENCES, request, NOW_S))
    assert recommender.recommend(state, k=20, now_s=NOW_S, new_only=False) == served
    new = recommender.recommend(state, k=20, now_s=NOW_S, new_only=True)
    assert not set(new) & {3, 8, 30}
    rows, features = recommender.candidates(state, now_s=NOW_S)
    scores = dict(zip(rows.tolist(), features @ snapshot.model.weights, strict=True))
    assert [scores[row] for row in served] == sorted((scores[row] for row in served), reverse=True)


def test_explanations_show_the_parts_of_the_score(snapshot: Snapshot) -> None:
    request = RecommendationRequest(limit=10, explain=True, fields=("brand", "title"))
    response = recommend(snapshot, bought((3, 1), (6, 5)), NO_PREFERENCES, request, NOW_S)
    document = answer(response, request, "id", [])
    for item in document["items"]:
        assert item["item"].keys() == {"brand", "title"}
        assert item["reason"]["text"]
        assert item["score"] == pytest.approx(
            sum(item["journey"]["score_parts"].values()), abs=1e-4
        )


def test_a_recommendation_id_says_when_and_how_far() -> None:
    assert read_recommendation_id(new_recommendation_id(1_700_000_000_123, 40)) == (
        1_700_000_000,
        40,
    )
    for bad in ("", "x" * 32, "0" * 31, "é" * 32):
        with pytest.raises(ValueError):  # noqa: PT011 (int's own message for a stray letter)
            read_recommendation_id(bad)
