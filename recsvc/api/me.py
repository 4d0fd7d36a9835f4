"""``/v1/me``: what customers do for themselves, with a token that says who they are.

No route here takes a user id from its path, query or body: `http.me` is the only source.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.schema import Id
from recsvc.access.public_keys import check_visitor_id
from recsvc.api.http import AnyWorker, field_errors, json_body, me, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.schemas import MergeBody, MergeDone
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.requests import load_json


def refuse_user_id(request: Request) -> None:
    """Refuse a query that names a user, rather than ignore it: somebody expects it to count.

    Raises
    ------
    InvalidRequestError
        If there is a ``user_id``.
    """
    if "user_id" in request.query_params:
        said = "is the token's: leave it out"
        raise InvalidRequestError(FieldError("#/user_id", said))


class Visitor(BaseModel):
    """A query that names a visitor, or nobody; anything else in it is a 422."""

    model_config = ConfigDict(extra="forbid")

    anonymous_id: Annotated[
        Id | None,
        Field(
            description="with a public key: the visitor, by an id of at least 22 random characters;"
            " with a token it is left out, or for an export a visit of the customer's own"
        ),
    ] = None


VisitorQuery = Annotated[Visitor, Query()]

router = APIRouter(tags=["me"], dependencies=[Depends(refuse_user_id)])

ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503)
MERGE_EXAMPLE = {
    "user_id": "2375",
    "anonymous_id": "507f191e-810c-4197-89de-860ea0123456",
    "merged": True,
}


@router.post(
    "/v1/me/merge",
    operation_id="merge_my_visits",
    summary="I have signed in: join what I did before",
    response_model=MergeDone,
    responses=responses(MergeDone, MERGE_EXAMPLE, *ERRORS),
    **secured(
        customer=True, extra=body_of(MergeBody, {"anonymous_id": MERGE_EXAMPLE["anonymous_id"]})
    ),
)
async def merge_my_visits(request: Request, worker: AnyWorker) -> MergeDone:
    """Join a visitor to the customer of the token for good; calling again changes nothing.

    The same as `POST /v1/users/{user_id}/merge`, from a browser: only an id that nobody can guess
    is taken. A visitor who is another customer already is a 409. It counts as one of the events
    that a customer may send in a minute.
    """
    value = load_json(await json_body(request))
    try:
        body = MergeBody.model_validate(value, strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    if bad := check_visitor_id(body.anonymous_id):
        raise InvalidRequestError(bad)
    user_id = me(request)
    most = worker.settings.public_events_per_minute
    await worker.store.quota.take({f"u:{user_id}": 1}, most, time.time())
    merged = await worker.merge(user_id, body.anonymous_id)
    return MergeDone(user_id=user_id, anonymous_id=body.anonymous_id, merged=merged)
