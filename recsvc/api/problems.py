"""Errors as RFC 9457 problem documents, for every answer that is not a success."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from feature_store.errors import (
    ArtifactError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    RateLimitedError,
    RecsvcError,
    StaleRevisionError,
    StoreUnavailableError,
)
from recsvc.access.auth import REALM, ForbiddenError, UnauthorizedError
from recsvc.checks import FieldError, InvalidRequestError, UnparsableRequestError, pointer_to

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

KINDS: dict[int, str] = {
    400: "unparsable",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    412: "stale",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid",
    429: "too-many-requests",
    500: "internal",
    503: "unavailable",
}
"""The last part of ``type`` for each status."""


class TooLargeError(RecsvcError):
    """A body that is larger than allowed: 413."""


class MediaTypeError(RecsvcError):
    """A body that is not JSON by its own account: 415."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, ready to be sent.

    Parameters
    ----------
    status : int
        The HTTP status.
    detail : str
        What went wrong this time, and what to do.
    errors : tuple of FieldError
        The parts of the request that are wrong.
    headers : mapping of str to str
        What the answer says besides.
    """

    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, instance: str, request_id: str) -> bytes:
        """Return the document; `instance` is the path that was asked for."""
        document: dict[str, Any] = {
            "type": f"urn:recsvc:problem:{KINDS.get(self.status, 'other')}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
        }
        if self.errors:
            document["errors"] = [error._asdict() for error in self.errors]
        return orjson.dumps(document)


_STATUS: dict[type[RecsvcError], int] = {
    UnparsableRequestError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    StaleRevisionError: 412,
    ConflictError: 409,
    ArtifactError: 409,
    TooLargeError: 413,
    MediaTypeError: 415,
    InvalidRequestError: 422,
    RateLimitedError: 429,
    OverloadedError: 503,
    StoreUnavailableError: 503,
}

_CHALLENGE = {"WWW-Authenticate": f'Bearer realm="{REALM}"'}


def problem_of(error: Exception) -> Problem:
    """Return what to tell the caller about an error."""
    if isinstance(error, InvalidRequestError):
        return Problem(422, "the request is not valid: see errors", error.errors)
    if isinstance(error, RequestValidationError):
        errors = tuple(_field_error(one) for one in error.errors())
        return Problem(422, "the request is not valid: see errors", errors)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _http_detail(error), headers=error.headers or {})
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    headers: dict[str, str] = {}
    if status == 401:
        headers = _CHALLENGE
    elif status in (429, 503):
        retry_s = error.retry_after_s if isinstance(error, OverloadedError) else RETRY_AFTER_S
        headers = {"Retry-After": str(math.ceil(retry_s))}
    # What failed by our own fault stays in the log: it may hold what is nobody's business.
    detail = str(error) if status != 500 else "the service failed; the log has the request_id"
    return Problem(status, detail, headers=headers)


def _http_detail(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this address; see /openapi.json"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return f"this address answers {allowed} only"
    return str(error.detail)


def _field_error(error: Any) -> FieldError:
    # The first part of a location says where it was looked for: path, query or body.
    parts = [str(part) for part in error["loc"][1:]]
    return FieldError(pointer_to(*parts), str(error["msg"]).removeprefix("Value error, "))


def problem_response(scope: Mapping[str, Any], problem: Problem) -> Response:
    """Return a problem as a response to a request."""
    body = problem.body(str(scope["path"]), str(scope["recsvc.request_id"]))
    return Response(
        body,
        problem.status,
        headers={**problem.headers, "Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )


def add_handlers(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Let every error of an app become a problem document.

    Parameters
    ----------
    app : FastAPI
        The app.
    routes : sequence of APIRoute
        All of its routes.
    """

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            # The router names the methods of the first route only.
            path = request.scope["path"]
            methods = {m for one in routes if one.path_regex.match(path) for m in one.methods or ()}
            error = HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        return problem_response(request.scope, problem_of(error))

    handler = cast(Callable[[Request, Exception], Any], handle)
    for kind in (RecsvcError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handler)
