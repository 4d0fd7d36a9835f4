"""Adding events to the states of people: durable, exactly once, in any order, by many writers.

A state is read, folded in Python and written by compare-and-set together with the append to the
shard's stream: both happen or neither. Whoever loses the race reads again.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys, scripts
from feature_store.errors import OverloadedError, StoreUnavailableError
from feature_store.facts import PersonFacts, facts_of_events
from feature_store.merging import Merger, linked_digest
from feature_store.person_values import Value, added, comparing, touched
from feature_store.row_store import RowStore
from feature_store.schema import (
    Event,
    person_of,
)
from feature_store.script_runner import ScriptRunner
from feature_store.stream_store import StreamRoom

ATTEMPTS = 50
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of a batch of events.

    Parameters
    ----------
    accepted : int
        Stored now.
    duplicates : int
        Known already by their ``event_id``; no effect.
    conflicts : int
        Those of the duplicates whose body differs from the first one's.
    """

    accepted: int
    duplicates: int
    conflicts: int


@dataclass(slots=True)
class _Delivery:
    """The events of one person that are still to be written."""

    person: str
    events: list[tuple[Event, int | None]]
    """Each event with the row of its item."""
    id_digests: list[bytes]
    bodies: list[bytes]

    def add(self, event: Event, row: int | None, id_digest: bytes, body: bytes) -> None:
        self.events.append((event, row))
        self.id_digests.append(id_digest)
        self.bodies.append(body)

    def facts(self) -> PersonFacts:
        """Return what the events say."""
        return facts_of_events(self.person, self.events)

    def moved(self, user: str) -> "_Delivery":
        """Return the delivery of a visitor as one to the user whom the visitor became."""
        digests = [linked_digest(self.person, digest) for digest in self.id_digests]
        return _Delivery(user, self.events, digests, self.bodies)

    def without(self, known: list[bool]) -> "_Delivery":
        """Return the delivery without the events that are known already."""
        if not any(known):
            return self
        kept = [at for at, is_known in enumerate(known) if not is_known]
        return _Delivery(
            self.person,
            [self.events[at] for at in kept],
            [self.id_digests[at] for at in kept],
            [self.bodies[at] for at in kept],
        )


class StateWriter:
    """Writes events as they happen.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    rows : RowStore
        Gives rows to items.
    merger : Merger
        Completes merges that were begun, before a visitor who became a user is written to.
    room : StreamRoom
        Says whether the archive keeps up.
    """

    def __init__(self, redis: "Redis", rows: RowStore, merger: Merger, room: StreamRoom) -> None:
        self._room = room
        self._redis = redis
        self._rows = rows
        self._merger = merger
        self._scripts = ScriptRunner(redis)

    async def append(self, events: Sequence[Event], *, trust: str = "server") -> AppendResult:
        """Store events of any number of people; they are durable when this returns.

        Parameters
        ----------
        events : sequence of Event
            Valid events, in any order; the same ``event_id`` of the same person counts once.
        trust : {"server", "public"}
            What kind of caller sent them.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer; some people's events may be stored, and sending all of
            them again is safe.
        OverloadedError
            If other writers changed the same person faster than this one could, or more events wait
            for the archive than may.
        """
        await self._room.check()
        try:
            pending, within = await self._deliveries(events, trust)
            accepted, duplicates, conflicts = 0, *within
            for attempt in range(ATTEMPTS):
                if not pending:
                    return AppendResult(accepted, duplicates, conflicts)
                if attempt > 2:
                    await asyncio.sleep(random.uniform(0, 0.002 * attempt))
                pending, written = await self._attempt(pending)
                accepted += written.accepted
                duplicates += written.duplicates
                conflicts += written.conflicts
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the events were not stored: {error}") from error
        raise OverloadedError(f"{pending[0].person} is written to by too many at once", 1.0)

    async def _deliveries(
        self, events: Sequence[Event], trust: str
    ) -> tuple[list[_Delivery], tuple[int, int]]:
        """Group by person; within the batch the first of equal ids wins."""
        item_ids = [event.item_id for event in events if event.item_id is not None]
        rows = dict(zip(item_ids, await self._rows.rows_of(item_ids), strict=True))
        deliveries: dict[str, _Delivery] = {}
        seen: dict[tuple[str, bytes], bytes] = {}
        duplicates = conflicts = 0
        for event in events:
            person = person_of(event.user_id, event.anonymous_id)
            assert person is not None
            digest = _digest(f"{trust}:{event.event_id}".encode())
            body = _body(event, trust)
            first = seen.setdefault((person, digest), body)
            if first is not body:
                duplicates += 1
                conflicts += first != body
                continue
            row = None if event.item_id is None else rows[event.item_id]
            delivery = deliveries.setdefault(person, _Delivery(person, [], [], []))
            delivery.add(event, row, digest, body)
        return list(deliveries.values()), (duplicates, conflicts)

    async def _attempt(self, deliveries: list[_Delivery]) -> tuple[list[_Delivery], AppendResult]:
        """Try to write every delivery once; return those that lost a race."""
        today = int(time.time()) // _DAY_S
        facts = [delivery.facts() for delivery in deliveries]
        names = [touched(one.person, said) for one, said in zip(deliveries, facts, strict=True)]
        read = iter(await self._read(deliveries, names, today))
        duplicates = conflicts = 0
        calls: list[tuple[_Delivery, list[str], list[bytes | str | int]]] = []
        moved: list[_Delivery] = []
        for delivery, said, mine in zip(deliveries, facts, names, strict=True):
            values = dict(zip(mine, next(read) if mine else (), strict=True))
            days, link = [next(read) for _ in range(3)], next(read)
            if link is not None:
                user = await self._merger.follow(delivery.person, link)
                moved.append(delivery.moved(user))
                continue
            known = [next((day[i] for day in days if day[i]), None) for i in range(len(days[0]))]
            for body, first in zip(delivery.bodies, known, strict=True):
                duplicates += first is not None
                conflicts += first is not None and first != _digest(body)
            fresh = delivery.without([first is not None for first in known])
            if fresh.events:
                new = said if fresh is delivery else fresh.facts()
                calls.append((fresh, *_call(fresh, added(fresh.person, values, new), today)))
        outcomes = await self._scripts.run(scripts.APPEND_EVENTS, [call[1:] for call in calls])
        lost = [call[0] for call, wrote in zip(calls, outcomes, strict=True) if not wrote]
        accepted = sum(len(call[0].events) for call in calls) - sum(len(d.events) for d in lost)
        return lost + moved, AppendResult(accepted, duplicates, conflicts)

    async def _read(
        self, deliveries: list[_Delivery], names: list[list[str]], today: int
    ) -> list[Any]:
        """Read for each delivery its values, if it changes any, known ids of three days, a link."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for delivery, mine in zip(deliveries, names, strict=True):
                if mine:
                    pipeline.mget(mine)
                for key in _day_keys(delivery.person, today):
                    pipeline.hmget(key, delivery.id_digests)
                pipeline.get(keys.link(delivery.person))
            read: list[Any] = await pipeline.execute()
        return read


def _call(
    delivery: _Delivery, values: list[Value], today: int
) -> tuple[list[str], list[bytes | str | int]]:
    """Return keys and arguments of the script that stores a delivery."""
    names, arguments = comparing(values)
    person = delivery.person
    names += _day_keys(person, today)
    names += [keys.events(keys.shard_of(person)), keys.link(person)]
    arguments += [keys.DEDUPLICATION_TTL_S, len(delivery.events)]
    for digest, body in zip(delivery.id_digests, delivery.bodies, strict=True):
        arguments += (digest, _digest(body), body)
    return names, arguments


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _body(event: Event, trust: str) -> bytes:
    document = event.model_dump(mode="json", exclude_none=True)
    return orjson.dumps({**document, "trust": trust}, option=orjson.OPT_SORT_KEYS)


def _day_keys(person: str, today: int) -> list[str]:
    return [keys.deduplication(person, today - age) for age in range(3)]
