"""Random shops, rules, customers and questions for the laws of rules."""

from typing import Any

import polars as pl
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue, hash_ids
from feature_store.conditions import Scope, parse_condition
from feature_store.item_columns import COLUMNS, as_catalogue_frame, columns_of
from feature_store.preferences import Preferences
from feature_store.schema import Item, ItemId
from recsvc.requests import RecommendationRequest
from recsvc.retrieval import JoinedModel
from recsvc.rules import CheckedRule, compile_rules, parse_rule
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import NOW_S, bought, item_ids

BRANDS = ["b0", "b1", "b2"]
PATHS = ["Food", "Food > Fruit", "Toys", "Toys > Red"]
MOST = 45

# Mostly of items that every shop but the smallest has.
ids = st.sampled_from(item_ids(10)) | st.sampled_from(item_ids(MOST + 3))
id_lists = st.lists(ids, min_size=1, max_size=6, unique=True)

documents = st.fixed_dictionaries(
    {
        "brand": st.sampled_from([*BRANDS, None]),
        "categories": st.lists(st.sampled_from(PATHS), max_size=2, unique=True),
        "available": st.sampled_from([True, True, True, False]),
        "group_id": st.sampled_from([None, None, None, "g0", "g1"]),
        "attributes": st.sampled_from([{}, {"color": "red"}, {"color": ["red", "blue"]}]),
    }
)
catalogues = st.sampled_from([1, 4, 12, 25, MOST]).flatmap(
    lambda n: st.lists(documents, min_size=n, max_size=n)
)

leaves = st.one_of(
    st.sampled_from(BRANDS).map(lambda v: {"field": "item.brand", "op": "eq", "value": v}),
    st.sampled_from(PATHS).map(lambda v: {"field": "item.categories", "op": "under", "value": v}),
    id_lists.map(lambda v: {"field": "item.item_id", "op": "in", "value": v}),
    st.just({"field": "item.attributes.color", "op": "contains", "value": "red"}),
)
targets = st.one_of(
    leaves,
    leaves.map(lambda leaf: {"not": leaf}),
    st.lists(leaves, min_size=1, max_size=2).map(lambda parts: {"all": parts}),
)
positions = st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True)
ACTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "pin": st.builds(
        lambda item_ids, at: {"item_ids": item_ids, "positions": at[: len(item_ids)]},
        id_lists,
        positions,
    ),
    "boost": st.fixed_dictionaries(
        {"target": targets, "weight": st.sampled_from([1.1, 2.0, 50.0])}
    ),
    "bury": st.fixed_dictionaries(
        {"target": targets, "weight": st.sampled_from([0.0, 0.01, 0.5])}
    ),
    "exclude": st.fixed_dictionaries({"target": targets}),
    "include_only": st.fixed_dictionaries({"target": targets}),
    "cap": st.builds(
        lambda by, most: {"max": most, **by},
        st.sampled_from([
            {"by": "brand"}, {"by": "category"}, {"by": "attribute", "attribute": "color"}
        ]),
        st.integers(1, 4),
    ),
    "slot": st.fixed_dictionaries({"target": targets, "positions": positions}),
}  # fmt: skip
audiences = st.sampled_from(
    [
        *[None] * 12,
        {"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
        {"field": "context.channel", "op": "in", "value": ["web", "app"]},
        {"field": "segment", "op": "eq", "value": "vip"},
        {"not": {"field": "segment", "op": "eq", "value": "vip"}},
        {"field": "page.brand", "op": "eq", "value": "b1"},
    ]
)


@st.composite
def rule_lists(draw: st.DrawFn, most: int = 5) -> list[CheckedRule]:
    # Few kinds in one list, so that rules of one kind meet.
    kinds = draw(st.lists(st.sampled_from(sorted(ACTIONS)), min_size=1, max_size=2))
    found = []
    for number in range(draw(st.sampled_from([0, 2, 3, most - 1, most]))):
        kind = draw(st.sampled_from(kinds))
        rule: dict[str, Any] = {
            "rule_id": f"r{number}",
            "status": draw(st.sampled_from(["live"] * 7 + ["paused"])),
            "placements": draw(
                st.sampled_from([["*"], ["home", "product", "new"], ["*"], ["cart"]])
            ),
            "priority": draw(st.integers(0, 2)),
            "when": draw(audiences),
            "action": {"type": kind, **draw(ACTIONS[kind])},
        }
        if draw(st.sampled_from([False] * 9 + [True])):
            rule["starts_at"] = "2030-01-01T00:00:00Z"
        found.append(parse_rule(rule))
    return found


states = st.lists(st.tuples(st.integers(0, MOST - 1), st.integers(0, 300)), max_size=8).map(
    lambda purchases: bought(*purchases)
)
preferences = st.builds(
    Preferences,
    hidden_items=st.lists(ids, max_size=3).map(lambda found: frozenset(map(ItemId, found))),
    hidden_brands=st.sampled_from([frozenset(), frozenset(), frozenset({"b2"})]),
)
requests = st.builds(
    RecommendationRequest,
    placement=st.sampled_from(["home", "product", "new"]),
    limit=st.integers(1, 20),
    item_ids=st.lists(ids, max_size=2, unique=True).map(tuple),
    exclude_item_ids=st.lists(ids, max_size=3).map(tuple),
    filter=st.sampled_from(
        [None, None, parse_condition({"field": "item.brand", "op": "ne", "value": "b0"})]
    ),
    context=st.sampled_from([{}, {"channel": "web"}, {"channel": "store"}]),
)
users = st.sampled_from([{}, {"loyalty": {"tier": "gold"}}])
segments = st.sampled_from([frozenset[str](), frozenset({"vip"})])


def items_of(found: list[dict[str, Any]]) -> list[Item]:
    return [
        Item.model_validate({"item_id": name, **document})
        for name, document in zip(item_ids(len(found)), found, strict=True)
    ]


def build_catalogue(found: list[dict[str, Any]]) -> Catalogue:
    frame = pl.DataFrame([columns_of(one) for one in items_of(found)], schema=COLUMNS)
    frame = as_catalogue_frame(frame)
    return Catalogue(frame, *hash_ids(frame["item_id"]))


def build_snapshot(
    artifact: ModelArtifact | None, catalogue: Catalogue, rules: list[CheckedRule]
) -> Snapshot:
    return Snapshot(
        catalogue, JoinedModel(artifact, catalogue), rules=compile_rules(rules, catalogue)
    )


def scope_for(
    catalogue: Catalogue,
    request: RecommendationRequest,
    user: dict[str, Any],
    names: frozenset[str],
) -> Scope:
    rows = [catalogue.row(item_id) for item_id in request.item_ids]
    page = [catalogue.item(row) for row in rows if row is not None]
    return Scope(user, names, request.context, page, NOW_S)
