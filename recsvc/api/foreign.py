"""``/v1/events/segment``, ``/ga4``, ``/retail``: events in the words of other platforms."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from feature_store.adapters import ga4, retail, segment
from feature_store.adapters.translation import AdapterError, Refusal, Translation
from feature_store.errors import ConflictError
from recsvc.api.events import ERRORS, MAX_EVENTS
from recsvc.api.http import AnyWorker, actor, json_body, secured
from recsvc.api.openapi import any_body, responses
from recsvc.api.schemas import EventsTranslated, FieldProblem, RejectedEvent
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

router = APIRouter(tags=["events"])

_ANSWER: dict[str, Any] = {
    "accepted": 2,
    "duplicates": 0,
    "conflicts": 0,
    "rejected": [],
    "ignored": {},
    "withheld": 0,
    "merged": 0,
}

SEGMENT_EXAMPLE: dict[str, Any] = {
    "batch": [
        {
            "type": "track",
            "messageId": "ajs-6c1f",
            "event": "Order Completed",
            "userId": "2375",
            "timestamp": "2026-11-22T10:15:00Z",
            "context": {"consent": {"categoryPreferences": {"Personalization": True}}},
            "properties": {
                "order_id": "1001",
                "currency": "EUR",
                "products": [
                    {"product_id": "1082185", "price": 1.49, "quantity": 2},
                    {"product_id": "995242", "price": 0.99, "quantity": 1},
                ],
            },
        }
    ]
}
GA4_EXAMPLE: dict[str, Any] = {
    "client_id": "1234567890.1700000000",
    "user_id": "2375",
    "timestamp_micros": "1795342500000000",
    "consent": {"ad_personalization": "GRANTED"},
    "events": [
        {
            "name": "purchase",
            "params": {
                "transaction_id": "1001",
                "currency": "EUR",
                "items": [
                    {"item_id": "1082185", "price": 1.49, "quantity": 2},
                    {"item_id": "995242", "price": 0.99, "quantity": 1},
                ],
            },
        }
    ],
}
RETAIL_EXAMPLE: dict[str, Any] = {
    "eventType": "purchase-complete",
    "visitorId": "1234567890.1700000000",
    "userInfo": {"userId": "2375"},
    "eventTime": "2026-11-22T10:15:00Z",
    "productDetails": [
        {"product": {"id": "1082185"}, "quantity": 2},
        {"product": {"id": "995242"}, "quantity": 1},
    ],
    "purchaseTransaction": {"id": "1001", "revenue": 3.97, "currencyCode": "EUR"},
}


@router.post(
    "/v1/events/segment",
    operation_id="record_segment_calls",
    summary="Record calls of Segment, RudderStack or PostHog",
    status_code=202,
    response_model=EventsTranslated,
    responses=responses(EventsTranslated, _ANSWER, *ERRORS, status=202),
    **secured("events:write", extra=any_body("A call, or a batch of calls", SEGMENT_EXAMPLE)),
)
async def record_segment_calls(request: Request, worker: AnyWorker) -> EventsTranslated:
    """Store `track` calls of the e-commerce and e-mail specs; `identify` and `alias` merge.

    `context.consent` is obeyed: without the consent to profiling nothing of a message is stored.
    """
    document, settings = load_json(await json_body(request)), worker.settings
    try:
        found = segment.translate(
            document, datetime.now(UTC), settings.currency, settings.consent_categories
        )
    except AdapterError as error:
        raise InvalidRequestError(FieldError(error.pointer, error.detail)) from error
    return await _store(worker, "segment", found, actor(request))


@router.post(
    "/v1/events/ga4",
    operation_id="record_analytics_payload",
    summary="Record a payload of the Measurement Protocol of Google Analytics 4",
    status_code=202,
    response_model=EventsTranslated,
    responses=responses(EventsTranslated, _ANSWER, *ERRORS, status=202),
    **secured("events:write", extra=any_body("A payload", GA4_EXAMPLE)),
)
async def record_analytics_payload(request: Request, worker: AnyWorker) -> EventsTranslated:
    """Store e-commerce events; `consent.ad_personalization` denied means nothing is stored."""
    document = load_json(await json_body(request))
    try:
        found = ga4.translate(document, datetime.now(UTC), worker.settings.currency)
    except AdapterError as error:
        raise InvalidRequestError(FieldError(error.pointer, error.detail)) from error
    return await _store(worker, "ga4", found, actor(request))


@router.post(
    "/v1/events/retail",
    operation_id="record_retail_events",
    summary="Record user events of Google Retail",
    status_code=202,
    response_model=EventsTranslated,
    responses=responses(EventsTranslated, _ANSWER, *ERRORS, status=202),
    **secured("events:write", extra=any_body("A user event, or several", RETAIL_EXAMPLE)),
)
async def record_retail_events(request: Request, worker: AnyWorker) -> EventsTranslated:
    """Store one `UserEvent`, a list, `{userEvents: [...]}`, or an import with an inline source."""
    document = load_json(await json_body(request))
    try:
        found = retail.translate(document, datetime.now(UTC), worker.settings.currency)
    except AdapterError as error:
        raise InvalidRequestError(FieldError(error.pointer, error.detail)) from error
    return await _store(worker, "retail", found, actor(request))


async def _store(worker: Worker, platform: str, found: Translation, by: str) -> EventsTranslated:
    """Store a translation: consents, the events, then who turned out to be whom."""
    await worker.recording.hear(found.sayings, by)
    await worker.recording.denied(found.denied, by)
    accepted = duplicates = conflicts = 0
    withheld = found.withheld
    for start in range(0, len(found.events), MAX_EVENTS):
        part = found.events[start : start + MAX_EVENTS]
        result = await worker.recording.trusted(part, by=by)
        accepted += result.accepted
        duplicates += result.duplicates
        conflicts += result.conflicts
        withheld += result.withheld
    worker.metrics.events.labels("rejected").inc(len(found.refused))
    worker.metrics.events.labels("withheld").inc(found.withheld)
    worker.metrics.ignored_names(platform, found.ignored)
    merged = 0
    refused = list(found.refused)
    for message, visitor, user in found.merges:
        try:
            merged += await worker.merge(user, visitor)
        except ConflictError as error:
            refused.append(Refusal(message, "#", str(error)))
    return EventsTranslated(
        accepted=accepted,
        duplicates=duplicates,
        conflicts=conflicts,
        rejected=[
            RejectedEvent(index=index, errors=[FieldProblem(pointer=pointer, detail=detail)])
            for index, pointer, detail in refused
        ],
        ignored=dict(sorted(found.ignored.items())),
        withheld=withheld,
        merged=merged,
    )
