"""A preview is what is then served, and its sums are those of its lists."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.conditions import Scope
from feature_store.preferences import NO_PREFERENCES
from recsvc.engine import recommend
from recsvc.merchandising.preview import Viewer, as_lists, compare, preview, with_rules
from recsvc.requests import RecommendationRequest
from recsvc.rules import parse_rule
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    N_ALL,
    NOW_S,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
    write_artifact,
)

HOME = RecommendationRequest(limit=10)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder: Path = tmp_path_factory.mktemp("models")
    ids = item_ids(N_ALL)
    catalogue = make_catalogue(
        ids, brand=[f"b{n % 5}" for n in range(N_ALL)], title=[f"t{n}" for n in range(N_ALL)]
    )
    return make_snapshot(write_artifact(folder), catalogue)


def viewers(n: int) -> list[Viewer]:
    rng = np.random.default_rng(0)
    return [
        Viewer(
            f"u{number}",
            bought(*[(int(row), int(row) % 50 + 1) for row in rng.choice(60, 6, replace=False)]),
            NO_PREFERENCES,
            {"loyalty": {"tier": "gold" if number % 2 else "silver"}},
        )
        for number in range(n)
    ]


def rule(**fields: Any) -> Any:
    return parse_rule({"rule_id": "r", "placements": ["home"], **fields})


GOLD_LOSES_B1 = rule(
    when={"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
    action={"type": "exclude", "target": {"field": "item.brand", "op": "eq", "value": "b1"}},
)


def test_only_those_whom_a_rule_is_for_see_another_list(snapshot: Snapshot) -> None:
    after = with_rules(snapshot, [GOLD_LOSES_B1])
    assert not snapshot.rules.book.entries, "what serves is not touched"
    pairs = [preview(snapshot, after, one, HOME, NOW_S) for one in viewers(40)]
    for number, pair in enumerate(pairs):
        before, now = pair.rows
        lost = [row for row in before if row % 5 == 1]
        assert (before != now) == bool(number % 2 and lost)
        if number % 2:
            assert not [row for row in now if row % 5 == 1]
            lists = as_lists(pair)
            out = {entry["item_id"]: entry["rule_ids"] for entry in lists["out"]}
            assert out == {f"i{row:05d}": ["r"] for row in lost}
            assert [entry["moved"] for entry in lists["after"]].count("in") == len(lost)
    summary = compare(pairs)
    assert summary["viewers"] == 40
    assert summary["changed_lists"] == sum(one.rows[0] != one.rows[1] for one in pairs)
    assert all(len(pair.rows[0]) == len(pair.rows[1]) == 10 for pair in pairs)
    assert {int(entry["item_id"][1:]) % 5 for entry in summary["lose"]} == {1}
    lost_most, gained_most = summary["lose"][0], summary["gain"][0]
    for entry in (lost_most, gained_most):
        row = int(entry["item_id"][1:])
        counts = [sum(row in pair.rows[at] for pair in pairs) for at in (0, 1)]
        assert counts == [entry["before"], entry["after"]]
    assert lost_most["after"] < lost_most["before"]
    assert gained_most["after"] > gained_most["before"]
    # Taking away what the model likes best shows less of what it expects to be bought.
    assert summary["demand_shown"]["change"] < 0
    assert 0 < summary["demand_shown"]["after"] < summary["demand_shown"]["before"] <= 1


def test_a_preview_is_what_is_then_served(snapshot: Snapshot) -> None:
    rules = [
        GOLD_LOSES_B1,
        rule(rule_id="p", action={"type": "pin", "item_ids": ["i00077"], "positions": [3]}),
    ]
    after = with_rules(snapshot, rules)
    served = replace(snapshot, rules=after.rules, site=after.site)
    for viewer in viewers(10):
        pair = preview(snapshot, after, viewer, HOME, NOW_S)
        response = recommend(
            served,
            viewer.state,
            viewer.preferences,
            HOME,
            NOW_S,
            scope=pair_scope(viewer),
        )
        assert rows_of(pair.after) == rows_of(response)
        assert pair.rows[1][2] == 77


def pair_scope(viewer: Viewer) -> Scope:
    return Scope(user=viewer.document, now_s=NOW_S)


def test_a_preview_looks_ahead(snapshot: Snapshot) -> None:
    later = rule(
        starts_at="2030-01-01T00:00:00Z",
        action={"type": "pin", "item_ids": ["i00077"], "positions": [1]},
    )
    after = with_rules(snapshot, [later])
    viewer = viewers(1)[0]
    now, then = (preview(snapshot, after, viewer, HOME, at) for at in (NOW_S, 1_893_456_000))
    assert now.rows[0] == now.rows[1]
    assert then.rows[1][0] == 77
    assert as_lists(then)["after"][0]["rule_ids"] == ["r"]


def test_without_a_change_nothing_changes(snapshot: Snapshot) -> None:
    pairs = [preview(snapshot, snapshot, one, HOME, NOW_S) for one in viewers(5)]
    summary = compare(pairs)
    assert (summary["changed_lists"], summary["gain"], summary["lose"]) == (0, [], [])
    assert summary["demand_shown"]["change"] == 0
    assert summary["mean_overlap"] == 1


def test_a_rule_holds_by_the_clock_in_the_continuation_of_a_list_too(snapshot: Snapshot) -> None:
    soon = NOW_S + 60
    starts = datetime.fromtimestamp(soon, UTC).isoformat()
    tree = {"field": "item.brand", "op": "eq", "value": "b1"}
    gone = rule(starts_at=starts, action={"type": "exclude", "target": tree})
    ruled = with_rules(snapshot, [gone])
    viewer = viewers(1)[0]
    lists = [
        rows_of(
            recommend(
                ruled, viewer.state, NO_PREFERENCES, HOME, NOW_S, scope=Scope(now_s=at), skip=10
            )
        )
        for at in (NOW_S, soon)
    ]
    assert any(row % 5 == 1 for row in lists[0])
    assert not any(row % 5 == 1 for row in lists[1])
