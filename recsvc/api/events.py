"""``/v1/events`` and ``/v1/orders``: what customers did. A 202 means stored."""

from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import ValidationError

from feature_store.adapters import cloudevents
from feature_store.adapters.orders import Order, events_of
from feature_store.adapters.translation import AdapterError
from feature_store.schema import MAX_CLOCK_SKEW_S, Event
from feature_store.state_writer import AppendResult
from recsvc.access.public_keys import check_event, filled_in, is_withheld, refuse_other
from recsvc.api.http import (
    AnyWorker,
    actor,
    asking,
    field_errors,
    json_body,
    media_type_of,
    read_headers,
    secured,
)
from recsvc.api.openapi import body_of, responses
from recsvc.api.schemas import EventsAccepted, FieldProblem, RejectedEvent
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.customer.consenting import gpc_refusal, said_by
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

MAX_EVENTS = 1_000

router = APIRouter(tags=["events"])

EXAMPLE = {
    "event_id": "order-1001-1",
    "type": "purchase",
    "user_id": "2375",
    "item_id": "1082185",
    "timestamp": "2026-11-22T10:15:00Z",
    "quantity": 2,
    "unit_price": {"amount": "1.49", "currency": "EUR"},
    "order_id": "1001",
    "channel": "web",
}
ORDER_EXAMPLE = {
    "order_id": "1001",
    "user_id": "2375",
    "placed_at": "2026-11-22T10:15:00Z",
    "channel": "web",
    "lines": [
        {
            "item_id": "1082185",
            "quantity": 2,
            "unit_price": {"amount": "1.49", "currency": "EUR"},
        },
        {"item_id": "995242"},
    ],
}
_ACCEPTED = {"accepted": 1, "duplicates": 0, "conflicts": 0, "rejected": [], "withheld": 0}
_CLOUDEVENT = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/shop/web",
    "type": "example.shop.view",
    "time": "2026-11-22T10:15:00Z",
    "data": {"user_id": "2375", "item_id": "1082185"},
}
_CLOUDEVENTS: dict[str, Any] = {
    cloudevents.STRUCTURED: {"schema": {"type": "object"}, "example": _CLOUDEVENT},
    cloudevents.BATCHED: {
        "schema": {"type": "array", "items": {"type": "object"}, "maxItems": MAX_EVENTS},
        "example": [_CLOUDEVENT],
    },
}
_BEACON: dict[str, Any] = {
    "text/plain": {
        "schema": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "the same JSON, from navigator.sendBeacon, with a public key only",
        },
        "example": '[{"event_id": "1", "type": "view", "item_id": "1082185", ...}]',
    },
}
ERRORS = (400, 401, 403, 413, 415, 422, 500, 503)


@router.post(
    "/v1/events",
    operation_id="record_events",
    summary="Record one event or up to 1,000",
    status_code=202,
    response_model=EventsAccepted,
    responses=responses(EventsAccepted, _ACCEPTED, *ERRORS, 429, status=202),
    **secured(
        "events:write",
        extra=body_of(Event, EXAMPLE, many=MAX_EVENTS, more={**_CLOUDEVENTS, **_BEACON}),
        public=True,
        customer=True,
    ),
)
async def record_events(request: Request, worker: AnyWorker) -> EventsAccepted:
    """Store the good events of a batch and name the bad ones; sending again is always safe.

    CloudEvents 1.0 are taken too, structured or batched by their media types, with an event as
    `data`. A public key sends low-trust events of a visitor, a customer token of that customer:
    never a purchase, and so many a minute. With `Sec-GPC: 1`, or when an event's consent refuses
    profiling, nothing of it is kept: it is `withheld`.
    """
    caller = asking(request)
    values = load_json(await json_body(request, beacon=caller.kind == "public"))
    media_type = media_type_of(request)
    batched = media_type == cloudevents.BATCHED
    enveloped = batched or media_type == cloudevents.STRUCTURED
    now = datetime.now(UTC)

    def read(value: Any) -> tuple[Event | None, list[FieldError]]:
        pointer = ""
        if enveloped:
            try:
                value, pointer = cloudevents.unwrap(value), "/data"
            except AdapterError as error:
                return None, [FieldError(error.pointer, error.detail)]
        event, errors = read_event(filled_in(caller, value), now)
        if event is not None:
            errors = check_event(caller, event)
        inside = [FieldError("#" + pointer + one.pointer[1:], one.detail) for one in errors]
        return (None if errors else event), inside

    rejected: list[RejectedEvent] = []
    if isinstance(values, dict) and not batched:
        refuse_other(caller, values.get("user_id"))
        event, errors = read(values)
        if event is None:
            raise InvalidRequestError(*errors)
        events = [event]
    elif not isinstance(values, list) or (enveloped and not batched):
        raise InvalidRequestError(FieldError("#", "must be an event or a list of events"))
    elif not 1 <= len(values) <= MAX_EVENTS:
        said = f"may have 1 to {MAX_EVENTS} events, has {len(values)}"
        raise InvalidRequestError(FieldError("#", said))
    else:
        events = []
        for index, value in enumerate(values):
            event, errors = read(value)
            if event is None:
                rejected.append(RejectedEvent(index=index, errors=named(errors)))
            else:
                events.append(event)
    worker.metrics.events.labels("rejected").inc(len(rejected))
    return await _record(request, worker, events, rejected)


async def _record(
    request: Request, worker: Worker, events: list[Event], rejected: list[RejectedEvent]
) -> EventsAccepted:
    """Store the events of which something may be kept, and remember what all say of consents."""
    caller, opted_out = asking(request), read_headers(request.scope).opted_out
    kept, withheld = list[Event](), list[Event]()
    for event in events:
        refused = is_withheld(caller, event, opted_out=opted_out)
        (withheld if refused else kept).append(event)
    browser = caller.kind != "server"
    record = worker.recording.public if browser else worker.recording.trusted
    result = await record(kept, withheld=withheld, by=said_by(caller))
    if opted_out and caller.kind == "customer":
        await worker.decide(f"u:{caller.user_id}", gpc_refusal, said_by(caller))
    return answer_of(result, rejected)


@router.post(
    "/v1/orders",
    operation_id="record_order",
    summary="Record an order: one purchase per line",
    status_code=202,
    response_model=EventsAccepted,
    responses=responses(EventsAccepted, {**_ACCEPTED, "accepted": 2}, *ERRORS, status=202),
    **secured("events:write", extra=body_of(Order, ORDER_EXAMPLE)),
)
async def record_order(request: Request, worker: AnyWorker) -> EventsAccepted:
    """Store every line or none; sending an order again changes nothing."""
    value = load_json(await json_body(request))
    try:
        order = Order.model_validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    if (order.placed_at - datetime.now(UTC)).total_seconds() > MAX_CLOCK_SKEW_S:
        said = "the time lies more than 5 minutes in the future"
        raise InvalidRequestError(FieldError("#/placed_at", said))
    result = await worker.recording.trusted(events_of(order), by=actor(request))
    return answer_of(result, [])


def answer_of(result: AppendResult, rejected: list[RejectedEvent]) -> EventsAccepted:
    """Return what became of a batch."""
    return EventsAccepted(
        accepted=result.accepted,
        duplicates=result.duplicates,
        conflicts=result.conflicts,
        rejected=rejected,
        withheld=result.withheld,
    )


def named(errors: list[FieldError]) -> list[FieldProblem]:
    """Return errors as an answer shows them."""
    return [FieldProblem(pointer=one.pointer, detail=one.detail) for one in errors]


def read_event(value: Any, now: datetime) -> tuple[Event | None, list[FieldError]]:
    """Check one event.

    Parameters
    ----------
    value : object
        As JSON has it.
    now : datetime
        What the time is.

    Returns
    -------
    event : Event or None
        ``None`` if it is refused.
    errors : list of FieldError
        Why.
    """
    try:
        # Strict as JSON is: no number for a text, no text for a number.
        event = Event.model_validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        return None, field_errors(error)
    try:
        event.check_clock(now)
    except ValueError as error:
        return None, [FieldError("#/timestamp", str(error))]
    return event, []
