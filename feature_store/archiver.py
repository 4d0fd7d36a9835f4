"""From the streams into the log: what was accepted becomes files, and only then leaves the server.

A round reads what came since the last one, writes it like an import (staged, committed by one
journal, moved into place), notes how far it came, and trims. Killed anywhere, the next round goes
on: what has no journal is read again, what has one is not. What changed without being an event (API
keys, rows of the catalogue) takes the same way into the ``change_log``.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
import polars as pl

from feature_store.change_log import ChangeLog
from feature_store.change_store import CATALOGUE, Changes
from feature_store.compaction import compact_all
from feature_store.errors import ConflictError, StoreUnavailableError
from feature_store.event_log import EVENT_KEY, EVENT_LOG_SCHEMA, EventLog, scan_files
from feature_store.files import write_json
from feature_store.stream_store import START, Entry, Position, StreamStore

KIND = "archive"
"""What the journal of a round says in ``info``, so that no importer takes it for an import."""
ROUND_ENTRIES = 2_000
LEASE_S = 7.0
ROUND_S = 2.0
COMPACT_EVERY_S = 300.0

_KNOWN_FIELDS = frozenset(EVENT_LOG_SCHEMA) | {"unit_price"}
_AGAIN_S = 0.1

T = TypeVar("T")


class Archiver:
    """Moves accepted events, and all other changes, into the archive.

    Parameters
    ----------
    streams : StreamStore
        Where they come from.
    log : EventLog
        Where they go.
    """

    def __init__(self, streams: StreamStore, log: EventLog) -> None:
        self._streams = streams
        self._changes = streams.changes
        self._log = log
        self._change_log = ChangeLog(log.events.parent)
        self._marks_path = log.imports / "archived.json"
        self._compacted_s = time.monotonic()
        self.holder = secrets.token_hex(8)

    async def run_once(self) -> int:
        """Archive one round of whatever waits.

        Returns
        -------
        int
            How many events left the server; 0 when none waited, or when an import or a rebuild
            holds the log.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            with self._log.importing():
                return await self._round()
        except ConflictError:
            return 0

    async def run_held(self) -> int:
        """Archive what waits now, for whoever holds ``EventLog.importing()`` already."""
        upto = await self._streams.ends()
        total = 0
        while await self._streams.waiting(upto) and await self._streams.epoch() is not None:
            total += await self._round()
        return total

    async def run_all(self) -> int:
        """Archive until nothing waits; return how many events left the server."""
        total = 0
        while moved := await self.run_once():
            total += moved
        return total

    async def drain(self, tell: Callable[[int, int], None]) -> int:
        """Archive all that was accepted before this call, or wait while another process does.

        Parameters
        ----------
        tell : callable
            Called with the number of events that have gone and of those that waited at first,
            unless none did.

        Returns
        -------
        int
            How many events waited.
        """
        upto = await self._streams.ends()
        first = await self._streams.length()
        moved = -1
        # Once at least: rows of the catalogue wait in no stream.
        while moved < 0 or await self._streams.waiting(upto):
            if await self._streams.lead(self.holder, LEASE_S):
                moved = await self.run_once()
            elif moved < 0:
                moved = 0
            if first:
                tell(max(0, min(first, first - await self._streams.length())), first)
            if not moved:
                await asyncio.sleep(_AGAIN_S)
        await self._streams.resign(self.holder)
        if first:
            tell(first, first)
        return first

    async def run_for_ever(self, tell: Callable[[int], Awaitable[None]] | None = None) -> None:
        """Archive while this process has the lease; otherwise wait for it.

        Parameters
        ----------
        tell : callable or None
            Awaited after each round with the number of events that it moved.
        """
        task = asyncio.current_task()
        try:
            # A library that swallows the cancellation must not keep this loop alive.
            while task is None or not task.cancelling():
                try:
                    if await self._streams.lead(self.holder, LEASE_S):
                        moved = await self.run_once()
                        if tell is not None:
                            await tell(moved)
                        if moved:
                            continue
                        await self._compact_now_and_then()
                except StoreUnavailableError:
                    pass  # asked again after the pause; what waits, waits in the server
                await asyncio.sleep(ROUND_S)
        finally:
            # The lease ends by itself; an error here would take the place of the cancellation.
            with contextlib.suppress(StoreUnavailableError):
                await self._streams.resign(self.holder)

    async def compact(self) -> int:
        """Merge small files of the log; return of how many days."""
        try:
            with self._log.importing():
                return await _whole(lambda: compact_all(self._log, time.time()))
        except ConflictError:
            return 0

    async def _compact_now_and_then(self) -> None:
        if time.monotonic() - self._compacted_s >= COMPACT_EVERY_S:
            self._compacted_s = time.monotonic()
            await self.compact()

    async def _round(self) -> int:
        epoch = await self._streams.epoch()
        if epoch is None:
            return 0
        marks, sequence = await _whole(lambda: self._recover(epoch))
        # A round that was killed after its journal has not trimmed yet.
        await self._streams.trim(marks)
        entries = await self._streams.read(marks, ROUND_ENTRIES)
        # Read after the events and written before them: the rows of their items are among them.
        changes = await self._changes.read(sequence)
        if changes:
            sequence = await _whole(lambda: self._write_changes(epoch, changes, sequence))
            await self._changes.trim(changes)
        for entry in entries:
            marks[entry.shard] = max(marks.get(entry.shard, START), entry.position)
        if entries or changes:
            document = {"epoch": epoch, "marks": marks, "catalogue_sequence": sequence}
            await _whole(lambda: self._write(entries, document))
        if entries:
            await self._streams.trim(marks)
        return len(entries)

    def _write_changes(self, epoch: str, found: Sequence[Changes], sequence: int) -> int:
        """Write changes into the change log; return up to where the catalogue's are known."""
        for changes in found:
            self._change_log.write(changes.name, epoch, changes.ids, changes.bodies)
            if changes.name == CATALOGUE:
                sequence = int(changes.ids[-1])
        return sequence

    def _write(self, entries: Sequence[Entry], document: dict[str, Any]) -> None:
        if not entries:
            write_json(self._marks_path, document)
            return
        events = as_log_frame([orjson.loads(entry.body) for entry in entries])
        key = [*EVENT_KEY, "trust"]
        events = events.unique(key, keep="first", maintain_order=True)
        days = events["timestamp"].dt.date().unique()
        known = scan_files(path for day in days for path in self._log.files(day, day))
        again = known.select(key).join(events.lazy(), on=key, how="semi", nulls_equal=True)
        fresh = events.join(again.collect(engine="streaming"), on=key, how="anti", nulls_equal=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        pending = self._log.begin(f"live-{stamp}-{secrets.token_hex(2)}")
        pending.write(fresh)
        journal = pending.commit({"kind": KIND, **document})
        write_json(self._marks_path, document)
        self._log.finish(journal.import_id)
        self._log.forget(journal.import_id)

    def _recover(self, epoch: str) -> tuple[dict[str, Position], int]:
        """Return how far the archive reaches, with what killed rounds had committed.

        Places of another epoch mean nothing: the server was emptied, and all that it holds is new.
        """
        self._log.discard_unfinished()
        pending = [journal for journal in self._log.pending() if journal.info.get("kind") == KIND]
        documents = [self._read_marks(), *(journal.info for journal in pending)]
        marks: dict[str, Position] = {}
        sequence = 0
        for document in documents:
            if document.get("epoch") != epoch:
                continue
            sequence = max(sequence, document["catalogue_sequence"])
            for shard, (milliseconds, number) in document["marks"].items():
                marks[shard] = max(marks.get(shard, START), (milliseconds, number))
        if pending:
            with self._log.committing():
                write_json(
                    self._marks_path,
                    {"epoch": epoch, "marks": marks, "catalogue_sequence": sequence},
                )
            for journal in pending:
                self._log.finish(journal.import_id)
                self._log.forget(journal.import_id)
        return marks, sequence

    def _read_marks(self) -> dict[str, Any]:
        try:
            document: dict[str, Any] = orjson.loads(self._marks_path.read_bytes())
        except FileNotFoundError:
            return {}
        return document


async def _whole(work: Callable[[], T]) -> T:
    """Run something in a thread, and to its end: whoever is cancelled holds the log until then."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def as_log_frame(bodies: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return events as the log's columns.

    Parameters
    ----------
    bodies : sequence of dict
        Events as the streams hold them.

    Returns
    -------
    DataFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``; what has no column of its own is in ``extra``.
    """
    rows = []
    for body in bodies:
        price = body.get("unit_price") or {}
        extra = {name: value for name, value in body.items() if name not in _KNOWN_FIELDS}
        if price and price["amount"] != f"{float(price['amount']):.2f}":
            # As it was written, so that the event can be told from another one.
            extra["unit_price_amount"] = price["amount"]
        rows.append(
            {
                **{name: body.get(name) for name in EVENT_LOG_SCHEMA},
                "timestamp": datetime.fromisoformat(body["timestamp"]),
                "unit_price": float(price["amount"]) if price else None,
                "currency": price.get("currency"),
                "extra": orjson.dumps(extra).decode() if extra else None,
            }
        )
    return pl.DataFrame(rows, schema=EVENT_LOG_SCHEMA)
