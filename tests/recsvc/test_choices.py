"""Changes of choices and consents: known answers, and laws over random ones."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.preferences import (
    MAX_CONSENT_CHANGES,
    NO_PREFERENCES,
    PURPOSES,
    Preferences,
    document_of,
    merged,
    read_preferences,
    stricter,
)
from feature_store.schema import format_time
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.customer.choices import changed, consented, heard, is_restriction, lasting
from recsvc.customer.patches import read_patch

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOON = format_time(NOW + timedelta(hours=1))
LATER = NOW + timedelta(days=1)

names = st.sampled_from(["A", "A > B", "A > B > C", "AB", "D"])
lists = st.lists(names, max_size=4, unique=True)
consents = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(PURPOSES, st.sampled_from([True, False, None]))
)


@st.composite
def patches(draw: st.DrawFn) -> dict[str, Any]:
    """Return a change that is right in itself."""
    found: dict[str, Any] = {}
    hidden = draw(lists)
    for kind in ("items", "brands", "categories"):
        if draw(st.booleans()):
            add, remove = draw(lists), draw(lists)
            change = {"add": add, "remove": [one for one in remove if one not in add]}
            found[f"hidden_{kind}"] = draw(st.sampled_from([add, change, None]))
    if draw(st.booleans()):
        until = format_time(NOW + timedelta(hours=draw(st.integers(1, 50))))
        found["snoozed"] = {"add": [{"item_id": one, "until": until} for one in hidden]}
    if draw(st.booleans()):
        found["interests"] = draw(lists)
    if draw(st.booleans()):
        found["personalization"] = draw(st.sampled_from([True, False, None]))
    if draw(st.booleans()):
        found["consent"] = draw(consents)
    if draw(st.booleans()):
        found["email"] = {"frequency_days": draw(st.sampled_from([None, 1, 7]))}
    return found


@st.composite
def decided(draw: st.DrawFn) -> Preferences:
    """Return what somebody may have chosen in a few changes."""
    preferences = NO_PREFERENCES
    for at, patch in enumerate(draw(st.lists(patches(), max_size=4))):
        preferences = changed(preferences, patch, NOW + timedelta(seconds=at), "customer")
    return preferences


def stored(preferences: Preferences) -> Preferences:
    document = document_of(preferences)
    return read_preferences(None if document is None else orjson.dumps(document))


@given(decided(), patches())
def test_a_change_made_twice_is_made_once(before: Preferences, patch: dict[str, Any]) -> None:
    once = changed(before, patch, NOW, "customer")
    again = changed(once, patch, NOW, "customer")
    consent_free = {"consent_changes": ()}
    assert again.model_copy(update=consent_free) == once.model_copy(update=consent_free)


@given(decided())
def test_what_is_chosen_is_what_is_stored(preferences: Preferences) -> None:
    assert stored(preferences) == preferences
    assert changed(preferences, {}, NOW, "customer") == preferences


@given(decided(), lists, lists)
def test_two_tabs_that_hide_lose_nothing(
    before: Preferences, one: list[str], two: list[str]
) -> None:
    first, second = {"hidden_items": {"add": one}}, {"hidden_items": {"add": two}}
    here = changed(changed(before, first, NOW, "x"), second, NOW, "x")
    there = changed(changed(before, second, NOW, "x"), first, NOW, "x")
    assert here == there
    assert here.hidden_items == before.hidden_items | set(one) | set(two)


@given(decided(), lists)
def test_what_is_hidden_is_followed_no_more(before: Preferences, hidden: list[str]) -> None:
    follow = {"hidden_categories": None, "followed_categories": ["A", "A > B", "AB", "D"]}
    after = changed(changed(before, follow, NOW, "x"), {"hidden_categories": hidden}, NOW, "x")
    for path in after.followed_categories:
        assert not [one for one in hidden if path == one or path.startswith(f"{one} > ")]
    gone = {"A", "A > B", "AB", "D"} - after.followed_categories
    assert all(any(f"{path} > ".startswith(f"{one} > ") for one in hidden) for path in gone)


@given(decided(), decided())
def test_the_last_change_after_a_merge_is_what_holds(
    user: Preferences, visitor: Preferences
) -> None:
    both = merged(user, visitor, LATER)
    assert both.model_copy(update={"consent_changes": ()}) == stricter(user, visitor).model_copy(
        update={"consent_changes": ()}
    )
    for purpose in PURPOSES:
        last = [one for one in both.consent_changes if one.purpose == purpose][-1:]
        value = getattr(both.consent, purpose)
        assert [one.allowed for one in last] == ([value] if last else [])
        assert last or value is None
        if value is not getattr(user.consent, purpose):
            assert last[0].source == "merge"
    assert merged(both, NO_PREFERENCES, LATER) == both


@given(decided(), decided())
def test_of_choices_a_merge_only_restricts(user: Preferences, visitor: Preferences) -> None:
    nothing: frozenset[str] = frozenset()
    taste = ("followed_brands", "followed_categories", "interests")
    visitor = visitor.model_copy(update={**dict.fromkeys(taste, nothing), "page": None})
    both = stricter(user, visitor)
    grants = [one for one in PURPOSES if getattr(both.consent, one)]
    if all(getattr(user.consent, one) for one in grants):
        assert is_restriction(user, both)
    assert is_restriction(user, user)


@pytest.mark.parametrize(
    ("patch", "restricts"),
    [
        ({"hidden_items": {"add": ["new"]}}, True),
        ({"hidden_items": ["i1", "i2", "i3"]}, True),
        ({"hidden_items": {"remove": ["i1"]}}, False),
        ({"hidden_brands": None}, False),
        ({"snoozed": {"add": [{"item_id": "s", "until": format_time(NOW + timedelta(days=9))}]}},
         True),
        ({"snoozed": {"add": [{"item_id": "s", "until": SOON}]}}, False),
        ({"snoozed": None}, False),
        ({"personalization": False}, True),
        ({"consent": {"profiling": None}}, False),
        ({"consent": {"profiling": True}}, False),
        ({"consent": {"analytics": True}}, False),
        ({"consent": {"analytics": False}}, True),
        ({"consent": {"email_marketing": None}}, False),
        ({"hidden_brands": {"add": ["followed"]}}, True),
        ({"followed_brands": {"add": ["another"]}}, False),
        ({"followed_brands": {"remove": ["followed"]}}, False),
        ({"interests": ["anything"]}, False),
        ({"page": {"modules": ["new"]}}, False),
        ({"email": {"frequency_days": 7}}, True),
    ],
)  # fmt: skip
def test_what_a_page_may_change_of_somebody_who_signed_in(
    patch: dict[str, Any], restricts: bool
) -> None:
    chosen = {
        "hidden_items": ["i1", "i2"],
        "hidden_brands": ["X"],
        "followed_brands": ["followed"],
        "snoozed": [{"item_id": "s", "until": format_time(NOW + timedelta(days=3))}],
        "consent": {"profiling": False, "email_marketing": False},
    }
    before = changed(NO_PREFERENCES, chosen, NOW, "customer")
    assert is_restriction(before, changed(before, patch, NOW, "visitor")) is restricts


def test_personalization_is_not_switched_on_from_a_page() -> None:
    off = changed(NO_PREFERENCES, {"personalization": False}, NOW, "customer")
    assert not is_restriction(off, changed(off, {"personalization": True}, NOW, "visitor"))
    assert not is_restriction(off, changed(off, {"personalization": None}, NOW, "visitor"))


def test_what_is_over_is_forgotten_when_something_changes() -> None:
    pause = {"email": {"paused_until": SOON}, "snoozed": [{"item_id": "a", "until": SOON}]}
    before = changed(NO_PREFERENCES, pause, NOW, "customer")
    assert lasting(before, NOW) == before
    assert lasting(before, LATER) == NO_PREFERENCES
    after = changed(before, {"hidden_items": ["b"]}, LATER, "customer")
    assert after.snoozed == ()


def test_a_list_that_a_merge_made_too_long_may_be_shortened() -> None:
    many = Preferences(interests=frozenset(f"n{at}" for at in range(300)))
    fewer = changed(many, {"interests": {"remove": ["n1"]}}, NOW, "customer")
    assert len(fewer.interests) == 299
    with pytest.raises(InvalidRequestError):
        changed(many, {"interests": {"add": ["another"]}}, NOW, "customer")


def test_null_and_the_empty_list_are_alike() -> None:
    full = changed(NO_PREFERENCES, {"interests": ["A"], "page": {"modules": ["x"]}}, NOW, "c")
    nothings: tuple[list[str] | None, ...] = (None, [])
    for nothing in nothings:
        assert changed(full, {"interests": nothing, "page": None}, NOW, "c") == NO_PREFERENCES
    assert changed(full, {"page": {"modules": None}}, NOW, "c").page is None
    empty = changed(full, {"page": {"modules": []}}, NOW, "c").page
    assert empty is not None
    assert empty.modules == ()


# --- consents -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(PURPOSES), st.booleans()), max_size=150))
def test_the_last_change_of_each_purpose_is_never_forgotten(said: list[tuple[Any, bool]]) -> None:
    preferences = NO_PREFERENCES
    for at, (purpose, allowed) in enumerate(said):
        when = NOW + timedelta(seconds=at)
        preferences = consented(preferences, {purpose: allowed}, when, "customer")
    changes = preferences.consent_changes
    assert len(changes) <= MAX_CONSENT_CHANGES
    assert list(changes) == sorted(changes, key=lambda change: change.at)
    for purpose in PURPOSES:
        mine = [one for one in changes if one.purpose == purpose]
        value = getattr(preferences.consent, purpose)
        assert (mine[-1].allowed if mine else None) is value


def test_what_comes_late_does_not_outdo_what_is_newer() -> None:
    def after(first: bool, then: bool, late_s: float) -> bool | None:
        at = NOW - timedelta(seconds=late_s)
        before = consented(NO_PREFERENCES, {"profiling": first}, NOW, "customer")
        return heard(before, "profiling", then, at, "event").consent.profiling

    assert after(True, False, 0) is False
    assert after(False, True, 0) is True
    # A clock may be slow by minutes: a refusal counts then, an agreement does not.
    assert after(True, False, 200) is False
    assert after(False, True, 1) is False
    assert after(True, False, 400) is True


def test_an_event_that_is_sent_again_says_nothing_new() -> None:
    first = heard(NO_PREFERENCES, "email_marketing", False, NOW, "unsubscribe")
    back = consented(first, {"email_marketing": True}, NOW + timedelta(minutes=1), "customer")
    assert heard(back, "email_marketing", False, NOW, "unsubscribe") == back
    anew = heard(back, "email_marketing", False, NOW + timedelta(minutes=2), "unsubscribe")
    assert anew.consent.email_marketing is False
    assert [one.allowed for one in anew.consent_changes] == [False, True, False]


def test_a_slow_clock_stands_behind_what_it_ends() -> None:
    agreed = consented(NO_PREFERENCES, {"profiling": True}, NOW, "customer")
    ended = heard(agreed, "profiling", False, NOW - timedelta(minutes=2), "event")
    assert ended.consent_changes[-1].allowed is False


@given(st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(), st.lists))
def test_any_value_is_read_or_refused(value: Any) -> None:
    for name in ("hidden_items", "snoozed", "page", "consent", "email", "personalization"):
        refused: tuple[FieldError, ...] = ()
        try:
            read_patch({name: value}, NOW)
        except InvalidRequestError as error:
            refused = error.errors
        assert all(one.pointer.startswith(f"#/{name}") for one in refused)
