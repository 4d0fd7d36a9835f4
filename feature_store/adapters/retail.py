"""Google Retail (Vertex AI Search for commerce): user events by the names of its REST API.

A document is one ``UserEvent``, a list of them, ``{"userEvents": [...]}``, or the body of
``userEvents:import`` with an inline source. The form has no consent and no ids of events: an id is
derived from visitor, type, time, place among the products and product; purchases with
``purchaseTransaction.id`` from that alone. An event without ``eventTime`` happens now, and so
counts again when it is sent again.
"""

from datetime import datetime
from typing import Any

from feature_store.adapters.translation import (
    PURCHASE,
    SEARCH,
    AdapterError,
    Line,
    Translation,
    derived_id,
    object_of,
    objects_of,
    purchase_id,
    text_of,
)
from feature_store.schema import format_time

MAX_EVENTS = 1_000

NAMES = {
    "detail-page-view": "view",
    "add-to-cart": "add_to_cart",
    "remove-from-cart": "remove_from_cart",
    "purchase-complete": PURCHASE,
    "search": SEARCH,
}
"""Values of ``eventType``, and what they are here."""


def translate(document: Any, now: datetime, currency: str) -> Translation:
    """Read one user event or several.

    Parameters
    ----------
    document : object
        As JSON has it.
    now : datetime
        What the time is; for events that carry none.
    currency : str
        For prices without one.

    Raises
    ------
    AdapterError
        If there are no events in it, or too many.
    """
    pointer, events = _events(document)
    if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
        raise AdapterError(pointer, f"must be 1 to {MAX_EVENTS} user events")
    alone = events == [document]
    found = Translation()
    for index, event in enumerate(events):
        where = "#" if alone else f"{pointer}/{index}"
        kind = event.get("eventType") if isinstance(event, dict) else None
        if not isinstance(kind, str):
            found.refuse(index, where, "needs an eventType")
        elif kind not in NAMES:
            found.ignore(kind)
        else:
            _read(found, index, where, event, now, currency)
    return found


def _events(document: Any) -> tuple[str, Any]:
    if isinstance(document, list):
        return "#", document
    if not isinstance(document, dict):
        return "#", None
    if "userEvents" in document:
        return "#/userEvents", document["userEvents"]
    if "inputConfig" in document:
        inline = object_of(object_of(document["inputConfig"]).get("userEventInlineSource"))
        return "#/inputConfig/userEventInlineSource/userEvents", inline.get("userEvents")
    return "#", [document]


def _read(
    found: Translation,
    index: int,
    pointer: str,
    event: dict[str, Any],
    now: datetime,
    currency: str,
) -> None:
    kind = NAMES[event["eventType"]]
    transaction = object_of(event.get("purchaseTransaction"))
    order_id = text_of(transaction.get("id"))
    at = event.get("eventTime") or format_time(now)
    common = {
        "type": kind,
        "user_id": text_of(object_of(event.get("userInfo")).get("userId")),
        "anonymous_id": text_of(event.get("visitorId")),
        "timestamp": at,
        "order_id": order_id,
        "query": event.get("searchQuery") if kind == SEARCH else None,
    }
    identity = ("retail", common["anonymous_id"], event["eventType"], at)
    if kind == SEARCH:
        query = event.get("searchQuery")
        found.add(index, pointer, now, {"event_id": derived_id(*identity, query), **common})
        return
    details = objects_of(event.get("productDetails"))
    if not details:
        found.refuse(index, f"{pointer}/productDetails", "must list the products")
    for position, detail in enumerate(details, start=1):
        where = f"{pointer}/productDetails/{position - 1}"
        product = object_of(detail.get("product"))
        item_id = text_of(product.get("id"))
        event_id = derived_id(*identity, position, item_id)
        if kind == PURCHASE and order_id is not None:
            event_id = purchase_id(order_id, position)
        price = object_of(product.get("priceInfo"))
        code = price.get("currencyCode") or transaction.get("currencyCode")
        line = Line(where, event_id, item_id, detail.get("quantity"), price.get("price"), code)
        found.add_line(index, now, common, line, currency)
