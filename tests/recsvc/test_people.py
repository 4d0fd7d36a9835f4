"""People, segments and personas as conditions and the engine see them; no server needed."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.conditions import ConditionError
from feature_store.documents import Document, SiteDocuments
from feature_store.preferences import NO_PREFERENCES
from feature_store.profile import patch_profile, read_profile
from feature_store.schema import EVENT_TYPE_CODES, EventType, ItemId
from feature_store.state import EMPTY_STATE, fold
from feature_store.store import UserContext
from recsvc.engine import recommend
from recsvc.merchandising.needs import Needs, needs_of, needs_of_pages
from recsvc.merchandising.personas import PersonaBody, persona_state
from recsvc.merchandising.segments import (
    BUILT_IN,
    SegmentBody,
    SegmentIndex,
    parse_segment_condition,
    read_segments,
    segments_of,
)
from recsvc.people import document_of, scope_of
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from training.customers.lifecycle import GROUPS, STAGES

NOW_S = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp())
GOLD = {"field": "user.loyalty.tier", "op": "eq", "value": "gold"}


def site(*documents: tuple[str, str, dict[str, Any] | None]) -> SiteDocuments:
    found = {
        (kind, one): Document(kind, one, 1, body, "2026-11-22T00:00:00Z", "test")
        for kind, one, body in documents
    }
    return SiteDocuments(len(found), "x", found)


def segment(when: Any) -> dict[str, Any]:
    return SegmentBody(name="A segment", when=when).model_dump(mode="json")


def test_there_is_a_ready_made_segment_for_all_that_training_says() -> None:
    assert set(BUILT_IN) == {f"stage_{one}" for one in STAGES} | {f"rfm_{one}" for one in GROUPS}
    for stage in STAGES:
        for group in GROUPS:
            user = {"computed": {"stage": stage, "rfm": {"group": group}}}
            assert segments_of(BUILT_IN, user) == {f"stage_{stage}", f"rfm_{group}"}
    assert segments_of(BUILT_IN, {}) == frozenset()


def test_only_the_segments_that_are_asked_for_are_evaluated() -> None:
    known = read_segments(site(("segment", "gold", segment(GOLD))))
    user = {"loyalty": {"tier": "gold"}, "computed": {"stage": "new"}}
    assert segments_of(known, user) == {"gold", "stage_new"}
    assert segments_of(known, user, ["gold", "unknown"]) == {"gold"}
    assert segments_of(known, user, []) == frozenset()


def test_a_segment_that_is_not_understood_any_more_is_empty() -> None:
    broken = segment({"field": "user.loyalty.level", "op": "eq", "value": 1})
    known = read_segments(site(("segment", "old", broken), ("segment", "gone", None)))
    assert "gone" not in known
    assert not segments_of(known, {"loyalty": {"level": 1}}, ["old"])


def test_sensitive_fields_need_the_flag_of_whoever_asks() -> None:
    sensitive = frozenset({"user.attributes.health"})
    when = {"not": {"field": "user.attributes.health", "op": "exists", "value": True}}
    with pytest.raises(ConditionError, match="sensitive"):
        parse_segment_condition(SegmentBody(name="x", when=when), sensitive)
    parse_segment_condition(SegmentBody(name="x", when=when, allow_sensitive=True), sensitive)
    inner = {"field": "segment", "op": "eq", "value": "x"}
    nested = SegmentBody(name="x", when={"all": [GOLD, inner]})
    with pytest.raises(ConditionError, match="cannot refer to segments"):
        parse_segment_condition(nested)


def test_pages_need_what_live_rules_and_placements_look_at() -> None:
    page = {"field": "page.brand", "op": "eq", "value": "X"}
    segments = {"field": "segment", "op": "in", "value": ["a", "b"]}
    assert needs_of([{"when": {"not": GOLD}}]) == Needs(person=True)
    assert needs_of([[page, {"any": [segments]}]]) == Needs(True, True, frozenset({"a", "b"}))
    documents = site(
        ("rule", "1", {"status": "live", "when": GOLD}),
        ("live_rule", "2", {"revision": 1, "rule": {"when": {"all": [page]}}}),
        ("offer", "3", {"audience": GOLD}),
    )
    assert needs_of_pages(documents) == Needs(page=True)
    documents = site(
        ("live_rule", "1", {"revision": 1, "rule": {"when": GOLD}}),
        ("placement", "home", {"filter": page}),
    )
    assert needs_of_pages(documents) == Needs(person=True, page=True)


def test_a_scope_has_the_person_the_page_and_the_segments(snapshot: Snapshot) -> None:
    computed = {"stage": "active"}
    profile = {"attributes": {"city": "Berlin"}, "loyalty": {"tier": "gold"}}
    rows = np.array([0xFFFF_0000 + 3], dtype=np.uint32)
    types = np.array([EVENT_TYPE_CODES[EventType.SURVEY]], dtype=np.uint8)
    state = fold(EMPTY_STATE, rows, types, np.array([NOW_S], dtype=np.uint32))
    context = UserContext(
        state, NO_PREFERENCES, 0, profile=orjson.dumps(profile), computed=orjson.dumps(computed)
    )
    user = document_of(context)
    assert user["feedback"]["nps"]["score"] == 3
    assert user["loyalty"] == {"tier": "gold"}
    request = RecommendationRequest(
        item_ids=(ItemId("i00001"), ItemId("unknown")), context={"country": "DE"}
    )
    known = read_segments(site(("segment", "gold", segment(GOLD))))
    needs = Needs(page=True, segments=frozenset({"gold", "stage_new"}))
    scope = scope_of(request, user, snapshot.catalogue, known, needs, NOW_S)
    assert scope.segments == {"gold"}
    assert [one["item_id"] for one in scope.page] == ["i00001"]
    assert scope.context == {"country": "DE"}
    nobody = scope_of(request, {}, snapshot.catalogue, known, Needs(), NOW_S)
    assert (nobody.segments, nobody.page) == (frozenset(), ())


def test_a_persona_gets_the_list_of_a_customer_who_did_the_same(snapshot: Snapshot) -> None:
    bought = ["i00003", "i00007", "i00003", "not in the catalogue"]
    persona = PersonaBody.model_validate(
        {
            "name": "P",
            "attributes": {"city": "Berlin"},
            "loyalty": {"tier": "gold"},
            "computed": {"stage": "new"},
            "history": [
                {"type": "purchase", "item_id": one, "days_ago": day}
                for day, one in enumerate(bought)
            ],
        }
    )
    state, user, preferences = persona_state(persona, snapshot.catalogue, NOW_S)
    rows = snapshot.catalogue.rows(bought[:3]).astype(np.uint32)
    types = np.full(3, EVENT_TYPE_CODES[EventType.PURCHASE], dtype=np.uint8)
    times_s = np.array([NOW_S, NOW_S - 86_400, NOW_S - 2 * 86_400], dtype=np.uint32)
    assert state == fold(EMPTY_STATE, rows, types, times_s)
    assert preferences is NO_PREFERENCES
    assert segments_of(BUILT_IN, user) == {"stage_new"}
    assert user["loyalty"] == {"tier": "gold"}
    asked = RecommendationRequest(limit=10)
    made_up = recommend(snapshot, state, preferences, asked, NOW_S)
    assert made_up.personalized
    assert len(made_up.chosen) == 10


few = st.sampled_from(["a", "", 0, 1, 1.0, True, False])
leaves = st.one_of(
    st.builds(
        lambda name, op, value: {"field": f"user.attributes.{name}", "op": op, "value": value},
        st.sampled_from("xy"),
        st.sampled_from(["eq", "ne"]),
        few,
    ),
    st.builds(
        lambda op, value: {"field": "user.attributes.x", "op": op, "value": value},
        st.sampled_from(["in", "not_in"]),
        st.lists(few, min_size=1, max_size=3),
    ),
    st.builds(
        lambda value: {"field": "user.loyalty.tier", "op": "eq", "value": value},
        st.sampled_from(["a", "b"]),
    ),
    st.builds(
        lambda value: {"field": "user.computed.rfm.r", "op": "eq", "value": value},
        st.sampled_from([1, 2]),
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda part: {"not": part}, inner)
        | st.builds(
            lambda name, parts: {name: parts},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        )
    ),
    max_leaves=6,
)
users = st.fixed_dictionaries(
    {},
    optional={
        "attributes": st.dictionaries(
            st.sampled_from("xy"), few | st.lists(st.sampled_from(["a", ""])), max_size=2
        ),
        "loyalty": st.fixed_dictionaries({}, optional={"tier": st.sampled_from(["a", "b", "c"])}),
        "computed": st.fixed_dictionaries({"rfm": st.fixed_dictionaries({"r": few})}),
    },
)


@settings(max_examples=500, deadline=None)
@given(st.lists(trees, min_size=1, max_size=8), users)
@example([{"field": "user.attributes.x", "op": "eq", "value": 0}], {"attributes": {"x": 0}})
@example([{"field": "user.attributes.x", "op": "eq", "value": "a"}], {"attributes": {"x": ["a"]}})
def test_the_index_finds_what_trying_every_segment_finds(
    whens: list[dict[str, Any]], user: dict[str, Any]
) -> None:
    bodies = [("segment", f"s{at}", segment(when)) for at, when in enumerate(whens)]
    known = read_segments(site(*bodies))
    assert SegmentIndex(known).segments_of(user) == segments_of(known, user)


values = (
    st.text(max_size=20)
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e15, 1e15)
    | st.lists(st.text(max_size=5), max_size=3)
)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,10}", fullmatch=True)


@given(st.dictionaries(names, values, max_size=5), st.dictionaries(names, values | st.none()))
def test_a_patched_profile_is_the_document_with_the_patch_in_it(
    attributes: dict[str, Any], patch: dict[str, Any]
) -> None:
    document = read_profile({"attributes": attributes}).as_document()
    patched = patch_profile(document, {"attributes": patch}).as_document()
    expected = {name: value for name, value in {**attributes, **patch}.items() if value is not None}
    assert patched.get("attributes", {}) == expected
    stored = orjson.loads(orjson.dumps(patched))
    assert read_profile(stored).as_document() == patched
