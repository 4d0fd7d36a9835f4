"""Segment's tracking calls: track, identify, alias, alone or in a batch.

Field names are those of Segment's common fields, its V2 e-commerce and its e-mail spec; RudderStack
and PostHog have the same names of events and products. Consent is ``context.consent.
categoryPreferences``, whose keys each shop chooses: `consent_categories` says which of them mean
profiling. As in Segment, an empty object refuses everything, and no object at all leaves it open.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from feature_store.adapters.translation import (
    IMPRESSION,
    PURCHASE,
    SEARCH,
    AdapterError,
    Line,
    Merge,
    Translation,
    derived_id,
    object_of,
    objects_of,
    purchase_id,
    text_of,
)
from feature_store.mail_refusals import MAIL
from feature_store.schema import check_id, format_time

MAX_MESSAGES = 1_000
TIMES = ("timestamp", "originalTimestamp", "sentAt")

TRACKED = {
    "product viewed": "view",
    "product clicked": "click",
    "product added": "add_to_cart",
    "wishlist product added to cart": "add_to_cart",
    "product removed": "remove_from_cart",
    "product added to wishlist": "like",
    "product reviewed": "rating",
    "product list viewed": IMPRESSION,
    "products searched": SEARCH,
    "order completed": PURCHASE,
    "order refunded": "refund",
    "order cancelled": "refund",
    "email delivered": "send",
    "email opened": "open",
    "email link clicked": "click",
    "email bounced": "bounce",
    "email marked as spam": "complaint",
    "unsubscribed": "unsubscribe",
}
"""Names of track calls, in lower case, and what they are here."""

_WHOLE_LISTS = frozenset({IMPRESSION, PURCHASE, "refund"})
_WITHOUT_PRODUCT = frozenset({SEARCH, "send", "open", "bounce", "complaint", "unsubscribe"})


def translate(
    document: Any, now: datetime, currency: str, consent_categories: Collection[str]
) -> Translation:
    """Read one call or a batch of calls.

    Parameters
    ----------
    document : object
        As JSON has it: a call, or ``{"batch": [calls]}``.
    now : datetime
        What the time is; for calls that carry none.
    currency : str
        For prices without one.
    consent_categories : collection of str
        Categories of consent that mean profiling, in lower case.

    Raises
    ------
    AdapterError
        If the document is neither, or has too many calls.
    """
    if not isinstance(document, dict):
        raise AdapterError("#", "must be a call, or an object with a batch of calls")
    found = Translation()
    if "batch" not in document:
        _read(found, 0, "#", document, now, currency, consent_categories)
        return found
    batch = document["batch"]
    if not isinstance(batch, list) or not 1 <= len(batch) <= MAX_MESSAGES:
        raise AdapterError("#/batch", f"must be a list of 1 to {MAX_MESSAGES} calls")
    shared = object_of(document.get("context"))
    for index, call in enumerate(batch):
        pointer = f"#/batch/{index}"
        if not isinstance(call, dict):
            found.refuse(index, pointer, "must be an object")
            continue
        context = {**shared, **object_of(call.get("context"))}
        whole = {**call, "context": context}
        _read(found, index, pointer, whole, now, currency, consent_categories)
    return found


def said_of_profiling(call: dict[str, Any], consent_categories: Collection[str]) -> bool | None:
    """Return whether the person of a call lets a profile be kept; ``None`` if it does not say.

    Parameters
    ----------
    call : dict
        With its ``context``.
    consent_categories : collection of str
        Categories that mean profiling, in lower case. All that the call names must be granted, and
        one must be named.
    """
    consent = object_of(call.get("context")).get("consent")
    if consent is None:
        return None
    preferences = object_of(object_of(consent).get("categoryPreferences"))
    said = [
        granted is True
        for name, granted in preferences.items()
        if name.lower() in consent_categories
    ]
    return bool(said) and all(said)


def _read(
    found: Translation,
    index: int,
    pointer: str,
    call: dict[str, Any],
    now: datetime,
    currency: str,
    consent_categories: Collection[str],
) -> None:
    kind = call.get("type")
    if not isinstance(kind, str):
        found.refuse(index, pointer, "needs a type, such as track")
        return
    allowed = said_of_profiling(call, consent_categories)
    if allowed is not None and text_of(call.get("userId")) is None:
        at = next((call[time] for time in TIMES if call.get(time)), None)
        found.hear(text_of(call.get("anonymousId")), at, now, allowed=allowed)
    if allowed is False:
        found.withheld += 1
        if kind == "track":
            # What it says of mail holds all the same, and that something was bought is counted.
            refused = Translation()
            _track(refused, index, pointer, call, now, currency)
            found.denied += refused.events
    elif kind == "track":
        _track(found, index, pointer, call, now, currency)
    elif kind == "alias" or (kind == "identify" and call.get("anonymousId") and call.get("userId")):
        before = "previousId" if kind == "alias" else "anonymousId"
        _merge(found, index, pointer, call, before)
    else:
        found.ignore(kind)


def _merge(found: Translation, index: int, pointer: str, call: dict[str, Any], before: str) -> None:
    visitor, user = text_of(call.get(before)), text_of(call.get("userId"))
    if visitor is None or user is None:
        found.refuse(index, pointer, f"needs {before} and userId")
        return
    try:
        found.merges.append(Merge(index, check_id(visitor), check_id(user)))
    except ValueError as error:
        found.refuse(index, pointer, str(error))


def _track(
    found: Translation, index: int, pointer: str, call: dict[str, Any], now: datetime, currency: str
) -> None:
    name = call.get("event")
    known = name.strip().lower() if isinstance(name, str) else ""
    kind = TRACKED.get(known)
    if kind is None:
        found.ignore(name)
        return
    properties = object_of(call.get("properties"))
    if kind == "click" and not ({"product_id", "sku"} & properties.keys()):
        found.ignore(name)  # a link in an e-mail that leads to no product
        return
    at = next((call[time] for time in TIMES if call.get(time)), format_time(now))
    common = {
        "type": kind,
        "user_id": text_of(call.get("userId")),
        "anonymous_id": text_of(call.get("anonymousId")),
        "timestamp": at,
        "channel": MAIL if known.startswith("email ") else None,
        "order_id": text_of(properties.get("order_id")),
        "query": properties.get("query") if kind == SEARCH else None,
        "value": properties.get("rating") if kind == "rating" else None,
    }
    # Without an id, what the call says is its name.
    who = common["user_id"] or common["anonymous_id"]
    given = text_of(call.get("messageId"))
    message_id = given or derived_id("segment", who, name, at, common["order_id"])
    if kind in _WHOLE_LISTS:
        common["event_id"] = message_id
        _products(found, index, pointer, properties, now, currency, common)
        return
    item_id = text_of(properties.get("product_id")) or text_of(properties.get("sku"))
    if kind in _WITHOUT_PRODUCT:
        found.add(index, pointer, now, {"event_id": message_id, **common})
        return
    price, code = properties.get("price"), properties.get("currency")
    line = Line(pointer, message_id, item_id, properties.get("quantity"), price, code)
    found.add_line(index, now, common, line, currency)


def _products(
    found: Translation,
    index: int,
    pointer: str,
    properties: dict[str, Any],
    now: datetime,
    currency: str,
    common: dict[str, Any],
) -> None:
    """Read an event that lists its products."""
    products = objects_of(properties.get("products"))
    if not products:
        found.refuse(index, f"{pointer}/properties/products", "must list the products")
    for position, product in enumerate(products, start=1):
        event_id = derived_id("segment", common["event_id"], position)
        if common["type"] == PURCHASE and common["order_id"] is not None:
            event_id = purchase_id(common["order_id"], position)
        shown_at = product.get("position") or position
        line = Line(
            f"{pointer}/properties/products/{position - 1}",
            event_id,
            text_of(product.get("product_id")) or text_of(product.get("sku")),
            product.get("quantity"),
            product.get("price"),
            product.get("currency") or properties.get("currency"),
            shown_at if common["type"] == IMPRESSION else None,
        )
        found.add_line(index, now, common, line, currency)
