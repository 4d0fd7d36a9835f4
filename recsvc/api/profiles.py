"""``/v1/users``: what a shop says of its users."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from feature_store.errors import NotFoundError
from feature_store.people import Document
from feature_store.profile import Profile, patch_profile, read_profile
from feature_store.schema import person_of
from recsvc.api.http import AnyWorker, PathId, actor, field_errors, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.people_schemas import (
    ProfileBody,
    ProfilePatch,
    RejectedUser,
    UserDocument,
    UsersStored,
    UserUpsert,
)
from recsvc.api.schemas import FieldProblem
from recsvc.api.users import EXAMPLE
from recsvc.checks import BadValueError, FieldError, InvalidRequestError, check_text_id
from recsvc.requests import load_json, parse_external_id
from recsvc.serving.known import known_user
from recsvc.serving.worker import Worker

MAX_USERS = 1_000

router = APIRouter(tags=["users"])

PROFILE: dict[str, Any] = {
    "attributes": {"city": "Berlin", "children": 2},
    "loyalty": {"program": "club", "tier": "gold", "points": 1200},
    "external_ids": {"subscriber_key": "S-77"},
}
_EXTERNAL_ID: dict[str, Any] = {
    "name": "external_id",
    "in": "query",
    "required": True,
    "style": "deepObject",
    "explode": True,
    "description": "the user's id in another system: external_id.NAME=ID",
    "schema": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "minProperties": 1,
        "maxProperties": 1,
    },
    "example": {"subscriber_key": "S-77"},
}
ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 500, 503)


@router.put(
    "/v1/users/{user_id}",
    operation_id="put_user",
    summary="Say who a user is",
    response_model=UserDocument,
    responses=responses(UserDocument, EXAMPLE, *ERRORS),
    **secured("users:write", extra=body_of(ProfileBody, PROFILE)),
)
async def put_user(request: Request, worker: AnyWorker, user_id: PathId) -> dict[str, Any]:
    """Replace the profile; conditions see the new one in the next answer.

    An external id of another user is a 409.
    """
    value = _without_id(await _object(request), user_id)
    try:
        document = read_profile(value).as_document()
    except ValidationError as error:
        raise InvalidRequestError(*profile_errors(error)) from error
    return await _changed(request, worker, user_id, lambda _: document)


@router.patch(
    "/v1/users/{user_id}",
    operation_id="patch_user",
    summary="Change a part of what is said of a user",
    response_model=UserDocument,
    responses=responses(UserDocument, EXAMPLE, *ERRORS),
    **secured("users:write", extra=body_of(ProfilePatch, {"attributes": {"city": "Hamburg"}})),
)
async def patch_user(request: Request, worker: AnyWorker, user_id: PathId) -> dict[str, Any]:
    """Merge a patch into the profile (RFC 7396): null removes, what is left out stays.

    Patches of several senders at once all count. A user without a profile gets one.
    """
    patch = _without_id(await _object(request), user_id)

    def change(document: Document | None) -> Document:
        try:
            return patch_profile(document, patch).as_document()
        except ValidationError as error:
            raise InvalidRequestError(*profile_errors(error)) from error
        except ValueError as error:
            raise InvalidRequestError(FieldError("#", str(error))) from error

    return await _changed(request, worker, user_id, change)


@router.get(
    "/v1/users",
    operation_id="get_user_by_external_id",
    summary="What is known of a person whom another system names",
    response_model=UserDocument,
    responses=responses(UserDocument, EXAMPLE, 401, 403, 404, 422, 500, 503),
    **secured("users:read", extra={"parameters": [_EXTERNAL_ID]}),
)
async def get_user_by_external_id(request: Request, worker: AnyWorker) -> dict[str, Any]:
    """Answer `external_id.NAME=ID`, such as `external_id.subscriber_key=S-77`."""
    name, one = parse_external_id(request.scope["query_string"])
    user_id = await worker.store.people.resolve(name, one)
    if user_id is None:
        raise NotFoundError(f"no user has the {name} {one!r}")
    return await known_user(worker, user_id)


@router.post(
    "/v1/users",
    operation_id="put_users",
    summary="Say who up to 1,000 users are",
    response_model=UsersStored,
    responses=responses(
        UsersStored,
        {"accepted": 1, "changed": 1, "rejected": []},
        *(400, 401, 403, 413, 415, 422, 500, 503),
    ),
    **secured(
        "users:write", extra=body_of(UserUpsert, {"user_id": "2375", **PROFILE}, many=MAX_USERS)
    ),
)
async def put_users(request: Request, worker: AnyWorker) -> UsersStored:
    """Replace the profiles of the good ones of a batch and name the bad ones.

    Of several documents of the same user the last one counts.
    """
    values = load_json(await json_body(request))
    if isinstance(values, dict):
        values = [values]
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_USERS:
        said = f"must be a user or a list of 1 to {MAX_USERS}"
        raise InvalidRequestError(FieldError("#", said))
    profiles: dict[str, Profile] = {}
    whose: list[str | None] = []
    errors: dict[int, list[FieldError]] = {}
    for index, value in enumerate(values):
        user_id, profile, wrong = _read(value)
        whose.append(user_id)
        if profile is None or user_id is None:
            errors[index] = wrong
        else:
            profiles[user_id] = profile
    documents: dict[str, Document | None] = {
        f"u:{one}": profile.as_document() for one, profile in profiles.items()
    }
    changed, refused = await worker.store.people.put_many("profile", documents, actor(request))
    for index, owner in enumerate(whose):
        if index not in errors and (why := refused.get(f"u:{owner}")) is not None:
            errors[index] = [FieldError("#/external_ids", why)]
    rejected = [
        RejectedUser(
            index=index,
            errors=[FieldProblem(pointer=one.pointer, detail=one.detail) for one in found],
        )
        for index, found in sorted(errors.items())
    ]
    return UsersStored(accepted=len(values) - len(rejected), changed=changed, rejected=rejected)


async def _object(request: Request) -> dict[str, Any]:
    value = load_json(await json_body(request))
    if not isinstance(value, dict):
        raise InvalidRequestError(FieldError("#", "must be an object"))
    return value


def _without_id(value: dict[str, Any], user_id: str) -> dict[str, Any]:
    if value.get("user_id", user_id) != user_id:
        raise InvalidRequestError(FieldError("#/user_id", "is not the one of the address"))
    return {name: one for name, one in value.items() if name != "user_id"}


async def _changed(
    request: Request,
    worker: Worker,
    user_id: str,
    change: Callable[[Document | None], Document | None],
) -> dict[str, Any]:
    person = person_of(user_id, None)
    assert person is not None
    await worker.store.people.update("profile", person, change, actor(request))
    return await known_user(worker, user_id)


def _read(value: object) -> tuple[str | None, Profile | None, list[FieldError]]:
    """Check one user of a batch."""
    if not isinstance(value, dict):
        return None, None, [FieldError("#", "must be an object")]
    try:
        user_id = check_text_id(value.get("user_id"))
    except BadValueError as error:
        return None, None, [FieldError("#/user_id", error.detail)]
    try:
        return user_id, read_profile(_without_id(value, user_id)), []
    except ValidationError as error:
        return user_id, None, profile_errors(error)


def profile_errors(error: ValidationError) -> list[FieldError]:
    """Return what is wrong with a profile; the name of an attribute is pointed to as its value."""
    return [
        FieldError(one.pointer.removesuffix("/[key]"), one.detail) for one in field_errors(error)
    ]
