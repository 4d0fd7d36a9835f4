"""``/v1/events``: what customers did. A 202 means stored."""

from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import ValidationError

from feature_store.schema import Event
from recsvc.api.http import AnyWorker, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.schemas import EventsAccepted, FieldProblem, RejectedEvent
from recsvc.checks import FieldError, InvalidRequestError, pointer_to
from recsvc.requests import load_json

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


@router.post(
    "/v1/events",
    operation_id="record_events",
    summary="Record one event or up to 1,000",
    status_code=202,
    response_model=EventsAccepted,
    responses=responses(
        EventsAccepted,
        {"accepted": 1, "duplicates": 0, "conflicts": 0, "rejected": []},
        *(400, 401, 403, 413, 415, 422, 500, 503),
        status=202,
    ),
    **secured("events:write", extra=body_of(Event, EXAMPLE, many=MAX_EVENTS)),
)
async def record_events(request: Request, worker: AnyWorker) -> EventsAccepted:
    """Store the good events of a batch and name the bad ones; sending again is always safe."""
    rejected: list[RejectedEvent] = []
    values = load_json(await json_body(request))
    if isinstance(values, dict):
        event, errors = read_event(values, datetime.now(UTC))
        if event is None:
            raise InvalidRequestError(*errors)
        events = [event]
    elif not isinstance(values, list):
        raise InvalidRequestError(FieldError("#", "must be an event or a list of events"))
    elif not 1 <= len(values) <= MAX_EVENTS:
        said = f"may have 1 to {MAX_EVENTS} events, has {len(values)}"
        raise InvalidRequestError(FieldError("#", said))
    else:
        events, rejected = _read_all(values)
    result = await worker.record(events)
    worker.metrics.events.labels("rejected").inc(len(rejected))
    return EventsAccepted(
        accepted=result.accepted,
        duplicates=result.duplicates,
        conflicts=result.conflicts,
        rejected=rejected,
    )


def _read_all(values: list[Any]) -> tuple[list[Event], list[RejectedEvent]]:
    now = datetime.now(UTC)
    events, rejected = [], []
    for index, value in enumerate(values):
        event, errors = read_event(value, now)
        if event is None:
            named = [FieldProblem(pointer=one.pointer, detail=one.detail) for one in errors]
            rejected.append(RejectedEvent(index=index, errors=named))
        else:
            events.append(event)
    return events, rejected


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
        return None, [_named(one) for one in error.errors(include_url=False)]
    try:
        event.check_clock(now)
    except ValueError as error:
        return None, [FieldError("#/timestamp", str(error))]
    return event, []


def _named(error: Any) -> FieldError:
    parts = [str(part) for part in error["loc"]]
    return FieldError(pointer_to(*parts), str(error["msg"]).removeprefix("Value error, "))
