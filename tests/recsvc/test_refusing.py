"""Who refuses to be profiled is nobody: in answers, and in the records of them."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.impressions import HOUR_S, Impressions
from feature_store.preferences import (
    NO_PREFERENCES,
    Disowned,
    Preferences,
    Purposes,
)
from feature_store.schema import Consent, EventType
from feature_store.state import EMPTY_STATE, UserState
from feature_store.store import UserContext
from recsvc.answering import Question, finish
from recsvc.decisions import DecisionRecorder
from recsvc.engine import recommend
from recsvc.merchandising.needs import needs_of
from recsvc.merchandising.placements import BUILT_IN
from recsvc.merchandising.preview import with_rules
from recsvc.merchandising.segments import BUILT_IN as SEGMENTS
from recsvc.requests import RecommendationRequest
from recsvc.retrieval import JoinedModel
from recsvc.rules import CheckedRule, parse_rule
from recsvc.snapshot import Snapshot
from recsvc.telemetry import Metrics
from tests.recsvc import rules_strategies as some
from tests.recsvc.choices_strategies import (
    NOW,
    choices,
    impressions,
    question_of,
    said_to,
    state_of,
)
from tests.recsvc.shop import (
    N_MODEL,
    NOW_S,
    add_groups,
    bought,
    item_ids,
    make_catalogue,
    make_snapshot,
    rows_of,
    write_artifact,
)

Item = dict[str, Any]


known_states = st.lists(
    st.tuples(
        st.integers(0, some.MOST + 3),
        st.sampled_from([EventType.PURCHASE, EventType.VIEW, EventType.DISLIKE, EventType.RATING]),
        st.integers(0, 200 * 24),
    ),
    max_size=12,
).map(state_of)
profiles = st.sampled_from(
    [
        None,
        {"attributes": {"age": "young"}, "loyalty": {"tier": "gold"}},
        {"attributes": {"age": "old"}, "loyalty": {"tier": "silver", "points": 900}},
    ]
)
computed = st.sampled_from([None, {"stage": "active", "churn_risk": 0.9}, {"stage": "lapsed"}])
audiences = st.sampled_from(
    [
        {"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
        {"field": "user.computed.churn_risk", "op": "gt", "value": 0.5},
        {"field": "user.attributes.age", "op": "in", "value": ["young", "old"]},
        {"field": "user.consent.profiling", "op": "eq", "value": False},
        {"field": "user.consent.analytics", "op": "exists", "value": True},
        {"not": {"field": "user.computed.stage", "op": "eq", "value": "active"}},
        {"field": "segment", "op": "in", "value": sorted(SEGMENTS)},
        {"not": {"field": "segment", "op": "in", "value": sorted(SEGMENTS)}},
    ]
)
owned_things = st.lists(
    st.builds(
        Disowned,
        kind=st.sampled_from(["category", "brand", "segment"]),
        name=st.sampled_from([*some.PATHS, *some.BRANDS, *sorted(SEGMENTS)]),
        at=st.just(NOW - timedelta(days=40)),
    ),
    max_size=2,
).map(tuple)


def _shop(artifact: ModelArtifact, found: list[Item], rules: list[CheckedRule]) -> Snapshot:
    catalogue = some.build_catalogue(found)
    plain = Snapshot(catalogue, JoinedModel(artifact, catalogue))
    snapshot = with_rules(plain, rules)
    needs = needs_of(one.rule.when for one in rules if one.rule.when)
    return replace(snapshot, site=replace(snapshot.site, needs=needs))


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    """A model that starts people by their age."""
    return write_artifact(tmp_path_factory.mktemp("groups"), N_MODEL, also=add_groups)


@settings(deadline=None, max_examples=150)
@given(
    found=st.lists(some.documents, min_size=12, max_size=some.MOST),
    rules=some.rule_lists(),
    conditions=st.lists(audiences, min_size=5, max_size=5),
    state=known_states,
    said=choices,
    disowned=owned_things,
    consent=st.builds(Purposes, profiling=st.just(False), analytics=st.none() | st.booleans()),
    shown=impressions,
    known=st.tuples(profiles, computed),
    request_=some.requests,
    placement=st.sampled_from(sorted(BUILT_IN)),
)
def test_the_answer_for_who_refuses_is_a_strangers_with_the_same_hides(
    grouped: ModelArtifact,
    found: list[Item],
    rules: list[CheckedRule],
    conditions: list[Any],
    state: UserState,
    said: Preferences,
    disowned: tuple[Disowned, ...],
    consent: Purposes,
    shown: Impressions,
    known: tuple[Any, Any],
    request_: RecommendationRequest,
    placement: str,
) -> None:
    # Rules that look at the person: they must not tell the two apart.
    rules = [
        parse_rule({**one.rule.model_dump(mode="json"), "when": when})
        for one, when in zip(rules, conditions, strict=False)
    ]
    snapshot = _shop(grouped, found, rules)
    profile, values = (None if one is None else orjson.dumps(one) for one in known)
    refuser = UserContext(
        state,
        said.model_copy(update={"consent": consent, "disowned": disowned}),
        0,
        profile=profile,
        computed=values,
        impressions=shown,
        person="u:refuser-4711",
    )
    hides = Preferences(
        hidden_items=said.hidden_items,
        hidden_brands=said.hidden_brands,
        hidden_categories=said.hidden_categories,
        snoozed=said.snoozed,
    )
    request = replace(request_, placement=placement, explain=True)
    stranger = UserContext(EMPTY_STATE, hides, 0)
    answers = [
        said_to(snapshot, question_of(request, context, profiled=False))
        for context in (refuser, stranger)
    ]
    assert answers[0] == answers[1]
    assert answers[0]["personalized"] is False
    assert orjson.dumps(answers[0]) == orjson.dumps(answers[1])


def test_what_a_refusal_takes_away_would_have_counted(grouped: ModelArtifact) -> None:
    """The law above is not empty: profiled, each of these changes the answer."""
    snapshot = make_snapshot(
        grouped,
        make_catalogue(
            item_ids(N_MODEL), categories=[[f"Food > F{row % 3}"] for row in range(N_MODEL)]
        ),
    )
    request = RecommendationRequest(limit=8)
    follow = Preferences(followed_categories=frozenset({"Food > F2"}))
    nobody = recommend(snapshot, EMPTY_STATE, NO_PREFERENCES, request, NOW_S)
    strangers = [item_ids(N_MODEL)[row] for row in rows_of(nobody)]
    profile = orjson.dumps({"attributes": {"age": "old"}})
    shown = Impressions(
        np.array([0], np.uint32), np.array([NOW_S // HOUR_S], np.uint32), np.array([30], np.uint16)
    )
    for context in (
        UserContext(bought((31, 1), (34, 2)), NO_PREFERENCES, 0, person="u:known-4711"),
        UserContext(EMPTY_STATE, follow, 0, person="u:known-4711"),
        UserContext(EMPTY_STATE, NO_PREFERENCES, 0, profile=profile, person="u:known-4711"),
        UserContext(EMPTY_STATE, NO_PREFERENCES, 0, impressions=shown, person="u:known-4711"),
    ):
        known, refused = (
            said_to(snapshot, question_of(request, context, profiled=profiled))
            for profiled in (True, False)
        )
        assert known["personalized"] is True
        assert refused["personalized"] is False
        assert [one["item_id"] for one in known["items"]] != strangers
        assert [one["item_id"] for one in refused["items"]] == strangers


@pytest.mark.parametrize(
    ("profiled", "stored", "asked", "is_named"),
    [
        (True, None, None, True),
        (True, True, None, True),
        (False, None, None, False),
        (True, False, None, False),
        (True, None, Consent(analytics=False), False),
        (True, True, Consent(analytics=False), False),
        (False, True, None, False),
    ],
)
@pytest.mark.parametrize("person", ["u:canary-8101", "a:canary-8101"])
def test_a_record_names_only_who_may_be_named(
    snapshot: Snapshot,
    tmp_path: Path,
    person: str,
    profiled: bool,
    stored: bool | None,
    asked: Consent | None,
    is_named: bool,
) -> None:
    visitor = person.startswith("a:")
    request = RecommendationRequest(
        user_id=None if visitor else "canary-8101",
        anonymous_id="canary-8101" if visitor else None,
        consent=asked,
        limit=10,
    )
    said = Preferences(consent=Purposes(analytics=stored))
    context = UserContext(bought((3, 1), (6, 2)), said, 0, person=person)
    record = _recorded(snapshot, question_of(request, context, profiled=profiled), tmp_path)
    assert (record["person"] == person) is is_named
    assert (b"canary-8101" in orjson.dumps(record)) is is_named
    assert ("history" in record) is is_named
    assert record["answer"]["personalized"] is profiled


def test_the_record_of_a_visitor_who_has_signed_in_is_the_users(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    request = RecommendationRequest(anonymous_id="visitor-8102")
    context = UserContext(bought((3, 1)), NO_PREFERENCES, 0, person="u:user-8102")
    question = replace(
        question_of(request, context, profiled=True),
        person="a:visitor-8102",
        named=True,
    )
    assert _recorded(snapshot, question, tmp_path)["person"] == "u:user-8102"


def _recorded(snapshot: Snapshot, question: Question, folder: Path) -> dict[str, Any]:
    recorder = DecisionRecorder(folder, Metrics(), sample=1.0)

    async def find() -> dict[str, Any] | None:
        body = orjson.loads(finish(snapshot, question, recorder).body)
        # The caller is told whom the answer is for, recorded or not.
        assert body["user_id"] == question.request.user_id
        identity = body["recommendation_id"]
        try:
            return await recorder.find(identity, int(identity[:12], 16))
        finally:
            await recorder.close()

    found = asyncio.run(find())
    assert found is not None
    return found
