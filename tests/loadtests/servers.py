"""Tiny HTTP servers with known behaviour, each in a thread, for what measures servers."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loadtests.client import Address

BODY = b'{"items": []}'
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

Handler = Callable[[socket.socket], None]


@contextmanager
def serving(reply: Handler) -> Iterator[Address]:
    """Serve in one thread: each request on any connection is answered by `reply`, in order."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, reply, stopping))
        thread.start()
        try:
            yield Address(*listener.getsockname()[:2])
        finally:
            stopping.set()
            thread.join()


def _serve(listener: socket.socket, reply: Handler, stopping: threading.Event) -> None:
    connections: list[socket.socket] = []
    while not stopping.is_set():
        ready, _, _ = select.select([listener, *connections], (), (), 0.02)
        for one in ready:
            if one is listener:
                connection = listener.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections.append(connection)
            elif not _answered(one, reply):
                connections.remove(one)
                one.close()
    for one in connections:
        one.close()


def _answered(connection: socket.socket, reply: Handler) -> bool:
    """Answer a request; tell whether the other side was still there."""
    try:
        if not connection.recv(65_536):
            return False
        reply(connection)
    except OSError:
        return False
    return True


def at_once(connection: socket.socket) -> None:
    connection.sendall(REPLY)


def in_pieces(connection: socket.socket) -> None:
    for at in range(0, len(REPLY), 7):
        connection.sendall(REPLY[at : at + 7])
        time.sleep(0.0005)


def after(seconds: float) -> Handler:
    """Take so long for every request, one after the other: 1 / seconds is the rate."""

    def reply(connection: socket.socket) -> None:
        time.sleep(seconds)
        connection.sendall(REPLY)

    return reply


def with_status(line: bytes) -> Handler:
    def reply(connection: socket.socket) -> None:
        connection.sendall(REPLY.replace(b"200 OK", line))

    return reply


def stalling_once(after_s: float, stall_s: float) -> Handler:
    """Answer at once, but stop for `stall_s` after the first `after_s`."""
    began: list[float] = []
    stalled = threading.Event()

    def reply(connection: socket.socket) -> None:
        began.append(time.monotonic())
        if time.monotonic() - began[0] > after_s and not stalled.is_set():
            stalled.set()
            time.sleep(stall_s)
        connection.sendall(REPLY)

    return reply
