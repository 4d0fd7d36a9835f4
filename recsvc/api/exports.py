"""``/v1/users/{user_id}/export``, ``/v1/me/export``: all that is held of one person."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from feature_store.errors import NotFoundError, OverloadedError
from recsvc.access.auth import ForbiddenError
from recsvc.access.public_keys import check_visitor_id
from recsvc.api.accepting import Form, InForm, form_of
from recsvc.api.caching import PERSONAL
from recsvc.api.http import AnyWorker, PathId, asking, secured
from recsvc.api.languages import InWords, words_of
from recsvc.api.me import Visitor, refuse_user_id
from recsvc.api.openapi import responses
from recsvc.api.schemas import Document
from recsvc.checks import FieldError, InvalidRequestError
from recsvc.explaining import html
from recsvc.explaining.words import Words
from recsvc.exports.documents import as_html, as_json
from recsvc.exports.exporting import Sources, open_export
from recsvc.serving.worker import Worker

MAX_AT_ONCE = 2
"""Exports that a worker makes at once: each reads the whole log."""
EVENTS_WORTH = 60
"""Of the events that a browser may send in a minute an export takes so many."""

router = APIRouter()


class ExportSection(Document):
    """One kind of thing that is held."""

    title: str
    what: Annotated[str, Field(description="what it is")]
    why: Annotated[str, Field(description="why it is held")]
    entries: list[dict[str, Any]]
    count: int


class ExportDocument(Document):
    """All that is held of one person."""

    format: str
    user_id: str | None
    anonymous_id: str | None
    made_at: str
    sections: dict[str, ExportSection]


EXAMPLE: dict[str, Any] = {
    "format": "recsvc-export-1",
    "user_id": "2375",
    "anonymous_id": None,
    "made_at": "2026-11-22T09:00:00Z",
    "sections": {
        "facts": {
            "title": "Interactions by item",
            "what": "For each item, how often the person did what with it, when first and last.",
            "why": "Recommendations are computed from it at the moment when they are asked for.",
            "entries": [
                {
                    "item_id": "1082185",
                    "title": "Bananas",
                    "type": "purchase",
                    "count": 12,
                    "first_at": "2017-01-03T17:56:00Z",
                    "last_at": "2017-12-31T20:01:00Z",
                }
            ],
            "count": 1,
        }
    },
}


class _Mine(Visitor):
    """What a browser asks for."""

    language: Annotated[
        str | None,
        Field(max_length=35, description="otherwise what `Accept-Language` likes best"),
    ] = None
    form: Annotated[
        Form | None,
        Field(alias="format", description="`html` for a page; otherwise what `Accept` likes best"),
    ] = None


@router.get(
    "/v1/users/{user_id}/export",
    operation_id="get_user_export",
    summary="All that is held of a person",
    tags=["users"],
    response_class=StreamingResponse,
    responses=responses(ExportDocument, EXAMPLE, 401, 403, 404, 422, 429, 500, 503),
    **secured("privacy:admin"),
)
async def get_user_export(
    worker: AnyWorker, user_id: PathId, told: InWords, form: InForm
) -> StreamingResponse:
    """Return everything that is stored of a user, and of the visitors who became the user.

    Each section says what it is and why it is held. Of somebody of whom nothing is held all
    sections are empty. `Accept: text/html`, or `format=html`, gives a page of the same, in the
    language that is asked for. An answer that was cut off is no valid JSON.
    """
    return await _streamed(worker, f"u:{user_id}", told, form, whole=True)


@router.get(
    "/v1/me/export",
    operation_id="get_my_export",
    summary="All that is held of me",
    tags=["me"],
    response_class=StreamingResponse,
    responses=responses(ExportDocument, EXAMPLE, 401, 403, 404, 422, 429, 500, 503),
    **secured(public=True, customer=True),
)
async def get_my_export(
    request: Request, worker: AnyWorker, asked: Annotated[_Mine, Query()]
) -> StreamingResponse:
    """Return the same of the customer of the token, or of a visitor.

    With a public key it needs an `anonymous_id` that nobody can guess; a visitor who has signed in
    since is the customer's, and asking needs the customer's token (403). What a record of a
    recommendation says of the shop, its rules and what it did not show, is left out.
    """
    person = await _person(request, worker, asked.anonymous_id)
    most = worker.settings.public_events_per_minute
    await worker.store.quota.take({person: min(EVENTS_WORTH, most)}, most, time.time())
    told, form = words_of(request, asked.language), form_of(request, asked.form)
    return await _streamed(worker, person, told, form, whole=False)


async def _person(request: Request, worker: Worker, anonymous_id: str | None) -> str:
    """Return whose data a browser may have.

    Raises
    ------
    InvalidRequestError
        If a visitor has no id, or one that could be guessed.
    ForbiddenError
        If the visitor is a customer since.
    NotFoundError
        If a token asks for a visitor who is not its customer.
    """
    refuse_user_id(request)
    user_id = asking(request).user_id
    if anonymous_id is None:
        if user_id is None:
            raise InvalidRequestError(FieldError("#/anonymous_id", "is needed with a public key"))
        return f"u:{user_id}"
    if bad := check_visitor_id(anonymous_id):
        raise InvalidRequestError(bad)
    visitor = f"a:{anonymous_id}"
    owner = await worker.store.holdings.user_of(visitor)
    if user_id is not None:
        if owner != f"u:{user_id}":
            raise NotFoundError("this visit is not the customer's of the token")
        return owner
    if owner is not None:
        raise ForbiddenError("this visitor has signed in: ask with the customer's token")
    return visitor


async def _streamed(
    worker: Worker, person: str, told: Words, form: Form, *, whole: bool
) -> StreamingResponse:
    """Read what the server holds, and answer with what writes the rest as it is read."""
    place = _Place()
    try:
        await worker.context(None)  # so that the catalogue knows every item of the person
        current = worker.holder.current
        sources = Sources(
            worker.store, worker.settings.data_dir, current.catalogue, current.site.segments
        )
        export = await open_export(sources, person, whole=whole)
    except BaseException:
        place.leave()
        raise
    headers = {
        **PERSONAL,
        "Content-Language": told.language,
        "Vary": "Accept, Accept-Language",
    }
    if form == "html":
        parts, media_type, headers = as_html(export, told), html.MEDIA_TYPE, headers | html.HEADERS
    else:
        parts, media_type = as_json(export, told), "application/json"
    return StreamingResponse(_leaving(place, parts), media_type=media_type, headers=headers)


async def _leaving(place: "_Place", parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    finally:
        place.leave()


class _Place:
    """One of the few exports that this process makes at once.

    Raises
    ------
    OverloadedError
        If there are as many as may be.
    """

    taken = 0
    _mine = False

    def __init__(self) -> None:
        if _Place.taken >= MAX_AT_ONCE:
            raise OverloadedError("other exports are being made; ask again in a moment", 5.0)
        self._mine = True
        _Place.taken += 1

    def leave(self) -> None:
        """Give the place back, once."""
        if self._mine:
            self._mine = False
            _Place.taken -= 1

    def __del__(self) -> None:
        """Give it back when nobody waited for the first byte, so that nothing was ever made."""
        self.leave()
