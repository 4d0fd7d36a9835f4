"""``/v1/recommendations`` as declared routes; the raw dispatcher answers with the same function."""

from typing import Any

from fastapi import APIRouter, Request, Response

from recsvc.access.public_keys import question_of
from recsvc.answering import Recommendation
from recsvc.api.http import AnyWorker, asking, json_body, read_headers, secured
from recsvc.api.openapi import DESCRIPTIONS, body_of, parameters_of, responses
from recsvc.api.schemas import RecommendationAnswer, RecommendationBody
from recsvc.requests import RecommendationRequest, parse_body, parse_query
from recsvc.serving.worker import Worker

SCOPE = "recs:read"
PATH = "/v1/recommendations"

Headers = list[tuple[bytes, bytes]]

_PRIVATE = (b"cache-control", b"private, no-store")
_NO_STORE = (b"cache-control", b"no-store")
# Kept, but never used without asking: what is sold out or recalled must not come from a cache.
_PUBLIC = (b"cache-control", b"public, no-cache")
_JSON = (b"content-type", b"application/json")

router = APIRouter(tags=["recommendations"])

EXAMPLE: dict[str, Any] = {
    "recommendation_id": "019a8f3c1b2d0001c0ffee0123456789",
    "placement": "home",
    "user_id": "2375",
    "model_version": "20261122T050000Z-3f9a1c",
    "rules_version": 0,
    "personalized": True,
    "degraded": [],
    "experiment": None,
    "items": [
        {
            "item_id": "1082185",
            "rank": 1,
            "score": 0.93,
            "source": "collaborative",
            "reason": {"code": "because_you_bought", "item_ids": ["995242"]},
            "rule_ids": [],
            "item": {"title": "BANANAS"},
        }
    ],
}


def outcome(found: Recommendation, if_none_match: bytes | None) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an answer.

    Parameters
    ----------
    found : Recommendation
        The answer.
    if_none_match : bytes or None
        What the caller has already.
    """
    if found.etag is None:
        control = _PRIVATE if found.private else _NO_STORE
        return 200, [_JSON, control], found.body
    etag = found.etag.encode()
    if if_none_match is not None and _matches(if_none_match, etag):
        return 304, [_PUBLIC, (b"etag", etag)], b""
    return 200, [_JSON, _PUBLIC, (b"etag", etag)], found.body


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    known = [one.strip() for one in if_none_match.split(b",")]
    return b"*" in known or etag in known


async def _respond(worker: Worker, request: Request, question: RecommendationRequest) -> Response:
    headers = read_headers(request.scope)
    caller = asking(request)
    question = question_of(caller, question)
    found = await worker.recommend(question, opted_out=headers.opted_out, caller=caller)
    request.scope["recsvc.phases_s"] = found.phases_s
    status, raw_headers, body = outcome(found, headers.if_none_match)
    response = Response(body, status)
    response.raw_headers[:0] = raw_headers
    return response


@router.get(
    PATH,
    operation_id="get_recommendations",
    summary="What should be shown in this slot?",
    responses={
        **responses(RecommendationAnswer, EXAMPLE, 401, 403, 404, 422, 500, 503),
        304: {"description": DESCRIPTIONS[304]},
    },
    **secured(
        SCOPE, extra={"parameters": parameters_of(RecommendationBody)}, public=True, customer=True
    ),
)
async def get_recommendations(request: Request, worker: AnyWorker) -> Response:
    """Answer a query: lists repeat the parameter, `context.country=DE`, `filter` is JSON."""
    return await _respond(worker, request, parse_query(request.scope["query_string"]))


@router.post(
    PATH,
    operation_id="post_recommendations",
    summary="What should be shown in this slot? Asked in a body",
    responses=responses(RecommendationAnswer, EXAMPLE, 400, 401, 403, 404, 413, 415, 422, 500, 503),
    **secured(
        SCOPE,
        extra=body_of(RecommendationBody, {"placement": "home", "user_id": "2375", "limit": 20}),
        public=True,
        customer=True,
    ),
)
async def post_recommendations(request: Request, worker: AnyWorker) -> Response:
    """Answer a body with the names of the query."""
    return await _respond(worker, request, parse_body(await json_body(request)))
