"""A finished answer in one write.

ASGI sends head and body in two messages, each of which uvicorn checks and writes by itself: two
system calls and two segments. Where an answer is ready as a whole, and its head was made here, that
costs more than parsing the request does.
"""

from collections.abc import Sequence

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


def write_whole(
    send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Answer a request with one write, if nothing about its connection is unusual.

    Parameters
    ----------
    send : callable
        What the application was given to send with; if it is not uvicorn's own, nothing is done.
    status : int
        The HTTP status.
    headers : sequence of (bytes, bytes)
        In lower case, without line breaks, and with the length of a body: nothing is checked.
    body : bytes
        All of it; empty where the status has none.

    Returns
    -------
    bool
        Whether the answer is written.
    """
    cycle = getattr(send, "__self__", None)
    if (
        type(cycle) is not RequestResponseCycle
        or cycle.disconnected
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
