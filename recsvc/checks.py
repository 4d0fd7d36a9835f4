"""Checks of the values of a request, and how they say what is wrong."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from feature_store.conditions import Condition, ConditionError, parse_condition
from feature_store.errors import RecsvcError
from feature_store.profile import check_name as check_system_name
from feature_store.schema import MAX_ID_LENGTH, Consent, Item, ItemId, check_id

MAX_LIMIT = 100
MAX_CONTEXT = 32
MAX_CONTEXT_VALUE_LENGTH = 256
FIELDS = frozenset(Item.model_fields)
"""Catalogue fields that an answer may carry."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_REFERENCE = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_CONSENT = frozenset(Consent.model_fields)


class FieldError(NamedTuple):
    """What is wrong with one part of a request.

    Parameters
    ----------
    pointer : str
        JSON pointer (RFC 6901) to the part as a fragment, such as ``#/item_ids/2``; a query
        parameter is pointed to as if it stood in a body.
    detail : str
        What is wrong with it.
    """

    pointer: str
    detail: str


class InvalidRequestError(RecsvcError):
    """A request that is understood but not allowed: 422.

    Parameters
    ----------
    errors : tuple of FieldError
        Every part that is wrong.
    """

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(f"{error.pointer}: {error.detail}" for error in errors))
        self.errors = errors


class UnparsableRequestError(RecsvcError):
    """A request that is not what it says it is, such as broken JSON: 400."""


class BadValueError(Exception):
    """A value that a check refuses.

    Parameters
    ----------
    pointer : str
        JSON pointer to what is wrong, relative to the value; empty for the value itself.
    detail : str
        What is wrong with it.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


def pointer_to(*parts: str) -> str:
    """Return the JSON pointer to a part of a document, as a fragment."""
    return "#" + "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def check_text_id(value: Any) -> str:
    """Accept an id of a person, an item or an event."""
    if not isinstance(value, str):
        raise BadValueError("", "must be a text")
    try:
        return check_id(value)
    except ValueError as error:
        raise BadValueError("", str(error)) from error


def check_external_id(value: Any) -> tuple[str, str]:
    """Accept the id of a user in another system."""
    if not isinstance(value, dict) or len(value) != 1:
        raise BadValueError("", "must be one id: {NAME: ID}, in a query external_id.NAME=ID")
    ((name, one),) = value.items()
    try:
        return check_system_name(name), check_text_id(one)
    except ValueError as error:
        raise BadValueError(pointer_to(name)[1:], str(error)) from error
    except BadValueError as error:
        raise BadValueError(pointer_to(name)[1:], error.detail) from error


def check_name(value: Any) -> str:
    """Accept the name of something that recsvc or its operator named."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadValueError("", "must be a name of 1 to 64 letters, digits, '_', '-', '.'")
    return value


def check_reference(value: Any) -> str:
    """Accept an id that recsvc itself made."""
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise BadValueError("", "is not an id that this service made")
    return value


def check_limit(value: Any) -> int:
    """Accept how many items to answer."""
    if type(value) is not int or not 1 <= value <= MAX_LIMIT:
        raise BadValueError("", f"must be an integer from 1 to {MAX_LIMIT}")
    return value


def check_boolean(value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise BadValueError("", "must be true or false")
    return value


def check_list(value: Any, most: int) -> list[Any]:
    """Accept a list of at most `most` entries."""
    if not isinstance(value, list):
        raise BadValueError("", "must be a list")
    if len(value) > most:
        raise BadValueError("", f"may have {most} entries, has {len(value)}")
    return value


def ids_check(most: int) -> Callable[[Any], tuple[ItemId, ...]]:
    """Return a check of a list of at most `most` item ids."""

    def check(value: Any) -> tuple[ItemId, ...]:
        ids = check_list(value, most)
        if not _plainly_ids(ids):
            for at, one in enumerate(ids):
                try:
                    check_text_id(one)
                except BadValueError as bad:
                    raise BadValueError(f"/{at}", bad.detail) from bad
        return tuple(ids)

    return check


def _plainly_ids(ids: list[Any]) -> bool:
    """Tell in one pass whether all are ids; a list of 500 is common on a long page."""
    try:
        printable = "".join(ids).isprintable()
    except TypeError:
        return False
    lengths = [len(one) for one in ids]
    return (
        printable
        and min(lengths, default=1) >= 1
        and max(lengths, default=1) <= MAX_ID_LENGTH
        and "." not in ids
        and ".." not in ids
    )


def check_filter(value: Any) -> Condition:
    """Accept a condition over items."""
    try:
        return parse_condition(value)
    except ConditionError as error:
        raise BadValueError(error.pointer, error.detail) from error


def check_context(value: Any) -> dict[str, str]:
    """Accept attributes of a request; numbers and booleans become their JSON text."""
    if not isinstance(value, dict):
        raise BadValueError("", "must be an object")
    if len(value) > MAX_CONTEXT:
        raise BadValueError("", f"may have {MAX_CONTEXT} attributes, has {len(value)}")
    known = {}
    for name, one in value.items():
        if not _NAME.fullmatch(name):
            raise BadValueError(
                pointer_to(name)[1:], "an attribute is named with letters, digits, '_-.'"
            )
        if isinstance(one, bool | int | float):
            one = orjson.dumps(one).decode()  # noqa: PLW2901 - as a query would write it
        if not isinstance(one, str) or len(one) > MAX_CONTEXT_VALUE_LENGTH:
            most = f"must be a text of at most {MAX_CONTEXT_VALUE_LENGTH} characters, or a number"
            raise BadValueError(pointer_to(name)[1:], most)
        known[name] = one
    return known


def check_consent(value: Any) -> Consent:
    """Accept what a visitor allows."""
    if not isinstance(value, dict):
        raise BadValueError("", "must be an object")
    for name, one in value.items():
        if name not in _CONSENT:
            raise BadValueError(
                pointer_to(name)[1:], f"unknown; known are {', '.join(sorted(_CONSENT))}"
            )
        if one is not None and not isinstance(one, bool):
            raise BadValueError(pointer_to(name)[1:], "must be true or false")
    return Consent(**value)


def check_fields(value: Any) -> tuple[str, ...]:
    """Accept names of catalogue fields."""
    names = check_list(value, len(FIELDS))
    for at, name in enumerate(names):
        if not isinstance(name, str) or name not in FIELDS:
            raise BadValueError(f"/{at}", f"unknown field; known are {', '.join(sorted(FIELDS))}")
    return tuple(names)
