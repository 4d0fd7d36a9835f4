"""One connection to a server, as thin as the hot path needs it: commands out, replies in order."""

import asyncio
from collections.abc import Sequence
from typing import cast

import hiredis

from feature_store.errors import StoreUnavailableError


def packed(*words: str) -> bytes:
    """Return a command as the protocol writes it."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub means tuple[..., ...]
    return packed


class Wire(asyncio.Protocol):
    """A connection that answers commands in the order in which they were sent."""

    def __init__(self) -> None:
        self.closed = False
        self._reader = hiredis.Reader()
        self._waiting: list[asyncio.Future[object]] = []
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where to write."""
        # uvloop's transports are duck-typed: they inherit from none of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self, command: bytes) -> "asyncio.Future[object]":
        """Send a packed command and return the future of its reply."""
        assert self._transport is not None
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        self._transport.write(command)
        return reply

    def send_all(self, commands: Sequence[bytes]) -> "list[asyncio.Future[object]]":
        """Send packed commands in one write and return the futures of their replies."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        replies: list[asyncio.Future[object]] = [loop.create_future() for _ in commands]
        self._waiting += replies
        self._transport.write(b"".join(commands))
        return replies

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            future = self._waiting.pop(0)
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """Fail everything that waits for a reply."""
        self.closed = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailableError("the server closed the connection"))
        self._waiting.clear()

    def close(self) -> None:
        """Drop the connection; what waits fails."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
