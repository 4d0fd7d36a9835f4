"""One round trip for all reads that are in flight.

A client of Redis spends far more processor time on a round trip than on a value. So the reads of
all requests that arrive within one turn of the event loop travel as one ``MGET``; a read joins only
a batch that has not been sent yet, so it never sees a value that is older than itself.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from urllib.parse import urlsplit

from feature_store.errors import StoreUnavailableError
from feature_store.wire import Wire, packed

_Waiter = tuple[asyncio.Future[list[bytes | None]], slice, slice]
_NOTHING = slice(0)


class BatchedReader:
    """Reads string keys, one ``MGET`` for each turn of the event loop.

    It speaks the protocol itself (parsed by hiredis) because this one command is the hot path:
    through the general client the same round trip costs several times the processor time.

    Parameters
    ----------
    url : str
        ``redis://[user:password@]host:port/database`` or ``unix://path``.
    timeout_s : float
        A reply that takes longer counts as a server that is down.
    """

    def __init__(self, url: str, timeout_s: float = 0.05) -> None:
        self._url = urlsplit(url)
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None
        self._keys: list[str] = []
        self._shared: dict[tuple[str, ...], slice] = {}
        self._waiters: list[_Waiter] = []
        self._sending: set[asyncio.Task[None]] = set()

    def get(
        self, keys: Sequence[str], shared: tuple[str, ...] = ()
    ) -> "asyncio.Future[list[bytes | None]]":
        """Read keys; the returned future holds their values in order.

        The future fails with `StoreUnavailableError` when the server does not answer in time.

        Parameters
        ----------
        keys : sequence of str
            Keys of this read alone.
        shared : tuple of str
            Keys that all reads ask for: they travel once. Their values come first.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[bytes | None]] = loop.create_future()
        if not self._waiters:
            loop.call_soon(self._flush)
        first = _NOTHING
        if shared:
            known = self._shared.get(shared)
            first = self._shared[shared] = self._appended(shared) if known is None else known
        self._waiters.append((future, first, self._appended(keys)))
        return future

    def _appended(self, keys: Sequence[str]) -> slice:
        start = len(self._keys)
        self._keys.extend(keys)
        return slice(start, len(self._keys))

    async def close(self) -> None:
        """Close the connection; reads in flight fail."""
        for task in list(self._sending):
            task.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.close()

    def _flush(self) -> None:
        keys, waiters = self._keys, self._waiters
        self._keys, self._waiters, self._shared = [], [], {}
        wire = self._wire
        if wire is None or wire.closed:
            task = asyncio.get_running_loop().create_task(self._connect_and_send(keys, waiters))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        else:
            self._send(wire, keys, waiters)

    def _send(self, wire: Wire, keys: list[str], waiters: list[_Waiter]) -> None:
        reply = wire.send(packed("MGET", *keys))
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._give_up, wire, reply)

        def deliver(done: "asyncio.Future[object]") -> None:
            timer.cancel()
            error = done.exception()
            values = None if error else done.result()
            if not isinstance(values, list):
                error = error or StoreUnavailableError(f"the server refused to read: {values}")
            for future, shared, own in waiters:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                elif isinstance(values, list):
                    future.set_result(values[shared] + values[own])

        reply.add_done_callback(deliver)

    def _give_up(self, wire: Wire, reply: "asyncio.Future[object]") -> None:
        """Fail a batch that takes too long, and the connection with it: replies come in order."""
        if not reply.done():
            reply.set_exception(
                StoreUnavailableError(f"no answer within {self._timeout_s * 1000:.0f} ms")
            )
            wire.close()

    async def _connect_and_send(self, keys: list[str], waiters: list[_Waiter]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                wire = await asyncio.shield(self._connection())
            self._send(wire, keys, waiters)
        except (OSError, TimeoutError, StoreUnavailableError) as error:
            for future, _, _ in waiters:
                if not future.done():
                    future.set_exception(StoreUnavailableError(f"no connection: {error}"))

    def _connection(self) -> "asyncio.Task[Wire]":
        """Return the one attempt to connect that all batches wait for."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            # Nobody may be waiting any more when it fails.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._connecting

    async def _connect(self) -> Wire:
        if self._wire is not None and not self._wire.closed:
            return self._wire
        loop = asyncio.get_running_loop()
        if self._url.scheme == "unix":
            _, wire = await loop.create_unix_connection(Wire, self._url.path)
        else:
            _, wire = await loop.create_connection(
                Wire,
                self._url.hostname or "127.0.0.1",
                self._url.port or 6379,
                ssl=True if self._url.scheme == "rediss" else None,
            )
        await self._greet(wire)
        self._wire = wire
        return wire

    async def _greet(self, wire: Wire) -> None:
        greetings: list[tuple[str, ...]] = []
        if self._url.password:
            greetings.append(("AUTH", self._url.username or "default", self._url.password))
        database = self._url.path.strip("/") if self._url.scheme != "unix" else ""
        if database:
            greetings.append(("SELECT", database))
        for words in greetings:
            reply = await wire.send(packed(*words))
            if isinstance(reply, Exception):
                with contextlib.suppress(Exception):
                    wire.close()
                raise StoreUnavailableError(f"the server refused {words[0]}: {reply}")
