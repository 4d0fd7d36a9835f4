"""What routes need to know of a request besides its parameters."""

from collections.abc import Mapping
from typing import Annotated, Any, cast
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, BeforeValidator, ValidationError

from feature_store.preferences import UNREADABLE
from feature_store.schema import check_id
from feature_store.values import value_class
from recsvc.access.auth import ForbiddenError, Kind, Principal, check_origin, credentials, require
from recsvc.api.problems import MediaTypeError, TooLargeError
from recsvc.checks import FieldError, pointer_to
from recsvc.customer.consenting import gpc_refusal
from recsvc.serving.worker import Worker


@value_class(frozen=True, slots=True)
class RequestHeaders:
    """The headers that matter, read once.

    Parameters
    ----------
    authorization, api_key, if_none_match, request_id, origin : bytes or None
        Their values.
    opted_out : bool
        Whether ``Sec-GPC: 1`` says that the visitor objects to profiling.
    """

    authorization: bytes | None
    api_key: bytes | None
    if_none_match: bytes | None
    request_id: bytes | None
    opted_out: bool
    origin: bytes | None


def read_headers(scope: Mapping[str, Any]) -> RequestHeaders:
    """Read the headers of a request; of a header that repeats, the last counts."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    get = headers.get
    return RequestHeaders(
        get(b"authorization"),
        get(b"x-api-key"),
        get(b"if-none-match"),
        get(b"x-request-id"),
        get(b"sec-gpc") == b"1",
        get(b"origin"),
    )


def take_key(query: bytes) -> tuple[bytes, bytes | None]:
    """Take ``key=...`` out of a query string: no route, and no log, is to see it.

    Parameters
    ----------
    query : bytes
        As it came.

    Returns
    -------
    rest : bytes
        All other parameters, unchanged.
    key : bytes or None
        The key, if there is one; when it is given more than once, none of them is a key.
    """
    if b"key=" not in query:
        return query, None
    parts = query.split(b"&")
    keys = [part[4:] for part in parts if part.startswith(b"key=")]
    if not keys:
        return query, None
    rest = b"&".join(part for part in parts if not part.startswith(b"key="))
    key = b"&".join(keys)
    return rest, unquote_to_bytes(key) if b"%" in key else key


def worker_of(request: Request) -> Worker:
    """Return the worker that answers."""
    return cast(Worker, request.app.state.worker)


async def principal_of(request: Request) -> Principal:
    """Return who asks.

    Raises
    ------
    UnauthorizedError
        If the request carries no key or token that is good.
    """
    headers = read_headers(request.scope)
    in_address = request.scope.get("recsvc.query_key")
    key = credentials(headers.authorization, headers.api_key, in_address)
    return await worker_of(request).auth.identify(key)


def asking(request: Request) -> Principal:
    """Return who asks, on a route that is `secured`."""
    return cast(Principal, request.scope["recsvc.principal"])


def me(request: Request) -> str:
    """Return the user id of the customer who asks, on a route that is `secured` for customers.

    Raises
    ------
    ForbiddenError
        If it is a public key's: a visitor has no user id.
    """
    user_id = asking(request).user_id
    if user_id is None:
        raise ForbiddenError("this needs a customer token")
    return user_id


def actor(request: Request) -> str:
    """Return how audits name who asks, on a route that is `secured`."""
    return f"key:{asking(request).name}"


AnyWorker = Annotated[Worker, Depends(worker_of)]

_SCHEMES: dict[Kind, tuple[str, ...]] = {
    "server": ("bearer", "api_key", "basic"),
    "public": ("public_key",),
    "customer": ("customer_token",),
}


def secured(
    *scopes: str,
    extra: dict[str, Any] | None = None,
    public: bool = False,
    customer: bool = False,
    hears: bool = True,
) -> dict[str, Any]:
    """Return the arguments of a route that says who may use it.

    The route must look at `asking`, or `me`, where browsers may use it. What customers do for
    themselves (a route without scopes) hears their browser's ``Sec-GPC: 1`` before anything else.

    Parameters
    ----------
    *scopes : str
        Any one of them suffices; none: the route is not for keys of backends.
    extra : dict or None
        More for the route's OpenAPI operation.
    public : bool
        Whether a public key will do.
    customer : bool
        Whether a customer token will do.
    hears : bool
        Whether an objection to profiling is remembered here; not where the route does so itself,
        or where nothing may be kept of whoever asks.
    """
    may: dict[Kind, bool] = {"server": bool(scopes), "public": public, "customer": customer}
    kinds = [kind for kind, allowed in may.items() if allowed]
    assert kinds, "nobody could use the route; say `unsecured` if everybody may"

    async def check(request: Request) -> Principal:
        principal = await principal_of(request)
        origin = request.headers.get("origin")
        if origin is not None and principal.kind != "server" and origin not in principal.origins:
            # It may have been bound to this page a moment ago.
            await worker_of(request).auth.welcomes(origin)
            principal = await principal_of(request)
        if principal.kind not in kinds:
            raise ForbiddenError(_refusal(principal))
        if scopes and not principal.scopes.intersection(scopes):
            require(principal, scopes[0])
        check_origin(principal, origin)
        request.scope["recsvc.principal"] = principal
        if hears and not scopes and principal.kind == "customer":
            await _hear_objection(request, principal)
        return principal

    operation = {
        "security": [{scheme: []} for kind in kinds for scheme in _SCHEMES[kind]],
        "x-scopes": list(scopes),
        "x-credentials": kinds,
        **(extra or {}),
    }
    return {"dependencies": [Depends(check)], "openapi_extra": operation}


async def _hear_objection(request: Request, principal: Principal) -> None:
    """Remember that a customer's browser objects to profiling, unless they refused it already.

    What cannot be read is left as it is: it allows nothing.
    """
    if not read_headers(request.scope).opted_out:
        return
    worker, person = worker_of(request), f"u:{principal.user_id}"
    preferences = (await worker.store.load_context(person)).preferences
    if preferences is not UNREADABLE and preferences.consent.profiling is not False:
        await worker.decide(person, gpc_refusal, "customer")


def unsecured(extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments of a route that everybody may use, and that says so.

    Parameters
    ----------
    extra : dict or None
        More for the route's OpenAPI operation.
    """
    operation = {"security": [], "x-scopes": [], "x-credentials": [], **(extra or {})}
    return {"openapi_extra": operation}


def _refusal(principal: Principal) -> str:
    if principal.kind == "public":
        return f"the key {principal.name!r} is public: not for this address"
    if principal.kind == "customer":
        return "a customer token is not for this address"
    return "this address is for customers, with a customer token"


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


async def json_body(request: Request, *, beacon: bool = False) -> bytes:
    """Return the body of a request that must be JSON and not too large.

    Parameters
    ----------
    request : Request
        The request.
    beacon : bool
        Whether it may call itself ``text/plain``, as a page's ``navigator.sendBeacon`` does.

    Raises
    ------
    MediaTypeError
        If the content type is not JSON.
    TooLargeError
        If it has more than ``max_body_bytes``.
    """
    given = request.headers.get("content-type", "")
    media_type = media_type_of(request)
    plain = beacon and media_type == "text/plain"
    if (
        not plain
        and media_type != "application/json"
        and not (media_type.startswith("application/") and media_type.endswith("+json"))
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
