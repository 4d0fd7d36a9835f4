"""Documents of other platforms, written as their own documentation shows them."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.adapters import cloudevents, ga4, retail, segment
from feature_store.adapters.orders import Order, events_of
from feature_store.adapters.translation import AdapterError, Translation, derived_id

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CATEGORIES = frozenset({"personalization", "profiling"})


def from_segment(document: Any) -> Translation:
    return segment.translate(document, NOW, "EUR", CATEGORIES)


def from_ga4(document: Any) -> Translation:
    return ga4.translate(document, NOW, "EUR")


def from_retail(document: Any) -> Translation:
    return retail.translate(document, NOW, "EUR")


def track(event: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": event,
        "userId": "ann",
        "anonymousId": "507f191e810c19729de860ea",
        "messageId": "022bb90c-bbac-11e4-8dfc-aa07a5b093db",
        "timestamp": "2026-11-22T10:15:00.123Z",
        "properties": {"product_id": "507f1f77", "sku": "G-32", "price": 18.99, "quantity": 1},
        **more,
    }


def test_a_segment_order_becomes_one_purchase_for_each_product() -> None:
    products = [
        {"product_id": "p1", "price": 19, "quantity": 2},
        {"sku": "s2", "price": "3.5", "quantity": 1.0, "currency": "USD"},
    ]
    order = track(
        "Order Completed", properties={"order_id": "50314b8e", "products": products}, context={}
    )
    found = from_segment(order)
    assert not found.refused
    first, second = found.events
    assert (first.type, first.item_id, first.quantity, first.order_id) == (
        "purchase", "p1", 2, "50314b8e",
    )  # fmt: skip
    assert first.unit_price is not None
    assert (str(first.unit_price.amount), first.unit_price.currency) == ("19", "EUR")
    assert (first.user_id, first.anonymous_id) == ("ann", "507f191e810c19729de860ea")
    assert second.item_id == "s2"
    assert second.unit_price is not None
    assert second.unit_price.currency == "USD"
    assert first.event_id != second.event_id
    # The same order by the shop's own backend has the same ids.
    lines = [{"item_id": "p1"}, {"item_id": "s2"}]
    own = Order.model_validate(
        {"order_id": "50314b8e", "user_id": "ann", "placed_at": NOW, "lines": lines}
    )
    assert [one.event_id for one in events_of(own)] == [first.event_id, second.event_id]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Product Viewed", "view"),
        ("Product Clicked", "click"),
        ("Product Added", "add_to_cart"),
        ("product added", "add_to_cart"),
        ("Product Removed", "remove_from_cart"),
        ("Product Added to Wishlist", "like"),
        ("Product Reviewed", "rating"),
    ],
)
def test_segment_events_of_one_product(name: str, kind: str) -> None:
    [event] = from_segment(track(name)).events
    assert (event.type, event.item_id) == (kind, "507f1f77")
    assert event.event_id == "022bb90c-bbac-11e4-8dfc-aa07a5b093db"


def test_segment_lists_searches_and_mails() -> None:
    products = [{"product_id": "a", "position": 4}, {"product_id": "b"}]
    shown = from_segment(track("Product List Viewed", properties={"products": products})).events
    assert [(one.type, one.item_id, one.rank) for one in shown] == [
        ("impression", "a", 4),
        ("impression", "b", 2),
    ]
    [search] = from_segment(track("Products Searched", properties={"query": "shoes"})).events
    assert (search.type, search.query, search.item_id) == ("search", "shoes", None)
    [opened] = from_segment(track("Email Opened", properties={})).events
    assert opened.type == "open"
    assert from_segment(track("Email Link Clicked", properties={})).ignored == {
        "Email Link Clicked": 1
    }


def test_segment_identify_and_alias_say_who_is_whom_and_the_rest_is_named() -> None:
    found = from_segment(
        {
            "batch": [
                {"type": "identify", "userId": "ann", "anonymousId": "v1", "traits": {}},
                {"type": "alias", "userId": "ann", "previousId": "v2"},
                {"type": "identify", "userId": "ann"},
                {"type": "page", "userId": "ann"},
                track("Coupon Entered"),
                track("Coupon Entered"),
                {"type": "alias", "userId": "ann"},
                {"userId": "ann"},
                "call",
            ]
        }
    )
    assert [tuple(one) for one in found.merges] == [(0, "v1", "ann"), (1, "v2", "ann")]
    assert found.ignored == {"identify": 1, "page": 1, "Coupon Entered": 2}
    assert [(one.message, one.pointer) for one in found.refused] == [
        (6, "#/batch/6"),
        (7, "#/batch/7"),
        (8, "#/batch/8"),
    ]


@pytest.mark.parametrize(
    ("preferences", "kept"),
    [
        (None, True),
        ({}, False),
        ({"Advertising": True}, False),
        ({"Personalization": True}, True),
        ({"Personalization": False, "Advertising": True}, False),
        ({"personalization": True, "Profiling": False}, False),
        ({"personalization": "true"}, False),
    ],
)
def test_consent_of_segment_is_obeyed(preferences: Any, kept: bool) -> None:
    context = {} if preferences is None else {"consent": {"categoryPreferences": preferences}}
    calls = [
        track("Product Viewed", context=context),
        {"type": "identify", "userId": "ann", "anonymousId": "v", "context": context},
    ]
    found = from_segment({"batch": calls})
    assert (len(found.events), len(found.merges), found.withheld) == (
        (1, 1, 0) if kept else (0, 0, 2)
    )
    shared = [{key: value for key, value in call.items() if key != "context"} for call in calls]
    assert from_segment({"batch": shared, "context": context}).withheld == found.withheld


def test_ga4_events_have_ids_of_their_own_that_stay() -> None:
    items = [
        {"item_id": "SKU_1", "item_name": "Tee", "price": 10.01, "quantity": 3},
        {"item_id": 2},
    ]
    payload = {
        "client_id": "123.456",
        "user_id": "ann",
        "timestamp_micros": "1795342500000000",
        "non_personalized_ads": False,
        "events": [
            {"name": "view_item", "params": {"currency": "USD", "value": 7.7, "items": items}},
            {"name": "view_item", "params": {"currency": "USD", "items": items[:1]}},
            {"name": "purchase", "params": {"transaction_id": "T_1", "items": items}},
            {"name": "search", "params": {"search_term": "Clothing"}},
            {"name": "page_view"},
            {"name": "add_to_cart", "params": {"items": [{"item_name": "nameless"}]}},
            {"name": "refund", "params": {"transaction_id": "T_1"}},
        ],
    }
    found = from_ga4(payload)
    assert [one.type.value for one in found.events] == [
        "view", "view", "view", "purchase", "purchase", "search",
    ]  # fmt: skip
    assert found.ignored == {"page_view": 1}
    assert [one.pointer for one in found.refused] == [
        "#/events/5/params/items/0",
        "#/events/6/params/items",
    ]
    first = found.events[0]
    assert first.timestamp == datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
    assert first.unit_price is not None
    assert str(first.unit_price.amount) == "10.01"
    assert found.events[1].item_id == "2"
    ids = [one.event_id for one in found.events]
    assert len(set(ids)) == len(ids)
    assert [one.event_id for one in from_ga4(payload).events] == ids


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({}, True),
        ({"consent": {"ad_user_data": "DENIED"}}, True),
        ({"consent": {"ad_personalization": "GRANTED"}}, True),
        ({"consent": {"ad_personalization": "DENIED"}}, False),
        ({"non_personalized_ads": True}, False),
    ],
)
def test_consent_of_ga4_is_obeyed(said: dict[str, Any], kept: bool) -> None:
    event = {"name": "view_item", "params": {"items": [{"item_id": "a"}]}}
    found = from_ga4({"client_id": "c", "events": [event], **said})
    assert (len(found.events), found.withheld) == ((1, 0) if kept else (0, 1))


def test_retail_events_in_all_their_wrappings() -> None:
    event = {
        "eventType": "purchase-complete",
        "visitorId": "visitor0",
        "userInfo": {"userId": "ann"},
        "eventTime": "2026-11-22T10:15:00.123456789Z",
        "productDetails": [
            {"product": {"id": "abc"}, "quantity": 3},
            {
                "product": {"id": "def", "priceInfo": {"price": 4.5, "currencyCode": "USD"}},
                "quantity": 1,
            },
        ],
        "purchaseTransaction": {"id": "42", "revenue": 19.99, "currencyCode": "EUR"},
    }
    found = from_retail(event)
    assert not found.refused
    assert [(one.type, one.item_id, one.quantity) for one in found.events] == [
        ("purchase", "abc", 3),
        ("purchase", "def", 1),
    ]
    assert found.events[1].unit_price is not None
    inline = {"inputConfig": {"userEventInlineSource": {"userEvents": [event]}}}
    for wrapped in ([event], {"userEvents": [event]}, inline):
        assert from_retail(wrapped).events == found.events
    others = [
        {"eventType": "home-page-view", "visitorId": "v"},
        {"eventType": "search", "visitorId": "v", "searchQuery": "x", "productDetails": [{}]},
        {"eventType": "detail-page-view", "visitorId": "v"},
        {"visitorId": "v"},
    ]
    found = from_retail(others)
    assert found.ignored == {"home-page-view": 1}
    assert [one.query for one in found.events] == ["x"]
    assert [one.pointer for one in found.refused] == ["#/2/productDetails", "#/3"]


def test_cloudevents_carry_our_event() -> None:
    data = {"user_id": "ann", "item_id": "a"}
    envelope = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "example.shop.view",
        "time": "2026-11-22T10:15:00Z",
        "data": data,
    }
    whole = cloudevents.unwrap(envelope)
    assert whole == {
        **data,
        "event_id": derived_id("cloudevent", "/shop", "1"),
        "type": "view",
        "timestamp": "2026-11-22T10:15:00Z",
    }
    del envelope["data"]
    packed = {**envelope, "data_base64": base64.b64encode(json.dumps(data).encode()).decode()}
    assert cloudevents.unwrap(packed) == whole
    for broken, pointer in (
        ({**envelope, "data": [1]}, "#/data"),
        ({**envelope, "specversion": "0.3", "data": data}, "#/specversion"),
        ({**envelope, "id": "", "data": data}, "#/id"),
        ({**envelope, "data_base64": "***"}, "#/data_base64"),
    ):
        with pytest.raises(AdapterError) as caught:
            cloudevents.unwrap(broken)
        assert caught.value.pointer == pointer


@pytest.mark.parametrize("read", [from_segment, from_ga4, from_retail])
@pytest.mark.parametrize("document", [None, [], 3, {"batch": []}, {"events": {}}, {"events": []}])
def test_what_is_nothing_of_the_kind_is_refused_or_named(read: Any, document: Any) -> None:
    try:
        found = read(document)
    except AdapterError:
        return
    assert found.refused
    assert not found.events


NAMES = [
    "type", "event", "events", "batch", "userId", "anonymousId", "messageId", "timestamp",
    "properties", "products", "product_id", "price", "quantity", "name", "params", "items",
    "item_id", "client_id", "transaction_id", "timestamp_micros", "eventType", "visitorId",
    "productDetails", "product", "id", "eventTime", "context", "consent", "track", "purchase",
    "view_item", "detail-page-view", "Order Completed", "Product Viewed",
]  # fmt: skip
WORDS = st.sampled_from(NAMES) | st.text(max_size=3)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=25,
)


@given(DOCUMENTS)
def test_any_document_is_read_or_refused_and_nothing_is_lost(document: Any) -> None:
    for wrapped in (
        document,
        {"type": "track", "event": "Order Completed", "userId": "u", "properties": document},
        {"client_id": "c", "events": [{"name": "purchase", "params": {"items": document}}]},
        {"eventType": "purchase-complete", "visitorId": "v", "productDetails": document},
        {"batch": [document]},
    ):
        for read in (from_segment, from_ga4, from_retail):
            try:
                found = read(wrapped)
            except AdapterError:
                continue
            named = len(found.refused) + found.ignored.total() + found.withheld
            assert named + len(found.events) + len(found.merges) > 0
            assert found.events == read(wrapped).events
