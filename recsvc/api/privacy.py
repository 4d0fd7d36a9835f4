"""``/v1/privacy``: what must not be named; ``/v1/transparency``: how the ranking works."""

import asyncio
import contextlib
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field, ValidationError

from feature_store.documents import SiteDocuments, Write
from feature_store.errors import StoreUnavailableError
from recsvc.api.accepting import InForm
from recsvc.api.http import AnyWorker, actor, field_errors, json_body, secured, unsecured
from recsvc.api.languages import InWords
from recsvc.api.openapi import body_of, responses
from recsvc.api.revisions import etag, expected_revision
from recsvc.api.schemas import Document
from recsvc.checks import InvalidRequestError
from recsvc.explaining import html
from recsvc.explaining.transparency import as_page, transparency
from recsvc.privacy import ID, KIND, PrivacyBody
from recsvc.requests import load_json
from recsvc.serving.worker import Worker

router = APIRouter(tags=["privacy"])

SCOPE = "privacy:admin"


class PrivacyDocument(PrivacyBody):
    """What the site says about privacy."""

    revision: int
    updated_at: str | None
    updated_by: str | None


BODY: dict[str, Any] = {"never_named": ["Health > Intimate"]}
EXAMPLE: dict[str, Any] = {
    **BODY,
    "revision": 1,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:console",
}
_ADDED = frozenset({"revision", "updated_at", "updated_by"})


@router.get(
    "/v1/privacy",
    operation_id="get_privacy",
    summary="What the site says about privacy",
    response_model=PrivacyDocument,
    responses=responses(PrivacyDocument, EXAMPLE, 401, 403, 500, 503),
    **secured(SCOPE),
)
async def get_privacy(response: Response, worker: AnyWorker) -> dict[str, Any]:
    """Return the document; its revision is the `ETag`, 0 while nobody has written it."""
    await worker.context(None)
    document = _shown(worker)
    response.headers["ETag"] = etag(document["revision"])
    return document


@router.put(
    "/v1/privacy",
    operation_id="put_privacy",
    summary="Say what must never be named",
    response_model=PrivacyDocument,
    responses=responses(PrivacyDocument, EXAMPLE, 400, 401, 403, 409, 412, 413, 415, 422, 500, 503),
    **secured(SCOPE, extra=body_of(PrivacyBody, BODY)),
)
async def put_privacy(request: Request, response: Response, worker: AnyWorker) -> dict[str, Any]:
    """Name categories of which no item is ever given as a reason; obeyed in the next answer.

    What is below a category counts too, and case does not matter. A reason keeps its code, without
    the item; an item of such a category that is itself recommended is `recommended`, and no more is
    said of it.
    """
    body = _read(load_json(await json_body(request)))
    seen = expected_revision(request)

    def plan(_: SiteDocuments) -> list[Write]:
        return [Write(KIND, ID, body.model_dump(mode="json"), seen)]

    _, (stored,) = await worker.keeper.change(plan, actor(request))
    response.headers["ETag"] = etag(stored.revision)
    return _shown(worker)


class ShownParameter(Document):
    """One thing that the ranking goes by."""

    name: str
    value: Annotated[Any, Field(description="as it is in force; null where there is no number")]
    text: str


class ShownSection(Document):
    """Some of them."""

    id: str
    title: str
    text: str
    parameters: list[ShownParameter]


class Transparency(Document):
    """The main parameters of the ranking."""

    language: str
    title: str
    model_version: str | None
    rules_version: int
    sections: list[ShownSection]


TRANSPARENCY: dict[str, Any] = {
    "language": "en",
    "title": "How recommendations are made here",
    "model_version": "20261122T050000Z-3f9a1c",
    "rules_version": 12,
    "sections": [
        {
            "id": "rules",
            "title": "What the shop decides by hand",
            "text": "2 rules of the shop are in force.",
            "parameters": [
                {
                    "name": "boost",
                    "value": 2,
                    "text": "2 rules move certain items up.",
                }
            ],
        }
    ],
}
_HEADERS = {
    # It says what is in force: a copy may be kept, but is asked about.
    "Cache-Control": "no-cache",
    "Vary": "Accept, Accept-Language",
}


def _documented() -> dict[int | str, dict[str, Any]]:
    found = responses(Transparency, TRANSPARENCY, 422, 500)
    page = {html.MEDIA_TYPE: {"schema": {"type": "string"}, "example": "<!doctype html>..."}}
    found[200]["content"] = found[200]["content"] | page
    return found


@router.get(
    "/v1/transparency",
    operation_id="get_transparency",
    summary="The main parameters of the ranking, in plain language",
    response_model=Transparency,
    responses=_documented(),
    **unsecured(),
)
async def get_transparency(worker: AnyWorker, told: InWords, form: InForm) -> Response:
    """Say what fills the lists, what the ranking weighs, what rules do, and what customers can do.

    Made from what is in force; for everybody. With `Accept: text/html`, or `format=html`, a page.
    """
    with contextlib.suppress(StoreUnavailableError):
        await worker.context(None)
    snapshot, settings = worker.holder.current, worker.settings
    document = await asyncio.to_thread(transparency, snapshot, settings, told)
    headers = {**_HEADERS, "Content-Language": told.language}
    if form == "html":
        page = as_page(document)
        return Response(page, headers=headers | html.HEADERS, media_type=html.MEDIA_TYPE)
    return Response(orjson.dumps(document), headers=headers, media_type="application/json")


def _read(value: object) -> PrivacyBody:
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if key not in _ADDED}
    try:
        return PrivacyBody.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(*field_errors(error)) from error


def _shown(worker: Worker) -> dict[str, Any]:
    stored = worker.holder.current.site.documents.get(KIND, ID)
    body = PrivacyBody() if stored is None else PrivacyBody.model_validate(stored.body)
    return {
        **body.model_dump(mode="json"),
        "revision": stored.revision if stored else 0,
        "updated_at": stored.updated_at if stored else None,
        "updated_by": stored.updated_by if stored else None,
    }
