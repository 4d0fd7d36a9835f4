"""From the streams into the log: what was accepted becomes files, and only then leaves the server.

A round reads what came since the last one, writes it like an import (staged, committed by one
journal, moved into place), notes how far it came, and trims. Killed anywhere, the next round goes
on: what has no journal is read again, what has one is not.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl

from feature_store.errors import ConflictError, StoreUnavailableError
from feature_store.event_log import EVENT_KEY, EVENT_LOG_SCHEMA, EventLog, scan_files
from feature_store.files import write_json
from feature_store.stream_store import START, Entry, Position, StreamStore

KIND = "archive"
"""What the journal of a round says in ``info``, so that no importer takes it for an import."""
ROUND_ENTRIES = 2_000
LEASE_S = 8.0
ROUND_S = 2.0

_KNOWN_FIELDS = frozenset(EVENT_LOG_SCHEMA) | {"unit_price"}


class Archiver:
    """Moves accepted events into the log.

    Parameters
    ----------
    streams : StreamStore
        Where they come from.
    log : EventLog
        Where they go.
    """

    def __init__(self, streams: StreamStore, log: EventLog) -> None:
        self._streams = streams
        self._log = log
        self._marks_path = log.imports / "archived.json"
        self.holder = secrets.token_hex(8)

    async def run_once(self) -> int:
        """Archive one round of whatever waits.

        Returns
        -------
        int
            How many stream entries left the server; 0 when nothing waited or an import holds the
            log.

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

    async def run_all(self) -> int:
        """Archive until nothing waits; return how many entries left the server."""
        total = 0
        while moved := await self.run_once():
            total += moved
        return total

    async def run_for_ever(self, tell: Callable[[int], Awaitable[None]] | None = None) -> None:
        """Archive while this process has the lease; otherwise wait for it.

        Parameters
        ----------
        tell : callable or None
            Awaited after each round with the number of entries that it moved.
        """
        try:
            while True:
                try:
                    if await self._streams.lead(self.holder, LEASE_S):
                        moved = await self.run_once()
                        if tell is not None:
                            await tell(moved)
                        if moved:
                            continue
                except StoreUnavailableError:
                    pass  # asked again after the pause; what waits, waits in the server
                await asyncio.sleep(ROUND_S)
        finally:
            await self._streams.resign(self.holder)

    async def _round(self) -> int:
        self._log.discard_unfinished()
        marks = self._recover()
        # A round that was killed after its journal has not trimmed yet.
        await self._streams.trim(marks)
        entries = await self._streams.read(marks, ROUND_ENTRIES)
        if not entries:
            return 0
        for entry in entries:
            marks[entry.shard] = max(marks.get(entry.shard, START), entry.position)
        await asyncio.to_thread(self._write, entries, marks)
        await self._streams.trim(marks)
        return len(entries)

    def _write(self, entries: Sequence[Entry], marks: dict[str, Position]) -> None:
        events = as_log_frame([orjson.loads(entry.body) for entry in entries])
        days = events["timestamp"].dt.date()
        known = scan_files(self._log.files(days.min(), days.max()))  # type: ignore[arg-type]
        key = [*EVENT_KEY, "trust"]
        fresh = events.unique(key, keep="first", maintain_order=True).join(
            known.select(key).collect(), on=key, how="anti", nulls_equal=True
        )
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        pending = self._log.begin(f"live-{stamp}-{secrets.token_hex(2)}")
        pending.write(fresh)
        journal = pending.commit({"kind": KIND, "marks": marks})
        write_json(self._marks_path, {"marks": marks})
        self._log.finish(journal.import_id)

    def _recover(self) -> dict[str, Position]:
        """Return how far the log reaches, with what killed rounds had committed."""
        marks = self._read_marks()
        pending = [journal for journal in self._log.pending() if journal.info.get("kind") == KIND]
        for journal in pending:
            for shard, (milliseconds, number) in journal.info["marks"].items():
                marks[shard] = max(marks.get(shard, START), (milliseconds, number))
        if pending:
            with self._log.committing():
                write_json(self._marks_path, {"marks": marks})
            for journal in pending:
                self._log.finish(journal.import_id)
        return marks

    def _read_marks(self) -> dict[str, Position]:
        try:
            document = orjson.loads(self._marks_path.read_bytes())
        except FileNotFoundError:
            return {}
        return {shard: (mark[0], mark[1]) for shard, mark in document["marks"].items()}


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
