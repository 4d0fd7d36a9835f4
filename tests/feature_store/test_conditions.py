"""Conditions: what is refused, what each operator means, and that all ways to evaluate agree."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.conditions import (
    AUDIENCE,
    PEOPLE,
    Condition,
    ConditionError,
    ItemTable,
    Scope,
    Vocabulary,
    compile_predicate,
    fields_of,
    parse_condition,
    split_equalities,
)
from feature_store.item_columns import COLUMNS, as_catalogue_frame, columns_of
from feature_store.schema import Item

EVERYTHING = AUDIENCE.with_roots("item", "page", "user", "segment", "context", "now")

# --- one law: columns and documents agree --------------------------------------------------------

brands = st.sampled_from(["A", "B", "a b", ""])
paths = st.sampled_from(["Food", "Food > Fruit", "Foodie", "Toys > Big > Red"])
prices = st.integers(0, 40_000).map(lambda n: f"{n / 10_000:.4f}") | st.just("9999999999.9999")
times = st.integers(0, 3_000).map(
    lambda ms: datetime.fromtimestamp(1_767_225_600 + ms / 1_000, UTC).isoformat()
)
attribute_values = (
    st.sampled_from(["L", "M", "", True, False, 0, 1, 2.5, None, {"deep": 1}])
    | st.lists(st.sampled_from(["L", "S", 1, True, None, "x"]), max_size=3)
)  # fmt: skip
items_strategy = st.lists(
    st.fixed_dictionaries(
        {"categories": st.lists(paths, max_size=3), "available": st.booleans()},
        optional={
            "kind": st.sampled_from(["product", "content"]),
            "title": st.sampled_from(["", "Red shoe", "A.c", "RED"]),
            "brand": brands,
            "group_id": st.sampled_from(["g", "h"]),
            "price": prices.map(lambda amount: {"amount": amount, "currency": "EUR"}),
            "published_at": times,
            "expires_at": times,
            "attributes": st.dictionaries(
                st.sampled_from(["size", "a.b", "ü"]), attribute_values, max_size=3
            ),
        },
    ),
    min_size=1,
    max_size=12,
)

_scalars: dict[str, st.SearchStrategy[Any]] = {
    "item.item_id": st.sampled_from(["i0", "i1", "i/x"]),
    "item.kind": st.sampled_from(["product", "content"]),
    "item.title": st.sampled_from(["", "Red", "A.c", ".*"]),
    "item.brand": brands,
    "item.group_id": st.sampled_from(["g", "x"]),
    "item.categories": paths,
    "item.price": prices.map(float) | st.integers(0, 4),
    "item.sale_price": prices.map(float),
    "item.available": st.booleans(),
    "item.published_at": times,
    "item.expires_at": times,
    "item.attributes.size": st.sampled_from(["L", "", "M", True, False, 0, 1, 1.0, 2.5]),
    "item.attributes.a.b": st.sampled_from(["x", 1]),
    "item.attributes.ü": st.sampled_from(["S", False]),
}


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(sorted(_scalars)))
    op = draw(st.sampled_from(
        ["eq", "ne", "in", "not_in", "lt", "lte", "gt", "gte", "between", "contains", "under",
         "exists"]
    ))  # fmt: skip
    value: Any = draw(_scalars[field])
    if op == "exists":
        value = draw(st.booleans())
    elif op == "between":
        value = [value, draw(_scalars[field])]
    elif op in ("in", "not_in"):
        value = draw(st.lists(_scalars[field], min_size=1, max_size=3))
    return {"field": field, "op": op, "value": value}


def understood(tree: dict[str, Any]) -> bool:
    try:
        parse_condition(tree)
    except ConditionError:
        return False
    return True


trees = st.recursive(
    leaves().filter(understood),
    lambda children: st.one_of(
        st.lists(children, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(children, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        children.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)


def build(documents: list[dict[str, Any]]) -> Catalogue:
    items = [
        Item.model_validate({"item_id": f"i{at}", **document})
        for at, document in enumerate(documents)
    ]
    frame = pl.DataFrame([columns_of(one) for one in items], schema=COLUMNS)
    return Catalogue(as_catalogue_frame(frame), *hash_ids([one.item_id for one in items]))


@settings(deadline=None)
@given(items_strategy, trees)
def test_columns_and_documents_agree(documents: list[dict[str, Any]], tree: dict[str, Any]) -> None:
    catalogue, condition = build(documents), parse_condition(tree)
    holds = compile_predicate(condition)
    by_column = catalogue.mask(condition.key, condition.expression()).tolist()
    assert by_column == [holds(Scope(item=catalogue.item(row))) for row in range(len(documents))]
    for table in (ItemTable(catalogue.frame), ItemTable(catalogue.frame, catalogue.rows)):
        assert table.mask(condition).tolist() == by_column


@settings(deadline=None)
@given(items_strategy, leaves().filter(understood))
def test_not_is_the_opposite_and_missing_is_no(
    documents: list[dict[str, Any]], leaf: dict[str, Any]
) -> None:
    catalogue = build(documents)
    one, other = parse_condition(leaf), parse_condition({"not": leaf})
    seen = [catalogue.mask(each.key, each.expression()).tolist() for each in (one, other)]
    assert all(yes != no for yes, no in zip(*seen, strict=True))


DECLARED = Vocabulary(item_attributes={"n": float, "t": datetime, "s": list, "b": bool, "x": str})
DOCUMENTS: list[dict[str, Any]] = [
    {"attributes": {"n": 3, "t": "2026-01-01T00:00:00Z", "s": ["a", "b"], "b": True, "x": "y"}},
    {"attributes": {"n": True, "t": "soon", "s": "a", "b": 1, "x": ["y"]}},
    {"attributes": {"n": {"amount": "2.5"}, "t": 5, "s": [1], "x": None}},
    {},
]


@pytest.mark.parametrize(
    ("name", "op", "value", "expected"),
    [
        ("n", "gte", 2.5, [True, False, True, False]),
        ("t", "lt", "2026-01-01T02:00:00+01:00", [True, False, False, False]),
        ("t", "eq", "2026-01-01T00:00:00Z", [True, False, False, False]),
        ("s", "contains", "a", [True, True, False, False]),
        ("b", "ne", True, [False, True, True, True]),
        ("x", "in", ["y"], [True, True, False, False]),
        ("n", "exists", False, [False, True, False, True]),
    ],
)
def test_declared_attributes_have_values_of_their_type_alone(
    name: str, op: str, value: Any, expected: list[bool]
) -> None:
    tree = {"field": f"item.attributes.{name}", "op": op, "value": value}
    condition, catalogue = parse_condition(tree, DECLARED), build(DOCUMENTS)
    assert catalogue.mask(condition.key, condition.expression()).tolist() == expected
    assert ItemTable(catalogue.frame).mask(condition).tolist() == expected
    holds = compile_predicate(condition)
    assert [holds(Scope(item=catalogue.item(row))) for row in range(4)] == expected


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
