"""Adding events to the states of people: durable, exactly once, in any order, by many writers.

A state is read, folded in Python and written by compare-and-set together with the append to the
shard's stream: both happen or neither. Whoever loses the race reads again.

Events of who may not be profiled, and events from before somebody was forgotten, are withheld: they
are neither folded nor put into the stream. The script compares the preferences and the cut with
what the decision was made from.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys, scripts
from feature_store.errors import OverloadedError, StoreUnavailableError
from feature_store.facts import PersonFacts, facts_of_events
from feature_store.forgetting.guards import Guard, Salts
from feature_store.forgetting.ledger import Cut, epoch_ms
from feature_store.links import linked_digest
from feature_store.merging import Merger
from feature_store.person_values import Value, added, comparing, touched
from feature_store.preferences import ProfilingDefault, profiling_allowed, read_preferences
from feature_store.row_store import RowStore
from feature_store.schema import (
    Event,
    person_of,
)
from feature_store.script_runner import ScriptRunner
from feature_store.stream_store import StreamRoom

ATTEMPTS = 50
_DAY_S = 86_400
_ID_DAYS = 3


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
    withheld : int
        Of people who may not be profiled, or from before their person was forgotten; no effect.
    refused : tuple of Event
        Those of them whose person may not be profiled.
    """

    accepted: int
    duplicates: int
    conflicts: int
    withheld: int = 0
    refused: tuple[Event, ...] = ()


@dataclass(slots=True)
class _Delivery:
    """The events of one person that are still to be written."""

    person: str
    events: list[tuple[Event, int | None]]
    """Each event with the row of its item."""
    id_digests: list[bytes]
    bodies: list[bytes]
    origin: "_Delivery | None" = None
    """The same as the visitor's who has become this person."""

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
        return _Delivery(user, self.events, digests, self.bodies, self)

    def having(self, wanted: list[bool]) -> "_Delivery":
        """Return the delivery with only the events that are wanted."""
        if all(wanted):
            return self
        kept = [at for at, is_wanted in enumerate(wanted) if is_wanted]
        return _Delivery(
            self.person,
            [self.events[at] for at in kept],
            [self.id_digests[at] for at in kept],
            [self.bodies[at] for at in kept],
            None if self.origin is None else self.origin.having(wanted),
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
    salts : Salts
        With which the process knows who is forgotten.
    profiling : {"opt_out", "opt_in"}
        Whether events of people who were never asked are kept.
    """

    def __init__(
        self,
        redis: "Redis",
        rows: RowStore,
        merger: Merger,
        room: StreamRoom,
        salts: Salts,
        profiling: ProfilingDefault,
    ) -> None:
        self._room = room
        self._salts = salts
        self._profiling = profiling
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
            # Whoever says so in the event itself need not be asked.
            asked, refused = list[Event](), list[Event]()
            for event in events:
                (refused if _refuses(event) else asked).append(event)
            withheld = len(refused)
            pending, within = await self._deliveries(asked, trust)
            accepted, duplicates, conflicts = 0, *within
            for attempt in range(ATTEMPTS):
                if not pending:
                    return AppendResult(accepted, duplicates, conflicts, withheld, tuple(refused))
                if attempt > 2:
                    await asyncio.sleep(random.uniform(0, 0.002 * attempt))
                pending, written = await self._attempt(pending)
                accepted += written.accepted
                duplicates += written.duplicates
                conflicts += written.conflicts
                withheld += written.withheld
                refused += written.refused
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
        now_ms = time.time_ns() // 1_000_000
        today = now_ms // (1000 * _DAY_S)
        facts = [delivery.facts() for delivery in deliveries]
        found = await self._read(deliveries, facts, today)
        if found is None:
            return deliveries, AppendResult(0, 0, 0)
        duplicates = conflicts = withheld = 0
        refused: list[Event] = []
        calls: list[tuple[_Delivery, list[str], list[bytes | str | int]]] = []
        moved: list[_Delivery] = []
        for delivery, said, known in zip(deliveries, facts, found, strict=True):
            if known.link is not None:
                user = await self._merger.follow(delivery.person, known.link)
                if user == delivery.person:
                    moved.append(delivery)
                    continue
                # What is forgotten of the visitor stays so, whoever the visitor has become.
                kept = delivery.having(_not_forgotten(delivery, known.guard.cut))
                withheld += len(delivery.events) - len(kept.events)
                if kept.events:
                    moved.append(kept.moved(user))
                continue
            wanted = _not_forgotten(delivery, known.guard.cut)
            allowed = self._may_keep(delivery, known, wanted)
            kept = delivery.having(allowed)
            withheld += len(delivery.events) - len(kept.events)
            refused += _refused_of(delivery, wanted, allowed)
            fresh, n_conflicts = known.fresh(kept)
            duplicates += len(kept.events) - len(fresh.events)
            conflicts += n_conflicts
            if fresh.events:
                new = said if fresh is delivery else fresh.facts()
                values = added(fresh.person, known.values, new)
                calls.append((fresh, *_call(fresh, values, known, now_ms)))
        outcomes = await self._scripts.run(scripts.APPEND_EVENTS, [call[1:] for call in calls])
        # The visitor may have ceased to be the user.
        tried = [call[0].origin or call[0] for call in calls]
        lost = [one for one, wrote in zip(tried, outcomes, strict=True) if not wrote]
        accepted = sum(len(call[0].events) for call in calls) - sum(len(d.events) for d in lost)
        done = AppendResult(accepted, duplicates, conflicts, withheld, tuple(refused))
        return lost + moved, done

    async def _read(
        self, deliveries: list[_Delivery], facts: list[PersonFacts], today: int
    ) -> "list[_Known] | None":
        """Read for each delivery what the decision and the sum are made from.

        ``None`` if the salts of the digests were not those of the server.
        """
        used = self._salts.value
        guards = [Guard(self._salts, delivery.person) for delivery in deliveries]
        names = [touched(one.person, said) for one, said in zip(deliveries, facts, strict=True)]
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.FORGOTTEN_SALT)
            for delivery, mine, guard in zip(deliveries, names, guards, strict=True):
                person = delivery.person
                pipeline.mget([keys.link(person), keys.preferences(person), *mine])
                for key in _day_keys(person, today):
                    pipeline.hmget(key, delivery.id_digests)
                guard.ask(pipeline)
            salt, *answers = await pipeline.execute()
        if not self._salts.learn(salt, used):
            return None
        read: Iterator[Any] = iter(answers)
        found = []
        for delivery, mine, guard in zip(deliveries, names, guards, strict=True):
            link, preferences, *values = next(read)
            ids: dict[bytes, bytes] = {}
            for _ in range(_ID_DAYS):
                pairs = zip(delivery.id_digests, next(read), strict=True)
                # The newest day is read first, and says what counts.
                ids = {digest: body for digest, body in pairs if body} | ids
            guard.take(read)
            known = dict(zip(mine, values, strict=True))
            found.append(_Known(link, preferences, known, ids, guard))
        return found

    def _may_keep(self, delivery: _Delivery, known: "_Known", wanted: list[bool]) -> list[bool]:
        """Tell which of the wanted events of a person may be kept."""
        preferences = read_preferences(known.preferences)
        if profiling_allowed(preferences, self._profiling):
            return wanted
        # As for answers: what a visitor's browser says now is newer.
        never_asked = preferences.consent.profiling is None
        if not preferences.personalization or not (delivery.person.startswith("a:") or never_asked):
            return [False] * len(wanted)
        return [
            is_wanted and event.consent is not None and event.consent.profiling is True
            for is_wanted, (event, _) in zip(wanted, delivery.events, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a person before events are added."""

    link: bytes | None
    preferences: bytes | None
    values: dict[str, bytes | None]
    ids: dict[bytes, bytes]
    """Event ids that have arrived already, each with the digest of its first body."""
    guard: Guard

    def fresh(self, delivery: _Delivery) -> tuple[_Delivery, int]:
        """Return a delivery without the events that are known, and how many of these differ."""
        conflicts, wanted = 0, []
        for digest, body in zip(delivery.id_digests, delivery.bodies, strict=True):
            first = self.ids.get(digest)
            wanted.append(first is None)
            conflicts += first is not None and first != _digest(body)
        return delivery.having(wanted), conflicts


def _refuses(event: Event) -> bool:
    return event.consent is not None and event.consent.profiling is False


def _not_forgotten(delivery: _Delivery, cut: Cut) -> list[bool]:
    if not cut.before_ms:
        return [True] * len(delivery.events)
    return [epoch_ms(event.timestamp) >= cut.before_ms for event, _ in delivery.events]


def _refused_of(delivery: _Delivery, wanted: list[bool], allowed: list[bool]) -> list[Event]:
    """Return the wanted events that may not be kept."""
    if allowed is wanted:
        return []
    return [
        event
        for (event, _), is_wanted, may_be in zip(delivery.events, wanted, allowed, strict=True)
        if is_wanted and not may_be
    ]


def _call(
    delivery: _Delivery, values: list[Value], known: _Known, now_ms: int
) -> tuple[list[str], list[bytes | str | int]]:
    """Return keys and arguments of the script that stores a delivery."""
    names, arguments = comparing(values)
    person = delivery.person
    names.append(known.guard.key)
    names += _day_keys(person, now_ms // (1000 * _DAY_S))
    names += [keys.events(keys.shard_of(person)), keys.link(person), keys.preferences(person)]
    names.append(keys.merges(person))
    arguments += known.guard.arguments()
    arguments.append("" if delivery.origin is None else delivery.origin.person)
    arguments.append(hashlib.sha1(known.preferences or b"", usedforsecurity=False).hexdigest())
    newest_ms = max(epoch_ms(event.timestamp) for event, _ in delivery.events)
    arguments += [keys.DEDUPLICATION_TTL_S, newest_ms if newest_ms > now_ms else b""]
    arguments.append(len(delivery.events))
    for digest, body in zip(delivery.id_digests, delivery.bodies, strict=True):
        arguments += (digest, _digest(body), body)
    return names, arguments


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _body(event: Event, trust: str) -> bytes:
    document = event.model_dump(mode="json", exclude_none=True)
    return orjson.dumps({**document, "trust": trust}, option=orjson.OPT_SORT_KEYS)


def _day_keys(person: str, today: int) -> list[str]:
    return [keys.deduplication(person, today - age) for age in range(_ID_DAYS)]
