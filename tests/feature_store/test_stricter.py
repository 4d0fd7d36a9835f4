"""Of two people who turn out to be one, the stricter choice holds: for every preference."""

from datetime import UTC, datetime, timedelta

import orjson

from feature_store.preferences import (
    MAX_CONSENT_CHANGES,
    Answered,
    ConsentChange,
    Disowned,
    Email,
    Page,
    Preferences,
    Purposes,
    Snooze,
    document_of,
    merged,
    read_preferences,
    stricter,
)
from feature_store.schema import ItemId

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_every_preference_has_a_stricter_one() -> None:
    strict = Preferences(
        hidden_items=frozenset({ItemId("i")}),
        hidden_brands=frozenset({"b"}),
        hidden_categories=frozenset({"c"}),
        snoozed=(Snooze(item_id=ItemId("i"), until=NOW),),
        followed_brands=frozenset({"f"}),
        followed_categories=frozenset({"g"}),
        interests=frozenset({"h"}),
        page=Page(modules=("new",)),
        email=Email(frequency_days=7, paused_until=NOW),
        personalization=False,
        consent=Purposes(profiling=False, email_marketing=False, analytics=False),
        consent_changes=(
            ConsentChange(purpose="profiling", allowed=False, at=NOW, source="customer"),
        ),
        disowned=(Disowned(kind="category", name="c", at=NOW),),
        answered=(Answered(question_id="q", at=NOW),),
    )
    body = document_of(strict)
    assert body is not None
    assert read_preferences(orjson.dumps(body)) == strict
    assert document_of(Preferences()) is None
    # A new preference must be added here and in `stricter`: whoever forgets it loses a choice.
    assert all(
        getattr(strict, name) != getattr(Preferences(), name) for name in Preferences.model_fields
    )
    assert stricter(strict, Preferences()) == stricter(Preferences(), strict) == strict


def test_a_merge_keeps_the_last_change_of_each_purpose() -> None:
    refused = ConsentChange(purpose="profiling", allowed=False, at=NOW, source="customer")
    user = Preferences(consent=Purposes(profiling=False), consent_changes=(refused,))
    often = tuple(
        ConsentChange(
            purpose="analytics",
            allowed=day % 2 == 0,
            at=NOW + timedelta(days=day),
            source="visitor",
        )
        for day in range(1, MAX_CONSENT_CHANGES + 1)
    )
    visitor = Preferences(consent=Purposes(analytics=True), consent_changes=often)
    both = merged(user, visitor, NOW + timedelta(days=99))
    assert both.consent == Purposes(profiling=False, analytics=True)
    assert refused in both.consent_changes
    assert len(both.consent_changes) == MAX_CONSENT_CHANGES
