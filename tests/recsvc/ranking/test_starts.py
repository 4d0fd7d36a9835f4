"""Where somebody without a history starts: interests, attributes, or what is popular."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.state import EMPTY_STATE, UserState
from recsvc.engine import Response, recommend
from recsvc.explaining.explain import reasons
from recsvc.ranking.starts import Start
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    N_TASTES,
    NOW_S,
    add_groups,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
    write_artifact,
)

N = 60


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Categories are tastes; so are the two age groups, of taste 0 and taste 1."""
    artifact = write_artifact(tmp_path_factory.mktemp("models"), N, also=add_groups)
    return make_snapshot(
        artifact,
        make_catalogue(
            item_ids(N),
            categories=[[f"Food > Taste {row % N_TASTES}"] for row in range(N)],
            brand=[f"Brand {row % N_TASTES}" for row in range(N)],
        ),
    )


def ask(
    shop: Snapshot,
    start: Start | None,
    state: UserState = EMPTY_STATE,
    preferences: Preferences = NO_PREFERENCES,
    **fields: Any,
) -> Response:
    request = RecommendationRequest(**{"limit": 8, **fields})
    return recommend(shop, state, preferences, request, NOW_S, start=start)


def test_who_names_an_interest_sees_it_at_once(shop: Snapshot) -> None:
    for name in ("Taste 2", "food > taste 2", "Brand 2"):
        response = ask(shop, shop.model.starts.of([name], {}))
        assert {row % N_TASTES for row in rows_of(response)} == {2}
        assert response.personalized
        for reason in reasons(response):
            assert reason.code in ("followed", "popular")
    both = rows_of(ask(shop, shop.model.starts.of(["Taste 0", "Taste 1"], {}), limit=20))
    assert {row % N_TASTES for row in both} == {0, 1}


def test_attributes_bring_the_taste_of_their_like(shop: Snapshot) -> None:
    for age, taste in (("young", 0), ("old", 1)):
        rows = rows_of(ask(shop, shop.model.starts.of([], {"age": age, "unheard": 1})))
        assert {row % N_TASTES for row in rows} == {taste}


def test_who_says_nothing_known_starts_with_what_is_popular(shop: Snapshot) -> None:
    starts = shop.model.starts
    assert starts.of([], {}) is None
    assert starts.of(["Unheard of", "Taste"], {"age": "new"}) is None
    response = ask(shop, None)
    assert rows_of(response) == list(range(8))
    assert not response.personalized
    bare = make_snapshot(None, make_catalogue(item_ids(3)))
    assert bare.model.starts.of(["Taste 1"], {"age": "old"}) is None


def test_a_history_and_a_refusal_outweigh_a_start(shop: Snapshot) -> None:
    start = shop.model.starts.of(["Taste 2"], {})
    known = bought((0, 1), (3, 1), (6, 1))
    assert rows_of(ask(shop, start, known)) == rows_of(ask(shop, None, known))
    off = Preferences(personalization=False)
    refused = ask(shop, start, preferences=off)
    assert not refused.personalized
    assert rows_of(refused) == rows_of(ask(shop, None))


def test_the_list_of_a_start_is_full_and_allowed(shop: Snapshot) -> None:
    start = shop.model.starts.of(["Taste 2"], {"age": "young"})
    rows = rows_of(ask(shop, start, limit=100))
    assert sorted(rows) == list(range(N))
    hidden = Preferences(hidden_categories=frozenset({"Food > Taste 2"}))
    rows = rows_of(ask(shop, start, preferences=hidden, limit=100))
    assert sorted(rows) == [row for row in range(N) if row % N_TASTES != 2]


def test_a_start_is_read_from_profile_and_preferences(shop: Snapshot) -> None:
    class Said(Preferences):
        interests: frozenset[str] = frozenset()
        followed_brands: frozenset[str] = frozenset()

    profile = orjson.dumps({"attributes": {"age": "old"}})
    starts = shop.model.starts
    found = starts.of_context(profile, Said(interests=frozenset({"Taste 2"})))
    assert found is not None
    assert found.interests is not None
    assert found.group is not None
    followed = starts.of_context(None, Said(followed_brands=frozenset({"Brand 1"})))
    assert followed is not None
    assert followed.group is None
    assert starts.of_context(None, NO_PREFERENCES) is None
    assert starts.of_context(b"{}", NO_PREFERENCES) is None


def test_a_model_without_groups_ignores_attributes(tmp_path: Path) -> None:
    plain = make_snapshot(write_artifact(tmp_path, N), make_catalogue(item_ids(N)))
    assert not plain.model.starts.has_groups
    profile = orjson.dumps({"attributes": {"age": "old"}})
    assert plain.model.starts.of_context(profile, NO_PREFERENCES) is None


def test_interests_follow_the_catalogue(shop: Snapshot) -> None:
    assert shop.model.starts.of(["Fresh"], {}) is None
    moved = {
        row: {**shop.catalogue.frame.row(row, named=True), "categories": ["Fresh > Taste 2"]}
        for row in range(2, N, N_TASTES)
    }
    catalogue = shop.catalogue.with_changes(moved)
    model = shop.model.with_catalogue(catalogue)
    start = model.starts.of(["Fresh"], {})
    assert start is not None
    assert start.interests is not None
    assert start.interests.rows.tolist() == list(range(2, N, N_TASTES))
    assert model.starts.of(["Taste 1"], {}) is not None
    price = {0: {**shop.catalogue.frame.row(0, named=True), "title": "Another title"}}
    same = shop.model.with_catalogue(shop.catalogue.with_changes(price))
    assert same.starts is shop.model.starts, "what was looked up before is not looked up again"
