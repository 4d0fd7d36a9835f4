"""The batched reader of a cluster: one write to each node and turn, one ``MGET`` for each slot.

The promises are those of `batching`: reads that are in flight together travel together, and a read
joins only what has not been sent yet. A node that does not answer fails the reads that need it, and
no others.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import hiredis

from feature_store.batching import BatchedReader
from feature_store.cluster import Address, ClusterUrl, is_cluster, parse_cluster_url, slot_of
from feature_store.errors import StoreUnavailableError
from feature_store.wire import Wire, packed

REDIRECTIONS = 3
LOOK_AGAIN_S = 0.5
LOOK_TIMEOUT_S = 1.0

T = TypeVar("T")


class _Read:
    """One call of `get`: the values that have come, and how many have not."""

    __slots__ = ("future", "missing", "values")

    def __init__(self, future: "asyncio.Future[list[bytes | None]]", n_keys: int) -> None:
        self.future = future
        self.values: list[bytes | None] = [None] * n_keys
        self.missing = n_keys

    def take(self, place: int, value: bytes | None) -> None:
        self.values[place] = value
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result(self.values)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


_Wanted = dict[str, list[tuple[_Read, int]]]
"""Keys, and which places of which reads want them: many ask for the same sequence numbers."""


class ClusterReader:
    """Reads string keys from whichever nodes have them.

    Parameters
    ----------
    url : ClusterUrl
        Where the cluster is.
    timeout_s : float
        A node that takes longer counts as down.
    """

    def __init__(self, url: ClusterUrl, timeout_s: float = 0.05) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._wires: dict[Address, Wire] = {}
        self._slots: list[Address] = []
        self._stale = True
        self._looked_at_s = -LOOK_AGAIN_S
        self._connecting: dict[Address, asyncio.Task[Wire]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._wanted: _Wanted = {}
        self._sending: set[asyncio.Task[None]] = set()

    def get(
        self, keys: Sequence[str], shared: tuple[str, ...] = ()
    ) -> "asyncio.Future[list[bytes | None]]":
        """Read keys as `BatchedReader.get` does.

        The future fails with `StoreUnavailableError` when a node that has one of them does not
        answer in time.
        """
        keys = (*shared, *keys)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[bytes | None]] = loop.create_future()
        if not keys:
            future.set_result([])
            return future
        if not self._wanted:
            loop.call_soon(self._flush)
        read = _Read(future, len(keys))
        for place, key in enumerate(keys):
            self._wanted.setdefault(key, []).append((read, place))
        return future

    async def close(self) -> None:
        """Close the connections; reads in flight fail."""
        for task in (*self._sending, *self._connecting.values(), self._looking):
            if task is not None:
                task.cancel()
        for wire in self._wires.values():
            wire.close()

    # --- one turn of the event loop -------------------------------------------------------------

    def _flush(self) -> None:
        wanted, self._wanted = self._wanted, {}
        if self._stale or not self._slots:
            self._start(self._look_and_send(wanted))
        else:
            self._send_all(wanted, 0)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _look_and_send(self, wanted: _Wanted, attempt: int = 0) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._look_around(moved=attempt > 0)
        except (OSError, TimeoutError, StoreUnavailableError) as error:
            if not self._slots:
                _fail(wanted, StoreUnavailableError(f"no connection to the cluster: {error}"))
                return
        self._send_all(wanted, attempt)

    def _send_all(self, wanted: _Wanted, attempt: int) -> None:
        """Send each node what it has, grouped by slot."""
        groups: dict[Address, dict[int, _Wanted]] = {}
        for key, places in wanted.items():
            slot = slot_of(key)
            groups.setdefault(self._slots[slot], {}).setdefault(slot, {})[key] = places
        for address, slots in groups.items():
            wire = self._wires.get(address)
            batches = list(slots.values())
            if wire is None or wire.closed:
                self._start(self._connect_and_send(address, batches, attempt))
            else:
                self._send(wire, batches, attempt)

    async def _connect_and_send(
        self, address: Address, batches: list[_Wanted], attempt: int
    ) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                wire = await asyncio.shield(self._connection(address))
        except (OSError, TimeoutError, StoreUnavailableError) as error:
            self._stale = True
            for batch in batches:
                _fail(batch, StoreUnavailableError(f"no connection to {address}: {error}"))
            return
        self._send(wire, batches, attempt)

    def _send(self, wire: Wire, batches: list[_Wanted], attempt: int) -> None:
        replies = wire.send_all([packed("MGET", *batch) for batch in batches])
        left = len(replies)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timeout_s, self._give_up, wire, replies)

        def deliver(batch: _Wanted, done: "asyncio.Future[object]") -> None:
            nonlocal left
            left -= 1
            if not left:
                timer.cancel()
            self._deliver(batch, done, attempt)

        for reply, batch in zip(replies, batches, strict=True):
            reply.add_done_callback(partial(deliver, batch))

    def _deliver(self, batch: _Wanted, done: "asyncio.Future[object]", attempt: int) -> None:
        error = done.exception()
        reply = None if error else done.result()
        if isinstance(reply, list):
            for places, value in zip(batch.values(), reply, strict=True):
                for read, place in places:
                    read.take(place, value)
            return
        if _has_moved(reply) and attempt < REDIRECTIONS:
            self._start(self._look_and_send(batch, attempt + 1))
            return
        self._stale = True
        _fail(batch, error or StoreUnavailableError(f"a node refused to read: {reply}"))

    def _give_up(self, wire: Wire, replies: "list[asyncio.Future[object]]") -> None:
        """Fail what takes too long, and the connection with it: replies come in order."""
        error = f"no answer within {self._timeout_s * 1000:.0f} ms"
        for reply in replies:
            if not reply.done():
                reply.set_exception(StoreUnavailableError(error))
        wire.close()

    # --- who has what ---------------------------------------------------------------------------

    async def _look_around(self, *, moved: bool) -> None:
        """Learn which node has which slots, but not all the time while one is down."""
        now_s = time.monotonic()
        if self._slots and not moved and now_s - self._looked_at_s < LOOK_AGAIN_S:
            return
        if self._looking is None or self._looking.done():
            self._looked_at_s = now_s
            self._looking = _shared(self._look())
        # Whoever waits may give up: the look goes on for the next one.
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        """Ask for the table of slots until a node answers; those that did so last come first."""
        alive = [address for address, wire in self._wires.items() if not wire.closed]
        error: Exception = StoreUnavailableError("no node answers")
        for address in dict.fromkeys([*alive, *self._url.addresses, *self._wires]):
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    wire = await asyncio.shield(self._connection(address))
                    self._slots = _table(await wire.send(packed("CLUSTER", "SLOTS")), address)
            except (OSError, TimeoutError, StoreUnavailableError) as failed:
                error = failed
            else:
                self._stale = False
                return
        raise error

    def _connection(self, address: Address) -> "asyncio.Task[Wire]":
        """Return the one attempt to connect to a node that all who need it wait for."""
        task = self._connecting.get(address)
        if task is None or task.done():
            task = self._connecting[address] = _shared(self._connect(address))
        return task

    async def _connect(self, address: Address) -> Wire:
        wire = self._wires.get(address)
        if wire is not None and not wire.closed:
            return wire
        tls = True if self._url.tls else None
        _, wire = await asyncio.get_running_loop().create_connection(Wire, *address, ssl=tls)
        if self._url.password is not None:
            account = (self._url.username or "default", self._url.password)
            reply = await wire.send(packed("AUTH", *account))
            if isinstance(reply, Exception):
                wire.close()
                raise StoreUnavailableError(f"{address} refused AUTH: {reply}")
        self._wires[address] = wire
        return wire


def _shared(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Start what several wait for; nobody may be waiting any more when it fails."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def reader_of(url: str, timeout_s: float) -> BatchedReader | ClusterReader:
    """Return the reader of a server or a cluster."""
    if is_cluster(url):
        return ClusterReader(parse_cluster_url(url), timeout_s)
    return BatchedReader(url, timeout_s)


def _fail(wanted: _Wanted, error: BaseException) -> None:
    failed = error if isinstance(error, Exception) else StoreUnavailableError(str(error))
    for places in wanted.values():
        for read, _ in places:
            read.fail(failed)


def _has_moved(reply: object) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(
        ("MOVED ", "ASK ", "TRYAGAIN")
    )


def _table(reply: object, asked: Address) -> list[Address]:
    """Return the address of each slot, as ``CLUSTER SLOTS`` says."""
    if not isinstance(reply, list) or not reply:
        raise StoreUnavailableError(f"{asked} is not a node of a cluster: {reply}")
    slots: list[Address] = [asked] * 16384
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else asked[0]
        slots[first : last + 1] = [(host, primary[1])] * (last + 1 - first)
    return slots
