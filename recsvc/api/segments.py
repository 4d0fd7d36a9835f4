"""``/v1/segments``: named conditions over people, how many fulfil them, and who."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.conditions import ConditionError
from feature_store.documents import Document, SiteDocuments, Write
from feature_store.errors import ConflictError, NotFoundError
from recsvc.api.caching import PERSONAL
from recsvc.api.http import AnyWorker, PathId, actor, field_errors, json_body, secured
from recsvc.api.openapi import body_of, lines_of, problems, responses
from recsvc.api.people_schemas import (
    SegmentDeleted,
    SegmentDocument,
    SegmentList,
    SegmentUpsert,
)
from recsvc.api.revisions import etag, expected_revision
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.merchandising.audiences import Counts, members_of
from recsvc.merchandising.segments import (
    BUILT_IN,
    KIND,
    MAX_SEGMENTS,
    Segment,
    SegmentBody,
    parse_segment_condition,
    segments_named,
)
from recsvc.merchandising.site import Site
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

READING = "marketing:read"
WRITING = "marketing:write"

router = APIRouter(tags=["segments"])

BODY: dict[str, Any] = {
    "name": "Gold in Berlin",
    "description": "For the opening of the shop",
    "when": {
        "all": [
            {"field": "user.loyalty.tier", "op": "eq", "value": "gold"},
            {"field": "user.attributes.city", "op": "eq", "value": "Berlin"},
        ]
    },
    "allow_sensitive": False,
}
EXAMPLE: dict[str, Any] = {
    "segment_id": "gold_berlin",
    **BODY,
    "built_in": False,
    "revision": 1,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:console",
    "count": 1204,
    "as_of": "2026-11-22T09:30:00Z",
}
ERRORS = (401, 403, 404, 422, 500, 503)


class SegmentsQuery(BaseModel):
    """The parameters of a question for segments."""

    model_config = ConfigDict(extra="forbid")

    counts: Annotated[bool, Field(description="whether to count the members: false is quicker")] = (
        True
    )


@router.get(
    "/v1/segments",
    operation_id="list_segments",
    summary="All segments, and how many users belong to each",
    response_model=SegmentList,
    responses=responses(
        SegmentList, {"segments": [EXAMPLE], "n_users": 90000}, 401, 403, 422, 500, 503
    ),
    **secured(READING),
)
async def list_segments(
    worker: AnyWorker, asked: Annotated[SegmentsQuery, Query()]
) -> dict[str, Any]:
    """List the segments by name, the built-in ones among them.

    All are counted in one pass. With very many users a count is kept for a while; `as_of` says
    when it was made.
    """
    site = await _site(worker)
    counts = await worker.segment_counter.counts(site.segments) if asked.counts else None
    return {
        "segments": [_of_site(site, site.segments[name], counts) for name in sorted(site.segments)],
        "n_users": counts.n_users if counts else None,
    }


@router.get(
    "/v1/segments/{segment_id}",
    operation_id="get_segment",
    summary="One segment, and how many users belong to it",
    response_model=SegmentDocument,
    responses=responses(SegmentDocument, EXAMPLE, *ERRORS),
    **secured(READING),
)
async def get_segment(
    response: Response,
    worker: AnyWorker,
    segment_id: PathId,
    asked: Annotated[SegmentsQuery, Query()],
) -> dict[str, Any]:
    """Return a segment; its revision is the `ETag`, for `If-Match`."""
    site = await _site(worker)
    segment = _found(site, segment_id)
    counts = await worker.segment_counter.counts(site.segments) if asked.counts else None
    document = _of_site(site, segment, counts)
    response.headers["ETag"] = etag(document["revision"])
    return document


@router.put(
    "/v1/segments/{segment_id}",
    operation_id="put_segment",
    summary="Say who belongs to a segment",
    response_model=SegmentDocument,
    responses=responses(
        SegmentDocument, EXAMPLE, 400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 503
    ),
    **secured(WRITING, extra=body_of(SegmentUpsert, BODY)),
)
async def put_segment(
    request: Request, response: Response, worker: AnyWorker, segment_id: PathId
) -> dict[str, Any]:
    """Make a segment or change it; it counts in the next answer of every worker.

    `If-Match` with the revision that was read keeps two people from overwriting each other: 412.
    A built-in one, and one more than the site may have, is a 409. The answer does not count.
    """
    if segment_id in BUILT_IN:
        raise ConflictError(f"the segment {segment_id!r} is built in: make another one")
    body = _read(load_json(await json_body(request)), segment_id, worker)
    seen = expected_revision(request)

    def plan(site: SiteDocuments) -> list[Write]:
        if site.get(KIND, segment_id) is None and len(site.of_kind(KIND)) >= MAX_SEGMENTS:
            raise ConflictError(f"there are {MAX_SEGMENTS} segments, and no room for more")
        return [Write(KIND, segment_id, body.model_dump(mode="json"), seen)]

    _, (stored,) = await worker.keeper.change(plan, actor(request))
    response.headers["ETag"] = etag(stored.revision)
    return _shown(segment_id, body, stored, None)


@router.delete(
    "/v1/segments/{segment_id}",
    operation_id="delete_segment",
    summary="Delete a segment that nothing uses",
    response_model=SegmentDeleted,
    responses=responses(
        SegmentDeleted,
        {"segment_id": "gold_berlin", "deleted": True},
        *(401, 403, 404, 409, 412, 422, 500, 503),
    ),
    **secured(WRITING),
)
async def delete_segment(request: Request, worker: AnyWorker, segment_id: PathId) -> dict[str, Any]:
    """Delete a segment; while a rule or an offer uses it: 409, naming that one."""
    if segment_id in BUILT_IN:
        raise ConflictError(f"the segment {segment_id!r} is built in")
    seen = expected_revision(request)

    def plan(site: SiteDocuments) -> list[Write]:
        if site.get(KIND, segment_id) is None:
            raise _missing(segment_id)
        if users := _users_of(site, segment_id):
            raise ConflictError(f"the segment {segment_id!r} is used by {', '.join(users[:5])}")
        return [Write(KIND, segment_id, None, seen)]

    await worker.keeper.change(plan, actor(request))
    return {"segment_id": segment_id, "deleted": True}


@router.get(
    "/v1/segments/{segment_id}/members",
    operation_id="list_segment_members",
    summary="Who belongs to a segment, one JSON object a line",
    response_class=StreamingResponse,
    responses={**lines_of("A user", '{"user_id": "2375"}'), **problems(*ERRORS)},
    **secured(READING, "users:read"),
)
async def list_segment_members(worker: AnyWorker, segment_id: PathId) -> StreamingResponse:
    """Stream the members as they are found; a list that breaks off ends without its last chunk."""
    segment = _found(await _site(worker), segment_id)

    async def lines() -> AsyncIterator[bytes]:
        async for found in members_of(worker.store, segment):
            yield b"".join(orjson.dumps({"user_id": one}) + b"\n" for one in found)

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=PERSONAL)


async def _site(worker: Worker) -> Site:
    """Return the site as it is now, from whichever worker it was changed."""
    await worker.context(None)
    return worker.holder.current.site


def _read(value: object, segment_id: str, worker: Worker) -> SegmentBody:
    try:
        asked = SegmentUpsert.model_validate(value, strict=True)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error
    if asked.segment_id not in (None, segment_id):
        raise InvalidRequestError(FieldError("#/segment_id", "is not the one of the address"))
    body = SegmentBody.model_validate(asked.model_dump(exclude={"segment_id"}))
    try:
        parse_segment_condition(body, worker.settings.sensitive_fields)
    except ConditionError as error:
        raise InvalidRequestError(FieldError(f"#/when{error.pointer}", error.detail)) from error
    return body


def _found(site: Site, segment_id: str) -> Segment:
    found = site.segments.get(segment_id)
    if found is None:
        raise _missing(segment_id)
    return found


def _missing(segment_id: str) -> NotFoundError:
    return NotFoundError(f"there is no segment {segment_id!r}")


def _users_of(site: SiteDocuments, segment_id: str) -> list[str]:
    """Return which documents speak of a segment, but for those that are archived."""
    return [
        f"the {one.kind.replace('_', ' ')} {one.id!r}"
        for one in site.documents.values()
        if one.body is not None
        and one.body.get("status") != "archived"
        and any(segment_id in named for _, named in segments_named(one.body))
    ]


def _of_site(site: Site, segment: Segment, counts: Counts | None) -> dict[str, Any]:
    stored = site.documents.get(KIND, segment.segment_id)
    return _shown(segment.segment_id, segment.body, stored, counts)


def _shown(
    segment_id: str, body: SegmentBody, stored: Document | None, counts: Counts | None
) -> dict[str, Any]:
    return {
        "segment_id": segment_id,
        **body.model_dump(mode="json"),
        "built_in": stored is None,
        "revision": stored.revision if stored else 0,
        "updated_at": stored.updated_at if stored else None,
        "updated_by": stored.updated_by if stored else None,
        "count": counts.members.get(segment_id) if counts else None,
        "as_of": counts.as_of if counts else None,
    }
