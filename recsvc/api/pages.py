"""``/v1/pages``: whole pages in one call, and what stands on them; ``/v1/me/page``: one's own."""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from feature_store.documents import SiteDocuments, Write
from recsvc.access.auth import require
from recsvc.access.public_keys import question_of
from recsvc.api.http import (
    AnyWorker,
    PathId,
    actor,
    asking,
    json_body,
    read_headers,
    secured,
)
from recsvc.api.made_over import MadeOver
from recsvc.api.openapi import DESCRIPTIONS, body_of, parameters_of, responses
from recsvc.api.page_schemas import (
    ANSWER,
    BODY,
    DEFINITION,
    MY_ANSWER,
    MyPageAnswer,
    PageAnswer,
    PageDeleted,
    PageDocument,
    PageList,
)
from recsvc.api.preferences import Mine
from recsvc.api.recommendations import SCOPE, outcome
from recsvc.api.revisions import etag, expected_revision
from recsvc.api.rules import READING, WRITING
from recsvc.api.schemas import RecommendationBody
from recsvc.checks import InvalidRequestError
from recsvc.explaining.words import library
from recsvc.merchandising.page_documents import (
    BUILT_IN,
    KIND,
    MAX_PAGES,
    ME,
    PageBody,
    body_of_page,
    check_page,
)
from recsvc.merchandising.placement_documents import read_placements
from recsvc.pages import answer_page
from recsvc.requests import OF_ONE_LIST, RecommendationRequest, load_json, parse_query
from recsvc.serving.worker import Worker

router = APIRouter()

PATH = "/v1/pages/{page}"
PAGES = MadeOver(KIND, BUILT_IN, MAX_PAGES)

NOT_MINE = OF_ONE_LIST | {"user_id", "external_id", "explain"}
"""What a request for one's own page does not say."""
ERRORS = (401, 403, 404, 422, 500, 503)
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": DESCRIPTIONS[304]}}


def _parameters(without: frozenset[str]) -> dict[str, Any]:
    """Return what OpenAPI says of the query, which is read by hand."""
    known = parameters_of(RecommendationBody)
    return {"parameters": [one for one in known if one["name"] not in without]}


async def _respond(
    request: Request,
    worker: Worker,
    page: str,
    question: RecommendationRequest,
    *,
    mine: bool = False,
) -> Response:
    headers = read_headers(request.scope)
    found = await answer_page(
        worker, page, question, asking(request), opted_out=headers.opted_out, mine=mine
    )
    request.scope["recsvc.phases_s"] = found.phases_s
    status, raw_headers, body = outcome(found, headers.if_none_match)
    response = Response(body, status)
    response.raw_headers[:0] = raw_headers
    return response


@router.get(
    PATH,
    tags=["pages"],
    operation_id="get_page",
    summary="What should be shown on this page?",
    responses={**responses(PageAnswer, ANSWER, *ERRORS), **_NOT_MODIFIED},
    **secured(SCOPE, extra=_parameters(OF_ONE_LIST), public=True, customer=True),
)
async def get_page(request: Request, worker: AnyWorker, page: PathId) -> Response:
    """Fill all modules of a page in one call, from the top, no item twice.

    The query is that of recommendations; placements and limits are the page's. Each module is a
    recommendation answer with an id of its own: impressions and clicks name it, and it is replayed
    by it. One with nothing to show is left out and named in `empty`; one whose placement is gone,
    in `missing`. To continue a module, ask its placement with `after` and the items above it as
    `exclude_item_ids`.
    """
    question = parse_query(request.scope["query_string"], OF_ONE_LIST)
    question = question_of(asking(request), question)
    return await _respond(request, worker, page, question)


@router.get(
    "/v1/me/page",
    tags=["me"],
    operation_id="get_my_page",
    summary="My page",
    responses={**responses(MyPageAnswer, MY_ANSWER, 401, 403, 422, 500, 503), **_NOT_MODIFIED},
    # Hears the objection while it reads the person, and answers without the store too.
    **secured(
        extra=_parameters(NOT_MINE | {"anonymous_id"}), public=True, customer=True, hears=False
    ),
)
async def get_my_page(request: Request, worker: AnyWorker, _: Mine) -> Response:
    """Fill the page `me` of the customer of the token, or of a visitor with a public key.

    The modules are those that they chose (`preferences.page.modules`), in their order; before they
    chose, those that suit their stage: new, active, at risk, lapsed. Reasons are in words.
    `choosable` is what there is to choose. Who may not be profiled has their own modules too, with
    what everybody sees. The language is `context.language`, or else what `Accept-Language` likes
    best; rules see it either way.
    """
    require(asking(request), SCOPE)
    question = parse_query(request.scope["query_string"], NOT_MINE)
    question = question_of(asking(request), question)
    if "language" not in question.context:
        language = library().preferred(request.headers.get("accept-language", ""))
        question = replace(question, context={**question.context, "language": language})
    return await _respond(request, worker, ME, question, mine=True)


@router.get(
    "/v1/pages",
    tags=["pages"],
    operation_id="list_pages",
    summary="All pages",
    response_model=PageList,
    responses=responses(PageList, {"pages": [DEFINITION]}, 401, 403, 500, 503),
    **secured(READING),
)
async def list_pages(worker: AnyWorker) -> dict[str, Any]:
    """List what stands on the built-in pages, as they are now, and on the site's own."""
    await worker.context(None)
    return {"pages": [_shown(worker, name) for name in sorted(worker.holder.current.site.pages)]}


@router.get(
    "/v1/pages/{page}/definition",
    tags=["pages"],
    operation_id="get_page_definition",
    summary="What stands on a page",
    response_model=PageDocument,
    responses=responses(PageDocument, DEFINITION, *ERRORS),
    **secured(READING),
)
async def get_page_definition(
    response: Response, worker: AnyWorker, page: PathId
) -> dict[str, Any]:
    """Return which modules a page has; its revision is the `ETag`, 0 for a built-in one."""
    await worker.context(None)
    if page not in worker.holder.current.site.pages:
        raise PAGES.missing(page)
    document = _shown(worker, page)
    response.headers["ETag"] = etag(document["revision"])
    return document


@router.put(
    PATH,
    tags=["pages"],
    operation_id="put_page",
    summary="Make or change a page",
    response_model=PageDocument,
    responses=responses(
        PageDocument, DEFINITION, 400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 503
    ),
    **secured(WRITING, extra=body_of(PageBody, BODY)),
)
async def put_page(
    request: Request, response: Response, worker: AnyWorker, page: PathId
) -> dict[str, Any]:
    """Say which modules stand on a page; in the next answer of every worker.

    On the page `me`, `choosable` modules are those that customers may choose. `defaults` say which
    modules stand there for customers of a stage; on `me` for those who chose none.
    """
    body = PAGES.read(PageBody, load_json(await json_body(request)), page)
    seen = expected_revision(request)

    def plan(site: SiteDocuments) -> list[Write]:
        if errors := check_page(body, read_placements(site)):
            raise InvalidRequestError(*errors)
        return PAGES.save(site, page, body, seen)

    _, (stored,) = await worker.keeper.change(plan, actor(request))
    response.headers["ETag"] = etag(stored.revision)
    return _shown(worker, page)


@router.delete(
    PATH,
    tags=["pages"],
    operation_id="delete_page",
    summary="Delete a page, or restore a built-in one",
    response_model=PageDeleted,
    responses=responses(
        PageDeleted,
        {"name": "home", "restored": True},
        *(401, 403, 404, 409, 412, 422, 500, 503),
    ),
    **secured(WRITING),
)
async def delete_page(request: Request, worker: AnyWorker, page: PathId) -> dict[str, Any]:
    """Delete a page; a built-in one is as it came."""
    seen = expected_revision(request)

    await worker.keeper.change(lambda site: PAGES.remove(site, page, seen), actor(request))
    return {"name": page, "restored": page in BUILT_IN}


def _shown(worker: Worker, name: str) -> dict[str, Any]:
    site = worker.holder.current.site
    return PAGES.shown(site, name, body_of_page(site.pages[name]))
