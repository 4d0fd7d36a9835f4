"""Everything that the server holds of one person: each kind of key, read whole.

`SECTIONS_OF` says for every kind of key of ``keys`` in which part of an export it is shown, or why
it holds nothing of a person; a kind that is missing there fails a test. What stands in files is
read by ``holdings_files``.
"""

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import StoreUnavailableError
from feature_store.impressions import Impressions
from feature_store.impressions import unpack as unpack_impressions
from feature_store.links import ROW_TYPE, read_link
from feature_store.people import KINDS, Document, Kind
from feature_store.quota import WINDOW_S
from feature_store.state import UserState, join, unpack

SECTIONS_OF: Mapping[str, str] = {
    "h": "facts",
    "r": "facts",
    "t": "impressions",
    "p": "preferences",
    "u": "profile",
    "k": "computed",
    "n": "index",
    "x": "external_ids",
    "g": "changes",
    "b": "forgotten",
    "d": "event_ids",
    "l": "merges",
    "m": "merges",
    "q": "quota",
    "i": "imports",
    "e": "events",
}
"""Where an export shows what keys of a person hold, by the letter that the keys begin with."""

NOT_OF_PEOPLE: Mapping[str, str] = {
    "{cat}": "items",
    "{keys}": "API keys",
    "c:{keys}": "API keys",
    "{site}": "rules and other documents of the shop",
    "c:{site}": "rules and other documents of the shop",
    "c:{forgotten}": "receipts of erasures, which name nobody",
    "c:{withheld}": "how often which item was bought by people of whom nothing is stored",
    "{archive}": "which process archives",
    "{forgotten}": "erasures under way, which are shown by themselves; salt and receipts",
}
"""Kinds of keys that hold nothing of a person."""

STREAM_COUNT = 500
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class OnServer:
    """What the server holds under one key of a person (``schema.person_of``).

    Parameters
    ----------
    person : str
        The user, or a visitor.
    documents : dict
        Profile, preferences and what training computed; ``None`` for each that is not there.
    indexed : bool
        Whether the shard's index of people names the person.
    state : UserState
        All facts, `rest` included.
    impressions : Impressions
        What was shown.
    external_ids : tuple of (str, str)
        Those that stand for the person: system and id.
    event_ids : dict of int to int
        By day of arrival (days since 1970): how many digests of event ids are remembered.
    quota : dict of int to int
        By minute (minutes since 1970): how many events a browser sent.
    imports : tuple of str
        Imports that are marked as added to the person.
    link : str or None
        The user that a visitor became.
    sealed_ms : int or None
        When a merge that is not complete was begun, in milliseconds since 1970.
    visitors : dict of str to int
        Visitors who became the user, and when, in seconds since 1970; 0 while the merge has only
        begun.
    """

    person: str
    documents: dict[Kind, Document | None]
    indexed: bool
    state: UserState
    impressions: Impressions
    external_ids: tuple[tuple[str, str], ...]
    event_ids: dict[int, int]
    quota: dict[int, int]
    imports: tuple[str, ...]
    link: str | None
    sealed_ms: int | None
    visitors: dict[str, int]


class HoldingsReader:
    """Reads what the server holds of a person.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: Any) -> None:
        self._redis: Any = redis

    async def user_of(self, visitor: str) -> str | None:
        """Return the key of the user that a visitor became, ``None`` if none.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            link = read_link(await self._redis.get(keys.link(visitor)))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the person cannot be read: {error}") from error
        return None if link is None else link.person

    async def read(
        self, person: str, import_ids: Sequence[str], named: Iterable[tuple[str, str]] = ()
    ) -> OnServer:
        """Read every key of a person but the streams.

        Parameters
        ----------
        person : str
            The user, or a visitor.
        import_ids : sequence of str
            Imports of which the server may have a marker.
        named : iterable of (str, str)
            External ids that the profile had at some time; they are shown if they stand for the
            person still.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            return await self._read(person, import_ids, set(named))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the person cannot be read: {error}") from error

    async def _read(
        self, person: str, import_ids: Sequence[str], named: set[tuple[str, str]]
    ) -> OnServer:
        now_s, shard = int(time.time()), keys.shard_of(person)
        # A day or a minute may begin while this reads.
        days = [now_s // _DAY_S + age for age in (1, 0, -1, -2, -3)]
        minutes = [now_s // WINDOW_S + age for age in (1, 0, -1, -2)]
        packed = [keys.hot(person), keys.rest(person), keys.impressions(person), keys.link(person)]
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.mget([*packed, *(keys.document(kind, person) for kind in KINDS)])
            pipeline.sismember(keys.people(shard), person)
            pipeline.hgetall(keys.merges(person))
            pipeline.mget([keys.quota(person, minute) for minute in minutes])
            for day in days:
                pipeline.hlen(keys.deduplication(person, day))
            for import_id in import_ids:
                pipeline.sismember(keys.import_marker(shard, import_id), person)
            (
                (hot, rest, shown, linked, *values),
                indexed,
                journal,
                used,
                *more,
            ) = await pipeline.execute()
        documents = {
            kind: None if value is None else _document(value)
            for kind, value in zip(KINDS, values, strict=True)
        }
        ids = named | set(((documents["profile"] or {}).get("external_ids") or {}).items())
        link = read_link(linked)
        known, marked = more[: len(days)], more[len(days) :]
        return OnServer(
            person=person,
            documents=documents,
            indexed=bool(indexed),
            state=join(unpack(hot), unpack(rest)),
            impressions=unpack_impressions(shown),
            external_ids=await self._held_ids(person, sorted(ids)),
            event_ids={day: n for day, n in zip(days, known, strict=True) if n},
            quota={m: int(n) for m, n in zip(minutes, used, strict=True) if n is not None},
            imports=tuple(one for one, had in zip(import_ids, marked, strict=True) if had),
            link=None if link is None else link.person,
            sealed_ms=None if link is None else link.sealed_ms,
            visitors={
                _text(visitor): int(at_s) if at_s.isdigit() else 0
                for visitor, at_s in journal.items()
            },
        )

    async def _held_ids(
        self, person: str, ids: Sequence[tuple[str, str]]
    ) -> tuple[tuple[str, str], ...]:
        if not ids or not person.startswith("u:"):
            return ()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name, value in ids:
                pipeline.get(keys.external_id(name, value))
            owners = await pipeline.execute()
        mine = person.removeprefix("u:")
        return tuple(
            one
            for one, owner in zip(ids, owners, strict=True)
            if owner is not None and _text(owner) == mine
        )

    async def waiting_events(self, user_id: str | None, visitors: Iterable[str]) -> "Waiting":
        """Return the events of a person that wait in the streams, and visitors they name.

        All streams are read: one that says that a visitor became the user waits in the shard of
        that visitor.

        Parameters
        ----------
        user_id : str or None
            The user.
        visitors : iterable of str
            Anonymous ids that are the same person.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        wanted, ids = Wanted.of(user_id, visitors), set(visitors)
        found: list[dict[str, Any]] = []
        # Twice at most: visitors whom the streams name may have events in them.
        while True:
            found = [
                body
                async for body in self._entries(map(keys.events, keys.shards()), wanted.needles)
                if wanted.has(body.get("user_id"), body.get("anonymous_id"))
            ]
            merged = {
                body["anonymous_id"]
                for body in found
                if body["type"] == ROW_TYPE and body.get("user_id") == user_id
            }
            if merged <= ids:
                return Waiting(found, ids)
            ids |= merged
            wanted = Wanted.of(user_id, ids)

    async def waiting_changes(self, people: Sequence[str]) -> list[dict[str, Any]]:
        """Return the changes of documents of some people that wait to be archived."""
        needles = [orjson.dumps(person) for person in people]
        shards = sorted({keys.shard_of(person) for person in people})
        return [
            body
            async for body in self._entries(map(keys.person_changes, shards), needles)
            if body.get("person") in people
        ]

    async def _entries(
        self, streams: Iterable[str], needles: Sequence[bytes]
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the entries of streams in which one of the needles stands."""
        try:
            for stream in streams:
                after = "-"
                while True:
                    entries = await self._redis.xrange(stream, min=after, count=STREAM_COUNT)
                    for _, fields in entries:
                        body = fields[b"e"]
                        if any(needle in body for needle in needles):
                            yield orjson.loads(body)
                    if len(entries) < STREAM_COUNT:
                        break
                    after = f"({entries[-1][0].decode()}"
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the streams cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Waiting:
    """Events that wait in the streams.

    Parameters
    ----------
    events : list of dict
        As the streams have them.
    visitors : set of str
        Anonymous ids of the person, with those that became the user by a merge in the streams.
    """

    events: list[dict[str, Any]]
    visitors: set[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose events are looked for.

    An event is a user's if it names the user; it is a visitor's only if it names no user.

    Parameters
    ----------
    user_id : str or None
        The user.
    visitors : frozenset of str
        Anonymous ids.
    needles : tuple of bytes
        The ids as JSON, quotes included: without one of them no line is of the person.
    """

    user_id: str | None
    visitors: frozenset[str]
    needles: tuple[bytes, ...]

    @classmethod
    def of(cls, user_id: str | None, visitors: Iterable[str]) -> "Wanted":
        """Return what looks for a user and the visitors who became that user."""
        ids = frozenset(visitors)
        names = sorted(ids) if user_id is None else [user_id, *sorted(ids)]
        return cls(user_id, ids, tuple(orjson.dumps(name) for name in names))

    @property
    def people(self) -> tuple[str, ...]:
        """Keys of the person, the user's first."""
        return tuple(self._people())

    def _people(self) -> Iterator[str]:
        if self.user_id is not None:
            yield f"u:{self.user_id}"
        for visitor in sorted(self.visitors):
            yield f"a:{visitor}"

    def has(self, user_id: str | None, anonymous_id: str | None) -> bool:
        """Tell whether an event with these ids is the person's."""
        if user_id is not None:
            return user_id == self.user_id
        return anonymous_id in self.visitors


def _document(value: bytes) -> Document:
    """Read a document; one that nobody can read is shown as it is."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        document = None
    return (
        document if isinstance(document, dict) else {"unreadable": value.decode("utf-8", "replace")}
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")
