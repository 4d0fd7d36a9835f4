"""HTTP/1.1 as uvicorn speaks it, and one thing more: a finished answer goes out in one write.

ASGI sends head and body in two messages, each of which uvicorn checks and writes by itself: two
system calls and two segments. Where an answer is ready as a whole, its head was made here, and it
is short, that costs more than parsing the request. So the scope offers an ASGI extension,
``recsvc.whole``: a function of status, headers and body that writes all of it at once, and returns
whether it did; whoever is told that it did not sends the two messages.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

WHOLE = "recsvc.whole"

WriteWhole = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], bool]


class Protocol(HttpToolsProtocol):
    """One connection."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast(dict[str, Any], cycle.scope)
        scope["extensions"] = {WHOLE: partial(_write_whole, cycle)}
        super()._start_asgi_task(cycle, app)


def _write_whole(
    cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Answer a request, if nothing about its connection is unusual.

    Parameters
    ----------
    cycle : RequestResponseCycle
        The request.
    status : int
        The HTTP status.
    headers : sequence of (bytes, bytes)
        In lower case, without line breaks, and with the length of a body: nothing is checked.
    body : bytes
        All of it; empty where the status has none.
    """
    if (
        cycle.disconnected
        or cycle.response_started
        or not cycle.keep_alive
        or cycle.flow.write_paused
    ):
        return False
    parts = [STATUS_LINE[status]]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    # As after the last message: who waits for more of the request is told that it is over.
    cycle.message_event.set()
    cycle.on_response()
    return True
