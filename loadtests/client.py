"""The load generator: keep-alive connections, ready request bytes, no event loop.

It has to be well faster than what it measures, so it does as little as HTTP allows: it finds the
end of a reply by its ``content-length`` and looks at the status. `closed_loop` keeps every
connection busy and so finds the throughput; `openloop.open_loop` sends at fixed times and so finds
the latency.
"""

import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

RECEIVE_BYTES = 1 << 16


class LoadError(RuntimeError):
    """The server did something that makes a measurement worthless."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and what its path begins with."""

    host: str
    port: int

    def connect(self) -> socket.socket:
        """Return a connected socket that sends at once."""
        connection = socket.create_connection((self.host, self.port), timeout=5.0)
        # Whoever reads has asked `poll` before: with a timeout Python would ask a second time.
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def get_request(target: str, address: Address, key: str | None = None) -> bytes:
    """Return the bytes of a GET.

    Parameters
    ----------
    target : str
        Path and query, percent-encoded.
    address : Address
        For the ``Host`` header.
    key : str or None
        API key.
    """
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"GET {target} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n{authorization}\r\n"
    ).encode("ascii")


def reply_length(data: bytes | bytearray) -> int | None:
    """Return how many bytes the first reply in `data` has, or ``None`` when its head is incomplete.

    Raises
    ------
    LoadError
        If it has no ``content-length``.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    at = data.find(b"content-length:", 0, end)
    if at < 0:
        at = bytes(data[:end]).lower().find(b"content-length:")
        if at < 0:
            raise LoadError(f"a reply without content-length: {bytes(data[:200])!r}")
    line_end = data.find(b"\r\n", at)
    return end + 4 + int(data[at + 15 : line_end])


class Connection:
    """One keep-alive connection with at most one request under way.

    Parameters
    ----------
    address : Address
        Where to.
    """

    __slots__ = ("_buffer", "due_s", "fd", "freed_s", "replies_bytes", "socket")

    def __init__(self, address: Address) -> None:
        self.socket = address.connect()
        self.fd = self.socket.fileno()
        self.due_s = self.freed_s = 0.0
        self.replies_bytes = 0
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, for ``select``."""
        return self.fd

    def send(self, request: bytes) -> None:
        """Send a request; it is small enough for the socket's buffer."""
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Read what has come; tell whether the reply is complete.

        Raises
        ------
        LoadError
            If the server closed the connection, or the status is not 200.
        """
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise LoadError("the server closed a connection")
        if self._buffer:
            self._buffer += data
            return self._complete(self._buffer)
        if self._complete(data):
            return True
        self._buffer += data
        return False

    def _complete(self, data: bytes | bytearray) -> bool:
        length = reply_length(data)
        if length is None or len(data) < length:
            return False
        if not data.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"not a 200: {bytes(data[:600])!r}")
        self.replies_bytes += length
        if data is self._buffer:
            self._buffer = bytearray()
        return True

    def ask(self, request: bytes) -> bytes:
        """Send one request, wait, and return the body of the reply."""
        self.send(request)
        data = bytearray()
        while True:
            data += self.socket.recv(RECEIVE_BYTES)
            length = reply_length(data)
            if length is not None and len(data) >= length:
                if not data.startswith(b"HTTP/1.1 200"):
                    raise LoadError(f"not a 200: {bytes(data[:600])!r}")
                return bytes(data[data.find(b"\r\n\r\n") + 4 :])

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a closed loop found.

    Parameters
    ----------
    n_replies : int
        Replies, all of status 200.
    seconds : float
        From the first request to the last reply counted.
    bytes_per_reply : float
        Head and body.
    client_cpu_s : float
        Processor time of the generator itself.
    """

    n_replies: int
    seconds: float
    bytes_per_reply: float
    client_cpu_s: float

    @property
    def per_second(self) -> float:
        """Replies a second."""
        return self.n_replies / self.seconds


def closed_loop(
    address: Address, requests: Iterator[bytes], *, seconds: float, n_connections: int = 32
) -> Throughput:
    """Keep every connection busy for some time.

    Parameters
    ----------
    address : Address
        Where to.
    requests : iterator of bytes
        Ready requests, endless.
    seconds : float
        How long.
    n_connections : int
        Requests under way at any time.

    Raises
    ------
    LoadError
        If a reply is not a 200, or none comes for 5 seconds.
    """
    connections = [Connection(address) for _ in range(n_connections)]
    by_fd = {connection.fd: connection for connection in connections}
    poll = select.poll()
    for connection in connections:
        poll.register(connection.fd, select.POLLIN)
    n_replies = 0
    began_cpu_s = time.process_time()
    began_s = now_s = time.perf_counter()
    end_s = began_s + seconds
    try:
        for connection in connections:
            connection.send(next(requests))
        while now_s < end_s:
            ready = poll.poll(5_000)
            if not ready:
                raise LoadError("no reply for 5 seconds")
            for fd, _ in ready:
                connection = by_fd[fd]
                if connection.receive():
                    n_replies += 1
                    connection.send(next(requests))
            now_s = time.perf_counter()
        cpu_s = time.process_time() - began_cpu_s
    finally:
        for connection in connections:
            connection.close()
    n_bytes = sum(connection.replies_bytes for connection in connections)
    return Throughput(n_replies, now_s - began_s, n_bytes / max(1, n_replies), cpu_s)
