"""``/v1/personas``: saved made-up customers for preview."""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from feature_store.documents import Document, SiteDocuments, Write
from feature_store.errors import ConflictError, NotFoundError
from recsvc.api.http import AnyWorker, PathId, actor, json_body, secured
from recsvc.api.openapi import body_of, responses
from recsvc.api.people_schemas import (
    PersonaDeleted,
    PersonaDocument,
    PersonaList,
    PersonaUpsert,
)
from recsvc.api.profiles import profile_errors
from recsvc.api.revisions import etag, expected_revision
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.merchandising.personas import KIND, MAX_PERSONAS
from recsvc.requests import load_json

READING = "marketing:read"
WRITING = "marketing:write"

router = APIRouter(tags=["personas"])

BODY: dict[str, Any] = {
    "name": "Young family",
    "description": "Buys in bulk at the end of the week",
    "attributes": {"city": "Berlin", "children": 2},
    "loyalty": {"program": "club", "tier": "gold", "points": 1200},
    "computed": {"stage": "active"},
    "feedback": {},
    "history": [{"type": "purchase", "item_id": "1082185", "days_ago": 3}],
    "preferences": None,
    "context": {"channel": "app", "country": "DE"},
}
EXAMPLE: dict[str, Any] = {
    "persona_id": "young_family",
    **BODY,
    "revision": 1,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:console",
}
ERRORS = (401, 403, 404, 422, 500, 503)


@router.get(
    "/v1/personas",
    operation_id="list_personas",
    summary="All personas",
    response_model=PersonaList,
    responses=responses(PersonaList, {"personas": [EXAMPLE]}, 401, 403, 500, 503),
    **secured(READING),
)
async def list_personas(worker: AnyWorker) -> dict[str, Any]:
    """List the personas by id."""
    site = await worker.store.documents.snapshot()
    return {"personas": [_shown(one) for one in site.of_kind(KIND)]}


@router.get(
    "/v1/personas/{persona_id}",
    operation_id="get_persona",
    summary="One persona",
    response_model=PersonaDocument,
    responses=responses(PersonaDocument, EXAMPLE, *ERRORS),
    **secured(READING),
)
async def get_persona(response: Response, worker: AnyWorker, persona_id: PathId) -> dict[str, Any]:
    """Return a persona; its revision is the `ETag`, for `If-Match`."""
    found = _found(await worker.store.documents.snapshot(), persona_id)
    response.headers["ETag"] = etag(found.revision)
    return _shown(found)


@router.put(
    "/v1/personas/{persona_id}",
    operation_id="put_persona",
    summary="Make up a customer",
    response_model=PersonaDocument,
    responses=responses(
        PersonaDocument, EXAMPLE, 400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 503
    ),
    **secured(WRITING, extra=body_of(PersonaUpsert, BODY)),
)
async def put_persona(
    request: Request, response: Response, worker: AnyWorker, persona_id: PathId
) -> dict[str, Any]:
    """Save a persona, with `If-Match` only over the revision that was read."""
    value = load_json(await json_body(request))
    try:
        asked = PersonaUpsert.model_validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*profile_errors(error)) from error
    if asked.persona_id not in (None, persona_id):
        raise InvalidRequestError(FieldError("#/persona_id", "is not the one of the address"))
    body = asked.model_dump(mode="json", exclude={"persona_id"})
    seen = expected_revision(request)

    def plan(site: SiteDocuments) -> list[Write]:
        if site.get(KIND, persona_id) is None and len(site.of_kind(KIND)) >= MAX_PERSONAS:
            raise ConflictError(f"there are {MAX_PERSONAS} personas, and no room for more")
        return [Write(KIND, persona_id, body, seen)]

    _, (stored,) = await worker.keeper.change(plan, actor(request))
    response.headers["ETag"] = etag(stored.revision)
    return _shown(stored)


@router.delete(
    "/v1/personas/{persona_id}",
    operation_id="delete_persona",
    summary="Delete a persona",
    response_model=PersonaDeleted,
    responses=responses(
        PersonaDeleted,
        {"persona_id": "young_family", "deleted": True},
        *(401, 403, 404, 412, 422, 500, 503),
    ),
    **secured(WRITING),
)
async def delete_persona(request: Request, worker: AnyWorker, persona_id: PathId) -> dict[str, Any]:
    """Delete a persona."""
    seen = expected_revision(request)

    def plan(site: SiteDocuments) -> list[Write]:
        _found(site, persona_id)
        return [Write(KIND, persona_id, None, seen)]

    await worker.keeper.change(plan, actor(request))
    return {"persona_id": persona_id, "deleted": True}


def _found(site: SiteDocuments, persona_id: str) -> Document:
    found = site.get(KIND, persona_id)
    if found is None:
        raise NotFoundError(f"there is no persona {persona_id!r}")
    return found


def _shown(stored: Document) -> dict[str, Any]:
    return {
        "persona_id": stored.id,
        **(stored.body or {}),
        "revision": stored.revision,
        "updated_at": stored.updated_at,
        "updated_by": stored.updated_by,
    }
