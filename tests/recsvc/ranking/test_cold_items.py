"""New items and content, on a shop of three tastes: placed by content, found by who likes it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.item_columns import columns_of, stub_columns
from feature_store.preferences import NO_PREFERENCES
from feature_store.schema import EVENT_TYPE_CODES, EventType, Item, ItemId
from feature_store.state import EMPTY_STATE, UserState, fold
from recsvc.engine import Response, recommend
from recsvc.explaining.explain import reasons
from recsvc.ranking import cold_items
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    DAY_S,
    N_TASTES,
    NOW_S,
    TOKENS,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
    write_artifact,
)

N_KNOWN = 60
"""All rows of the catalogue when the model was trained."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return write_artifact(tmp_path_factory.mktemp("m"), N_KNOWN, tokens=TOKENS, n_rows=N_KNOWN)


@pytest.fixture(scope="module")
def shop(artifact: ModelArtifact) -> Snapshot:
    paths = [[f"Taste {row % N_TASTES}"] for row in range(N_KNOWN)]
    return make_snapshot(artifact, make_catalogue(item_ids(N_KNOWN), categories=paths))


def upsert(shop: Snapshot, **items: dict[str, Any]) -> Snapshot:
    """Return the snapshot of a worker that has heard of some more items, or of changed ones."""
    catalogue, model = shop.catalogue, shop.model
    for item_id, fields in items.items():
        row = catalogue.row(item_id)
        row = catalogue.n_rows if row is None else row
        columns = columns_of(Item(item_id=ItemId(item_id), **fields))
        catalogue = catalogue.with_changes([(row, columns)])
        model = model.with_catalogue(catalogue)
    return Snapshot(catalogue, model)


def taste(number: int) -> UserState:
    """Somebody who bought a few things of one taste."""
    return bought(*((number + N_TASTES * step, 5) for step in range(3)))


def ask(shop: Snapshot, state: UserState, **fields: Any) -> Response:
    return recommend(shop, state, NO_PREFERENCES, RecommendationRequest(**fields), NOW_S)


def test_a_new_item_is_shown_to_those_who_like_its_kind(shop: Snapshot) -> None:
    live = upsert(shop, fresh={"categories": ["Taste 1"], "title": "new"})
    row = live.catalogue.row("fresh")
    assert row == N_KNOWN
    for number in range(N_TASTES):
        rows = rows_of(ask(live, taste(number), limit=12))
        assert (row in rows) == (number == 1)
    response = ask(live, taste(1), limit=12)
    at = rows_of(response).index(row)
    reason = reasons(response)[at]
    assert (reason.source, reason.code) == ("collaborative", "because_you_bought")
    assert reason.rows[0] % N_TASTES == 1


def test_a_new_item_leads_the_new_arrivals(shop: Snapshot) -> None:
    live = upsert(shop, first={"title": "bare"}, second={"title": "barer"})
    assert rows_of(ask(live, EMPTY_STATE, placement="new", limit=3)) == [61, 60, 0]
    # One that says when it was published stands where that belongs: item 4 was bought 5 days ago.
    dated = upsert(live, third={"published_at": "2025-06-11T03:06:40Z"})
    rows = rows_of(ask(dated, EMPTY_STATE, placement="new", limit=9))
    assert rows == [61, 60, 0, 1, 2, 3, 62, 4, 5]
    catalogue = shop.catalogue.with_changes([(N_KNOWN, stub_columns("heard of"))])
    heard = Snapshot(catalogue, shop.model.with_catalogue(catalogue))
    assert rows_of(ask(heard, EMPTY_STATE, placement="new", limit=1)) == [0]


def test_the_page_of_a_new_item_and_the_pages_of_its_like(shop: Snapshot) -> None:
    live = upsert(shop, fresh={"categories": ["Taste 2"]}, other={"categories": ["Taste 0"]})
    page = ask(live, EMPTY_STATE, placement="product", item_ids=(ItemId("fresh"),), limit=10)
    assert {row % N_TASTES for row in rows_of(page)} == {2}
    assert {chosen.candidates.source for chosen in page.chosen} == {"similar"}
    near = ask(live, EMPTY_STATE, placement="product", item_ids=(ItemId("i00005"),), limit=10)
    assert N_KNOWN in rows_of(near)
    assert N_KNOWN + 1 not in rows_of(near)


def test_what_somebody_did_with_a_new_item_counts_at_once(shop: Snapshot) -> None:
    live = upsert(shop, fresh={"categories": ["Taste 2"]})
    response = ask(live, bought((N_KNOWN, 0)), limit=20)
    rows = rows_of(response)
    assert {row % N_TASTES for row in rows if row != N_KNOWN} == {2}
    named = {reason.rows for reason in reasons(response) if reason.source == "collaborative"}
    assert named == {(N_KNOWN,)}
    mixed = ask(live, bought((N_KNOWN, 0), (2, 400)), limit=20)
    assert {row % N_TASTES for row in rows_of(mixed) if row != N_KNOWN} == {2}


def test_a_model_that_knows_nothing_of_content_serves_as_before(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, N_KNOWN, n_rows=N_KNOWN)
    plain = make_snapshot(artifact, make_catalogue(item_ids(N_KNOWN)))
    live = upsert(plain, fresh={"categories": ["Taste 1"]})
    assert len(live.model.cold.rows) == 0
    assert rows_of(ask(live, taste(1), limit=8)) == rows_of(ask(plain, taste(1), limit=8))
    assert N_KNOWN in rows_of(ask(live, taste(1), limit=100))


def test_which_items_are_placed(artifact: ModelArtifact) -> None:
    """Of 60 known rows: new by row or by date, and all content; nothing without a known token."""
    model = write_catalogue_rows(artifact, 63)
    assert model == [61, 62, 63, 65]


def write_catalogue_rows(artifact: ModelArtifact, n_rows: int) -> list[int]:
    """Return the rows that are placed by a model that was trained when there were `n_rows`."""
    days_ago = {61: 1, 60: 90}
    frame: dict[str, list[Any]] = {
        "categories": [["Taste 0"] if row != 64 else ["Unheard"] for row in range(66)],
        "kind": ["content" if row in (62, 65) else "product" for row in range(66)],
        "published_at": [
            None if row not in days_ago else 1_000 * (NOW_S - DAY_S * days_ago[row])
            for row in range(66)
        ],
    }
    catalogue = make_catalogue(item_ids(66), **frame)
    known = cold_items.Knowledge(n_rows, NOW_S - DAY_S)
    model_rows = np.where(np.arange(66) < N_KNOWN, np.arange(66), -1).astype(np.int32)
    placed = cold_items.place(artifact.arrays, known, catalogue, model_rows)
    return [int(row) for row in placed.rows]


def test_of_very_many_new_items_the_newest_are_placed(
    shop: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_items, "MAX_PRODUCTS", 3)
    live = upsert(shop, **{f"n{number}": {"categories": ["Taste 0"]} for number in range(6)})
    assert live.model.cold.rows.tolist() == [63, 64, 65]


fields = st.fixed_dictionaries(
    {
        "categories": st.sampled_from([[], ["Taste 0"], ["Taste 1 > A", "Taste 2"], ["Unheard"]]),
        "kind": st.sampled_from(["product", "content", "offer"]),
        "available": st.booleans(),
        "published_at": st.sampled_from([None, "2025-06-11T00:00:00Z", "2019-01-01T00:00:00Z"]),
    }
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["i00003", "a", "b", "c", "d"]), fields), max_size=8))
def test_live_changes_give_what_a_fresh_start_gives(
    shop: Snapshot, changes: list[tuple[str, dict[str, Any]]]
) -> None:
    live = shop
    for item_id, values in changes:
        live = upsert(live, **{item_id: values})
    assert shop.model.artifact is not None
    afresh = make_snapshot(shop.model.artifact, live.catalogue)
    for name in ("rows", "factors", "popularity"):
        assert np.allclose(getattr(live.model.cold, name), getattr(afresh.model.cold, name))
    for placement in ("home", "new", "content", "product"):
        lists = [
            rows_of(ask(one, taste(1), placement=placement, item_ids=("a", "i00001"), limit=30))
            for one in (live, afresh)
        ]
        assert lists[0] == lists[1]


# --- content ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """90,000 products and 31 pieces of content, of which the model knows ten."""
    folder = tmp_path_factory.mktemp("library")
    artifact = write_artifact(folder, 300, tokens=TOKENS, n_rows=90_031)
    n = 90_031
    is_content = np.zeros(n, dtype=bool)
    is_content[290:300] = is_content[90_000:90_021] = True
    return make_snapshot(
        artifact,
        make_catalogue(
            item_ids(n),
            categories=[[f"Taste {row % N_TASTES} > Guides"] for row in range(n)],
            kind=["content" if one else "product" for one in is_content],
        ),
    )


def test_content_goes_to_those_who_like_what_it_is_about(library: Snapshot) -> None:
    for number in range(N_TASTES):
        rows = rows_of(ask(library, taste(number), placement="content", limit=10))
        assert all(row % N_TASTES == number for row in rows)
        # Known and new content stand in one list.
        assert min(rows) < 300
        assert max(rows) >= 90_000
        home = rows_of(ask(library, taste(number), limit=100))
        assert all(library.catalogue.item(row)["kind"] == "product" for row in home)


def test_content_is_full_for_everybody(library: Snapshot) -> None:
    for state in (EMPTY_STATE, taste(0)):
        assert len(rows_of(ask(library, state, placement="content", limit=100))) == 31
    assert len(rows_of(ask(library, EMPTY_STATE, placement="content"))) == 6


def test_looking_at_an_article_says_what_one_likes(library: Snapshot) -> None:
    view = np.array([EVENT_TYPE_CODES[EventType.VIEW]] * 2, dtype=np.uint8)
    articles = np.array([292, 90_002], dtype=np.uint32)
    assert {row % N_TASTES for row in articles.tolist()} == {1, 2}
    for article in articles:
        state = fold(EMPTY_STATE, article[None], view[:1], np.array([NOW_S - 60], dtype=np.uint32))
        number = int(article) % N_TASTES
        for placement in ("home", "content"):
            rows = rows_of(ask(library, state, placement=placement, limit=6))
            assert {row % N_TASTES for row in rows} == {number}
