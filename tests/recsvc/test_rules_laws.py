"""The precedence of rules, as laws over random shops, rules, customers and questions.

What may be shown and which rules act is worked out anew here, item by item and rule by rule.
"""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.conditions import Scope, compile_predicate
from feature_store.preferences import Preferences
from feature_store.schema import ItemId
from feature_store.state import UserState
from recsvc.answer import answer
from recsvc.engine import recommend
from recsvc.ranking.filling import Chosen
from recsvc.requests import RecommendationRequest
from recsvc.rules import CheckedRule, parse_rule
from recsvc.snapshot import Snapshot
from tests.recsvc import rules_strategies as some
from tests.recsvc.shop import NOW_S, bought, item_ids

Item = dict[str, Any]


class Case:
    """One question, and what the contract says of its answer."""

    def __init__(
        self,
        artifact: ModelArtifact,
        found: list[Item],
        rules: list[CheckedRule],
        preferences: Preferences,
        request: RecommendationRequest,
        user: Item,
        names: frozenset[str],
    ) -> None:
        self.catalogue = some.build_catalogue(found)
        self.snapshot = some.build_snapshot(artifact, self.catalogue, rules)
        self.items = [self.catalogue.item(row) for row in range(self.catalogue.n_rows)]
        self.preferences, self.request = preferences, request
        self.scope = some.scope_for(self.catalogue, request, user, names)
        ordered = sorted(rules, key=lambda one: (-one.rule.priority, one.rule.rule_id))
        self.acting = [one for one in ordered if self._acts(one)]
        self.allowed = {row for row, item in enumerate(self.items) if self._may_show(item)}

    def ask(self, state: UserState, **changes: Any) -> list[Chosen]:
        request = replace(self.request, **changes)
        response = recommend(
            self.snapshot, state, self.preferences, request, NOW_S, scope=self.scope
        )
        document = answer(response, request, "id", [])
        assert [one["rule_ids"] for one in document["items"]] == [
            list(one.rule_ids) for one in response.chosen
        ]
        return response.chosen

    def of_type(self, kind: str) -> list[CheckedRule]:
        return [one for one in self.acting if one.rule.action.type == kind]

    def inside(self, rule: CheckedRule, row: int) -> bool:
        assert rule.target is not None
        return compile_predicate(rule.target)(Scope(item=self.items[row]))

    def group(self, row: int) -> str:
        return self.items[row]["group_id"] or f"alone {row}"

    def exhausted(self, rows: list[int]) -> bool:
        """Whether nothing that is left may be shown: variants of what is, or over a cap."""
        groups = {self.group(row) for row in rows}
        counts = {one.rule.rule_id: Counter[Any]() for one in self.of_type("cap")}
        for one in self.of_type("cap"):
            for row in rows:
                counts[one.rule.rule_id].update(self.values(one, row))
        return all(
            self.group(row) in groups
            or any(
                counts[one.rule.rule_id][value] >= one.rule.action.max  # type: ignore[union-attr]
                for one in self.of_type("cap")
                for value in self.values(one, row)
            )
            for row in self.allowed - set(rows)
        )

    def values(self, cap: CheckedRule, row: int) -> list[Any]:
        item, action = self.items[row], cap.rule.action
        assert action.type == "cap"
        if action.by == "brand":
            return [item["brand"]] if item["brand"] is not None else []
        if action.by == "category":
            return list(item["categories"][:1])
        value = item["attributes"].get(action.attribute, [])
        return [orjson.dumps(one) for one in (value if isinstance(value, list) else [value])]

    def pins(self) -> dict[int, tuple[int, str]]:
        """Position to row and rule, by the words of the contract."""
        placed: dict[int, tuple[int, str]] = {}
        groups: set[str] = set()
        for one in self.of_type("pin"):
            action = one.rule.action
            assert action.type == "pin"
            rows = [self.catalogue.row(item_id) for item_id in action.item_ids]
            n = len(action.positions)
            spares = rows[n:]
            for row, wanted in zip(rows[:n], action.positions, strict=True):
                chosen = row
                while chosen is None or chosen not in self.allowed or self.group(chosen) in groups:
                    if not spares:
                        chosen = None
                        break
                    chosen = spares.pop(0)
                if chosen is None:
                    continue
                position = next(at for at in range(wanted, 1_000) if at not in placed)
                placed[position] = (chosen, one.rule.rule_id)
                groups.add(self.group(chosen))
        return placed

    def _acts(self, one: CheckedRule) -> bool:
        rule = one.rule
        here = self.request.placement in rule.placements or "*" in rule.placements
        begun = rule.starts_at is None or rule.starts_at.timestamp() <= NOW_S
        wanted = one.when is None or compile_predicate(one.when)(self.scope)
        return rule.status == "live" and here and begun and wanted

    def _may_show(self, item: Item) -> bool:
        preferences, request = self.preferences, self.request
        scope = Scope(item=item)
        for one in self.acting:
            if one.rule.action.type in ("exclude", "include_only"):
                assert one.target is not None
                matches = compile_predicate(one.target)(scope)
                if matches is (one.rule.action.type == "exclude"):
                    return False
        return (
            item["available"]
            and item["item_id"] not in preferences.hidden_items
            and item["brand"] not in preferences.hidden_brands
            and item["item_id"] not in (*request.item_ids, *request.exclude_item_ids)
            and (request.filter is None or item["brand"] != "b0")
        )


arguments = (
    some.catalogues, some.rule_lists(), some.preferences, some.requests, some.users, some.segments
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(*arguments, some.states)
def test_precedence(
    artifact: ModelArtifact,
    found: list[Item],
    rules: list[CheckedRule],
    preferences: Preferences,
    request_: RecommendationRequest,
    user: Item,
    names: frozenset[str],
    state: UserState,
) -> None:
    case = Case(artifact, found, rules, preferences, request_, user, names)
    chosen = case.ask(state)
    rows = [one.row for one in chosen]
    limit = request_.limit or 0

    # Nothing that a filter, a choice or a rule removed; no item twice, one variant of each.
    assert set(rows) <= case.allowed
    assert len({case.group(row) for row in rows}) == len(rows) <= limit
    # N are shown where N may be shown.
    assert len(rows) == limit or case.exhausted(rows)

    _check_pins(case, chosen, limit)
    _check_slots(case, chosen, limit)
    _check_caps(case, chosen)
    acting = {one.rule.rule_id: one for one in case.acting}
    for one in chosen:
        assert set(one.rule_ids) <= acting.keys()
        assert set(one.rule_ids) >= {each.rule.rule_id for each in case.of_type("include_only")}
        for rule_id in one.rule_ids:
            if acting[rule_id].target is not None:
                assert case.inside(acting[rule_id], one.row)


def _check_pins(case: Case, chosen: list[Chosen], limit: int) -> None:
    """Pins stand where they should, or further up when nothing else may be shown."""
    rows = [one.row for one in chosen]
    placed = case.pins()
    for position, (row, rule_id) in placed.items():
        if row in rows:
            rank = rows.index(row) + 1
            assert rank == position or (rank < position and case.exhausted(rows))
            assert chosen[rank - 1].rule_ids[0] == rule_id
            assert chosen[rank - 1].candidates.source == "pinned"
        else:
            assert position > limit or len(rows) == limit
            assert position > len(rows)
    shown = [row for _, (row, _) in sorted(placed.items()) if row in rows]
    assert shown == [one.row for one in chosen if one.candidates.source == "pinned"]


def _check_slots(case: Case, chosen: list[Chosen], limit: int) -> None:
    """A slot holds an item of its target while there is one that is free."""
    rows = [one.row for one in chosen]
    pins = case.pins()
    occupied = set(pins)
    pinned_groups = {case.group(row) for row, _ in pins.values()}
    for one in case.of_type("slot"):
        action = one.rule.action
        assert action.type == "slot"
        for wanted in action.positions:
            position = next(at for at in range(wanted, 1_000) if at not in occupied)
            occupied.add(position)
            if position > len(rows) or case.exhausted(rows):
                continue
            if case.inside(one, rows[position - 1]):
                continue
            before = {case.group(row) for row in rows[: position - 1]} | pinned_groups
            free = [row for row in case.allowed if case.group(row) not in before]
            assert not any(case.inside(one, row) for row in free)


def _check_caps(case: Case, chosen: list[Chosen]) -> None:
    """Whatever no pin and no slot put there respects every cap, pins counted from the start."""
    slots = {one.rule.rule_id for one in case.of_type("slot")}
    for cap in case.of_type("cap"):
        action = cap.rule.action
        assert action.type == "cap"
        counts = Counter[Any]()
        for row, _ in case.pins().values():
            counts.update(case.values(cap, row))
        for one in chosen:
            if one.candidates.source == "pinned":
                continue
            if not slots & set(one.rule_ids):
                assert all(counts[value] < action.max for value in case.values(cap, one.row))
            counts.update(case.values(cap, one.row))


@settings(deadline=None)
@given(*arguments, some.states, st.integers(1, 20))
def test_a_short_list_is_the_beginning_of_a_longer_one(
    artifact: ModelArtifact,
    found: list[Item],
    rules: list[CheckedRule],
    preferences: Preferences,
    request_: RecommendationRequest,
    user: Item,
    names: frozenset[str],
    state: UserState,
    shorter: int,
) -> None:
    case = Case(artifact, found, rules, preferences, request_, user, names)
    whole = [(one.row, one.rule_ids) for one in case.ask(state, limit=20)]
    assert [(one.row, one.rule_ids) for one in case.ask(state, limit=shorter)] == whole[:shorter]
    tail = recommend(
        case.snapshot, state, preferences, replace(request_, limit=20 - shorter or 1), NOW_S,
        scope=case.scope, skip=shorter,
    )  # fmt: skip
    assert [(one.row, one.rule_ids) for one in tail.chosen][: 20 - shorter] == whole[shorter:]


@settings(deadline=None, max_examples=120)
@given(
    # Enough items without variants, a page and a history, so that every source has much to weigh.
    st.lists(some.documents.map(lambda one: {**one, "group_id": None}), min_size=20, max_size=30),
    some.targets,
    st.sampled_from(["home", "product", "new", "trending", "buy_again", "cart"]),
    st.lists(
        st.tuples(st.integers(0, 19), st.integers(0, 300)),
        min_size=4,
        max_size=12,
        unique_by=lambda purchase: purchase[0],
    ).map(lambda purchases: bought(*purchases)),
    st.lists(st.sampled_from(item_ids(12)), min_size=1, max_size=2, unique=True),
    st.floats(1.01, 100),
    st.floats(0.01, 0.99),
)
def test_more_weight_never_moves_a_target_down(
    artifact: ModelArtifact,
    found: list[Item],
    target: Item,
    placement: str,
    state: UserState,
    page: list[str],
    more: float,
    less: float,
) -> None:
    catalogue = some.build_catalogue(found)
    request = RecommendationRequest(
        placement=placement, limit=10, item_ids=tuple(map(ItemId, page))
    )

    def ranks(weight: float) -> tuple[set[int], list[int]]:
        # A weight of 1 is no rule at all.
        kind, used = ("boost" if weight >= 1 else "bury"), (2.0 if weight == 1 else weight)
        action = {"type": kind, "target": target, "weight": used}
        rule = parse_rule({"rule_id": "r", "status": "live", "placements": ["*"], "action": action})
        rules = [] if weight == 1 else [rule]
        snapshot = some.build_snapshot(artifact, catalogue, rules)
        response = recommend(snapshot, state, Preferences(), request, NOW_S)
        assert rule.target is not None
        holds = compile_predicate(rule.target)
        inside = {row for row in range(catalogue.n_rows) if holds(Scope(item=catalogue.item(row)))}
        return inside, [one.row for one in response.chosen]

    lists = [ranks(weight) for weight in (0.0, less, 1.0, more)]
    inside = lists[0][0]
    # As far down as one looks, there are never fewer of the target than with a lower weight.
    for (_, lower), (_, higher) in pairwise(lists):
        for depth in range(1, 11):
            assert len(inside & set(lower[:depth])) <= len(inside & set(higher[:depth]))
    # What is buried with 0 comes after everything else.
    buried = [row in inside for row in lists[0][1]]
    assert buried == sorted(buried)
    assert len({len(rows) for _, rows in lists}) == 1


@settings(deadline=None)
@given(some.catalogues, some.rule_lists(), some.requests, some.states)
def test_rules_that_do_not_act_change_nothing(
    artifact: ModelArtifact,
    found: list[Item],
    rules: list[CheckedRule],
    request_: RecommendationRequest,
    state: UserState,
) -> None:
    catalogue = some.build_catalogue(found)
    over = {"starts_at": None, "ends_at": "2001-01-01T00:00:00Z"}
    asleep = [parse_rule({**one.rule.model_dump(mode="json"), **over}) for one in rules]
    lists = [
        [
            one.row
            for one in recommend(
                _snapshot(artifact, catalogue, acting), state, Preferences(), request_, NOW_S
            ).chosen
        ]
        for acting in ([], asleep)
    ]
    assert lists[0] == lists[1]


def _snapshot(artifact: ModelArtifact, catalogue: Any, rules: list[CheckedRule]) -> Snapshot:
    return some.build_snapshot(artifact, catalogue, rules)
