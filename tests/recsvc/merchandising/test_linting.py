"""What lint finds, and that it finds nothing where nothing is wrong."""

from typing import Any

import pytest

from recsvc.merchandising.linting import lint
from recsvc.merchandising.placements import BUILT_IN
from recsvc.rules import parse_rule
from tests.recsvc.shop import NOW_S, make_catalogue

CATALOGUE = make_catalogue(
    [f"i{n}" for n in range(12)],
    brand=[f"b{n % 3}" for n in range(12)],
    available=[n != 11 for n in range(12)],
)


def brand(*names: str) -> dict[str, Any]:
    return {"field": "item.brand", "op": "in", "value": list(names)}


def exclude(*names: str) -> dict[str, Any]:
    return {"type": "exclude", "target": brand(*names)}


def boost(*names: str) -> dict[str, Any]:
    return {"type": "boost", "target": brand(*names), "weight": 2.0}


def pin(*item_ids: str, at: int = 1) -> dict[str, Any]:
    positions = list(range(at, at + len(item_ids)))
    return {"type": "pin", "item_ids": list(item_ids), "positions": positions}


GOLD = {"field": "user.loyalty.tier", "op": "eq", "value": "gold"}
VIP = {"field": "segment", "op": "in", "value": ["vip"]}


def found(*rules: dict[str, Any]) -> list[tuple[str, str]]:
    checked = [
        parse_rule({"rule_id": name, **rule}) for name, rule in zip("abcdef", rules, strict=False)
    ]
    segments = ["known"]
    return [(one.rule_id, one.kind) for one in lint(checked, CATALOGUE, BUILT_IN, segments, NOW_S)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"action": exclude("b0")}, {"action": boost("b1")}], []),
        ([{"action": exclude("b0"), "ends_at": "2020-01-01T00:00:00Z"}], [("a", "expired")]),
        ([{"action": boost("nobody")}], [("a", "never_matches")]),
        ([{"action": pin("missing")}], [("a", "never_matches")]),
        ([{"action": pin("i11")}], [("a", "not_showable")]),
        ([{"action": pin("i11", "i1")}], []),
        ([{"action": exclude("b0"), "when": VIP}], [("a", "unknown_segment")]),
        ([{"action": exclude("b0"), "placements": ["gone"]}], [("a", "unknown_placement")]),
        ([{"action": exclude("b0", "b1", "b2")}], [("a", "hides_everything")]),
        ([{"action": {"type": "include_only", "target": brand("b0")}}], []),
        ([{"action": pin("i1")}, {"action": pin("i2")}], [("b", "two_on_one_position")]),
        (
            [{"action": pin("i1")}, {"action": pin("i2"), "priority": 9}],
            [("a", "two_on_one_position")],
        ),
        ([{"action": pin("i1")}, {"action": pin("i2"), "placements": ["cart"]}], []),
        (
            [
                {"action": pin("i1"), "ends_at": "2030-01-01T00:00:00Z"},
                {"action": pin("i2"), "starts_at": "2030-01-01T00:00:00Z"},
            ],
            [],
        ),
        ([{"action": exclude("b0", "b1")}, {"action": boost("b0")}], [("b", "shadowed")]),
        ([{"action": exclude("b0"), "when": GOLD}, {"action": boost("b0")}], []),
        (
            [{"action": exclude("b0"), "when": GOLD}, {"action": boost("b0"), "when": GOLD}],
            [("b", "shadowed")],
        ),
        ([{"action": exclude("b0")}, {"action": exclude("b0")}], [("b", "shadowed")]),
        ([{"action": exclude("b0")}, {"action": exclude("b0", "b1")}], [("a", "shadowed")]),
        (
            [{"action": exclude("b0"), "placements": ["*"]}, {"action": pin("i0", "i3")}],
            [("b", "shadowed")],
        ),
    ],
)
def test_what_is_found(rules: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    assert found(*rules) == expected
