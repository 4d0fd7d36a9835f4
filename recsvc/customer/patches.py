"""How people say what they change about their own choices: the patch, and what it may hold.

RFC 7396 field by field - what a patch leaves out stays, null goes back to the default, a list
replaces - and lists also take ``{"add": [...], "remove": [...]}``, so that two tabs which hide
something at once both count.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any

import orjson
from pydantic import Discriminator, Field, Tag, ValidationError

from feature_store.preferences import Snooze, is_under
from feature_store.schema import Frozen, ItemIdField, Timestamp
from recsvc.checks import FieldError, InvalidRequestError, pointer_to

MAX_HIDDEN_ITEMS = 1_000
MAX_SNOOZED = 500
MAX_NAMES = 200
"""Brands, categories or interests in one list."""
MAX_MODULES = 50
MAX_AHEAD = timedelta(days=3653)
"""Who wants something gone for longer than ten years hides it."""
LIMITS = {
    "hidden_items": MAX_HIDDEN_ITEMS,
    "hidden_brands": MAX_NAMES,
    "hidden_categories": MAX_NAMES,
    "followed_brands": MAX_NAMES,
    "followed_categories": MAX_NAMES,
    "interests": MAX_NAMES,
}
"""The sets of names, and how long each may be."""

_LIST, _CHANGE = "[list]", "[change]"
_DESCRIBED = "a list replaces, add and remove change it, null empties it"

Brand = Annotated[str, Field(min_length=1, max_length=200)]
Category = Annotated[str, Field(min_length=1, max_length=500)]


def _kind_of(value: object) -> str:
    return _CHANGE if isinstance(value, dict | Frozen) else _LIST


class ItemsChange(Frozen):
    """Items that come to a list, and items that leave it."""

    add: Annotated[tuple[ItemIdField, ...], Field(max_length=MAX_HIDDEN_ITEMS)] = ()
    remove: Annotated[tuple[ItemIdField, ...], Field(max_length=MAX_HIDDEN_ITEMS)] = ()


class NamesChange(Frozen):
    """Names that come to a list, and names that leave it."""

    add: Annotated[tuple[Category, ...], Field(max_length=MAX_NAMES)] = ()
    remove: Annotated[tuple[Category, ...], Field(max_length=MAX_NAMES)] = ()


class BrandsChange(Frozen):
    """Brands that come to a list, and brands that leave it."""

    add: Annotated[tuple[Brand, ...], Field(max_length=MAX_NAMES)] = ()
    remove: Annotated[tuple[Brand, ...], Field(max_length=MAX_NAMES)] = ()


class SnoozesChange(Frozen):
    """Items that are snoozed, longer or shorter than before, and items that are not any more."""

    add: Annotated[tuple[Snooze, ...], Field(max_length=MAX_SNOOZED)] = ()
    remove: Annotated[tuple[ItemIdField, ...], Field(max_length=MAX_SNOOZED)] = ()


_ITEMS = Annotated[
    Annotated[list[ItemIdField], Field(max_length=MAX_HIDDEN_ITEMS), Tag(_LIST)]
    | Annotated[ItemsChange, Tag(_CHANGE)],
    Discriminator(_kind_of),
]
_BRANDS = Annotated[
    Annotated[list[Brand], Field(max_length=MAX_NAMES), Tag(_LIST)]
    | Annotated[BrandsChange, Tag(_CHANGE)],
    Discriminator(_kind_of),
]
_NAMES = Annotated[
    Annotated[list[Category], Field(max_length=MAX_NAMES), Tag(_LIST)]
    | Annotated[NamesChange, Tag(_CHANGE)],
    Discriminator(_kind_of),
]
_SNOOZES = Annotated[
    Annotated[list[Snooze], Field(max_length=MAX_SNOOZED), Tag(_LIST)]
    | Annotated[SnoozesChange, Tag(_CHANGE)],
    Discriminator(_kind_of),
]


class PagePatch(Frozen):
    """What somebody wants on their own page."""

    modules: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]] | None,
        Field(
            max_length=MAX_MODULES,
            description="names of modules in the order of the page; null for the site's own page",
        ),
    ] = None


class EmailPatch(Frozen):
    """How often somebody wants mail."""

    frequency_days: Annotated[
        int | None, Field(ge=1, le=365, description="at most one mail in so many days")
    ] = None
    paused_until: Annotated[Timestamp | None, Field(description="no mail before this time")] = None


class ConsentPatch(Frozen):
    """What somebody allows; null takes an answer back, as if they were never asked."""

    profiling: bool | None = None
    email_marketing: bool | None = None
    analytics: bool | None = None
    source: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="where they said so, such as the name of a form; from backends only",
        ),
    ] = None
    at: Annotated[
        Timestamp | None,
        Field(
            description="when they said so, if that was before now; what they said since stays;"
            " from backends only"
        ),
    ] = None


class PreferencesPatch(Frozen):
    """A change of somebody's choices: what is left out stays, null goes back to the default."""

    hidden_items: Annotated[_ITEMS | None, Field(description=_DESCRIBED)] = None
    hidden_brands: Annotated[_BRANDS | None, Field(description=_DESCRIBED)] = None
    hidden_categories: Annotated[
        _NAMES | None, Field(description=f"paths; all below is hidden too; {_DESCRIBED}")
    ] = None
    snoozed: Annotated[_SNOOZES | None, Field(description=_DESCRIBED)] = None
    followed_brands: Annotated[_BRANDS | None, Field(description=_DESCRIBED)] = None
    followed_categories: Annotated[_NAMES | None, Field(description=_DESCRIBED)] = None
    interests: Annotated[
        _NAMES | None, Field(description=f"categories or brands; {_DESCRIBED}")
    ] = None
    page: PagePatch | None = None
    email: EmailPatch | None = None
    personalization: Annotated[
        bool | None, Field(description="false: nothing of the history is used or kept")
    ] = None
    consent: ConsentPatch | None = None


def read_patch(value: Any, now: datetime) -> PreferencesPatch:
    """Check a patch as far as that can be done without what it changes.

    Parameters
    ----------
    value : object
        As JSON has it.
    now : datetime
        What the time is.

    Raises
    ------
    InvalidRequestError
        Naming each field that is wrong.
    """
    try:
        patch = PreferencesPatch.model_validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*_field_errors(error)) from error
    errors = [*_bad_times(patch, now), *_twice(patch)]
    for kind in ("brands", "categories"):
        hidden = frozenset(added(getattr(patch, f"hidden_{kind}")))
        errors += [
            FieldError(pointer, "is hidden by the same change")
            for pointer, name in pointers(patch, f"followed_{kind}")
            if covers(kind, hidden, name)
        ]
    if errors:
        raise InvalidRequestError(*errors)
    return patch


def _field_errors(error: ValidationError) -> list[FieldError]:
    return [
        FieldError(
            pointer_to(*(str(part) for part in one["loc"] if part not in (_LIST, _CHANGE))),
            str(one["msg"]).removeprefix("Value error, "),
        )
        for one in error.errors(include_url=False)
    ]


def added(said: Any) -> list[Any]:
    """Return what a patch puts into a list."""
    if said is None:
        return []
    return list(said if isinstance(said, list) else said.add)


def pointers(patch: PreferencesPatch, name: str) -> list[tuple[str, Any]]:
    """Return what a patch puts into a list, each with a pointer to it."""
    said = getattr(patch, name)
    path = (name,) if isinstance(said, list) else (name, "add")
    return [(pointer_to(*path, str(at)), one) for at, one in enumerate(added(said))]


def _twice(patch: PreferencesPatch) -> list[FieldError]:
    """Name what is both added and removed."""
    errors = []
    for name in (*LIMITS, "snoozed"):
        said = getattr(patch, name)
        if said is None or isinstance(said, list):
            continue
        coming = {one.item_id if isinstance(one, Snooze) else one for one in said.add}
        errors += [
            FieldError(pointer_to(name, "remove", str(at)), "is added by the same change")
            for at, one in enumerate(said.remove)
            if one in coming
        ]
    return errors


def _bad_times(patch: PreferencesPatch, now: datetime) -> list[FieldError]:
    times = [(f"{where}/until", one.until) for where, one in pointers(patch, "snoozed")]
    if patch.email is not None and patch.email.paused_until is not None:
        times.append((pointer_to("email", "paused_until"), patch.email.paused_until))
    errors = []
    for pointer, until in times:
        if until <= now:
            errors.append(FieldError(pointer, "lies in the past"))
        elif until > now + MAX_AHEAD:
            errors.append(FieldError(pointer, "lies more than ten years ahead"))
    if patch.consent is not None and patch.consent.at is not None and patch.consent.at > now:
        errors.append(FieldError(pointer_to("consent", "at"), "lies in the future"))
    return errors


def covers(kind: str, hidden: frozenset[str], name: str) -> bool:
    """Tell whether a name, or of ``categories`` one above it, is among those hidden."""
    return is_under(hidden, name) if kind == "categories" else name in hidden
