"""Rules: what is refused, when they act, whom they find, and what they do in known cases."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.conditions import Scope, Vocabulary
from feature_store.item_columns import columns_of
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.schema import Item, ItemId
from feature_store.state import EMPTY_STATE
from recsvc.checks import InvalidRequestError
from recsvc.engine import Response, recommend
from recsvc.explaining.explain import reasons
from recsvc.requests import RecommendationRequest
from recsvc.rules import NO_RULES, CheckedRule, applicable, compile_rules, parse_rule
from recsvc.rules.clock import Clock
from tests.recsvc import rules_strategies as some
from tests.recsvc.shop import NOW_S, item_ids, rows_of

BRAND = {"field": "item.brand", "op": "eq", "value": "b1"}


def rule(rule_id: str = "r", *, action: dict[str, Any], **parts: Any) -> CheckedRule:
    return parse_rule({"rule_id": rule_id, "status": "live", "action": action, **parts})


def pin(rule_id: str, rows: list[int], positions: list[int], **parts: Any) -> CheckedRule:
    names = [f"i{row:05d}" for row in rows]
    action = {"type": "pin", "item_ids": names, "positions": positions}
    return rule(rule_id, action=action, **parts)


# --- what is refused -----------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "rule_id": "summer / 2027",
    "revision": 3,
    "name": "Summer first",
    "status": "draft",
    "placements": ["home"],
    "priority": 10,
    "starts_at": None,
    "ends_at": "2027-09-01T00:00:00Z",
    "schedule": {"timezone": "Europe/Berlin", "days": ["fri", "sat"], "from": "10:00",
                 "to": "18:00"},
    "when": {"all": [{"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
                     {"field": "page.brand", "op": "in", "value": ["X"]}]},
    "action": {"type": "boost", "weight": 1.5,
               "target": {"field": "item.categories", "op": "under", "value": "Sandals"}},
}  # fmt: skip


def test_the_contracts_example_is_understood() -> None:
    found = parse_rule(GOOD, placements={"home": None})
    assert found.rule.model_dump(mode="json", exclude={"allow_sensitive"}) == GOOD
    assert found.when is not None
    assert found.target is not None
    assert found.window is not None


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"name": 3}, ["#/name"]),
        ({"colour": 1}, ["#/colour"]),
        ({"status": "asleep"}, ["#/status"]),
        ({"placements": []}, ["#/placements"]),
        ({"placements": ["home", "attic"]}, ["#/placements/1"]),
        ({"priority": "high"}, ["#/priority"]),
        ({"starts_at": "2027-01-01"}, ["#/starts_at"]),
        ({"starts_at": "2028-01-01T00:00:00Z"}, ["#"]),
        ({"schedule": {"timezone": "Mars"}}, ["#/schedule/timezone"]),
        ({"schedule": {"timezone": "UTC", "days": []}}, ["#/schedule/days"]),
        ({"when": {"all": []}}, ["#/when/all"]),
        ({"when": BRAND}, ["#/when/field"]),
        ({"when": {"field": "segment", "op": "eq", "value": "unknown"}}, ["#/when/value"]),
        ({"when": {"field": "user.attributes.health", "op": "exists", "value": True}},
         ["#/when/field"]),
        ({"action": {"type": "dance"}}, ["#/action"]),
        ({"action": {"type": "boost", "target": BRAND, "weight": 1}}, ["#/action/weight"]),
        ({"action": {"type": "boost", "target": BRAND, "weight": True}}, ["#/action/weight"]),
        ({"action": {"type": "bury", "target": BRAND, "weight": 1}}, ["#/action/weight"]),
        ({"action": {"type": "exclude"}}, ["#/action/target"]),
        ({"action": {"type": "exclude", "target": {"field": "user.loyalty.tier", "op": "eq",
                                                   "value": "gold"}}}, ["#/action/target/field"]),
        ({"action": {"type": "pin", "item_ids": ["a"], "positions": [0]}},
         ["#/action/positions/0"]),
        ({"action": {"type": "pin", "item_ids": ["a"], "positions": [1, 2]}}, ["#/action"]),
        ({"action": {"type": "pin", "item_ids": ["a", "a"], "positions": [1]}}, ["#/action"]),
        ({"action": {"type": "pin", "item_ids": [""], "positions": [1]}},
         ["#/action/item_ids/0"]),
        ({"action": {"type": "slot", "target": BRAND, "positions": []}}, ["#/action/positions"]),
        ({"action": {"type": "cap", "by": "brand", "max": 0}}, ["#/action/max"]),
        ({"action": {"type": "cap", "by": "attribute", "max": 1}}, ["#/action"]),
        ({"action": {"type": "cap", "by": "brand", "attribute": "x", "max": 1}}, ["#/action"]),
        ({"when": {"any": []}, "schedule": []}, ["#/schedule"]),
        ({"when": {"any": []}, "schedule": {}}, ["#/when/any", "#/schedule/timezone"]),
    ],
)  # fmt: skip
def test_a_bad_rule_is_refused_with_pointers(changes: dict[str, Any], pointers: list[str]) -> None:
    known = Vocabulary(segments=frozenset({"vip"}), sensitive=frozenset({"user.attributes.health"}))
    with pytest.raises(InvalidRequestError) as caught:
        parse_rule({**GOOD, **changes}, known, {"home": None})
    assert [error.pointer for error in caught.value.errors] == pointers


def test_a_sensitive_field_needs_the_flag() -> None:
    known = Vocabulary(sensitive=frozenset({"user.attributes.health"}))
    when = {"field": "user.attributes.health", "op": "exists", "value": True}
    parse_rule({**GOOD, "when": when, "allow_sensitive": True}, known)


# --- when rules act ------------------------------------------------------------------------------


def clock(**parts: Any) -> Clock:
    return Clock([rule(action={"type": "exclude", "target": BRAND}, **parts)])


def at_s(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def test_a_rule_starts_and_ends_to_the_second() -> None:
    one = clock(starts_at="2026-05-01T10:00:00+02:00", ends_at="2026-05-01T09:00:00Z")
    start_s, end_s = at_s("2026-05-01T08:00:00Z"), at_s("2026-05-01T09:00:00Z")
    seen = [one.active(second)[0] for second in (start_s - 1, start_s, end_s - 1, end_s, start_s)]
    assert seen == [False, True, True, False, True]
    assert one.next_change_s(start_s - 5) == start_s
    assert one.next_change_s(start_s) == end_s
    assert one.next_change_s(end_s) == float("inf")


def test_a_weekly_schedule_follows_the_clock_on_the_wall() -> None:
    schedule = {"timezone": "Europe/Berlin", "days": ["sat"], "from": "22:00", "to": "04:00"}
    one = clock(schedule=schedule)
    # The night in which 02:00 becomes 03:00 is an hour shorter, the other one an hour longer.
    for begin, hours in (("2026-03-28T21:00:00Z", 5), ("2026-10-24T20:00:00Z", 7)):
        start_s = at_s(begin)
        acting = [one.active(start_s + second)[0] for second in range(-600, 9 * 3_600, 1)]
        assert acting.index(True) == 600
        assert sum(acting) == hours * 3_600


moments = st.integers(0, 40 * 86_400).map(lambda s: at_s("2026-03-10T00:00:00Z") + s)
schedules = st.sampled_from([
    None,
    {"timezone": "Europe/Berlin", "days": ["sun"], "from": "01:30", "to": "03:30"},
    {"timezone": "America/New_York", "from": "22:00", "to": "03:00"},
])  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(moments, moments, schedules), max_size=4),
       st.lists(moments, min_size=1, max_size=12))  # fmt: skip
def test_the_time_of_the_next_change_can_be_relied_on(
    periods: list[tuple[float, float, Any]], asked: list[float]
) -> None:
    rules = [
        rule(
            f"r{at}",
            action={"type": "exclude", "target": BRAND},
            starts_at=datetime.fromtimestamp(min(start, end), UTC).isoformat(),
            ends_at=datetime.fromtimestamp(max(start, end) + 1, UTC).isoformat(),
            schedule=schedule,
        )
        for at, (start, end, schedule) in enumerate(periods)
    ]
    kept = Clock(rules)
    for now_s in asked:
        afresh = Clock(rules)
        assert kept.active(now_s) == afresh.active(now_s)
        until_s = min(afresh.next_change_s(now_s), now_s + 40 * 86_400)
        for part in (0.2, 0.8, 1.0):
            between_s = now_s + int(part * (until_s - 1 - now_s))
            assert Clock(rules).active(between_s) == kept.active(now_s)


# --- whom they find ------------------------------------------------------------------------------


@settings(deadline=None)
@given(some.catalogues, some.rule_lists(12), some.users, some.segments,
       st.sampled_from([{}, {"channel": "web"}, {"channel": "x"}]))  # fmt: skip
def test_the_index_finds_exactly_the_rules_whose_audience_it_is(
    found: list[dict[str, Any]],
    rules: list[CheckedRule],
    user: dict[str, Any],
    names: frozenset[str],
    context: dict[str, str],
) -> None:
    catalogue = some.build_catalogue(found)
    compiled = compile_rules(rules, catalogue)
    scope = Scope(user, names, context, [], NOW_S)
    for placement in ("home", "cart"):
        expected = [
            one.rule.rule_id
            for one in sorted(rules, key=lambda one: (-one.rule.priority, one.rule.rule_id))
            if applicable(compile_rules([one], catalogue), placement, scope, NOW_S)
        ]
        acting = applicable(compiled, placement, scope, NOW_S)
        assert [entry.rule.rule_id for entry in acting.entries] == expected


def test_the_same_question_is_worked_out_once() -> None:
    catalogue = some.build_catalogue([{"brand": "b1"}])
    when = {"field": "user.loyalty.tier", "op": "eq", "value": "gold"}
    rules = [
        rule(f"r{at}", action={"type": "exclude", "target": BRAND}, when=when) for at in range(5)
    ]
    compiled = compile_rules(rules, catalogue)
    assert len(compiled.book.predicates) == len(compiled.targets) == 1
    gold = Scope({"loyalty": {"tier": "gold"}})
    assert applicable(compiled, "home", gold, 0) is applicable(compiled, "home", gold, 9)
    assert applicable(compiled, "home", Scope(), 0) is NO_RULES
    assert applicable(compiled, "elsewhere", gold, 0) is NO_RULES


# --- rules follow the catalogue ------------------------------------------------------------------

changes = st.lists(st.tuples(st.integers(0, some.MOST + 5), some.documents), max_size=12)


@settings(deadline=None)
@given(some.catalogues, changes, changes, some.rule_lists())
def test_masks_follow_the_catalogue(
    found: list[dict[str, Any]],
    first: list[tuple[int, dict[str, Any]]],
    second: list[tuple[int, dict[str, Any]]],
    rules: list[CheckedRule],
) -> None:
    names = item_ids(some.MOST + 6)
    catalogue = some.build_catalogue(found)
    compiled = compile_rules(rules, catalogue)
    for step in (first, second):
        rows = {
            row: columns_of(Item.model_validate({"item_id": names[row], **document}))
            for row, document in step
        }
        catalogue = catalogue.with_changes(rows)
        compiled = compiled.with_changes(catalogue, rows)
    for afresh in (compile_rules(rules, catalogue), compile_rules(rules, catalogue, compiled)):
        for one, other in zip(compiled.targets, afresh.targets, strict=True):
            assert one.mask(catalogue.n_rows).tolist() == other.mask(catalogue.n_rows).tolist()
            assert one.count() == other.count()
    for condition, target in zip(compiled.book.targets, compiled.targets, strict=True):
        expected = catalogue.mask(condition.key, condition.expression()).tolist()
        assert target.mask(catalogue.n_rows).tolist() == expected


def test_an_item_that_changes_its_brand_is_let_in_at_once(artifact: ModelArtifact) -> None:
    catalogue = some.build_catalogue([{"brand": f"b{row % 2}"} for row in range(20)])
    compiled = compile_rules([rule(action={"type": "exclude", "target": BRAND})], catalogue)
    changed = Item(item_id=ItemId("i00003"), brand="other")
    later = catalogue.with_changes({3: columns_of(changed)})
    for one, there in ((compiled, False), (compiled.following(later), True)):
        snapshot = some.build_snapshot(artifact, one.catalogue, [])
        object.__setattr__(snapshot, "rules", one)
        request = RecommendationRequest(limit=20)
        response = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, request, NOW_S)
        assert (3 in rows_of(response)) is there


# --- known answers -------------------------------------------------------------------------------


def ask(
    artifact: ModelArtifact,
    rules: list[CheckedRule],
    *,
    limit: int = 6,
    placement: str = "home",
    preferences: Preferences = NO_PREFERENCES,
    found: list[dict[str, Any]] | None = None,
) -> Response:
    """Ask for nobody in a shop where the first item is the most popular one."""
    catalogue = some.build_catalogue(
        [{"brand": f"b{row % 3}"} for row in range(30)] if found is None else found
    )
    snapshot = some.build_snapshot(artifact, catalogue, rules)
    request = RecommendationRequest(placement=placement, limit=limit)
    return recommend(snapshot, EMPTY_STATE, preferences, request, NOW_S)


def test_pins_stand_where_they_should(artifact: ModelArtifact) -> None:
    response = ask(artifact, [pin("p", [20, 9], [1, 4])])
    assert rows_of(response) == [20, 0, 1, 9, 2, 3]
    assert [one.rule_ids for one in response.chosen] == [("p",), (), (), ("p",), (), ()]
    why = reasons(response)
    assert (why[0].code, why[3].source) == ("pinned", "pinned")


def test_of_two_pins_on_one_position_the_higher_priority_wins_then_the_lower_id(
    artifact: ModelArtifact,
) -> None:
    pins = [pin("b", [11], [2]), pin("a", [10], [2]), pin("c", [12], [2], priority=1)]
    assert rows_of(ask(artifact, pins)) == [0, 12, 10, 11, 1, 2]


def test_a_pin_that_may_not_be_shown_leaves_no_hole(artifact: ModelArtifact) -> None:
    hidden = Preferences(hidden_items=frozenset({ItemId("i00020")}))
    pins = [pin("p", [20, 21], [1, 2])]
    assert rows_of(ask(artifact, pins, preferences=hidden)) == [0, 21, 1, 2, 3, 4]
    with_spare = [pin("p", [20, 21, 22], [1, 2])]
    assert rows_of(ask(artifact, with_spare, preferences=hidden))[:3] == [22, 21, 0]
    unknown = [pin("p", [999, 21], [1, 2])]
    assert rows_of(ask(artifact, unknown))[:3] == [0, 21, 1]
    found = [{"brand": "b0", "available": row != 20} for row in range(30)]
    assert rows_of(ask(artifact, pins, found=found))[:3] == [0, 21, 1]


def test_exclude_and_include_only_outrank_a_pin(artifact: ModelArtifact) -> None:
    no_b2 = {"field": "item.brand", "op": "eq", "value": "b2"}
    pins = [pin("p", [20, 19], [1, 2], priority=99)]  # brands b2 and b1
    excluded = [*pins, rule("x", action={"type": "exclude", "target": no_b2})]
    assert rows_of(ask(artifact, excluded)) == [0, 19, 1, 3, 4, 6]
    only = [*pins, rule("x", action={"type": "include_only", "target": BRAND})]
    response = ask(artifact, only)
    assert rows_of(response) == [1, 19, 4, 7, 10, 13]
    assert [one.rule_ids for one in response.chosen][:2] == [("x",), ("p", "x")]


def test_a_slot_yields_to_a_pin_and_ignores_a_cap(artifact: ModelArtifact) -> None:
    rules = [
        rule("s", action={"type": "slot", "target": BRAND, "positions": [1, 3]}),
        rule("c", action={"type": "cap", "by": "brand", "max": 1}),
        pin("p", [2], [1]),
    ]
    response = ask(artifact, rules)
    # b2 is pinned, b1 in the slots at 2 (moved on) and 3; one b0 is left, then the caps end it.
    assert rows_of(response) == [2, 1, 4, 0]
    assert [one.rule_ids for one in response.chosen] == [("p",), ("s",), ("s",), ()]


def test_a_cap_counts_brands_categories_and_attributes(artifact: ModelArtifact) -> None:
    found = [
        {
            "brand": f"b{row % 2}" if row % 5 else None,
            "categories": [f"C{row % 3}", "Shared"],
            "attributes": {"color": ["red", f"c{row}"] if row % 4 == 0 else f"c{row}"},
        }
        for row in range(30)
    ]

    def capped(**by: Any) -> list[int]:
        action = {"type": "cap", "max": 2, **by}
        return rows_of(ask(artifact, [rule(action=action)], limit=30, found=found))

    assert capped(by="brand") == [0, 1, 2, 3, 4, 5, 10, 15, 20, 25]
    assert capped(by="category") == [0, 1, 2, 3, 4, 5]
    assert capped(by="attribute", attribute="color")[:8] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert 8 not in capped(by="attribute", attribute="color")


def test_a_boost_multiplies_and_a_bury_with_nothing_comes_last(artifact: ModelArtifact) -> None:
    # For nobody the score is one over the rank of popularity.
    boost = rule("b", action={"type": "boost", "target": BRAND, "weight": 2.5})
    response = ask(artifact, [boost], limit=5)
    # 1, 1/2 * 2.5, 1/3, 1/4, 1/5 * 2.5, 1/8 * 2.5: brands b0 b1 b2 b0 b1 b1
    assert rows_of(response) == [1, 0, 4, 2, 7]
    assert [one.rule_ids for one in response.chosen] == [("b",), (), ("b",), (), ("b",)]
    bury = rule("z", action={"type": "bury", "target": BRAND, "weight": 0.0})
    assert rows_of(ask(artifact, [bury, boost], limit=30))[20:] == list(range(1, 30, 3))


def test_what_was_removed_can_be_named(artifact: ModelArtifact) -> None:
    catalogue = some.build_catalogue([{"brand": f"b{row % 3}"} for row in range(6)])
    rules = [
        rule("x", action={"type": "exclude", "target": BRAND}),
        rule("o", action={"type": "include_only", "target": {"not": BRAND}}),
    ]
    acting = applicable(compile_rules(rules, catalogue), "home", Scope(), NOW_S)
    assert acting.removed_by(1) == ["o", "x"]
    assert acting.removed_by(0) == []
