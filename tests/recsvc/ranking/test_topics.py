"""Content about a category goes to those who buy in it: known shares, known lists."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.preferences import NO_PREFERENCES
from feature_store.state import EMPTY_STATE, UserState
from recsvc.engine import Response, recommend
from recsvc.explaining.explain import reasons
from recsvc.ranking.history import read_history
from recsvc.ranking.topics import PSEUDO_PURCHASES
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    NOW_S,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
    write_artifact,
)

SHELVES = ("Dairy > Cheese > Hard", "Dairy > Milk", "Bakery > Bread", "Wine")
ARTICLES = ("Cheese", "Dairy", "bakery", "Unheard of", "Dairy > Cheese", "Wine > Red")
N_PRODUCTS = 40


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Forty products on four shelves; row 40 on are articles that the model does not know."""
    artifact = write_artifact(tmp_path_factory.mktemp("models"), N_PRODUCTS)
    shelves = [[SHELVES[row % 4]] for row in range(N_PRODUCTS)]
    kinds = ["product"] * N_PRODUCTS + ["content"] * len(ARTICLES)
    ids = item_ids(len(kinds))
    paths = [*shelves, *([topic] for topic in ARTICLES)]
    return make_snapshot(artifact, make_catalogue(ids, categories=paths, kind=kinds))


def ask(shop: Snapshot, state: UserState, limit: int = 6) -> Response:
    request = RecommendationRequest(placement="content", limit=limit)
    return recommend(shop, state, NO_PREFERENCES, request, NOW_S)


def titles(response: Response) -> list[str]:
    return [ARTICLES[row - N_PRODUCTS] for row in rows_of(response)]


def test_shares_and_likelihoods_by_hand(shop: Snapshot) -> None:
    topics = shop.model.topics(frozenset({"content"}))
    assert topics is not None
    popularity = shop.model.arrays["popularity"]
    cheese, dairy, bakery = (
        popularity[0::4].sum(), popularity[0::4].sum() + popularity[1::4].sum(),
        popularity[2::4].sum(),
    )  # fmt: skip
    # "Unheard of" and "Wine > Red", under which no product falls, are no topics.
    assert [ARTICLES[row - N_PRODUCTS] for row in topics.rows] == [
        "Cheese", "Dairy", "bakery", "Dairy > Cheese"
    ]  # fmt: skip
    assert topics.share[topics.of_row] == pytest.approx([cheese, dairy, bakery, cheese], abs=1e-5)
    history = read_history(bought((0, 0), (4, 60), (1, 0)), N_PRODUCTS, NOW_S)
    weights = np.log([2, 1.5, 2])
    likely = np.exp(topics.likely(shop.model.category_codes, history))[topics.of_row]
    total = weights.sum() + PSEUDO_PURCHASES
    assert likely[0] == pytest.approx((weights[:2].sum() + 2 * cheese) / total, abs=1e-4)
    assert likely[1] == pytest.approx((weights.sum() + 2 * dairy) / total, abs=1e-4)
    assert likely[2] == pytest.approx(2 * bakery / total, abs=1e-4)


def test_an_article_about_cheese_goes_to_those_who_buy_cheese(shop: Snapshot) -> None:
    cheese = ask(shop, bought((0, 3), (4, 3), (8, 9)))
    assert set(titles(cheese)[:3]) == {"Cheese", "Dairy", "Dairy > Cheese"}
    for chosen, reason in zip(cheese.chosen[:3], reasons(cheese)[:3], strict=True):
        assert chosen.candidates.source == "blend"
        assert reason.source in ("collaborative", "popular")
        assert reason.source == "popular" or reason.rows[0] in (0, 4, 8)
    assert titles(ask(shop, bought((2, 3), (6, 3), (10, 9))))[0] == "bakery"
    assert titles(ask(shop, EMPTY_STATE))[0] == "Dairy"
    for state in (EMPTY_STATE, bought((2, 3))):
        assert sorted(titles(ask(shop, state))) == sorted(ARTICLES)


def test_a_bread_buyer_reads_why(shop: Snapshot) -> None:
    response = ask(shop, bought((2, 3), (3, 300)))
    (first, *_) = reasons(response)
    assert (first.source, first.code, first.rows) == ("collaborative", "because_you_bought", (2,))


def test_topics_follow_the_catalogue(shop: Snapshot, tmp_path: Path) -> None:
    columns = {
        **dict.fromkeys(shop.catalogue.frame.columns),
        "item_id": "wine guide", "listed": True, "kind": "content", "available": True,
        "categories": ["Wine"], "attributes": "{}", "deleted": False,
    }  # fmt: skip
    catalogue = shop.catalogue.with_changes([(shop.catalogue.n_rows, columns)])
    live = Snapshot(catalogue, shop.model.with_catalogue(catalogue))
    assert rows_of(ask(live, bought((3, 1), (7, 1), (11, 1)), limit=1)) == [catalogue.n_rows - 1]
    products = make_snapshot(write_artifact(tmp_path, 9), make_catalogue(item_ids(9)))
    assert products.model.topics(frozenset({"content"})) is None
    assert rows_of(ask(products, bought((3, 1)))) == []
