"""The life of rules, against the simplest model of it: a dict of what is in force."""

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from feature_store.documents import (
    Document,
    SiteDocuments,
    Write,
    change_entry,
    verify_chain,
)
from feature_store.errors import ConflictError, NotFoundError, StaleRevisionError
from feature_store.site_history import audit_of, in_order, revisions_of
from recsvc.merchandising.publishing import (
    RULE,
    deleting,
    live_rules,
    publication,
    publishing,
    reverting,
    rolling_back,
    rule_of,
    status_of,
)

IDS = ("a", "b", "c")


class Shop:
    """The documents of a site and their history, written as the store writes them."""

    def __init__(self) -> None:
        self.site = SiteDocuments()
        self.entries: list[dict[str, Any]] = []

    def write(self, writes: list[Write]) -> None:
        documents = dict(self.site.documents)
        changed = []
        for one in writes:
            known = documents.get((one.kind, one.id))
            revision = known.revision if known else 0
            if one.expected_revision not in (None, revision):
                raise StaleRevisionError("stale")
            changed.append(Document(one.kind, one.id, revision + 1, one.body, "t", "anna"))
        entry = change_entry(self.site, changed, "t", "anna", "")
        self.entries.append(entry)
        documents |= {(one.kind, one.id): one for one in changed}
        self.site = SiteDocuments(entry["sequence"], entry["hash"], documents)

    def put(self, rule_id: str, status: str = "draft", **body: Any) -> None:
        self.write([Write(RULE, rule_id, {"status": status, **body})])

    @property
    def in_force(self) -> dict[str, Any]:
        return {rule_id: body for rule_id, _, body in live_rules(self.site)}


def test_what_an_author_writes_is_in_force_only_once_it_is_published() -> None:
    shop = Shop()
    shop.put("a", weight=1)
    assert shop.in_force == {}
    assert status_of(shop.site, rule_of(shop.site, "a")) == "draft"
    shop.write(publishing(shop.site, ["a"]))
    shop.put("a", weight=2)
    assert shop.in_force == {"a": {"status": "draft", "weight": 1}}
    assert status_of(shop.site, rule_of(shop.site, "a")) == "live"
    assert publication(shop.site) == (1, {"a": 1})
    with pytest.raises(ConflictError, match="is live"):
        deleting(shop.site, "a", None)


def test_a_rule_is_paused_by_publishing_it_as_paused() -> None:
    shop = Shop()
    shop.put("a")
    shop.write(publishing(shop.site, ["a"]))
    shop.put("a", "paused")
    assert "a" in shop.in_force
    shop.write(publishing(shop.site, ["a"]))
    assert shop.in_force == {}
    assert status_of(shop.site, rule_of(shop.site, "a")) == "paused"
    shop.write(deleting(shop.site, "a", 2))
    with pytest.raises(NotFoundError):
        publishing(shop.site, ["a"])


def test_one_rule_is_taken_back_at_once() -> None:
    shop = Shop()
    for weight in range(3):
        shop.put("a", weight=weight)
        shop.put("b", weight=weight)
        shop.write(publishing(shop.site, ["a", "b"]))
    shop.write(reverting(shop.site, shop.entries, "a", 2))
    assert {name: body["weight"] for name, body in shop.in_force.items()} == {"a": 1, "b": 2}
    assert publication(shop.site) == (4, {"a": 4, "b": 3})
    with pytest.raises(NotFoundError, match="no revision 9"):
        reverting(shop.site, shop.entries, "a", 9)


class Life(RuleBasedStateMachine):
    """Random lives of three rules; `versions` is what each publication put in force."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop()
        self.versions: list[dict[str, Any]] = [{}]
        self.n = 0

    def published(self, writes: list[Write], expected: dict[str, Any]) -> None:
        self.shop.write(writes)
        self.versions.append(expected)

    @rule(rule_id=st.sampled_from(IDS), status=st.sampled_from(["draft", "paused", "archived"]))
    def put(self, rule_id: str, status: str) -> None:
        self.n += 1
        self.shop.put(rule_id, status, n=self.n)

    @rule(rule_ids=st.lists(st.sampled_from(IDS), max_size=3))
    def publish(self, rule_ids: list[str]) -> None:
        known = [name for name in rule_ids if self.shop.site.get(RULE, name)]
        expected = dict(self.shop.in_force)
        for name in known:
            body = rule_of(self.shop.site, name).body
            assert body is not None
            expected.pop(name, None)
            if body["status"] == "draft":
                expected[name] = body
        self.published(publishing(self.shop.site, known), expected)

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, len(self.versions) - 1))
        writes = rolling_back(self.shop.site, self.shop.entries, version)
        self.published(writes, self.versions[version])

    @rule(rule_id=st.sampled_from(IDS))
    def delete(self, rule_id: str) -> None:
        if self.shop.site.get(RULE, rule_id) and rule_id not in self.shop.in_force:
            self.shop.write(deleting(self.shop.site, rule_id, None))

    @rule(rule_id=st.sampled_from(IDS), data=st.data())
    def revert(self, rule_id: str, data: st.DataObject) -> None:
        past = [one for one in revisions_of(self.shop.entries, RULE, rule_id) if one["body"]]
        if not past:
            return
        chosen = data.draw(st.sampled_from(past))
        live = rule_id in self.shop.in_force
        writes = reverting(self.shop.site, self.shop.entries, rule_id, chosen["revision"])
        if live:
            self.published(writes, {**self.shop.in_force, rule_id: chosen["body"]})
        else:
            self.shop.write(writes)

    @invariant()
    def in_force_is_what_was_published(self) -> None:
        version, rules = publication(self.shop.site)
        assert version == len(self.versions) - 1
        assert self.shop.in_force == self.versions[-1]
        assert set(rules) == set(self.shop.in_force)

    @invariant()
    def the_history_is_whole(self) -> None:
        assert verify_chain(self.shop.entries) == self.shop.site.sequence
        assert in_order([*self.shop.entries, *self.shop.entries]) == self.shop.entries
        audit = audit_of(self.shop.entries, [RULE], "a")
        for earlier, later in itertools.pairwise(audit):
            assert later["before"] == earlier["after"]


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
