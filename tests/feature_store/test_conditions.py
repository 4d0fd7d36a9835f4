"""Conditions: what is refused, what each operator means, what can be said without evaluating."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.conditions import (
    AUDIENCE,
    PEOPLE,
    Condition,
    ConditionError,
    Scope,
    Vocabulary,
    compile_predicate,
    fields_of,
    parse_condition,
    split_equalities,
)

EVERYTHING = AUDIENCE.with_roots("item", "page", "user", "segment", "context", "now")

# --- what each operator means --------------------------------------------------------------------

PERSON = {
    "attributes": {"city": "Bonn", "children": 2, "likes": ["tea", "rum"], "member": True},
    "loyalty": {"program": "P", "tier": "gold", "points": 120},
    "computed": {
        "stage": "active", "clv": {"amount": "55.50", "currency": "EUR"},
        "next_purchase_at": "2026-02-01T00:00:00Z",
        "rfm": {"recency_days": 3, "segment": "champion"},
        "tastes": {"categories": ["Food > Fruit"], "brands": ["A"], "price_band": "high"},
    },
    "feedback": {"nps": {"score": 9, "at": "2026-01-01T00:00:00Z", "count": 1, "mean": 9.0}},
    "consent": {"profiling": True, "email_marketing": None},
}  # fmt: skip
NOW_S = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
SCOPE = Scope(
    PERSON,
    frozenset({"vip"}),
    {"channel": "web", "cart_total": "49.90"},
    [{"brand": "X", "categories": ["Toys"]}, {"brand": "Y", "price": {"amount": "3.00"}}],
    NOW_S,
)


def holds(field: str, op: str, value: Any, scope: Scope = SCOPE) -> bool:
    condition = parse_condition({"field": field, "op": op, "value": value}, EVERYTHING)
    return compile_predicate(condition)(scope)


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("user.loyalty.tier", "eq", "gold", True),
        ("user.loyalty.tier", "in", ["silver"], False),
        ("user.loyalty.points", "gte", 120, True),
        ("user.loyalty.points", "lt", 120, False),
        ("user.attributes.city", "ne", "Bonn", False),
        ("user.attributes.street", "ne", "Bonn", True),
        ("user.attributes.children", "between", [1, 2], True),
        ("user.attributes.children", "eq", True, False),
        ("user.attributes.member", "eq", 1, False),
        ("user.attributes.member", "eq", True, True),
        ("user.attributes.likes", "contains", "rum", True),
        ("user.attributes.likes", "in", ["gin", "tea"], True),
        ("user.attributes.likes", "not_in", ["gin", "tea"], False),
        ("user.attributes.city", "gt", 3, False),
        ("user.computed.clv", "gt", 55, True),
        ("user.computed.next_purchase_at", "lt", "2026-02-01T01:00:00+01:00", False),
        ("user.computed.next_purchase_at", "lte", "2026-02-01T01:00:00+01:00", True),
        ("user.computed.rfm.recency_days", "lt", 7, True),
        ("user.computed.churn_risk", "lt", 1, False),
        ("user.computed.churn_risk", "exists", False, True),
        ("user.computed.tastes.categories", "under", "Food", True),
        ("user.feedback.nps.score", "gte", 9, True),
        ("user.feedback.csat.score", "exists", True, False),
        ("user.consent.profiling", "eq", True, True),
        ("user.consent.email_marketing", "exists", True, False),
        ("segment", "eq", "vip", True),
        ("segment", "in", ["new", "vip"], True),
        ("segment", "not_in", ["new"], True),
        ("segment", "ne", "vip", False),
        ("context.channel", "eq", "web", True),
        ("context.country", "ne", "DE", True),
        ("context.country", "exists", False, True),
        ("context.channel", "contains", "we", True),
        ("context.cart_total", "gte", 49.9, True),
        ("context.channel", "gt", 0, False),
        ("page.brand", "in", ["Y"], True),
        ("page.brand", "ne", "X", False),
        ("page.brand", "ne", "Z", True),
        ("page.categories", "under", "Toys", True),
        ("page.price", "lt", 3.5, True),
        ("page.title", "exists", False, True),
        ("now", "between", ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z"], True),
        ("now", "lt", "2026-03-01T13:00:00+01:00", False),
        ("now", "gte", "2026-03-01T13:00:00+01:00", True),
        ("now", "in", {"timezone": "Europe/Berlin", "days": ["sun"], "from": "13:00"}, True),
        ("now", "in", [{"timezone": "UTC", "to": "12:00"}], False),
        ("now", "not_in", [{"timezone": "UTC", "to": "12:00"}], True),
    ],
)
def test_what_a_comparison_means(field: str, op: str, value: Any, *, expected: bool) -> None:
    assert holds(field, op, value) is expected


def test_nobody_on_an_empty_page_is_no_to_everything_but_not() -> None:
    nobody = Scope()
    for field in ("user.loyalty.tier", "page.brand", "context.channel", "user.attributes.x"):
        assert not holds(field, "eq", "x", nobody)
        assert holds(field, "ne", "x", nobody)
        assert holds(field, "exists", value=False, scope=nobody)
    broken = Scope({"loyalty": None, "computed": {"rfm": None}})
    assert not holds("user.loyalty.tier", "eq", "x", broken)
    assert not holds("user.computed.rfm.recency_days", "lt", 3, broken)


# --- what is refused -----------------------------------------------------------------------------

KNOWN = Vocabulary(
    frozenset({"item", "page", "user", "segment", "context", "now"}),
    item_attributes={"color": str, "size": float, "tags": list, "made": datetime},
    user_attributes={"city": str, "health": str},
    segments=frozenset({"vip"}),
    sensitive=frozenset({"user.attributes.health"}),
)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"field": "item.attributes.colour", "op": "eq", "value": "x"}, "/field"),
        ({"field": "item.attributes.", "op": "eq", "value": "x"}, "/field"),
        ({"field": "item.attributes.color", "op": "eq", "value": 3}, "/value"),
        ({"field": "page.attributes.color", "op": "lt", "value": "x"}, "/op"),
        ({"field": "item.attributes.size", "op": "in", "value": [1, "x"]}, "/value/1"),
        ({"field": "item.attributes.size", "op": "eq", "value": True}, "/value"),
        ({"field": "item.attributes.made", "op": "lt", "value": "2026-01-01"}, "/value"),
        ({"field": "item.attributes.tags", "op": "contains", "value": 1}, "/value"),
        ({"field": "user.attributes.town", "op": "exists", "value": True}, "/field"),
        ({"field": "user.attributes.health", "op": "exists", "value": True}, "/field"),
        ({"field": "user.loyalty", "op": "exists", "value": True}, "/field"),
        ({"field": "user.computed.rfm.x", "op": "exists", "value": True}, "/field"),
        ({"field": "segment", "op": "in", "value": ["vip", "vjp"]}, "/value/1"),
        ({"field": "segment", "op": "eq", "value": "vjp"}, "/value"),
        ({"field": "segment", "op": "exists", "value": True}, "/op"),
        ({"field": "segment.vip", "op": "eq", "value": "x"}, "/field"),
        ({"field": "context.", "op": "eq", "value": "x"}, "/field"),
        ({"field": "context.total", "op": "lt", "value": "5"}, "/value"),
        ({"field": "now", "op": "eq", "value": "2026-01-01T00:00:00Z"}, "/op"),
        ({"field": "now", "op": "lt", "value": "2026-01-01T00:00:00"}, "/value"),
        ({"field": "now", "op": "in", "value": []}, "/value"),
        ({"field": "now", "op": "in", "value": {"from": "10:00"}}, "/value/timezone"),
        ({"field": "now", "op": "in", "value": [{"timezone": "Mars"}]}, "/value/0/timezone"),
        ({"field": "now", "op": "in", "value": {"timezone": "UTC", "days": []}}, "/value/days"),
        ({"field": "now", "op": "in", "value": {"timezone": "UTC", "days": ["x"]}},
         "/value/days/0"),
        ({"field": "now", "op": "in", "value": {"timezone": "UTC", "from": "25:00"}},
         "/value/from"),
        ({"field": "now", "op": "in", "value": {"timezone": "UTC", "a/b": 1}}, "/value/a~1b"),
        ({"field": "item.price", "op": "lt", "value": float("nan")}, "/value"),
        ({"field": "item.price", "op": "lt", "value": 10**30}, "/value"),
        ({"all": [{"field": "item.brand", "op": "eq", "value": "x", "a/b": 1}]}, "/all/0/a~1b"),
    ],
)  # fmt: skip
def test_a_bad_condition_is_refused_with_a_pointer(value: object, pointer: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_condition(value, KNOWN)
    assert caught.value.pointer == pointer


def test_a_sensitive_field_needs_the_flag() -> None:
    tree = {"field": "user.attributes.health", "op": "eq", "value": "x"}
    with pytest.raises(ConditionError, match="allow_sensitive"):
        parse_condition(tree, KNOWN)
    parse_condition(tree, KNOWN.with_sensitive(allowed=True))


@pytest.mark.parametrize(
    ("vocabulary", "field"),
    [
        (Vocabulary(), "user.loyalty.tier"),
        (Vocabulary(), "now"),
        (AUDIENCE, "item.brand"),
        (PEOPLE, "context.channel"),
        (PEOPLE, "segment"),
    ],
)
def test_a_field_is_known_only_where_it_makes_sense(vocabulary: Vocabulary, field: str) -> None:
    with pytest.raises(ConditionError, match="unknown field"):
        parse_condition({"field": field, "op": "exists", "value": True}, vocabulary)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["all", "any", "not", "field", "op", "value", "x"]), inner, max_size=4
    ),
    max_leaves=8,
))  # fmt: skip
def test_whatever_comes_is_understood_or_refused(value: object) -> None:
    pointer = ""
    try:
        parse_condition(value, KNOWN)
    except ConditionError as error:
        pointer = error.pointer
    assert not pointer or pointer.startswith("/")


def test_trees_have_a_size() -> None:
    leaf = {"field": "item.brand", "op": "eq", "value": "x"}
    deep: dict[str, Any] = leaf
    for _ in range(9):
        deep = {"not": deep}
    for tree in (deep, {"any": [leaf] * 101}):
        with pytest.raises(ConditionError):
            parse_condition(tree)


# --- what can be said without evaluating ---------------------------------------------------------


def parsed(tree: dict[str, Any]) -> Condition:
    return parse_condition(tree, EVERYTHING)


CHANNEL = {"field": "context.channel", "op": "eq", "value": "web"}
TIER = {"field": "user.loyalty.tier", "op": "in", "value": ["gold", "silver"]}
LATE = {"field": "now", "op": "gt", "value": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (CHANNEL, {"context.channel": {"web"}}),
        ({"all": [CHANNEL, TIER, LATE]},
         {"context.channel": {"web"}, "user.loyalty.tier": {"gold", "silver"}}),
        ({"any": [CHANNEL, {"field": "context.channel", "op": "eq", "value": "app"}]},
         {"context.channel": {"web", "app"}}),
        ({"any": [CHANNEL, TIER]}, {}),
        ({"any": [{"all": [CHANNEL, TIER]}, TIER]}, {"user.loyalty.tier": {"gold", "silver"}}),
        ({"not": CHANNEL}, {}),
        ({"all": [LATE, {"field": "segment", "op": "eq", "value": "s"}]}, {"segment": {"s"}}),
    ],
)  # fmt: skip
def test_necessary_equalities(tree: dict[str, Any], expected: dict[str, set[str]]) -> None:
    found = split_equalities(parsed(tree))
    assert {field: set(values) for field, values in found.items()} == expected


def test_the_fields_of_a_condition() -> None:
    tree = {"any": [CHANNEL, {"not": {"all": [TIER, LATE]}}]}
    assert fields_of(parsed(tree)) == {"context.channel", "user.loyalty.tier", "now"}
