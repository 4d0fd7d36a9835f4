"""What somebody follows comes into their list, says so, and does not take it over."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.preferences import Preferences
from feature_store.schema import ItemId
from feature_store.state import EMPTY_STATE, UserState
from recsvc.answer import answer
from recsvc.customer.follows import (
    FOLLOW_WEIGHT,
    HALF_LIFE,
    LIFTED,
    ONE_IN,
    lifts_of,
    read_follows,
)
from recsvc.engine import Response, recommend
from recsvc.explaining.explain import reasons
from recsvc.merchandising.placements import BUILT_IN, Source
from recsvc.merchandising.site import Site
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    N_ALL,
    N_TASTES,
    NOW_S,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
    write_artifact,
)

N = 400
"""Items that the model knows; 30 more it does not."""
SMALL, UNKNOWN = 397, 415
HISTORY = bought(*((3 * step, 2 + step) for step in range(12)))
"""Somebody of taste 0."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    artifact = write_artifact(tmp_path_factory.mktemp("models"), N)
    brands = [f"Brand {row % 5}" for row in range(N + 30)]
    brands[SMALL], brands[UNKNOWN] = "Small", "Unknown"
    return make_snapshot(
        artifact,
        make_catalogue(
            item_ids(N + 30),
            brand=brands,
            categories=[
                [f"Food > Taste {row % N_TASTES}", *(["Fair"] if row % 50 == 7 else [])]
                for row in range(N + 30)
            ],
        ),
    )


def follow(*categories: str, brands: tuple[str, ...] = (), **fields: Any) -> Preferences:
    return Preferences(
        followed_categories=frozenset(categories), followed_brands=frozenset(brands), **fields
    )


def ask(
    shop: Snapshot,
    preferences: Preferences,
    state: UserState = HISTORY,
    **fields: Any,
) -> Response:
    request = RecommendationRequest(**{"limit": 20, **fields})
    start = None
    if not state.n_item_facts:
        start = shop.model.starts.of_context(None, preferences)
    return recommend(shop, state, preferences, request, NOW_S, start=start)


def test_one_in_ten_is_followed_and_says_so(shop: Snapshot) -> None:
    plain = rows_of(ask(shop, Preferences()))
    assert not any(row % N_TASTES == 2 for row in plain)
    response = ask(shop, follow("Food > Taste 2"))
    rows = rows_of(response)
    followed = [at for at, row in enumerate(rows, 1) if row % N_TASTES == 2]
    assert followed[0] == ONE_IN
    assert followed[1] <= 2 * ONE_IN
    # The rest of the list is the person's own, in its order.
    own = [row for row in rows if row % N_TASTES != 2]
    assert own == plain[: len(own)]
    for row, reason in zip(rows, reasons(response), strict=True):
        assert (reason.code == "followed") == (row % N_TASTES == 2)
        assert reason.followed == (("Food > Taste 2",) if reason.code == "followed" else ())
    assert response.personalized


def test_a_small_brand_really_comes_in_known_to_the_model_or_not(shop: Snapshot) -> None:
    for name, row in (("Small", SMALL), ("Unknown", UNKNOWN)):
        assert row not in rows_of(ask(shop, Preferences(), limit=100))
        response = ask(shop, follow(brands=(name,)))
        at = rows_of(response).index(row)
        assert at < ONE_IN
        assert reasons(response)[at].followed == (name,)
        stranger = ask(shop, follow(brands=(name,)), EMPTY_STATE)
        at = rows_of(stranger).index(row)
        assert at < ONE_IN
        assert reasons(stranger)[at].followed == (name,)
        assert stranger.personalized
    both = rows_of(ask(shop, follow(brands=("Small", "Unknown"))))
    assert {SMALL, UNKNOWN} <= set(both)


def test_names_take_turns(shop: Snapshot) -> None:
    said = follow("Food > Taste 1", "Fair", brands=("Small",))
    lists = rows_of(ask(shop, said, limit=40))
    assert SMALL in lists[: 3 * ONE_IN]
    assert any(row % 50 == 7 for row in lists[: 3 * ONE_IN])
    assert any(row % N_TASTES == 1 and row % 50 != 7 for row in lists[: 3 * ONE_IN])


def test_a_name_covers_what_is_below_it_in_any_category(shop: Snapshot) -> None:
    everything = follow("Food")
    # Who follows everything follows nothing in particular.
    assert rows_of(ask(shop, everything)) == rows_of(ask(shop, Preferences()))
    fair = rows_of(ask(shop, follow("Fair")))
    assert sum(row % 50 == 7 for row in fair) >= 2
    for near in ("Foo", "Food > Taste", "food > taste 2", "Fai"):
        assert rows_of(ask(shop, follow(near))) == rows_of(ask(shop, Preferences()))


def test_what_is_hidden_is_followed_in_vain(shop: Snapshot) -> None:
    said = follow("Food > Taste 2", hidden_categories=frozenset({"Food > Taste 2"}))
    assert rows_of(ask(shop, said)) == rows_of(ask(shop, Preferences()))
    said = follow("Food > Taste 2", hidden_items=frozenset({ItemId("i00002")}))
    rows = rows_of(ask(shop, said))
    assert 2 not in rows
    assert sum(row % N_TASTES == 2 for row in rows) >= 2


def test_who_refuses_follows_nothing(shop: Snapshot) -> None:
    for state in (HISTORY, EMPTY_STATE):
        refused = ask(shop, follow("Food > Taste 2", personalization=False), state)
        assert rows_of(refused) == rows_of(ask(shop, Preferences(), EMPTY_STATE))
        assert not refused.personalized
        assert not refused.query.followed.weighs


@pytest.mark.parametrize("placement", ["trending", "new"])
def test_in_a_ranking_it_moves_up_by_the_weight(shop: Snapshot, placement: str) -> None:
    plain = rows_of(ask(shop, Preferences(), placement=placement, limit=100))
    response = ask(shop, follow(brands=("Brand 3",)), placement=placement, limit=100)
    rows = rows_of(response)
    (first, *_) = (row for row in plain if row % 5 == 3 and row != UNKNOWN)
    ahead = (plain.index(first) + 1) / FOLLOW_WEIGHT
    assert rows.index(first) + 1 == pytest.approx(ahead, abs=1)
    others = [row for row in rows if row % 5 != 3]
    assert others == [row for row in plain if row in others]
    short = ask(shop, follow(brands=("Brand 3",)), placement=placement, limit=10)
    assert rows_of(short) == rows[:10]
    for row, reason in zip(rows_of(short), reasons(short), strict=True):
        assert (reason.code == "followed") == (row not in plain[:10])


@pytest.mark.parametrize("placement", ["product", "cart"])
def test_what_goes_with_the_page_is_left_alone(shop: Snapshot, placement: str) -> None:
    page = (ItemId("i00004"),)
    plain = ask(shop, Preferences(), placement=placement, item_ids=page, limit=5)
    said = follow("Food > Taste 2", brands=("Small",))
    assert rows_of(ask(shop, said, placement=placement, item_ids=page, limit=5)) == rows_of(plain)


def test_the_parts_of_a_score_have_the_follow(shop: Snapshot) -> None:
    request = RecommendationRequest(limit=20, explain=True)
    response = recommend(shop, HISTORY, follow("Food > Taste 2"), request, NOW_S)
    for item in answer(response, request, "id", [])["items"]:
        parts = item["journey"]["score_parts"]
        assert item["score"] == pytest.approx(sum(parts.values()), abs=1e-4)
        if item["reason"]["code"] == "followed":
            assert item["reason"]["followed"] == ["Food > Taste 2"]
            assert max(parts.values()) == parts["followed"]


def test_who_is_interested_and_new_is_told_in_what(shop: Snapshot) -> None:
    response = ask(shop, Preferences(interests=frozenset({"Taste 2"})), EMPTY_STATE, limit=8)
    named = [one for one in reasons(response) if one.code == "followed"]
    assert named
    assert {one.followed for one in named} == {("Taste 2",)}


def test_what_a_newcomer_named_is_in_the_list_until_they_did_something(shop: Snapshot) -> None:
    said = Preferences(interests=frozenset({"Small", "Unknown", "a name of nothing"}))
    assert not {SMALL, UNKNOWN} & set(rows_of(ask(shop, Preferences(), EMPTY_STATE)))
    response = ask(shop, said, EMPTY_STATE)
    found = dict(zip(rows_of(response), reasons(response), strict=True))
    for row, name in ((SMALL, "Small"), (UNKNOWN, "Unknown")):
        assert (found[row].code, found[row].followed) == ("followed", (name,))
    assert rows_of(ask(shop, said)) == rows_of(ask(shop, Preferences())), "they have a history"


def test_what_a_follow_brought_to_a_stranger_says_so(shop: Snapshot) -> None:
    plain = set(rows_of(ask(shop, Preferences(), EMPTY_STATE)))
    response = ask(shop, follow("Food > Taste 2"), EMPTY_STATE)
    brought = 0
    for row, reason in zip(rows_of(response), reasons(response), strict=True):
        if row not in plain and row % N_TASTES == 2:
            assert (reason.code, reason.followed) == ("followed", ("Food > Taste 2",))
            brought += 1
    assert brought >= 5


def test_a_change_of_the_catalogue_is_followed_at_once(shop: Snapshot) -> None:
    said = follow(brands=("Small",))
    assert read_follows(shop, said).best(None).tolist() == [SMALL]
    columns = shop.catalogue.columns_at(300)
    assert columns is not None
    catalogue = shop.catalogue.with_changes({300: {**columns, "brand": "Small"}})
    changed = Snapshot(catalogue, shop.model.with_catalogue(catalogue))
    assert sorted(read_follows(changed, said).best(None).tolist()) == [300, SMALL]
    assert {300, SMALL} <= set(rows_of(ask(changed, said)))
    other = catalogue.with_changes({301: {**columns, "item_id": "i00301", "brand": "Large"}})
    again = Snapshot(other, changed.model.with_catalogue(other))
    assert sorted(read_follows(again, said).best(None).tolist()) == [300, SMALL]


def test_sources_in_turn_are_lifted_too(shop: Snapshot) -> None:
    mixed = replace(
        BUILT_IN["home"],
        sources=(Source("personal", 1.0), Source("trending", 1.0)),
    )
    site = Site(placements={**BUILT_IN, "home": mixed})
    rows = rows_of(ask(replace(shop, site=site), follow(brands=("Small",))))
    assert SMALL in rows
    assert len(rows) == len(set(rows)) == 20


def test_the_lift_fades_by_its_half_life() -> None:
    factors = np.exp(lifts_of(FOLLOW_WEIGHT, HALF_LIFE))
    assert factors.shape == (LIFTED,)
    assert factors[0] == pytest.approx(FOLLOW_WEIGHT)
    half = int(HALF_LIFE)
    assert factors[half] == pytest.approx(1 + (FOLLOW_WEIGHT - 1) / 2)
    assert (np.diff(factors) < 0).all()


def test_a_varied_list_of_which_everything_is_hidden_comes_from_elsewhere(
    snapshot: Snapshot,
) -> None:
    """Nothing that is due may be shown: there is nothing to vary, and the list is full."""
    varied = {"buy_again": replace(BUILT_IN["buy_again"], diversity=0.4)}
    shop = replace(snapshot, site=Site(placements=varied))
    only = ItemId(shop.catalogue.item(50)["item_id"])
    hiding = Preferences(hidden_items=frozenset({only}))
    response = ask(shop, hiding, bought((50, 30)), placement="buy_again")
    assert len(response.chosen) == 20
    assert 50 not in rows_of(response)


names = st.sampled_from(["Food", "Food > F1", "Food > F3", "b0", "b1", "nothing"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, N_ALL - 1), st.integers(0, 300)), max_size=12),
    st.frozensets(names, max_size=4),
    st.frozensets(names, max_size=4),
    st.frozensets(st.sampled_from(["Food > F3", "Food > F0"]), max_size=1),
    st.sampled_from(sorted(BUILT_IN)),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.4]),
)
def test_a_list_with_follows_is_full_allowed_and_begins_as_a_longer_one(
    artifact: ModelArtifact,
    snapshot: Snapshot,
    purchases: list[tuple[int, int]],
    categories: frozenset[str],
    brands: frozenset[str],
    hidden: frozenset[str],
    placement: str,
    limit: int,
    diversity: float,
) -> None:
    del artifact
    varied = {**BUILT_IN, placement: replace(BUILT_IN[placement], diversity=diversity)}
    shop = replace(snapshot, site=Site(placements=varied))
    said = follow(*categories, brands=tuple(brands), hidden_categories=hidden)
    plain = Preferences(hidden_categories=hidden)
    state = bought(*purchases) if purchases else EMPTY_STATE
    fields: dict[str, Any] = {"placement": placement, "limit": limit}
    response = ask(shop, said, state, **fields)
    rows = rows_of(response)
    assert len(rows) == len(set(rows)) == len(rows_of(ask(shop, plain, state, **fields)))
    for row in rows:
        paths = shop.catalogue.item(row)["categories"]
        assert not any(path == one for path in paths for one in hidden)
    for chosen, reason in zip(response.chosen, reasons(response), strict=True):
        item = shop.catalogue.item(chosen.row)
        for name in reason.followed:
            assert name in (*categories, *brands)
            assert name == item["brand"] or any(
                path == name or path.startswith(f"{name} > ") for path in item["categories"]
            )
    if not diversity:
        longer = ask(shop, said, state, placement=placement, limit=limit + 10)
        assert rows_of(longer)[: len(rows)] == rows
    assert (shop.scratch.total == 0).all()
