"""The customer's word, as a state machine over rules, choices and history; no HTTP, so it shrinks.

The larger proof, with workers, stores and load, is ``tests/proofs/customers_word.py``.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from feature_store.artifact import ModelArtifact
from feature_store.preferences import NO_PREFERENCES, Preferences, Snooze, stricter
from feature_store.schema import ItemId, format_time
from feature_store.state import EMPTY_STATE, UserState
from feature_store.store import UserContext
from recsvc.answering import Question, choose
from recsvc.customer.choices import changed, lasting
from recsvc.customer.consenting import may_profile
from recsvc.engine import Response
from recsvc.requests import RecommendationRequest
from recsvc.rules import CheckedRule
from tests.recsvc import rules_strategies as some
from tests.recsvc.shop import NOW_S, item_ids

IDS = item_ids(some.MOST)
SHOP: list[dict[str, Any]] = [
    {
        "brand": [*some.BRANDS, None][number % 4],
        "categories": some.PATHS[number % 5 : number % 5 + 2 - number % 2],
        "available": number % 11 != 0,
        "group_id": "g0" if number % 13 == 0 else None,
        "attributes": {"color": "red"} if number % 3 else {},
    }
    for number in range(some.MOST)
]
NAMES = {"items": IDS, "brands": some.BRANDS, "categories": some.PATHS}
hides = st.sampled_from(sorted(NAMES)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.lists(st.sampled_from(NAMES[kind]), max_size=3, unique=True),
        st.lists(st.sampled_from(NAMES[kind]), max_size=3, unique=True),
        st.booleans(),
    )
)


class TheirWord(RuleBasedStateMachine):
    """One user, and what they said in plain sets."""

    artifact: ModelArtifact

    def __init__(self) -> None:
        super().__init__()
        self.catalogue = some.build_catalogue(SHOP)
        self.live: list[CheckedRule] = []
        self.now = datetime.fromtimestamp(NOW_S, UTC)
        self.preferences, self.state = NO_PREFERENCES, EMPTY_STATE
        self.hidden: dict[str, set[str]] = {kind: set() for kind in NAMES}
        self.snoozed: dict[str, datetime] = {}
        self.personalization = True
        self.profiling: bool | None = None

    def patch(self, document: dict[str, Any]) -> None:
        self.preferences = changed(self.preferences, document, self.now, "customer")

    def why_hidden(self, row: int) -> str | None:
        """Say by which word of theirs an item must not be shown."""
        item, item_id = SHOP[row], IDS[row]
        if item_id in self.hidden["items"]:
            return "hidden"
        if item_id in self.snoozed and self.snoozed[item_id] > self.now:
            return "snoozed"
        if item["brand"] in self.hidden["brands"]:
            return "of a hidden brand"
        above = {path.split(" > ")[0] for path in item["categories"]} | set(item["categories"])
        return "of a hidden category" if above & self.hidden["categories"] else None

    @rule(rules=some.rule_lists())
    def marketers_publish(self, rules: list[CheckedRule]) -> None:
        self.live = rules

    @rule(change=hides)
    def hide(self, change: tuple[str, list[str], list[str], bool]) -> None:
        kind, add, remove, whole = change
        remove = [one for one in remove if one not in add]
        self.hidden[kind] = (self.hidden[kind] - set(remove)) | set(add)
        said: Any = {"add": add, "remove": remove}
        self.patch({f"hidden_{kind}": sorted(self.hidden[kind]) if whole else said})

    @rule(item_id=st.sampled_from(IDS), hours=st.sampled_from([1, 24]))
    def snooze(self, item_id: str, hours: int) -> None:
        self.snoozed[item_id] = self.now + timedelta(hours=hours)
        until = {"item_id": item_id, "until": format_time(self.snoozed[item_id])}
        self.patch({"snoozed": {"add": [until]}})

    @rule(hours=st.sampled_from([1, 5, 24]))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(wanted=st.booleans())
    def switch(self, wanted: bool) -> None:
        self.personalization = wanted
        self.patch({"personalization": wanted})

    @rule(allowed=st.sampled_from([True, False, None]))
    def consent(self, allowed: bool | None) -> None:
        if allowed is not self.profiling:
            n = len(self.preferences.consent_changes)
            self.patch({"consent": {"profiling": allowed}})
            assert len(self.preferences.consent_changes) == min(n + 1, 50)
            assert self.preferences.consent_changes[-1].allowed is allowed
        self.profiling = allowed

    @rule(paths=st.lists(st.sampled_from(some.PATHS), max_size=2, unique=True))
    def follow(self, paths: list[str]) -> None:
        shown = [
            path
            for path in paths
            if path not in self.hidden["categories"]
            and path.split(" > ")[0] not in self.hidden["categories"]
        ]
        self.patch({"followed_categories": shown, "interests": shown or None})
        assert self.preferences.followed_categories == set(shown)

    @rule(state=some.states)
    def buy(self, state: UserState) -> None:
        self.state = state

    @rule(
        items=st.sets(st.sampled_from(IDS), max_size=2),
        brands=st.sets(st.sampled_from(some.BRANDS), max_size=1),
        allowed=st.sampled_from([True, False, None]),
        personalization=st.booleans(),
    )
    def sign_in(
        self,
        items: set[str],
        brands: set[str],
        allowed: bool | None,
        personalization: bool,
    ) -> None:
        """A visitor who chose something turns out to be them."""
        until = self.now + timedelta(hours=2)
        snoozed = tuple(Snooze(item_id=ItemId(one), until=until) for one in sorted(items)[:1])
        visitor = Preferences(
            hidden_items=frozenset(map(ItemId, items)),
            hidden_brands=frozenset(brands),
            snoozed=snoozed,
            personalization=personalization,
        )
        visitor = changed(visitor, {"consent": {"profiling": allowed}}, self.now, "visitor")
        self.preferences = stricter(self.preferences, visitor)
        self.hidden["items"] |= items
        self.hidden["brands"] |= brands
        for one in snoozed:
            self.snoozed[one.item_id] = max(until, self.snoozed.get(one.item_id, until))
        self.personalization = self.personalization and personalization
        said = {self.profiling, allowed}
        self.profiling = False if False in said else True if True in said else None

    @rule(request=some.requests, opted_out=st.sampled_from([False, False, False, True]))
    def ask(self, request: RecommendationRequest, opted_out: bool) -> None:
        allows = self.personalization and self.profiling is not False and not opted_out
        response = self.answered(request, self.preferences, self.state, opted_out=opted_out)
        rows = [one.row for one in response.chosen]
        for row in rows:
            assert self.why_hidden(row) is None, (row, self.why_hidden(row))
        if allows:
            assert response.personalized or not self.state.n_item_facts
            return
        assert not response.personalized
        snoozed = lasting(self.preferences, self.now).snoozed
        stranger = Preferences(
            hidden_items=frozenset(map(ItemId, self.hidden["items"])),
            hidden_brands=frozenset(self.hidden["brands"]),
            hidden_categories=frozenset(self.hidden["categories"]),
            snoozed=snoozed,
        )
        same = self.answered(request, stranger, EMPTY_STATE, opted_out=False)
        assert rows == [one.row for one in same.chosen]

    def answered(
        self,
        request: RecommendationRequest,
        said: Preferences,
        state: UserState,
        *,
        opted_out: bool,
    ) -> Response:
        context = UserContext(state, said, 0, person="u:somebody")
        profiled = may_profile(context, request, "opt_out", opted_out=opted_out)
        snapshot = some.build_snapshot(self.artifact, self.catalogue, self.live)
        question = Question(request, "u:somebody", context, profiled, True, None, 0, [], 0.0)
        return choose(snapshot, question, self.now.timestamp())


def test_nothing_outranks_what_they_said(artifact: ModelArtifact) -> None:
    machine = type("TheirWordHere", (TheirWord,), {"artifact": artifact})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
