"""``/v1/users``: what is known of a person."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from recsvc.api.caching import PERSONAL
from recsvc.api.http import AnyWorker, PathId, field_errors, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.people_schemas import UserDocument
from recsvc.api.schemas import MergeBody, MergeDone
from recsvc.checks import InvalidRequestError
from recsvc.requests import load_json
from recsvc.serving.known import known_user

router = APIRouter(tags=["users"])

EXAMPLE: dict[str, Any] = {
    "user_id": "2375",
    "attributes": {"city": "Berlin", "children": 2},
    "loyalty": {"program": "club", "tier": "gold", "points": 1200},
    "external_ids": {"subscriber_key": "S-77"},
    "computed": {
        "segments": ["rfm_champions", "stage_active"],
        "stage": "active",
        "rfm": {
            "recency_days": 3,
            "frequency": 114,
            "monetary": {"amount": "3125.20", "currency": "EUR"},
            "r": 5,
            "f": 5,
            "m": 4,
            "group": "champions",
        },
        "clv": {"amount": "811.00", "currency": "EUR", "horizon_days": 365},
        "churn_risk": 0.04,
        "next_purchase_at": "2018-01-03T00:00:00Z",
    },
    "feedback": {"nps": {"score": 9, "at": "2017-11-02T10:00:00Z", "count": 1, "mean": 9.0}},
    "counts": {"purchase": 824},
    "n_items": 417,
    "first_seen_at": "2017-01-03T17:56:00Z",
    "last_seen_at": "2017-12-31T20:01:00Z",
    "recent": [{"type": "purchase", "item_id": "1082185", "at": "2017-12-31T20:01:00Z"}],
}


MERGE_EXAMPLE = {"user_id": "2375", "anonymous_id": "visitor-77", "merged": True}


@router.get(
    "/v1/users/{user_id}",
    operation_id="get_user",
    summary="What is known of a person",
    response_model=UserDocument,
    responses=responses(UserDocument, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured("users:read"),
)
async def get_user(response: Response, worker: AnyWorker, user_id: PathId) -> dict[str, Any]:
    """Return profile, computed values, segments and newest events.

    404 only for somebody of whom nothing at all is known.
    """
    response.headers.update(PERSONAL)
    return await known_user(worker, user_id)


@router.post(
    "/v1/users/{user_id}/merge",
    operation_id="merge_visitor",
    summary="A visitor has signed in: join the two histories",
    response_model=MergeDone,
    responses=responses(MergeDone, MERGE_EXAMPLE, 400, 401, 403, 404, 409, 413, 415, 422, 500, 503),
    **secured("users:write", extra=body_of(MergeBody, {"anonymous_id": "visitor-77"})),
)
async def merge_visitor(request: Request, worker: AnyWorker, user_id: PathId) -> MergeDone:
    """Join a visitor to a user for good; calling again completes what was interrupted.

    What the visitor did before and does later is the user's, from the next answer on; of two
    consents the stricter holds. A visitor who is another user already is a 409.
    """
    value = load_json(await json_body(request))
    try:
        body = MergeBody.model_validate(value, strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    merged = await worker.merge(user_id, body.anonymous_id)
    return MergeDone(user_id=user_id, anonymous_id=body.anonymous_id, merged=merged)
