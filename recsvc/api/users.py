"""``/v1/users``: what is known of a person."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import ValidationError

from feature_store.catalogue import Catalogue
from feature_store.errors import NotFoundError
from feature_store.schema import EVENT_TYPE_CODES, format_time, person_of
from feature_store.state import UserState, items_of
from recsvc.api.http import AnyWorker, PathId, field_errors, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.schemas import MergeBody, MergeDone, UserDocument
from recsvc.checks import InvalidRequestError
from recsvc.requests import load_json

TYPES = {code: kind.value for kind, code in EVENT_TYPE_CODES.items()}

router = APIRouter(tags=["users"])

EXAMPLE = {
    "user_id": "2375",
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
async def get_user(worker: AnyWorker, user_id: PathId) -> dict[str, Any]:
    """Return counts, times and the newest events; 404 for somebody never seen."""
    person = person_of(user_id, None)
    assert person is not None
    state = items_of(await worker.store.load_state(person))
    if len(state.rows) == 0:
        raise NotFoundError(f"nothing is known of the user {user_id!r}")
    # Asked after the state, so that the catalogue knows every item in it.
    await worker.context(None)
    return {"user_id": user_id, **summary(state, worker.holder.current.catalogue)}


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


def summary(state: UserState, catalogue: Catalogue) -> dict[str, Any]:
    """Describe the facts of a person.

    Parameters
    ----------
    state : UserState
        All of them; not empty.
    catalogue : Catalogue
        Says which item a row is.
    """
    counts = np.bincount(state.types, weights=state.counts).astype(int)
    return {
        "counts": {TYPES[code]: int(count) for code, count in enumerate(counts) if count},
        "n_items": len(np.unique(state.rows)),
        "first_seen_at": _time(int(state.first_s.min())),
        "last_seen_at": _time(int(state.last_s.max())),
        "recent": [
            {"type": TYPES[kind], "item_id": catalogue.item_id(row), "at": _time(at_s)}
            for row, kind, at_s in zip(
                state.session_rows.tolist(),
                state.session_types.tolist(),
                state.session_s.tolist(),
                strict=True,
            )
            if catalogue.item_id(row) is not None
        ],
    }


def _time(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
