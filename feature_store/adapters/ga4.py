"""Google Analytics 4: the payload of the Measurement Protocol, with its e-commerce events.

Field names are those of Google's reference of the protocol and of its recommended events. Who
denies ``consent.ad_personalization`` (or sends its forerunner ``non_personalized_ads``) wants no
profile: nothing of the payload is stored.

The protocol has no ids of events. An id is derived from who, name, time, place in the payload and
item; purchases with a ``transaction_id`` from that alone. So a payload without ``timestamp_micros``
and ``transaction_id`` counts again when it is sent again.
"""

from datetime import datetime
from typing import Any

from feature_store.adapters.translation import (
    IMPRESSION,
    PURCHASE,
    SEARCH,
    AdapterError,
    Line,
    Translation,
    derived_id,
    micros_to_text,
    object_of,
    objects_of,
    purchase_id,
    text_of,
)
from feature_store.schema import format_time

MAX_EVENTS = 1_000

NAMES = {
    "view_item": "view",
    "select_item": "click",
    "view_item_list": IMPRESSION,
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "like",
    "purchase": PURCHASE,
    "refund": "refund",
    "search": SEARCH,
    "view_search_results": SEARCH,
}
"""Names of events, and what they are here."""


def translate(document: Any, now: datetime, currency: str) -> Translation:
    """Read one payload.

    Parameters
    ----------
    document : object
        ``{client_id | app_instance_id, user_id, timestamp_micros, consent, events: [...]}``.
    now : datetime
        What the time is; for events that carry none.
    currency : str
        For prices without one.

    Raises
    ------
    AdapterError
        If it has no list of events, or too many.
    """
    if not isinstance(document, dict):
        raise AdapterError("#", "must be an object with events")
    events = document.get("events")
    if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
        raise AdapterError("#/events", f"must be a list of 1 to {MAX_EVENTS} events")
    found = Translation()
    allowed = said_of_profiling(document)
    if allowed is not None and text_of(document.get("user_id")) is None:
        found.hear(_client_id(document), _sent_at(document), now, allowed=allowed)
    if allowed is False:
        found.withheld = len(events)
        refused = Translation()
        _read_all(refused, document, events, now, currency)
        found.denied = refused.events
    else:
        _read_all(found, document, events, now, currency)
    return found


def _read_all(
    found: Translation, document: dict[str, Any], events: list[Any], now: datetime, currency: str
) -> None:
    for index, event in enumerate(events):
        pointer = f"#/events/{index}"
        if not isinstance(event, dict) or not isinstance(event.get("name"), str):
            found.refuse(index, pointer, "needs a name")
        elif event["name"] not in NAMES:
            found.ignore(event["name"])
        else:
            _read(found, index, pointer, document, event, now, currency)


def said_of_profiling(document: dict[str, Any]) -> bool | None:
    """Return whether the person of a payload lets a profile be kept; ``None`` for not said."""
    personal = object_of(document.get("consent")).get("ad_personalization")
    if personal is not None:
        return bool(personal == "GRANTED")
    return False if document.get("non_personalized_ads") is True else None


def _sent_at(document: dict[str, Any]) -> str | None:
    try:
        return micros_to_text(document.get("timestamp_micros"))
    except ValueError:
        return None


def _client_id(document: dict[str, Any]) -> str | None:
    return text_of(document.get("client_id")) or text_of(document.get("app_instance_id"))


def _read(
    found: Translation,
    index: int,
    pointer: str,
    document: dict[str, Any],
    event: dict[str, Any],
    now: datetime,
    currency: str,
) -> None:
    kind = NAMES[event["name"]]
    params = object_of(event.get("params"))
    micros = event.get("timestamp_micros") or document.get("timestamp_micros")
    try:
        at = format_time(now) if micros is None else micros_to_text(micros)
    except ValueError as error:
        found.refuse(index, f"{pointer}/timestamp_micros", str(error))
        return
    order_id = text_of(params.get("transaction_id"))
    client_id = _client_id(document)
    common = {
        "type": kind,
        "user_id": text_of(document.get("user_id")),
        "anonymous_id": client_id,
        "timestamp": at,
        "order_id": order_id,
        "query": params.get("search_term") if kind == SEARCH else None,
    }
    identity = ("ga4", common["user_id"] or client_id, event["name"], micros or at, index)
    if kind == SEARCH:
        found.add(index, pointer, now, {"event_id": derived_id(*identity), **common})
        return
    items = objects_of(params.get("items"))
    if not items:
        found.refuse(index, f"{pointer}/params/items", "must list the items")
    for position, item in enumerate(items, start=1):
        where = f"{pointer}/params/items/{position - 1}"
        item_id = text_of(item.get("item_id"))
        event_id = derived_id(*identity, position, item_id)
        if kind == PURCHASE and order_id is not None:
            event_id = purchase_id(order_id, position)
        price, code = item.get("price"), params.get("currency")
        rank = position if kind == IMPRESSION else None
        line = Line(where, event_id, item_id, item.get("quantity"), price, code, rank)
        found.add_line(index, now, common, line, currency)
