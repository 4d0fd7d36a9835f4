"""What a shop says of a user: attributes, loyalty, ids in other systems.

One check serves the API, imports and personas, so that the same document is good everywhere.
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from feature_store.item_changes import merged
from feature_store.schema import Frozen, Id

MAX_ATTRIBUTES = 100
MAX_EXTERNAL_IDS = 20
MAX_TEXT_LENGTH = 1_000
MAX_LIST_LENGTH = 100
NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"

AttributeValue = str | int | float | bool | list[str]

_NAME = re.compile(NAME_PATTERN[1:-1])
_MAX_NUMBER = 2**53


def check_name(value: object) -> str:
    """Return the name of an attribute or of another system.

    Raises
    ------
    ValueError
        If it has other characters than letters, digits, ``_``, ``.``, ``-``, or over 64.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a name has 1 to 64 letters, digits, '_', '-', '.'")
    return value


def check_attribute(value: object) -> AttributeValue:
    """Return the value of an attribute.

    Raises
    ------
    ValueError
        If it is no text, number, boolean or list of texts, or is too long or too large.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _check_text(value)
    if isinstance(value, int | float):
        # Beyond this, programs that read JSON do not agree on which number it is.
        if not (isfinite(value) and abs(value) <= _MAX_NUMBER):
            raise ValueError("a number is from -2^53 to 2^53")
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        if len(value) > MAX_LIST_LENGTH:
            raise ValueError(f"may have {MAX_LIST_LENGTH} texts, has {len(value)}")
        return [_check_text(one) for one in value]
    raise ValueError("must be a text, a number, true, false, or a list of texts")


def _check_text(value: str) -> str:
    if len(value) > MAX_TEXT_LENGTH:
        raise ValueError(f"a text may have {MAX_TEXT_LENGTH} characters, this one has {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not Unicode: it holds half a character") from None
    return value


def _check_points(value: object) -> object:
    if value is not None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("must be a number")
        check_attribute(value)
    return value


Name = Annotated[
    str,
    BeforeValidator(check_name),
    Field(pattern=NAME_PATTERN),
]
Attribute = Annotated[
    Any,
    BeforeValidator(check_attribute),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": MAX_TEXT_LENGTH},
                {"type": "number", "minimum": -_MAX_NUMBER, "maximum": _MAX_NUMBER},
                {"type": "boolean"},
                {
                    "type": "array",
                    "items": {"type": "string", "maxLength": MAX_TEXT_LENGTH},
                    "maxItems": MAX_LIST_LENGTH,
                },
            ]
        }
    ),
]
Attributes = Annotated[dict[Name, Attribute], Field(max_length=MAX_ATTRIBUTES)]
ExternalIds = Annotated[
    dict[Name, Id],
    Field(
        max_length=MAX_EXTERNAL_IDS,
        description="the user's id in each other system; no two users have the same one",
        examples=[{"subscriber_key": "S-77"}],
    ),
]


class Loyalty(Frozen):
    """What a loyalty program knows of a user."""

    program: Annotated[str | None, Field(max_length=128, examples=["club"])] = None
    tier: Annotated[str | None, Field(max_length=128, examples=["gold"])] = None
    points: Annotated[
        int | float | None, BeforeValidator(_check_points), Field(examples=[1200])
    ] = None


class Profile(Frozen):
    """What a shop says of a user."""

    attributes: Annotated[
        Attributes,
        Field(
            default_factory=dict,
            description="text, number, boolean or list of texts by name",
            examples=[{"age": 34}],
        ),
    ]
    loyalty: Loyalty = Loyalty()
    external_ids: Annotated[ExternalIds, Field(default_factory=dict)]

    def as_document(self) -> dict[str, Any]:
        """Return the profile as the store keeps it, without what is not said."""
        document = self.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in document.items() if value}


def read_profile(value: object) -> Profile:
    """Check a profile as JSON has it; ``null`` counts as not said.

    Raises
    ------
    ValidationError
        Naming each part that is wrong.
    """
    if isinstance(value, Mapping):
        value = {name: one for name, one in value.items() if one is not None}
    # Strict as JSON is: no number for a text, no text for a number.
    return Profile.model_validate(value, strict=True)


def patch_profile(document: Mapping[str, Any] | None, patch: Mapping[str, Any]) -> Profile:
    """Return the profile that a merge patch (RFC 7396) makes of another.

    Parameters
    ----------
    document : mapping or None
        As the store keeps it; ``None`` for a user without one.
    patch : mapping
        What changes; ``null`` removes.

    Raises
    ------
    ValidationError, ValueError
        If the result is no profile.
    """
    return read_profile(merged(document or {}, patch))
