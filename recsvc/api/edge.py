"""The outermost layer, in raw ASGI: the hot requests, and what every answer carries.

A well-formed ``GET /v1/recommendations``, or of a whole page, is answered right here; a FastAPI
route costs two to four times as much. Whatever is unusual - a malformed parameter, a missing key, a
lease that has ended - goes on to the declared route, which asks the same parser and worker, and
says what is wrong.
"""

import random
import re
import time
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsvc.access.auth import Principal, UnauthorizedError, check_origin, credentials
from recsvc.access.public_keys import question_of
from recsvc.api.cors import VARY, Headers, Preflights, allowed_to
from recsvc.api.http import RequestHeaders, read_headers, take_key
from recsvc.api.one_write import write_whole
from recsvc.api.pages import PATH as PAGE_PATH
from recsvc.api.problems import MEDIA_TYPE, Problem, problem_of, problem_response
from recsvc.api.recommendations import PATH, SCOPE, outcome
from recsvc.pages import answer_page
from recsvc.requests import OF_ONE_LIST, parse_query
from recsvc.serving.admission import RETRY_AFTER_S, Gate
from recsvc.serving.worker import Worker
from recsvc.telemetry import get_logger

FAILURES_LOGGED_A_SECOND = 10
_LIST = PATH.encode()
_PAGE = re.compile(rb"/v1/pages/([A-Za-z0-9_.-]{1,64})")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = get_logger()


class Edge:
    """The ASGI application that a server runs.

    Parameters
    ----------
    app : ASGI application
        Answers everything that is not hot.
    worker : Worker
        What both answer from.
    preflights : Preflights
        Which addresses are for browsers.
    """

    def __init__(self, app: ASGIApp, worker: Worker, preflights: Preflights) -> None:
        self._app = app
        self._worker = worker
        self._preflights = preflights
        self._metrics = worker.metrics
        self._admission = worker.admission
        self._pages = worker.admission.pages
        self._log_share = worker.settings.access_log_share
        self._failures_in = 0
        self._failures = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = read_headers(scope)
        request_id = _request_id(headers.request_id)
        query, key = take_key(scope["query_string"])
        if key is not None:
            scope = {**scope, "query_string": query, "recsvc.query_key": key}
        hot = scope["method"] == "GET" and _is_hot(scope["raw_path"])
        gate = self._pages if hot else self._admission.gate_of(scope["path"])
        if gate is None:
            await self._answer(scope, receive, send, headers, request_id, began)
            return
        if gate.in_flight >= gate.open_places:
            await self._refuse(scope, send, gate, headers, request_id, began)
            return
        gate.in_flight += 1
        try:
            if hot and await self._answer_hot(scope, send, headers, request_id, began):
                return
            await self._answer(scope, receive, send, headers, request_id, began)
        finally:
            gate.in_flight -= 1

    async def _refuse(
        self,
        scope: Scope,
        send: Send,
        gate: Gate,
        headers: RequestHeaders,
        request_id: bytes,
        began: float,
    ) -> None:
        """Send somebody away until later, without reading what they brought."""
        problem = Problem(503, self._admission.refused(gate))
        more = [(b"retry-after", b"%d" % RETRY_AFTER_S), *self._readable_by(headers.origin)]
        await _send_problem(scope, send, problem, more, request_id, began)

    async def _answer_preflight(
        self, scope: Scope, send: Send, origin: bytes, request_id: bytes, began: float
    ) -> None:
        """Tell a browser whether the code of a page may send the request that it wants to."""
        welcome = await self._worker.auth.welcomes(origin.decode("latin-1"))
        path = scope["raw_path"].decode("ascii", "replace")
        found = self._preflights.answer(path, origin, welcome=welcome)
        if isinstance(found, Problem):
            await _send_problem(scope, send, found, [VARY], request_id, began)
        else:
            headers = [*found, VARY, (b"x-request-id", request_id)]
            headers.append((b"server-timing", _timing(None, time.perf_counter() - began)))
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        status = found.status if isinstance(found, Problem) else 204
        self._note(scope, None, status, request_id, began)

    def _readable_by(self, origin: bytes | None, caller: Principal | None = None) -> Headers:
        """Return the headers that say which pages may read an answer.

        No page may read what a secret key was answered: that key belongs in no page.
        """
        if origin is None or (caller is not None and caller.kind == "server"):
            return [VARY]
        if not self._worker.auth.has_origin(origin.decode("latin-1")):
            return [VARY]
        return [VARY, *allowed_to(origin)]

    async def _answer_hot(
        self, scope: Scope, send: Send, headers: RequestHeaders, request_id: bytes, began: float
    ) -> bool:
        """Answer a request if there is nothing unusual about it; return whether it was."""
        worker = self._worker
        key = _plain_key(headers, scope.get("recsvc.query_key"))
        principal = worker.auth.known(key) if key is not None else None
        if principal is None or SCOPE not in principal.scopes:
            return False
        path = scope["raw_path"]
        page = None if path == _LIST else _PAGE.fullmatch(path)
        try:
            question = parse_query(scope["query_string"], OF_ONE_LIST if page else frozenset())
            if principal.kind != "server":
                question = question_of(principal, question)
                origin = headers.origin
                check_origin(principal, None if origin is None else origin.decode("latin-1"))
            parsed = time.perf_counter()
            if page is None:
                found = await worker.recommend(
                    question, opted_out=headers.opted_out, caller=principal
                )
            else:
                name, opted_out = page[1].decode(), headers.opted_out
                found = await answer_page(worker, name, question, principal, opted_out=opted_out)
        except Exception:  # noqa: BLE001 - the declared route meets it again and reports it
            return False
        status, raw_headers, body = outcome(found, headers.if_none_match)
        if body:
            raw_headers.append((b"content-length", b"%d" % len(body)))
        raw_headers += self._readable_by(headers.origin, principal)
        raw_headers.append((b"x-request-id", request_id))
        raw_headers.append((b"server-timing", self._timed(parsed - began, *found.phases_s)))
        if not write_whole(send, status, raw_headers, body):
            await send({"type": "http.response.start", "status": status, "headers": raw_headers})
            await send({"type": "http.response.body", "body": body})
        self._note(scope, PATH if page is None else PAGE_PATH, status, request_id, began)
        return True

    def _timed(self, parse_s: float, store_s: float, engine_s: float, write_s: float) -> bytes:
        """Count the phases and return them as ``Server-Timing``."""
        sums = self._metrics.phase_sums
        sums[0] += parse_s
        sums[1] += store_s
        sums[2] += engine_s
        sums[3] += write_s
        return b"parse;dur=%.2f, store;dur=%.2f, engine;dur=%.2f, write;dur=%.2f" % (
            parse_s * 1e3,
            store_s * 1e3,
            engine_s * 1e3,
            write_s * 1e3,
        )

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: RequestHeaders,
        request_id: bytes,
        began: float,
    ) -> None:
        """Let the app answer, under the raw path, and add what every answer carries."""
        if headers.origin is not None and self._preflights.is_one(scope):
            await self._answer_preflight(scope, send, headers.origin, request_id, began)
            return
        status = 0
        # `%2F` in an id must not become a slash before the route is found.
        raw_path = scope["raw_path"].decode("ascii", "replace")
        inner = {**scope, "path": raw_path, "recsvc.request_id": request_id.decode()}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                timing = _timing(inner.get("recsvc.phases_s"), time.perf_counter() - began)
                added = self._readable_by(headers.origin, inner.get("recsvc.principal"))
                added += [(b"x-request-id", request_id), (b"server-timing", timing)]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            await self._app(inner, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except Exception as error:
            self._metrics.errors.inc()
            # Never the path: it may name somebody.
            route = getattr(inner.get("route"), "path", None)
            log.exception("request_failed", request_id=request_id.decode(), route=route)
            if not status:
                response = problem_response(inner, problem_of(error))
                await response(inner, receive, send_with_headers)
        route = inner.get("route")
        template = getattr(route, "path", None)
        self._note(scope, template, status, request_id, began)

    def _note(
        self, scope: Scope, route: str | None, status: int, request_id: bytes, began: float
    ) -> None:
        seconds = time.perf_counter() - began
        self._metrics.answered(route, status, seconds)
        failed = status >= 500 and self._may_log_failure()
        if failed or (self._log_share and random.random() < self._log_share):
            log.info(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                duration_ms=round(seconds * 1e3, 2),
                request_id=request_id.decode(),
            )

    def _may_log_failure(self) -> bool:
        """Tell whether one more failure may be logged: an outage must not fill the disk."""
        second = int(time.monotonic())
        if second != self._failures_in:
            self._failures_in, self._failures = second, 0
        self._failures += 1
        return self._failures <= FAILURES_LOGGED_A_SECOND


def _is_hot(path: bytes) -> bool:
    return path == _LIST or _PAGE.fullmatch(path) is not None


def _request_id(given: bytes | None) -> bytes:
    """Return the caller's name of the request if it is a good one, or else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%016x" % random.getrandbits(64)


def _plain_key(headers: RequestHeaders, in_address: bytes | None) -> bytes | None:
    """Return the key or token where it usually stands."""
    if in_address is not None:
        try:
            return credentials(headers.authorization, headers.api_key, in_address)
        except UnauthorizedError:
            return None
    if headers.authorization is None:
        return headers.api_key
    if headers.authorization.startswith(b"Bearer "):
        return headers.authorization[7:]
    return None


async def _send_problem(
    scope: Scope, send: Send, problem: Problem, more: Headers, request_id: bytes, began: float
) -> None:
    body = problem.body(scope["path"], request_id.decode())
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *more,
        (b"x-request-id", request_id),
        (b"server-timing", _timing(None, time.perf_counter() - began)),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _timing(phases_s: Any, total_s: float) -> bytes:
    parts = [f"total;dur={total_s * 1e3:.2f}"]
    if phases_s is not None:
        names = ("store", "engine", "write")
        parts += [
            f"{name};dur={seconds * 1e3:.2f}" for name, seconds in zip(names, phases_s, strict=True)
        ]
    return ", ".join(parts).encode()
