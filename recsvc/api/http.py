"""What routes need to know of a request besides its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, BeforeValidator, ValidationError

from feature_store.schema import check_id
from recsvc.api.problems import MediaTypeError, TooLargeError
from recsvc.auth import ForbiddenError, Principal, check_origin, credentials, require
from recsvc.checks import FieldError, pointer_to
from recsvc.worker import Worker


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The headers that matter, read once.

    Parameters
    ----------
    authorization, api_key, if_none_match, request_id : bytes or None
        Their values.
    opted_out : bool
        Whether ``Sec-GPC: 1`` says that the visitor objects to profiling.
    """

    authorization: bytes | None
    api_key: bytes | None
    if_none_match: bytes | None
    request_id: bytes | None
    opted_out: bool


def read_headers(scope: Mapping[str, Any]) -> RequestHeaders:
    """Read the headers of a request; of a header that repeats, the last counts."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return RequestHeaders(
        headers.get(b"authorization"),
        headers.get(b"x-api-key"),
        headers.get(b"if-none-match"),
        headers.get(b"x-request-id"),
        headers.get(b"sec-gpc") == b"1",
    )


def worker_of(request: Request) -> Worker:
    """Return the worker that answers."""
    return cast(Worker, request.app.state.worker)


async def principal_of(request: Request) -> Principal:
    """Return who asks.

    Raises
    ------
    UnauthorizedError
        If the request carries no key that is known.
    """
    headers = read_headers(request.scope)
    key = credentials(headers.authorization, headers.api_key)
    return await worker_of(request).auth.identify(key)


def asking(request: Request) -> Principal:
    """Return who asks, on a route that is `secured`."""
    return cast(Principal, request.scope["recsvc.principal"])


AnyWorker = Annotated[Worker, Depends(worker_of)]


def secured(
    *scopes: str, extra: dict[str, Any] | None = None, public: bool = False
) -> dict[str, Any]:
    """Return the arguments of a route that needs a key with one of `scopes`.

    Parameters
    ----------
    *scopes : str
        Any one of them suffices.
    extra : dict or None
        More for the route's OpenAPI operation.
    public : bool
        Whether a public key will do; the route must then look at `asking`.
    """

    async def check(request: Request) -> Principal:
        principal = await principal_of(request)
        if not principal.scopes.intersection(scopes):
            require(principal, scopes[0])
        if principal.kind == "public":
            if not public:
                raise ForbiddenError(f"the key {principal.name!r} is public: not for this address")
            check_origin(principal, request.headers.get("origin"))
        request.scope["recsvc.principal"] = principal
        return principal

    schemes: list[dict[str, list[str]]] = [{"bearer": []}, {"api_key": []}, {"basic": []}]
    operation = {"security": schemes, "x-scopes": list(scopes), **(extra or {})}
    return {"dependencies": [Depends(check)], "openapi_extra": operation}


def _unquoted(value: object) -> object:
    """Decode one segment of the raw path."""
    try:
        return unquote_to_bytes(str(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("is not percent-encoded UTF-8") from error


PathId = Annotated[
    str,
    BeforeValidator(_unquoted),
    AfterValidator(check_id),
    Path(description="percent-encoded, a slash too: `a/b` is `a%2Fb`", examples=["A-1"]),
]
"""An id in a path. Routing is on the raw path, so it may hold any printable character."""


def media_type_of(request: Request) -> str:
    """Return the media type of a body, without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request) -> bytes:
    """Return the body of a request that must be JSON and not too large.

    Raises
    ------
    MediaTypeError
        If the content type is not JSON.
    TooLargeError
        If it has more than ``max_body_bytes``.
    """
    given = request.headers.get("content-type", "")
    media_type = media_type_of(request)
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise MediaTypeError(f"send Content-Type: application/json, not {given or 'nothing'!r}")
    most = worker_of(request).settings.max_body_bytes
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise TooLargeError(f"a body may have {most} bytes, this one has {length}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLargeError(f"a body may have {most} bytes, this one has more")
    return bytes(body)


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return what pydantic says of a body as named parts of the request."""
    return [
        FieldError(
            pointer_to(*(str(part) for part in one["loc"])),
            str(one["msg"]).removeprefix("Value error, "),
        )
        for one in error.errors(include_url=False)
    ]
