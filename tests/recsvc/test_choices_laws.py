"""What customers choose outranks everything but a recall, and who refuses is nobody: as laws."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.impressions import Impressions
from feature_store.preferences import (
    NO_PREFERENCES,
    Disowned,
    Preferences,
    Purposes,
    Snooze,
)
from feature_store.schema import EventType, ItemId
from feature_store.state import EMPTY_STATE, UserState
from feature_store.store import UserContext
from recsvc.answer import answer
from recsvc.answering import choose
from recsvc.customer.disowned import owned
from recsvc.engine import Response, recommend
from recsvc.merchandising.needs import needs_of
from recsvc.merchandising.segments import BUILT_IN as SEGMENTS
from recsvc.merchandising.segments import SegmentIndex, segments_of
from recsvc.people import document_of, scope_of
from recsvc.requests import RecommendationRequest
from recsvc.retrieval import JoinedModel
from recsvc.rules import CheckedRule
from recsvc.snapshot import Snapshot
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
    NOW_S,
    bought,
    item_ids,
    rows_of,
)
from tests.recsvc.test_rules_laws import Case

Item = dict[str, Any]


class Chosen(Case):
    """A case in which snoozes and hidden categories count, besides what `Case` knows."""

    def _may_show(self, item: Item) -> bool:
        said = self.preferences
        asleep = {one.item_id for one in said.snoozed if one.until > NOW}
        under = any(
            path == name or path.startswith(f"{name} > ")
            for path in item["categories"]
            for name in said.hidden_categories
        )
        return super()._may_show(item) and item["item_id"] not in asleep and not under


@settings(deadline=None, max_examples=150)
@given(
    *(
        some.catalogues,
        some.rule_lists(),
        choices,
        some.requests,
        some.users,
        some.segments,
    ),
    some.states,
)
def test_no_rule_brings_back_what_is_hidden_or_snoozed_and_lists_are_full(
    artifact: ModelArtifact,
    found: list[Item],
    rules: list[CheckedRule],
    preferences: Preferences,
    request_: RecommendationRequest,
    user: Item,
    names: frozenset[str],
    state: UserState,
) -> None:
    case = Chosen(artifact, found, rules, preferences, request_, user, names)
    rows = [one.row for one in case.ask(state)]
    assert set(rows) <= case.allowed
    assert len({case.group(row) for row in rows}) == len(rows)
    assert len(rows) == (request_.limit or 0) or case.exhausted(rows)


def test_a_snooze_ends_at_its_time_also_in_a_list_that_is_continued(snapshot: Snapshot) -> None:
    said = Preferences(snoozed=(Snooze(item_id=ItemId("i00021"), until=NOW),))
    request = RecommendationRequest(limit=60)

    def rows(now_s: float, then_s: int | None = None) -> list[int]:
        context = UserContext(EMPTY_STATE, said, 0, person="u:snoozer-4711")
        question = question_of(request, context, profiled=True, then_s=then_s)
        return rows_of(choose(snapshot, question, now_s))

    assert 21 not in rows(NOW_S - 1)
    assert 21 not in rows(NOW_S - 0.5)
    assert 21 in rows(NOW_S)
    assert 21 in rows(NOW_S, then_s=NOW_S - 600)


# --- what does not describe me ------------------------------------------------------------------


@settings(deadline=None, max_examples=120)
@given(
    st.lists(some.documents, min_size=12, max_size=some.MOST),
    st.lists(
        st.tuples(
            st.integers(0, some.MOST - 1),
            st.sampled_from([EventType.PURCHASE, EventType.VIEW, EventType.DISLIKE]),
            st.integers(0, 24 * 80),
        ),
        max_size=15,
    ),
    st.lists(
        st.builds(
            lambda kind, name, days: Disowned(kind=kind, name=name, at=NOW - timedelta(days=days)),
            st.sampled_from(["category", "brand", "item"]),
            st.sampled_from([*some.PATHS, *some.BRANDS, *item_ids(12)]),
            st.sampled_from([0, 20, 40, 60]),
        ),
        max_size=3,
    ).map(tuple),
    some.requests,
    impressions,
)
def test_what_was_disowned_never_happened(
    artifact: ModelArtifact,
    found: list[Item],
    events: list[tuple[int, EventType, int]],
    disowned: tuple[Disowned, ...],
    request_: RecommendationRequest,
    shown: Impressions,
) -> None:
    catalogue = some.build_catalogue(found)
    snapshot = Snapshot(catalogue, JoinedModel(artifact, catalogue))

    def is_about(row: int, one: Disowned) -> bool:
        if row >= catalogue.n_rows:
            return False
        item = catalogue.item(row)
        said: dict[str, bool] = {
            "item": item["item_id"] == one.name,
            "brand": item["brand"] == one.name,
            "category": any(
                path == one.name or path.startswith(f"{one.name} > ") for path in item["categories"]
            ),
        }
        return said[one.kind]

    newest: dict[tuple[int, EventType], int] = {}
    for row, kind, hours in events:
        newest[row, kind] = min(hours, newest.get((row, kind), hours))

    def is_kept(row: int, kind: EventType) -> bool:
        last = NOW - timedelta(hours=newest[row, kind])
        return not any(last <= one.at and is_about(row, one) for one in disowned)

    left = [event for event in events if is_kept(event[0], event[1])]
    said = Preferences(disowned=disowned)
    state, expected = (
        owned(state_of(events), said, catalogue),
        state_of(left),
    )
    for name in ("rows", "types", "counts", "first_s", "last_s"):
        assert (getattr(state, name) == getattr(expected, name)).all()
    lists = [
        answer(
            recommend(snapshot, one, preferences, request_, NOW_S, impressions=shown),
            request_,
            "id",
            [],
        )
        for one, preferences in ((state_of(events), said), (expected, NO_PREFERENCES))
    ]
    assert lists[0] == lists[1]


def test_what_comes_after_counts_again_and_the_session_forgets_too(snapshot: Snapshot) -> None:
    events = [(5, EventType.VIEW, 50), (6, EventType.PURCHASE, 50), (5, EventType.PURCHASE, 1)]
    category = snapshot.catalogue.item(5)["categories"][0]
    disowned = Disowned(kind="category", name=category, at=NOW - timedelta(hours=10))
    state = owned(state_of(events), Preferences(disowned=(disowned,)), snapshot.catalogue)
    assert state.rows.tolist() == [5, 6]
    assert state.session_rows.tolist() == [5, 6]
    nothing = Preferences()
    assert owned(state, nothing, snapshot.catalogue) is state


def test_somebody_who_disowns_everything_starts_from_what_they_say(snapshot: Snapshot) -> None:
    at = NOW + timedelta(hours=1)
    everything = tuple(Disowned(kind="item", name=name, at=at) for name in ("i00031", "i00034"))
    said = Preferences(disowned=everything, interests=frozenset({"Food > F2"}))
    context = UserContext(bought((31, 1), (34, 2)), said, 0, person="u:starter-4711")
    fresh = UserContext(
        EMPTY_STATE, Preferences(interests=said.interests), 0, person="u:starter-4711"
    )
    request = RecommendationRequest(limit=10)
    first, second = (
        said_to(snapshot, question_of(request, one, profiled=True)) for one in (context, fresh)
    )
    assert first == second
    assert first["personalized"]


def test_a_segment_that_was_disowned_has_one_member_less(snapshot: Snapshot) -> None:
    values = orjson.dumps({"stage": "at_risk"})
    name = next(
        name
        for name, segment in SEGMENTS.items()
        if segment.required.get("user.computed.stage") == frozenset[Any]({"at_risk"})
    )
    member = UserContext(EMPTY_STATE, NO_PREFERENCES, 0, computed=values, person="u:member-4711")
    disowned = (Disowned(kind="segment", name=name, at=NOW),)
    left = replace(member, preferences=Preferences(disowned=disowned))
    for context, is_member in ((member, True), (left, False)):
        user = document_of(context)
        needs = needs_of([{"field": "segment", "op": "eq", "value": name}])
        scope = scope_of(
            RecommendationRequest(), user, snapshot.catalogue, SEGMENTS, needs, float(NOW_S)
        )
        assert (name in scope.segments) is is_member
        assert (name in segments_of(SEGMENTS, user)) is is_member
        assert (name in SegmentIndex(SEGMENTS).segments_of(user)) is is_member


# --- nothing is paid for what nobody chose ------------------------------------------------------


def test_consent_page_and_mail_change_nothing(snapshot: Snapshot) -> None:
    state = bought((3, 1), (6, 2))
    said = Preferences(
        consent=Purposes(profiling=True, email_marketing=False),
        snoozed=(),
        answered=(),
    )
    request = RecommendationRequest(limit=20)

    def ask(preferences: Preferences) -> Response:
        return recommend(snapshot, state, preferences, request, NOW_S)

    first, second = ask(NO_PREFERENCES), ask(said)
    assert rows_of(first) == rows_of(second)
    # Neither is a narrow list, and neither has a mask of its own.
    assert first.query.allowed is second.query.allowed
    assert not second.query.followed.weighs
