"""What a person decided: kept as one document, outranked by nothing but a recall."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from feature_store.schema import Frozen, Id, ItemId, ItemIdField, Timestamp

ProfilingDefault = Literal["opt_out", "opt_in"]
"""Whether somebody who was never asked may be profiled (opt-out) or not (opt-in)."""
Purpose = Literal["profiling", "email_marketing", "analytics"]
PURPOSES: tuple[Purpose, ...] = ("profiling", "email_marketing", "analytics")
MAX_CONSENT_CHANGES = 50
"""Changes that the document remembers; every one of them stands in the change log."""


class Snooze(Frozen):
    """An item that is not to be shown for a while."""

    item_id: ItemIdField
    until: Timestamp


class Email(Frozen):
    """How often somebody wants mail."""

    frequency_days: Annotated[
        int | None, Field(ge=1, le=365, description="at most one mail in so many days")
    ] = None
    paused_until: Annotated[Timestamp | None, Field(description="no mail before this time")] = None


class Page(Frozen):
    """What somebody wants on their own page."""

    modules: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...],
        Field(max_length=50, description="names of modules, in the order of the page"),
    ] = ()


class Purposes(Frozen):
    """What somebody allows; ``None`` where they were never asked, or took the answer back."""

    profiling: bool | None = None
    email_marketing: bool | None = None
    analytics: bool | None = None


class ConsentChange(Frozen):
    """One change of a consent."""

    purpose: Purpose
    allowed: bool | None
    at: Timestamp
    source: Annotated[str, Field(max_length=128, description="who or what said so")]


class Disowned(Frozen):
    """Something that the profile said of a person and that, they say, does not describe them.

    What they did before `at` with items of the category, of the brand, or with the item, says
    nothing of their taste; of the segment they are no member.
    """

    kind: Literal["category", "brand", "item", "segment"]
    name: Annotated[str, Field(min_length=1, max_length=500)]
    at: Timestamp


class Answered(Frozen):
    """A question that was asked and answered, so that it is not asked again."""

    question_id: Id
    at: Timestamp


class Saying(NamedTuple):
    """A consent that was given or refused along with something else.

    Parameters
    ----------
    person : str
        Whose (``schema.person_of``).
    purpose : str
        What for.
    allowed : bool
        What was said.
    at : datetime
        When, by the account of whoever reports it.
    source : str
        What said so.
    """

    person: str
    purpose: Purpose
    allowed: bool
    at: datetime
    source: str


class Preferences(Frozen):
    """What a customer decided; it outranks everything but a recall."""

    hidden_items: frozenset[ItemId] = frozenset()
    hidden_brands: frozenset[str] = frozenset()
    hidden_categories: frozenset[str] = frozenset()
    snoozed: tuple[Snooze, ...] = ()
    followed_brands: frozenset[str] = frozenset()
    followed_categories: frozenset[str] = frozenset()
    interests: frozenset[str] = frozenset()
    page: Page | None = None
    email: Email = Email()
    personalization: bool = True
    consent: Purposes = Purposes()
    consent_changes: tuple[ConsentChange, ...] = ()
    disowned: tuple[Disowned, ...] = ()
    answered: tuple[Answered, ...] = ()


NO_PREFERENCES = Preferences()
UNREADABLE = Preferences(personalization=False)
"""What counts when something is stored that cannot be read: nothing personal is shown or kept."""


def read_preferences(value: bytes | None) -> Preferences:
    """Read preferences as the store keeps them.

    Returns
    -------
    Preferences
        ``NO_PREFERENCES`` itself for none, ``UNREADABLE`` itself for what cannot be read.
    """
    if value is None:
        return NO_PREFERENCES
    try:
        return Preferences.model_validate_json(value)
    except ValidationError:
        return UNREADABLE


def document_of(preferences: Preferences) -> dict[str, Any] | None:
    """Return preferences as the store keeps them, the same for the same choices.

    Returns
    -------
    dict or None
        Without what is as in `NO_PREFERENCES`; ``None`` if nothing is left.
    """
    body = preferences.model_dump(mode="json", exclude_defaults=True)
    for name, value in body.items():
        if isinstance(getattr(preferences, name), frozenset):
            body[name] = sorted(value)
    return body or None


def profiling_allowed(preferences: Preferences, default: ProfilingDefault) -> bool:
    """Tell whether a person's history may be used and added to.

    Parameters
    ----------
    preferences : Preferences
        What the person decided; ``UNREADABLE`` allows nothing.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    """
    if not preferences.personalization:
        return False
    said = preferences.consent.profiling
    return default == "opt_out" if said is None else said


def is_under(hidden: frozenset[str], path: str) -> bool:
    """Tell whether a category, or one above it, is among those that somebody hides."""
    if path in hidden:
        return True
    parts = path.split(" > ")
    return any(" > ".join(parts[:depth]) in hidden for depth in range(1, len(parts)))


def newest_changes(changes: Sequence[ConsentChange]) -> tuple[ConsentChange, ...]:
    """Keep the newest `MAX_CONSENT_CHANGES`, and of each purpose the last one whatever its age.

    Parameters
    ----------
    changes : sequence of ConsentChange
        Oldest first.
    """
    last = {change.purpose: at for at, change in enumerate(changes)}
    spare = [at for at in range(len(changes)) if at not in last.values()]
    dropped = set(spare[: max(0, len(changes) - MAX_CONSENT_CHANGES)])
    return tuple(change for at, change in enumerate(changes) if at not in dropped)


def stricter(one: Preferences, other: Preferences) -> Preferences:
    """Return what holds when a visitor turns out to be a user.

    Everything that either hides is hidden, a consent that either refused is refused, one that only
    one of them gave is given, of mail the rarer counts; a page that both chose is the user's.

    Parameters
    ----------
    one : Preferences
        The user's.
    other : Preferences
        The visitor's.
    """
    asked = {name: _stricter_consent(one.consent, other.consent, name) for name in PURPOSES}
    changes = sorted((*one.consent_changes, *other.consent_changes), key=lambda change: change.at)
    hidden_brands = one.hidden_brands | other.hidden_brands
    hidden_categories = one.hidden_categories | other.hidden_categories
    return Preferences(
        hidden_items=one.hidden_items | other.hidden_items,
        hidden_brands=hidden_brands,
        hidden_categories=hidden_categories,
        snoozed=_longest(one.snoozed, other.snoozed),
        followed_brands=(one.followed_brands | other.followed_brands) - hidden_brands,
        followed_categories=frozenset(
            path
            for path in one.followed_categories | other.followed_categories
            if not is_under(hidden_categories, path)
        ),
        interests=one.interests | other.interests,
        page=one.page or other.page,
        email=_calmer(one.email, other.email),
        personalization=one.personalization and other.personalization,
        consent=Purposes(**asked),
        consent_changes=newest_changes(changes),
        disowned=_newest(one.disowned, other.disowned),
        answered=_first(one.answered, other.answered),
    )


def merged(user: Preferences, visitor: Preferences, at: datetime) -> Preferences:
    """Return what holds after a visitor has signed in: `stricter`, and the changes say so.

    Parameters
    ----------
    user, visitor : Preferences
        What each of them decided.
    at : datetime
        When the visitor signed in.
    """
    both = stricter(user, visitor)
    closing = []
    for purpose in PURPOSES:
        allowed = getattr(both.consent, purpose)
        said = [change for change in both.consent_changes if change.purpose == purpose]
        is_new = allowed is not getattr(user.consent, purpose)
        if is_new or (said and said[-1].allowed is not allowed):
            when = max([at, *(change.at for change in both.consent_changes)])
            closing.append(ConsentChange(purpose=purpose, allowed=allowed, at=when, source="merge"))
    if not closing:
        return both
    changes = newest_changes([*both.consent_changes, *closing])
    return both.model_copy(update={"consent_changes": changes})


def _stricter_consent(one: Purposes, other: Purposes, name: Purpose) -> bool | None:
    said = [getattr(one, name), getattr(other, name)]
    if False in said:
        return False
    return True if True in said else None


def _longest(*snoozed: tuple[Snooze, ...]) -> tuple[Snooze, ...]:
    found: dict[str, Snooze] = {}
    for snooze in (one for several in snoozed for one in several):
        known = found.get(snooze.item_id)
        if known is None or known.until < snooze.until:
            found[snooze.item_id] = snooze
    return tuple(found[item_id] for item_id in sorted(found))


def _calmer(one: Email, other: Email) -> Email:
    frequencies = [mail.frequency_days for mail in (one, other) if mail.frequency_days is not None]
    pauses = [mail.paused_until for mail in (one, other) if mail.paused_until is not None]
    return Email(
        frequency_days=max(frequencies, default=None), paused_until=max(pauses, default=None)
    )


def _newest(*disowned: tuple[Disowned, ...]) -> tuple[Disowned, ...]:
    found: dict[tuple[str, str], Disowned] = {}
    for one in sorted((one for several in disowned for one in several), key=lambda one: one.at):
        found[one.kind, one.name] = one
    return tuple(found[key] for key in sorted(found))


def _first(*answered: tuple[Answered, ...]) -> tuple[Answered, ...]:
    found: dict[str, Answered] = {}
    for one in sorted((one for several in answered for one in several), key=lambda one: one.at):
        found.setdefault(one.question_id, one)
    return tuple(found[question_id] for question_id in sorted(found))
