"""What a browser may say and ask: by a public key of a visitor, by a token of one customer."""

from dataclasses import replace
from typing import Any

from feature_store.errors import NotFoundError
from feature_store.schema import Event, EventType
from recsvc.access.auth import Principal
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.requests import RecommendationRequest

MIN_VISITOR_ID_LENGTH = 22
"""Characters of base64 that hold 122 random bits: an id that nobody can guess."""

PUBLIC_TYPES = frozenset(
    {
        EventType.VIEW,
        EventType.ADD_TO_CART,
        EventType.REMOVE_FROM_CART,
        EventType.IMPRESSION,
        EventType.CLICK,
        EventType.LIKE,
        EventType.DISLIKE,
        EventType.RATING,
        EventType.SEARCH,
        EventType.SURVEY,
    }
)
"""What a browser may report. What costs or pays something is for the shop's backend to say."""


PUBLIC_FIELDS = frozenset(
    {"title", "url", "image_url", "price", "sale_price", "brand", "categories"}
)
"""Fields of an item that a page shows anyway; attributes may hold what is not for everybody."""


def check_visitor_id(anonymous_id: str) -> FieldError | None:
    """Say what is wrong with a visitor's id, if anything."""
    if len(anonymous_id) >= MIN_VISITOR_ID_LENGTH:
        return None
    said = f"from a browser has at least {MIN_VISITOR_ID_LENGTH} characters, all random"
    return FieldError("#/anonymous_id", said)


def check_event(caller: Principal, event: Event) -> list[FieldError]:
    """Say why an event cannot come from whoever sends it; nothing if it can.

    Parameters
    ----------
    caller : Principal
        Who sends it; a backend may send anything.
    event : Event
        Valid in itself.
    """
    if caller.kind == "server":
        return []
    errors = []
    if event.user_id is not None and event.user_id != caller.user_id:
        said = "cannot be sent with a public key"
        if caller.kind == "customer":
            said = "is not the customer whom the token speaks for"
        errors.append(FieldError("#/user_id", said))
    elif event.anonymous_id is not None and (bad := check_visitor_id(event.anonymous_id)):
        errors.append(bad)
    if event.type not in PUBLIC_TYPES:
        said = f"a browser cannot report a {event.type.value}; the backend does, with its own key"
        errors.append(FieldError("#/type", said))
    if event.order_id is not None:
        errors.append(FieldError("#/order_id", "cannot be sent by a browser"))
    return errors


def filled_in(caller: Principal, value: Any) -> Any:
    """Return a document with the customer whom a token speaks for, if it names nobody."""
    if caller.user_id is None or not isinstance(value, dict) or value.get("user_id") is not None:
        return value
    return {**value, "user_id": caller.user_id}


def refuse_other(caller: Principal, user_id: object) -> None:
    """Refuse a token that is used for somebody else: for its bearer there is nobody else.

    Parameters
    ----------
    caller : Principal
        Who asks.
    user_id : object
        For whom, as the request says; ``None`` if it does not.

    Raises
    ------
    NotFoundError
        If it is another user than the token's.
    """
    if caller.kind == "customer" and user_id is not None and user_id != caller.user_id:
        raise NotFoundError("the token does not speak for this user_id; leave it out")


def is_withheld(caller: Principal, event: Event, *, opted_out: bool) -> bool:
    """Tell whether nothing of an event may be kept: the visitor's browser says so.

    Parameters
    ----------
    caller : Principal
        Who sends it; what a backend's events mean is for the backend to say.
    event : Event
        With the consent that it may carry.
    opted_out : bool
        Whether the request says ``Sec-GPC: 1``.
    """
    refused = event.consent is not None and event.consent.profiling is False
    return caller.kind != "server" and (opted_out or refused)


def question_of(caller: Principal, question: RecommendationRequest) -> RecommendationRequest:
    """Return what is asked, for the customer whom a token speaks for if it names nobody.

    Parameters
    ----------
    caller : Principal
        Who asks; a backend may ask anything.
    question : RecommendationRequest
        Valid in itself.

    Raises
    ------
    NotFoundError
        If a token is used for another customer.
    InvalidRequestError
        If it is not for browsers; each part that is not, is named.
    """
    if caller.kind == "server":
        return question
    refuse_other(caller, question.user_id)
    errors = []
    if caller.kind == "public" and question.user_id is not None:
        errors.append(FieldError("#/user_id", "cannot be asked for with a public key"))
    elif question.anonymous_id is not None and (bad := check_visitor_id(question.anonymous_id)):
        errors.append(bad)
    if question.external_id is not None:
        errors.append(FieldError("#/external_id", "is not for browsers"))
    if question.explain:
        errors.append(FieldError("#/explain", "is not for browsers"))
    if question.fields and (hidden := sorted(set(question.fields) - PUBLIC_FIELDS)):
        allowed = ", ".join(sorted(PUBLIC_FIELDS))
        said = f"{', '.join(hidden)}: a browser sees {allowed}"
        errors.append(FieldError("#/fields", said))
    if errors:
        raise InvalidRequestError(*errors)
    return question if caller.user_id is None else replace(question, user_id=caller.user_id)
