"""``/v1/placements``: which slots there are, and what fills each."""

from typing import Any

from fastapi import APIRouter, Request, Response

from feature_store.conditions import ConditionError
from feature_store.documents import SiteDocuments, Write
from feature_store.errors import ConflictError
from recsvc.api.http import AnyWorker, PathId, actor, json_body, secured
from recsvc.api.made_over import MadeOver
from recsvc.api.openapi import body_of, responses
from recsvc.api.revisions import etag, expected_revision
from recsvc.api.rules import READING
from recsvc.api.schemas import Document
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.merchandising.placement_documents import (
    KIND,
    MAX_PLACEMENTS,
    PlacementBody,
    body_of_placement,
)
from recsvc.merchandising.placements import BUILT_IN
from recsvc.merchandising.publishing import LIVE_RULE
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

router = APIRouter(tags=["placements"])


class PlacementDocument(PlacementBody):
    """A slot and what fills it."""

    name: str
    built_in: bool
    changed: bool
    revision: int
    updated_at: str | None
    updated_by: str | None


class PlacementList(Document):
    """All slots, by name."""

    placements: list[PlacementDocument]


class PlacementDeleted(Document):
    """What became of the slot."""

    name: str
    restored: bool


BODY: dict[str, Any] = {
    "title": "For you",
    "sources": [{"source": "personal", "weight": 4}, {"source": "new", "weight": 1}],
    "limit": 12,
    "kinds": ["product"],
    "diversity": 0.2,
    "freshness": 0.1,
    "filter": {"field": "item.price", "op": "lte", "value": 100},
    "fallback": "popular",
}
EXAMPLE: dict[str, Any] = {
    "name": "home",
    **BODY,
    "built_in": True,
    "changed": True,
    "revision": 2,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:console",
}
ERRORS = (401, 403, 404, 422, 500, 503)
# A change is in force at once: that is publishing.
WRITING = "marketing:publish"
PLACEMENTS = MadeOver(KIND, BUILT_IN, MAX_PLACEMENTS)


@router.get(
    "/v1/placements",
    operation_id="list_placements",
    summary="All slots",
    response_model=PlacementList,
    responses=responses(PlacementList, {"placements": [EXAMPLE]}, 401, 403, 500, 503),
    **secured(READING),
)
async def list_placements(worker: AnyWorker) -> dict[str, Any]:
    """List the built-in placements, as they are now, and the site's own."""
    await worker.context(None)
    return {
        "placements": [
            _shown(worker, name) for name in sorted(worker.holder.current.site.placements)
        ]
    }


@router.get(
    "/v1/placements/{name}",
    operation_id="get_placement",
    summary="One slot",
    response_model=PlacementDocument,
    responses=responses(PlacementDocument, EXAMPLE, *ERRORS),
    **secured(READING),
)
async def get_placement(response: Response, worker: AnyWorker, name: PathId) -> dict[str, Any]:
    """Return a placement; its revision is the `ETag`, 0 for a built-in one as it came."""
    await worker.context(None)
    if name not in worker.holder.current.site.placements:
        raise PLACEMENTS.missing(name)
    document = _shown(worker, name)
    response.headers["ETag"] = etag(document["revision"])
    return document


@router.put(
    "/v1/placements/{name}",
    operation_id="put_placement",
    summary="Make or tune a slot",
    response_model=PlacementDocument,
    responses=responses(
        PlacementDocument, EXAMPLE, 400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 503
    ),
    **secured(WRITING, extra=body_of(PlacementBody, BODY)),
)
async def put_placement(
    request: Request, response: Response, worker: AnyWorker, name: PathId
) -> dict[str, Any]:
    """Say what fills a slot; in the next answer of every worker, built-in ones included."""
    body = _read(load_json(await json_body(request)), name)
    seen = expected_revision(request)

    _, (stored,) = await worker.keeper.change(
        lambda site: PLACEMENTS.save(site, name, body, seen), actor(request)
    )
    response.headers["ETag"] = etag(stored.revision)
    return _shown(worker, name)


@router.delete(
    "/v1/placements/{name}",
    operation_id="delete_placement",
    summary="Delete a slot, or restore a built-in one",
    response_model=PlacementDeleted,
    responses=responses(
        PlacementDeleted,
        {"name": "home", "restored": True},
        *(401, 403, 404, 409, 412, 422, 500, 503),
    ),
    **secured(WRITING),
)
async def delete_placement(request: Request, worker: AnyWorker, name: PathId) -> dict[str, Any]:
    """Delete a placement that no live rule uses (else 409); a built-in one is as it came."""
    seen = expected_revision(request)

    def plan(site: SiteDocuments) -> list[Write]:
        writes = PLACEMENTS.remove(site, name, seen)
        if name not in BUILT_IN and (rules := _rules_in(site, name)):
            raise ConflictError(f"the placement {name!r} is used by {', '.join(rules[:5])}")
        return writes

    await worker.keeper.change(plan, actor(request))
    return {"name": name, "restored": name in BUILT_IN}


def _read(value: object, name: str) -> PlacementBody:
    body = PLACEMENTS.read(PlacementBody, value, name)
    try:
        body.condition()
    except ConditionError as error:
        raise InvalidRequestError(FieldError(f"#/filter{error.pointer}", error.detail)) from error
    return body


def _rules_in(site: SiteDocuments, name: str) -> list[str]:
    return [
        f"the rule {one.id!r}"
        for one in site.of_kind(LIVE_RULE)
        if one.body is not None and name in one.body["rule"]["placements"]
    ]


def _shown(worker: Worker, name: str) -> dict[str, Any]:
    site = worker.holder.current.site
    body = body_of_placement(site.placements[name])
    return PLACEMENTS.shown(site, name, body.model_dump(mode="json"))
