"""What a caller asks for, and the one parser of it.

A query string and a JSON body become the same document and go through the same checks, in the raw
dispatcher and in the FastAPI route alike; so the four ways in cannot differ. Written by hand: this
runs on every request, and pydantic would cost more than all of the rest of the parsing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from feature_store.conditions import Condition
from feature_store.schema import Consent, ItemId, person_of
from feature_store.values import value_class
from recsvc import checks
from recsvc.checks import (
    MAX_LIMIT,
    BadValueError,
    FieldError,
    InvalidRequestError,
    UnparsableRequestError,
    pointer_to,
)

DEFAULT_PLACEMENT = "home"
MAX_ITEM_IDS = 50
MAX_EXCLUDE_ITEM_IDS = 500
MAX_FILTER_LENGTH = 16_384

_BAD_ESCAPE = re.compile(b"%(?![0-9A-Fa-f]{2})")


@value_class(frozen=True, slots=True)
class RecommendationRequest:
    """One question: what should be shown in this slot, to this person, here and now.

    Parameters
    ----------
    placement : str
        The slot.
    user_id, anonymous_id : str or None
        Whom for; neither means nobody.
    external_id : tuple of (str, str) or None
        Name of another system and the user's id there, in place of a ``user_id``.
    limit : int or None
        How many items, 1 to 100; ``None`` for the placement's own number.
    item_ids : tuple of ItemId
        What the page is about: the product shown, or the cart.
    exclude_item_ids : tuple of ItemId
        What must not be in the answer.
    filter : Condition or None
        Only items that match.
    context : mapping of str to str
        Attributes of the request; numbers and booleans of a body as their JSON text, so that a
        query can say the same.
    consent : Consent or None
        What this visitor allows, if the caller knows.
    after : str or None
        A recommendation id whose list is to be continued.
    fields : tuple of str
        Catalogue fields to copy into each item.
    explain : bool
        Whether to say reasons in words and show each candidate's journey.
    """

    placement: str = DEFAULT_PLACEMENT
    user_id: str | None = None
    anonymous_id: str | None = None
    external_id: tuple[str, str] | None = None
    limit: int | None = None
    item_ids: tuple[ItemId, ...] = ()
    exclude_item_ids: tuple[ItemId, ...] = ()
    filter: Condition | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    consent: Consent | None = None
    after: str | None = None
    fields: tuple[str, ...] = ()
    explain: bool = False

    @property
    def person(self) -> str | None:
        """The key of the person's state, or ``None`` for nobody."""
        return person_of(self.user_id, self.anonymous_id)


OF_ONE_LIST = frozenset({"placement", "limit", "after"})
"""What says which list is wanted, and how much of it; a page has several."""


def parse_query(query: bytes, without: frozenset[str] = frozenset()) -> RecommendationRequest:
    """Read a query string.

    Parameters
    ----------
    query : bytes
        As it came: ``application/x-www-form-urlencoded``, a ``+`` is a space, UTF-8. Lists repeat
        the parameter; ``context``, ``consent`` and ``external_id`` are written as
        ``context.NAME=VALUE``.
    without : frozenset of str
        Fields that are not for what is asked.

    Raises
    ------
    InvalidRequestError
        Naming each parameter that is wrong.
    """
    errors: list[FieldError] = []
    document: dict[str, Any] = {}
    for name, value in decode_query(query, errors):
        reader = _TEXT_READERS.get(name)
        try:
            if reader is None:
                if name in _LISTS:
                    document.setdefault(name, []).append(value)
                    continue
                _read_part(document, name, value)
            elif name in document:
                raise BadValueError("", "is given more than once")
            else:
                document[name] = reader(value)
        except BadValueError as bad:
            errors.append(FieldError(pointer_to(*name.split(".", 1)) + bad.pointer, bad.detail))
    if without:
        for name in without.intersection(document):
            del document[name]
            errors.append(_unknown(name, without))
    return _build(document, errors)


def parse_body(body: bytes) -> RecommendationRequest:
    """Read a JSON body.

    Raises
    ------
    UnparsableRequestError
        If it is not JSON.
    InvalidRequestError
        Naming each field that is wrong.
    """
    document = load_json(body)
    if not isinstance(document, dict):
        raise InvalidRequestError(FieldError("#", "must be an object"))
    return _build(document, [])


def parse_external_id(query: bytes) -> tuple[str, str]:
    """Read a query string that names a user by ``external_id.NAME=ID``, and holds nothing else.

    Raises
    ------
    InvalidRequestError
        Naming each parameter that is wrong.
    """
    request = parse_query(query)
    if request.external_id is None:
        said = "is missing: name a user by external_id.NAME=ID"
        raise InvalidRequestError(FieldError("#/external_id", said))
    if request != RecommendationRequest(external_id=request.external_id):
        raise InvalidRequestError(FieldError("#", "external_id.NAME=ID stands alone"))
    return request.external_id


def load_json(body: bytes) -> Any:
    """Read JSON from a body.

    Raises
    ------
    UnparsableRequestError
        If it is not JSON in UTF-8.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnparsableRequestError(f"the body is not JSON: {error}") from error


def decode_query(query: bytes, errors: list[FieldError]) -> list[tuple[str, str]]:
    """Split and decode a query string; what cannot be decoded goes to `errors`."""
    pairs: list[tuple[str, str]] = []
    if b"%" not in query and b"+" not in query and query.isascii():
        for text in query.decode().split("&"):
            if text:
                plain_name, _, plain_value = text.partition("=")
                pairs.append((plain_name, plain_value))
        return pairs
    for piece in query.split(b"&"):
        if not piece:
            continue
        raw_name, _, raw_value = piece.partition(b"=")
        name, value = _decoded(raw_name), _decoded(raw_value)
        if name is None or value is None:
            shown = name if name is not None else raw_name.decode("ascii", "replace")
            detail = "is not percent-encoded UTF-8 (a literal % is written %25)"
            errors.append(FieldError(pointer_to(shown), detail))
        else:
            pairs.append((name, value))
    return pairs


def _decoded(raw: bytes) -> str | None:
    try:
        if b"%" in raw:
            if _BAD_ESCAPE.search(raw):
                return None
            return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
        return raw.replace(b"+", b" ").decode("utf-8")
    except UnicodeDecodeError:
        return None


def _build(document: dict[str, Any], errors: list[FieldError]) -> RecommendationRequest:
    values: dict[str, Any] = {}
    for name, value in document.items():
        check = _CHECKS.get(name)
        if check is None:
            errors.append(_unknown(name))
        elif value is not None:
            try:
                values[name] = check(value)
            except BadValueError as bad:
                errors.append(FieldError(pointer_to(name) + bad.pointer, bad.detail))
    if "external_id" in values and "user_id" in values:
        errors.append(FieldError("#/external_id", "stands for a user_id: give one of the two"))
    if errors:
        raise InvalidRequestError(*errors)
    return RecommendationRequest(**values)


def _unknown(name: str, without: frozenset[str] = frozenset()) -> FieldError:
    known = ", ".join(one for one in _CHECKS if one not in without)
    return FieldError(pointer_to(name), f"unknown field; the fields are {known}")


# --- from the text of a query to the values of JSON ---------------------------------------------


def _read_integer(text: str) -> int:
    # int() would also take " 5", "+5", "1_0" and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadValueError("", f"must be an integer from 1 to {MAX_LIMIT}")
    return int(text)


def _read_boolean(text: str) -> bool:
    if text == "true":
        return True
    if text == "false":
        return False
    raise BadValueError("", "must be true or false")


def _read_json(text: str) -> Any:
    if len(text) > MAX_FILTER_LENGTH:
        raise BadValueError("", f"may have {MAX_FILTER_LENGTH} characters; send more in a body")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadValueError("", f"is not JSON: {error}") from error


def _read_part(document: dict[str, Any], name: str, text: str) -> None:
    """Add ``context.NAME``, ``consent.NAME`` or ``external_id.NAME`` to its object.

    ``context[NAME]``, which is how OpenAPI writes an object in a query, is the same.
    """
    whole, dot, part = name.partition(".")
    if not dot and name.endswith("]"):
        whole, dot, part = name[:-1].partition("[")
    if whole not in _OBJECTS:
        document[name] = text  # unknown; the check of the document says so
        return
    if not dot:
        raise BadValueError("", f"is written as {whole}.NAME=VALUE in a query")
    into = document.setdefault(whole, {})
    if part in into:
        raise BadValueError("", "is given more than once")
    into[part] = _read_boolean(text) if whole == "consent" else text


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "placement": checks.check_name,
    "user_id": checks.check_text_id,
    "anonymous_id": checks.check_text_id,
    "external_id": checks.check_external_id,
    "limit": checks.check_limit,
    "item_ids": checks.ids_check(MAX_ITEM_IDS),
    "exclude_item_ids": checks.ids_check(MAX_EXCLUDE_ITEM_IDS),
    "filter": checks.check_filter,
    "context": checks.check_context,
    "consent": checks.check_consent,
    "after": checks.check_reference,
    "fields": checks.check_fields,
    "explain": checks.check_boolean,
}

_LISTS = frozenset({"item_ids", "exclude_item_ids", "fields"})
_OBJECTS = frozenset({"context", "consent", "external_id"})

_TEXT_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("placement", "user_id", "anonymous_id", "after"), str),
    "limit": _read_integer,
    "explain": _read_boolean,
    "filter": _read_json,
}
