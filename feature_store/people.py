"""What is kept of a person besides the facts: profile, preferences, and what training computed.

Each is one JSON document, changed by compare-and-set together with an entry in the stream of the
person's shard, which the archiver moves into the change log. What training computed has no entry:
the next training computes it again.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import external_ids, keys, scripts
from feature_store.errors import ConflictError, OverloadedError, StoreUnavailableError
from feature_store.forgetting.guards import Guard, Salts
from feature_store.forgetting.ledger import NO_CUT, Cut
from feature_store.person_documents import (
    KINDS,
    Document,
    Kind,
    packed,
    person_change,
    put_call,
    read_held,
)
from feature_store.script_runner import ScriptRunner

__all__ = ["KINDS", "NAME", "Document", "Kind", "PeopleStore", "person_change"]

NAME = "people"
"""Name of these changes in the change log."""
ATTEMPTS = 50
CHUNK = 500

Change = Callable[[Document | None], Document | None]
ChangeOfSomebody = Callable[[str, Document | None, Cut], Document | None]
"""Gets whose the document is, what it is now, and what is forgotten of them."""
Follow = Callable[[str, bytes], Awaitable[str]]
_IS_LINKED, _IS_FORGOTTEN = 2, 3
"""What the script says where it wrote nothing."""


class PeopleStore:
    """Reads and changes the documents of people.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    follow : callable
        Gives the user whom a visitor became, of the visitor and the value of the visitor's link;
        completes a merge that was begun (``Merger.follow``).
    salts : Salts
        With which the process knows who is forgotten.
    """

    def __init__(self, redis: "Redis", follow: Follow, salts: Salts) -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._follow = follow
        self._salts = salts
        self._scripts = ScriptRunner(redis)

    async def get(self, kind: Kind, person: str) -> Document | None:
        """Return a document of a person (``schema.person_of``), or ``None``.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        return (await self.get_all((kind,), person))[kind]

    async def get_all(self, kinds: Sequence[Kind], person: str) -> dict[Kind, Document | None]:
        """Return several documents of a person."""
        try:
            values = await self._redis.mget([keys.document(kind, person) for kind in kinds])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the person cannot be read: {error}") from error
        return {kind: _read(value) for kind, value in zip(kinds, values, strict=True)}

    async def update(self, kind: Kind, person: str, change: Change, by: str) -> Document | None:
        """Change a document; nobody else's change in between is lost.

        That of a visitor who has become a user is the user's; `update_whoever` says whose it is.

        Parameters
        ----------
        kind : str
            Which document.
        person : str
            Whose.
        change : callable
            Gets the document, or ``None``, and returns the new one, or ``None`` to delete it; may
            raise to refuse, and is called again when somebody else was faster.
        by : str
            Who changes it.

        Returns
        -------
        dict or None
            The new document.

        Raises
        ------
        ConflictError
            If an external id belongs to another user.
        StoreUnavailableError, OverloadedError
            If it was not stored.
        """
        return (await self.update_whoever(kind, person, lambda _, old, __: change(old), by))[1]

    async def update_whoever(
        self, kind: Kind, person: str, change: ChangeOfSomebody, by: str
    ) -> tuple[str, Document | None]:
        """Change a document as `update` does; `change` gets more (`ChangeOfSomebody`).

        Returns
        -------
        person : str
            Whose it is: the user, if the person is a visitor who has signed in.
        document : dict or None
            The new document.
        """
        cut, visitor = NO_CUT, ""
        try:
            for attempt in range(ATTEMPTS):
                if attempt > 2:
                    await asyncio.sleep(0.002 * attempt)
                ((value, link, guard),) = await read_held(self._redis, self._salts, kind, [person])
                # What is forgotten of a visitor stays so, whoever the visitor has become.
                cut = cut.later(guard.cut)
                if link is not None:
                    visitor, person = person, await self._follow(person, link)
                    visitor = visitor if visitor != person else ""
                    continue
                before, after = _read(value), change(person, _read(value), cut)
                if after == before:
                    return person, after
                if kind == "profile":
                    claims = {person: _ids(after) - _ids(before)}
                    if refused := await external_ids.take(self._scripts, claims):
                        raise ConflictError(refused[person])
                call = put_call(kind, person, value, after, by, guard, visitor=visitor)
                (outcome,) = await self._scripts.run(scripts.PUT_DOCUMENT, [call])
                if outcome == 1:
                    if kind == "profile":
                        given_up = {person: _ids(before) - _ids(after)}
                        await external_ids.release(self._scripts, given_up)
                    return person, after
                # The visitor may have ceased to be the user.
                person, visitor = visitor or person, ""
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the change was not stored: {error}") from error
        raise OverloadedError("the person is changed by too many at once", 1.0)

    async def put_many(
        self,
        kind: Kind,
        documents: Mapping[str, Document | Change | None],
        by: str,
        *,
        as_of_ms: int | None = None,
    ) -> tuple[int, dict[str, str]]:
        """Replace the documents of many people; those that do not change are not written.

        Parameters
        ----------
        kind : str
            Which document.
        documents : mapping of str to dict, callable or None
            The new one of each person, or what makes it of the old one; ``None`` deletes.
        by : str
            Who changes them.
        as_of_ms : int, optional
            When what the documents are made from began to be read, in milliseconds since 1970: who
            was erased since then gets none; nor does who was forgotten get one that is computed.

        Returns
        -------
        n_changed : int
            How many were written.
        refused : dict of str to str
            People whose document was not written, and why: an external id is somebody else's.
        """
        changed, refused = 0, dict[str, str]()
        names = list(documents)
        try:
            for start in range(0, len(names), CHUNK):
                pending = names[start : start + CHUNK]
                for _ in range(ATTEMPTS):
                    written, pending = await self._put(
                        kind, pending, documents, by, refused, as_of_ms
                    )
                    changed += written
                    if not pending:
                        break
                else:
                    raise OverloadedError("people are changed by too many at once", 1.0)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"not all changes were stored: {error}") from error
        return changed, refused

    async def _put(
        self,
        kind: Kind,
        people: Sequence[str],
        documents: Mapping[str, Document | Change | None],
        by: str,
        refused: dict[str, str],
        as_of_ms: int | None,
    ) -> tuple[int, list[str]]:
        """Write a chunk; return how many were written and who lost a race."""
        changes: list[tuple[str, bytes | None, Document | None, Document | None]] = []
        guards: dict[str, Guard] = {}
        moved = 0
        read = await read_held(self._redis, self._salts, kind, people)
        for person, (value, link, guard) in zip(people, read, strict=True):
            if link is not None:
                # What was computed of a visitor says nothing of the user.
                if kind != "computed":
                    await self.update(kind, person, _as_change(documents[person]), by)
                    moved += 1
                continue
            before = _read(value)
            after = _as_change(documents[person])(before)
            if before != after:
                changes.append((person, value, before, after))
                guards[person] = guard
        if kind == "profile":
            claims = {person: _ids(after) - _ids(before) for person, _, before, after in changes}
            refused |= await external_ids.take(self._scripts, claims)
            changes = [change for change in changes if change[0] not in refused]
        calls = [
            put_call(kind, person, value, after, by, guards[person], as_of_ms)
            for person, value, _, after in changes
        ]
        outcomes = await self._scripts.run(scripts.PUT_DOCUMENT, calls) if calls else []
        told = list(zip((change[0] for change in changes), outcomes, strict=True))
        lost = [person for person, outcome in told if outcome in (0, _IS_LINKED)]
        n_forgotten = outcomes.count(_IS_FORGOTTEN)
        if kind == "profile":
            given_up = {
                person: _ids(before) - _ids(after)
                for person, _, before, after in changes
                if person not in lost
            }
            given_up |= {
                person: _ids(after) - _ids(before)
                for (person, _, before, after), outcome in zip(changes, outcomes, strict=True)
                if outcome == _IS_FORGOTTEN
            }
            await external_ids.release(self._scripts, given_up)
        return moved + len(calls) - len(lost) - n_forgotten, lost

    async def scan(
        self, kinds: Sequence[Kind] = KINDS, size: int = CHUNK
    ) -> AsyncIterator[list[tuple[str, dict[Kind, Document | None]]]]:
        """Yield everybody who has a document, some at a time, each person once.

        Whoever gets or loses the first document meanwhile may be missing or not.

        Parameters
        ----------
        kinds : sequence of str
            Which documents to read.
        size : int
            How many people at most at a time: few where others wait for the processor.
        """
        try:
            for shard in keys.shards():
                found: set[bytes] = await self._redis.smembers(keys.people(shard))
                people = sorted(name.decode("utf-8", "surrogatepass") for name in found)
                for start in range(0, len(people), size):
                    chunk = people[start : start + size]
                    names = [keys.document(kind, person) for person in chunk for kind in kinds]
                    # One shard: one MGET, on a cluster too.
                    values = iter(await self._redis.mget(names))
                    yield [
                        (person, {kind: _read(next(values)) for kind in kinds}) for person in chunk
                    ]
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"people cannot be read: {error}") from error

    async def sample(self, count: int) -> list[str]:
        """Return some users who have a document, at random, each once; all if they are fewer."""
        shards = keys.shards()
        random.shuffle(shards)
        found: list[str] = []
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in shards:
                    pipeline.srandmember(keys.people(shard), count)
                drawn = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"people cannot be read: {error}") from error
        # From every shard in turn: shards hold about equally many people.
        for place in range(count):
            for people in drawn:
                if place < len(people):
                    person = people[place].decode("utf-8", "surrogatepass")
                    if person.startswith("u:"):
                        found.append(person)
                        if len(found) == count:
                            return found
        return found

    async def count(self) -> int:
        """Return how many people have a document."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in keys.shards():
                    pipeline.scard(keys.people(shard))
                return sum(await pipeline.execute())
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"people cannot be counted: {error}") from error

    # --- external ids -------------------------------------------------------------------------

    async def resolve(self, name: str, value: str) -> str | None:
        """Return the user id that an external id stands for.

        Parameters
        ----------
        name : str
            Which system's, such as ``subscriber_key``.
        value : str
            The id there.
        """
        try:
            found: bytes | None = await self._redis.get(keys.external_id(name, value))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the external id cannot be read: {error}") from error
        return None if found is None else found.decode("utf-8", "surrogatepass")

    # --- after a loss -------------------------------------------------------------------------

    async def replay(self, changes: Iterable[Mapping[str, Any]]) -> int:
        """Teach an emptied server the documents that the archive holds.

        Parameters
        ----------
        changes : iterable of mapping
            Entries; those of one person in their order, and none from before an erasure
            (``forgotten.kept_changes``).

        Returns
        -------
        int
            How many documents there are.
        """
        newest = {
            (change["kind"], change["person"]): change["body"]
            for change in changes
            if change["kind"] in KINDS
        }
        present = [one for one in newest.items() if one[1] is not None]
        for start in range(0, len(present), CHUNK):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for (kind, person), body in present[start : start + CHUNK]:
                    pipeline.set(keys.document(kind, person), packed(body))
                    pipeline.sadd(keys.people(keys.shard_of(person)), person)
                    for name, value in _ids(body) if kind == "profile" else ():
                        pipeline.set(keys.external_id(name, value), person.removeprefix("u:"))
                await pipeline.execute()
        return len(present)


def _as_change(document: Document | Change | None) -> Change:
    return document if callable(document) else lambda _: document


def _read(value: bytes | None) -> Document | None:
    if value is None:
        return None
    document: Document = orjson.loads(value)
    return document


def _ids(profile: Document | None) -> set[tuple[str, str]]:
    return set(((profile or {}).get("external_ids") or {}).items())
