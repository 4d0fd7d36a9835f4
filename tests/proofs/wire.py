"""Many who ask over few keep-alive connections, to any worker that listens, at little cost."""

import asyncio
import random
from typing import Any
from urllib.parse import urlsplit

import orjson

BUSY = (429, 503)
PATIENCE = 100

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Connections to a service; whoever asks takes one that is free, at random.

    Parameters
    ----------
    url : str
        Where it listens.
    connections : int
        How many; the workers of a service share them out.
    rng : Random
        Chooses.
    survives : bool
        Whether a request is sent again when whoever should answer it dies; all that is asked here
        may be.
    """

    def __init__(
        self, url: str, connections: int, rng: random.Random, *, survives: bool = False
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port, self._rng = parts.hostname, parts.port, rng
        self._gate = asyncio.Semaphore(connections)
        self._idle: list[Connection | None] = [None] * connections
        self._survives = survives
        self.busy = 0
        """How often the service said: not now."""
        self.broken = 0
        """How often a connection ended before the answer."""

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._idle:
            if connection is not None:
                connection[1].close()

    async def ask(
        self, method: str, target: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """Send a request until it is not refused for the moment; return status and document.

        Parameters
        ----------
        method, target : str
            The first line; path and query percent-encoded.
        body : object
            Sent as JSON; ``None`` for nothing.
        **headers : str
            An underscore stands for a hyphen.
        """
        data = b"" if body is None else orjson.dumps(body)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        request = "\r\n".join([*lines, "", ""]).encode() + data
        status, found = 0, None
        for attempt in range(PATIENCE):
            try:
                status, found = await self._once(request)
            except (OSError, EOFError):
                if not self._survives:
                    raise
                self.broken += 1
                continue
            if status not in BUSY:
                return status, found
            self.busy += 1
            await asyncio.sleep(min(1.0, 0.05 * 2**attempt) * self._rng.uniform(0.5, 1.5))
        raise TimeoutError(f"{method} {target}: {status} {found!r}, {PATIENCE} times")

    async def _once(self, request: bytes) -> tuple[int, Any]:
        async with self._gate:
            taken = self._idle.pop(self._rng.randrange(len(self._idle)))
            kept: Connection | None = None
            try:
                taken = taken or await asyncio.open_connection(self._host, self._port)
                reader, writer = taken
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().index(b"content-length:") + 15
                length = int(head[at : head.index(b"\r\n", at)])
                found = await reader.readexactly(length)
                # Where somebody stopped waiting, the next one would read their answer.
                kept = taken
            finally:
                if kept is None and taken is not None:
                    taken[1].close()
                self._idle.append(kept)
        return int(head[9:12]), orjson.loads(found) if found else None
