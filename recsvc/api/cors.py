"""Cross-origin requests: which pages' code may read the answers (fetch standard, CORS protocol).

What a caller may do depends on the key or token alone: there are no cookies, so nothing is allowed
``with credentials``. The headers say only in which pages a browser shows an answer to the page's
code, and those are the pages that some good public key or signing key is bound to. Never ``*``.
"""

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.types import Scope

from recsvc.api.problems import Problem

Headers = list[tuple[bytes, bytes]]

VARY = (b"vary", b"Origin")
"""On every answer, also to those who name no origin: a cache must not mix them up."""
MAX_AGE_S = 600
"""So long a browser may remember a preflight, so also that an origin is welcome no more."""

_ALLOWED = b"Authorization, Content-Type, If-Match, If-None-Match, X-API-Key, X-Request-ID"
_EXPOSED = (
    b"access-control-expose-headers",
    b"ETag, Retry-After, Server-Timing, X-Request-ID",
)


def allowed_to(origin: bytes) -> Headers:
    """Return the headers that let the code of a page read an answer.

    Parameters
    ----------
    origin : bytes
        That page's, which is welcome.
    """
    return [(b"access-control-allow-origin", origin), _EXPOSED]


class Preflights:
    """Answers the question that browsers put before a request that a form could not send.

    It carries no key, so it is answered for every page that is welcome at all; the request that
    follows shows its key.

    Parameters
    ----------
    routes : sequence of APIRoute
        All of the app's; those for browsers say so (``http.secured``).
    """

    def __init__(self, routes: Sequence[APIRoute]) -> None:
        self._routes = [
            (route.path_regex, frozenset(route.methods or ()))
            for route in routes
            if {"public", "customer"}.intersection(
                (route.openapi_extra or {}).get("x-credentials", ())
            )
        ]

    @staticmethod
    def is_one(scope: Scope) -> bool:
        """Tell whether a request is a preflight."""
        if scope["method"] != "OPTIONS":
            return False
        names = {name for name, _ in scope["headers"]}
        return {b"origin", b"access-control-request-method"} <= names

    def answer(self, path: str, origin: bytes, *, welcome: bool) -> Headers | Problem:
        """Return the headers of a 204, or why the request may not follow.

        Parameters
        ----------
        path : str
            Raw path of the request that is to follow.
        origin : bytes
            The page's.
        welcome : bool
            Whether a good key is bound to it.
        """
        if not welcome:
            shown = origin[:200].decode("latin-1")
            return Problem(403, f"no public key or signing key is bound to pages of {shown}")
        methods = {one for regex, some in self._routes if regex.match(path) for one in some}
        if not methods:
            return Problem(403, "this address is not for browsers: call it from a backend")
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", ", ".join(sorted(methods)).encode()),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
            (b"cache-control", b"no-store"),
        ]
