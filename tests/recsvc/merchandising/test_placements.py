"""What a marketer can tune of a slot, on the small shop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.conditions import ITEM, parse_condition
from feature_store.preferences import NO_PREFERENCES
from recsvc.engine import recommend
from recsvc.merchandising.placement_documents import body_of_placement, placement_of
from recsvc.merchandising.placements import BUILT_IN, Placement, Source
from recsvc.merchandising.site import Site
from recsvc.ranking.diversity import greedy, intra_list_distance, similarity
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
    write_artifact,
)

STATE = bought((0, 2), (3, 5), (6, 9))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder: Path = tmp_path_factory.mktemp("models")
    ids = item_ids(N_ALL)
    catalogue = make_catalogue(
        ids,
        brand=[f"b{n % 5}" for n in range(N_ALL)],
        categories=[[f"c{n % 3}"] for n in range(N_ALL)],
        published_at=[(NOW_S - DAY_S * (n % 40)) * 1000 for n in range(N_ALL)],
    )
    return make_snapshot(write_artifact(folder), catalogue)


def rows(snapshot: Snapshot, placement: Placement, limit: int = 20, skip: int = 0) -> list[int]:
    site = Site(placements={"x": placement})
    asked = RecommendationRequest(placement="x", limit=limit)
    changed = replace(snapshot, site=site)
    return rows_of(recommend(changed, STATE, NO_PREFERENCES, asked, NOW_S, skip=skip))


def test_sources_take_turns_by_their_weights(snapshot: Snapshot) -> None:
    alone = {
        name: rows(snapshot, Placement("x", "", (Source(name),)), 60)
        for name in ("personal", "trending")
    }
    mixed = Placement("x", "", (Source("personal", 3), Source("trending", 1)))
    found = rows(snapshot, mixed, 20)
    assert len(set(found)) == 20
    trending = [row for row in found if row in alone["trending"][:6]]
    personal = [row for row in found if row in alone["personal"][:16]]
    assert 4 <= len(trending) <= 7
    assert len(personal) >= 13
    own = [row for row in personal if row not in alone["trending"][:20]]
    assert own == sorted(own, key=alone["personal"].index)
    assert rows(snapshot, mixed, 10) + rows(snapshot, mixed, 10, skip=10) == found


def test_variety_costs_likeness_and_keeps_the_beginning_of_a_list(snapshot: Snapshot) -> None:
    distances = []
    for diversity in (0.0, 0.3, 0.6, 0.9):
        placement = Placement("x", "", (Source("personal"),), diversity=diversity)
        found = rows(snapshot, placement)
        assert len(set(found)) == 20
        assert rows(snapshot, placement, 7) == found[:7]
        assert rows(snapshot, placement, 13, skip=7) == found[7:]
        distances.append(intra_list_distance(snapshot, np.array(found)))
    assert distances == sorted(distances)
    assert distances[-1] > distances[0] + 0.1


def test_the_most_relevant_comes_first_and_then_what_is_unlike_it() -> None:
    relevance = np.array([1.0, 0.9, 0.5], dtype=np.float32)
    alike = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
    assert greedy(relevance, alike, 3, 0.0).tolist() == [0, 1, 2]
    assert greedy(relevance, alike, 3, 0.5).tolist() == [0, 2, 1]


def test_items_are_alike_by_taste_and_category(snapshot: Snapshot) -> None:
    alike = similarity(snapshot, np.array([0, 3, 1, 75, 78]))
    assert alike[0, 0] == pytest.approx(1, abs=1e-5)
    assert alike[0, 1] > 0.9, "one taste, one category"
    assert alike[0, 2] < 0.1
    assert alike[3, 4] == pytest.approx(0.5), "unknown to the model, of one category"


def test_freshness_brings_new_items_forward(snapshot: Snapshot) -> None:
    ages = []
    for freshness in (0.0, 0.5, 1.0):
        placement = Placement("x", "", (Source("personal"),), freshness=freshness)
        ages.append(np.mean([row % 40 for row in rows(snapshot, placement, 10)]))
    assert ages[0] > ages[1] >= ages[2]


def test_a_filter_of_a_slot_holds_for_every_item(snapshot: Snapshot) -> None:
    tree = {"field": "item.brand", "op": "eq", "value": "b2"}
    placement = Placement("x", "", (Source("personal"),), filter=parse_condition(tree, ITEM))
    found = rows(snapshot, placement, 100)
    assert sorted(found) == [row for row in range(N_ALL) if row % 5 == 2]


def test_without_a_fallback_a_list_ends_with_its_sources(snapshot: Snapshot) -> None:
    together = Placement("x", "", (Source("due"),))
    assert len(rows(snapshot, together, 50)) == 50
    assert set(rows(snapshot, replace(together, fallback=False), 50)) <= {0, 3, 6}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_slot_can_be_written_down_and_read_again(name: str) -> None:
    placement = BUILT_IN[name]
    assert placement_of(name, body_of_placement(placement)) == placement
