"""What a change does to people's own choices, and what their consents become. Pure: no clock."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from feature_store.preferences import (
    PURPOSES,
    ConsentChange,
    Email,
    Page,
    Preferences,
    Purpose,
    Snooze,
    newest_changes,
    stricter,
)
from feature_store.schema import MAX_CLOCK_SKEW_S, ItemId
from recsvc.checks import FieldError, InvalidRequestError, pointer_to
from recsvc.customer.patches import (
    LIMITS,
    MAX_SNOOZED,
    PreferencesPatch,
    added,
    covers,
    pointers,
    read_patch,
)

MAX_SOURCE_LENGTH = 128
_TASTE = ("followed_brands", "followed_categories", "interests")


def changed(
    preferences: Preferences,
    patch: PreferencesPatch | Mapping[str, Any],
    now: datetime,
    source: str,
) -> Preferences:
    """Return what somebody has chosen after a change.

    What they hide, they follow no more. A snooze that is over is forgotten.

    Parameters
    ----------
    preferences : Preferences
        What they had chosen.
    patch : PreferencesPatch or mapping
        The change, as `read_patch` gives it or as JSON has it.
    now : datetime
        What the time is.
    source : str
        Who says so, for the changes of consents.

    Raises
    ------
    InvalidRequestError
        If a list becomes too long, or something is to be followed that is hidden; of a mapping also
        what `read_patch` refuses.
    """
    if not isinstance(patch, PreferencesPatch):
        patch = read_patch(patch, now)
    named = patch.model_fields_set
    parts: dict[str, Any] = {"snoozed": tuple(_lasting(preferences.snoozed, now))}
    errors = list[FieldError]()
    for name, most in LIMITS.items():
        before: frozenset[str] = getattr(preferences, name)
        parts[name] = _members(before, getattr(patch, name)) if name in named else before
        errors += _too_many(name, len(before), len(parts[name]), most)
    if "snoozed" in named:
        parts["snoozed"] = _snoozes(parts["snoozed"], patch.snoozed)
        errors += _too_many("snoozed", len(preferences.snoozed), len(parts["snoozed"]), MAX_SNOOZED)
    for kind in ("brands", "categories"):
        followed, hidden = f"followed_{kind}", parts[f"hidden_{kind}"]
        errors += [
            FieldError(pointer, f"is hidden: take it out of hidden_{kind} first")
            for pointer, name in pointers(patch, followed)
            if covers(kind, hidden, name) and name not in getattr(preferences, followed)
        ]
        parts[followed] = frozenset(one for one in parts[followed] if not covers(kind, hidden, one))
    if errors:
        raise InvalidRequestError(*errors)
    if "page" in named:
        modules = patch.page.modules if patch.page is not None else None
        parts["page"] = None if modules is None else Page(modules=tuple(modules))
    if "email" in named:
        said = patch.email.model_dump(exclude_unset=True) if patch.email is not None else None
        parts["email"] = Email() if said is None else preferences.email.model_copy(update=said)
    if "personalization" in named:
        parts["personalization"] = patch.personalization is not False
    after = preferences.model_copy(update=parts)
    if "consent" not in named:
        return after
    said_at = None if patch.consent is None else patch.consent.at
    if said_at is None:
        return consented(after, _consents(patch), now, source)
    for purpose, allowed in _consents(patch).items():
        after = heard(after, purpose, allowed, said_at, source)
    return after


def consented(
    preferences: Preferences, said: Mapping[Purpose, bool | None], at: datetime, source: str
) -> Preferences:
    """Return preferences with other consents; each that changes is noted with time and source.

    Parameters
    ----------
    preferences : Preferences
        As they were.
    said : mapping of str to bool or None
        Purpose to what is allowed now; ``None`` takes the answer back.
    at : datetime
        When it was said.
    source : str
        Who or what said so.
    """
    new: dict[str, bool | None] = {
        purpose: allowed
        for purpose, allowed in said.items()
        if getattr(preferences.consent, purpose) is not allowed
    }
    if not new:
        return preferences
    changes = [
        *preferences.consent_changes,
        *(
            ConsentChange(purpose=purpose, allowed=new[purpose], at=at, source=source)
            for purpose in PURPOSES
            if purpose in new
        ),
    ]
    changes.sort(key=lambda change: change.at)
    return preferences.model_copy(
        update={
            "consent": preferences.consent.model_copy(update=new),
            "consent_changes": newest_changes(changes),
        }
    )


def heard(
    preferences: Preferences, purpose: Purpose, allowed: bool | None, at: datetime, source: str
) -> Preferences:
    """Return preferences after a consent that is reported, perhaps late or once more.

    What was said before the last change of the purpose changes nothing. Of refusals clocks may
    differ by `MAX_CLOCK_SKEW_S`: rather one too many than one too few.

    Parameters
    ----------
    preferences : Preferences
        As they were.
    purpose : str
        What for.
    allowed : bool or None
        What was said; ``None`` takes the answer back.
    at : datetime
        When it was said, by the clock of whoever reports it.
    source : str
        Who or what said so.
    """
    known = [change for change in preferences.consent_changes if change.purpose == purpose]
    if known and at < known[-1].at:
        skew = timedelta(seconds=MAX_CLOCK_SKEW_S if allowed is False else 0)
        once_more = any(
            change.source == source and abs(change.at - at) <= skew
            for change in known
            if change.allowed is allowed
        )
        if once_more or at + skew < known[-1].at:
            return preferences
        at = known[-1].at
    return consented(preferences, {purpose: allowed}, at, source)


def is_restriction(before: Preferences, after: Preferences) -> bool:
    """Tell whether a change only hides and refuses more: it takes nothing back, and adds no taste.

    Parameters
    ----------
    before, after : Preferences
        What was chosen, and what would be.
    """
    for purpose in PURPOSES:
        if getattr(after.consent, purpose) and not getattr(before.consent, purpose):
            return False
    if any(getattr(after, name) - getattr(before, name) for name in _TASTE):
        return False
    if after.page != before.page:
        return False
    both = stricter(after, before)
    return both.model_copy(update={"consent_changes": after.consent_changes}) == after


def lasting(preferences: Preferences, now: datetime) -> Preferences:
    """Return preferences without the snoozes, and the pause of mail, that are over."""
    email, paused = preferences.email, preferences.email.paused_until
    if paused is not None and paused <= now:
        email = email.model_copy(update={"paused_until": None})
    snoozed = tuple(_lasting(preferences.snoozed, now))
    return preferences.model_copy(update={"snoozed": snoozed, "email": email})


def _members(before: frozenset[str], said: Any) -> frozenset[str]:
    if said is None or isinstance(said, list):
        return frozenset(said or ())
    return (before - frozenset(said.remove)) | frozenset(said.add)


def _snoozes(before: tuple[Snooze, ...], said: Any) -> tuple[Snooze, ...]:
    found: dict[ItemId, Snooze] = {}
    if said is not None and not isinstance(said, list):
        gone = frozenset(said.remove)
        found = {one.item_id: one for one in before if one.item_id not in gone}
    found |= {one.item_id: one for one in added(said)}
    return tuple(found[item_id] for item_id in sorted(found))


def _lasting(snoozed: tuple[Snooze, ...], now: datetime) -> list[Snooze]:
    return [one for one in snoozed if one.until > now]


def _too_many(name: str, before: int, after: int, most: int) -> list[FieldError]:
    # A merge may have made it longer than anybody may: whoever shortens it is welcome.
    if after <= max(most, before):
        return []
    return [FieldError(pointer_to(name), f"may have {most} entries, would have {after}")]


def _consents(patch: PreferencesPatch) -> dict[Purpose, bool | None]:
    if patch.consent is None:
        return dict.fromkeys(PURPOSES)
    named = patch.consent.model_fields_set
    return {purpose: getattr(patch.consent, purpose) for purpose in PURPOSES if purpose in named}
