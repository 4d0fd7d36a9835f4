"""Forgetting people on the server: a reset of the taste, an erasure, and what both leave behind.

One script on a person's shard does each: it compares all that was read, so that an event that comes
at the same moment makes it read again, deletes, and notes the cut, from which every writer knows
what must not come back. Each script that writes something of a person compares the cut, too.
"""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import external_ids, keys, scripts
from feature_store.errors import ConflictError, OverloadedError, StoreUnavailableError
from feature_store.forgetting.guards import Guard, Salts
from feature_store.forgetting.held import Held, days_of, read_held
from feature_store.forgetting.ledger import KIND, Cut, Erased, Ledger, read_cut
from feature_store.forgetting.remains import forget_markers, forget_streams
from feature_store.links import Link, read_link
from feature_store.person_values import comparing
from feature_store.schema import format_time
from feature_store.script_runner import ScriptRunner

ATTEMPTS = 50
_SALT_BYTES = 16
WillRemove = Callable[[str, Mapping[str, int]], Awaitable[None]]


class Forgetting:
    """Forgets people, and knows who is forgotten.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._scripts = ScriptRunner(redis)
        self.salts = Salts()

    async def ledger(self) -> Ledger:
        """Return everybody who is forgotten.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(keys.FORGOTTEN_SALT)
                for shard in keys.shards():
                    pipeline.hgetall(keys.forgotten(shard))
                salt, *shards = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"who is forgotten cannot be read: {error}") from error
        self.salts.learn(salt, salt)
        cuts = {name.decode(): read_cut(cut) for found in shards for name, cut in found.items()}
        return Ledger(self.salts.all, cuts)

    async def guards(self, people: Sequence[str]) -> list[Guard]:
        """Return what is forgotten of some people."""
        while True:
            used = self.salts.value
            guards = [Guard(self.salts, person) for person in people]
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(keys.FORGOTTEN_SALT)
                for guard in guards:
                    guard.ask(pipeline)
                salt, *answers = await pipeline.execute()
            if self.salts.learn(salt, used):
                found = iter(answers)
                for guard in guards:
                    guard.take(found)
                return guards

    # --- forgetting -----------------------------------------------------------------------------

    async def forget_taste(self, person: str, by: str) -> int:
        """Forget what a person did, and what was computed of it; choices and profile stay.

        Parameters
        ----------
        person : str
            Whose taste (``schema.person_of``), that of the visitors who became them with it.
        by : str
            Who asks for it.

        Returns
        -------
        int
            How many values are gone.

        Raises
        ------
        ConflictError
            If it is a visitor who has signed in.
        StoreUnavailableError, OverloadedError
            If it is not complete; ask again.
        """
        counts = await self._forget_all(person, by, erase=False)
        return counts.total()

    async def erase(
        self,
        person: str,
        by: str,
        *,
        note: bool = False,
        will_remove: WillRemove | None = None,
    ) -> Erased:
        """Forget everything of a person, and of the visitors who became the person.

        What stands in the streams (`forget_streams`), in the markers of imports
        (`forget_markers`) and in files is not reached.

        Parameters
        ----------
        person : str
            Who is erased (``schema.person_of``).
        by : str
            Who asks for it.
        note : bool
            Whether the caller notes who is erased, and calls `leave_journal` then.
        will_remove : callable, optional
            Awaited before anything of a person is removed, with how much of each kind there is.

        Raises
        ------
        ConflictError
            If it is a visitor who has signed in: only the user as a whole can be erased.
        StoreUnavailableError, OverloadedError
            If it is not complete; ask again.
        """
        people: list[str] = []
        counts = await self._forget_all(person, by, will_remove, erase=True, people=people)
        (guard,) = await self.guards([person])
        if not note:
            await self.leave_journal(person)
        return Erased(tuple(people), guard.cut.erased_ms, dict(counts))

    async def _forget_all(
        self,
        person: str,
        by: str,
        will_remove: WillRemove | None = None,
        *,
        erase: bool,
        people: list[str] | None = None,
    ) -> Counter[str]:
        """Forget a person and the visitors who became the person; `people` takes them all.

        The visitors' taste is forgotten before the user's, so that what one of them does meanwhile
        makes it start again. Of an erasure the user is the first: from that step on the journal
        says that the visitors are gone, whatever their links say, and all of them have the very
        cut of the user.
        """
        counts: Counter[str] = Counter()
        try:
            await self._redis.set(keys.FORGOTTEN_SALT, secrets.token_hex(_SALT_BYTES), nx=True)
            for attempt in range(ATTEMPTS):
                known = await read_held(self._redis, self.salts, person, erase=erase)
                if known.link is not None:
                    if await self.has_left(person, known.link, by):
                        continue
                    raise ConflictError("the visitor has signed in since, and is a user now")
                visitors = await self._linked(person, known.journal)
                for visitor, link in () if erase else visitors.items():
                    floor_ms = known.newest_ms
                    counts += await self._forget(visitor, link, by, floor_ms, None, erase=False)
                if will_remove is not None:
                    await will_remove(person, known.counts())
                if await self._write(known, by):
                    break
                await _pause(attempt)
            else:
                raise OverloadedError("the person is written to by too many at once", 1.0)
            counts += known.counts()
            if erase:
                for visitor, link in (await self._linked(person, known.journal)).items():
                    counts += await self._leave(visitor, link, by, will_remove) or Counter()
            # What happens after this returns is new: it must not have the millisecond of the cut.
            await asyncio.sleep(0.002)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"not everything is forgotten: {error}") from error
        if people is not None:
            people += dict.fromkeys([person, *visitors, *known.gone])
        return counts

    async def has_left(self, visitor: str, link: Link, by: str) -> bool:
        """Tell whether the user was erased since a visitor signed in, who then is somebody new.

        Parameters
        ----------
        visitor : str
            Who had signed in (``schema.person_of``); is forgotten up to the same time as the user,
            if whoever erased the user has not come so far.
        link : Link
            As it was read.
        by : str
            Who asks.
        """
        return await self._leave(visitor, link, by) is not None

    async def _leave(
        self, visitor: str, link: Link, by: str, will_remove: WillRemove | None = None
    ) -> Counter[str] | None:
        """Forget a visitor of whom the user was erased, up to the very same time.

        ``None`` if the visitor is still the user, or again.
        """
        joined = await self._redis.hget(keys.merges(link.person), visitor)
        (guard,) = await self.guards([link.person])
        if link.sealed_ms is None:
            # The journal says so before a link does, and until an erasure.
            is_over = joined is None or not joined.isdigit()
        else:
            is_over = guard.cut.erased_ms > link.sealed_ms
        if not is_over:
            return None
        floor_ms, at_ms = guard.cut.before_ms - 1, guard.cut.erased_ms
        return await self._forget(visitor, link, by, floor_ms, at_ms, will_remove, erase=True)

    async def forget_with(self, visitor: str, link: Link, cut: Cut, by: str) -> None:
        """Forget the taste of a sealed visitor of whom the user's was forgotten meanwhile.

        Parameters
        ----------
        visitor : str
            Who had signed in before (``schema.person_of``).
        link : Link
            As it was read.
        cut : Cut
            The user's.
        by : str
            Who asks for it.
        """
        await self._forget(visitor, link, by, cut.before_ms - 1, cut.erased_ms, erase=False)

    async def _forget(
        self,
        visitor: str,
        link: Link,
        by: str,
        floor_ms: int,
        at_ms: int | None,
        will_remove: WillRemove | None = None,
        *,
        erase: bool,
    ) -> Counter[str]:
        """Forget a visitor alone, events of the time `floor_ms` too, while the link is the same."""
        for attempt in range(ATTEMPTS):
            known = await read_held(self._redis, self.salts, visitor, floor_ms, erase=erase)
            # Somebody else may have done it; since then the visitor may have signed in again.
            if known.link != link or (erase and known.guard.cut.erased_ms >= (at_ms or 0)):
                return Counter()
            if will_remove is not None:
                await will_remove(visitor, known.counts())
            if await self._write(known, by, at_ms):
                return known.counts()
            await _pause(attempt)
        raise OverloadedError("the person is written to by too many at once", 1.0)

    async def _write(self, known: Held, by: str, at_ms: int | None = None) -> bool:
        """Forget what was read, up to now or `at_ms`; return whether it was still the same."""
        person, shard = known.person, keys.shard_of(known.person)
        if known.erase:
            profile = orjson.loads(known.read["profile"] or b"{}")
            ids = set((profile.get("external_ids") or {}).items())
            await external_ids.release(self._scripts, {person: ids})
        now_ms = time.time_ns() // 1_000_000
        # What has the time of this very millisecond came before: it is past, too.
        upto_ms = now_ms + 1 if at_ms is None else at_ms
        cut = known.guard.cut.later(
            Cut(max(upto_ms, known.newest_ms + 1), upto_ms if known.erase else 0)
        )
        digest = known.guard.digests[0]
        entry = forgotten_entry(digest, cut, self.salts.all[0], shard, by)
        names, arguments = comparing(known.values())
        names += [known.guard.key, *days_of(person), keys.merges(person)]
        names += [keys.people(shard), keys.person_changes(shard)]
        names += [keys.document("profile", person), keys.preferences(person)]
        minute = now_ms // 60_000
        names += [keys.quota(person, minute - age) for age in range(-1, 3)]
        arguments += known.guard.arguments()
        arguments += [len(known.n_ids), sum(known.n_ids), len(known.journal), *known.journal]
        arguments += [digest, cut.value, orjson.dumps(entry), person, int(known.erase)]
        (wrote,) = await self._scripts.run(scripts.FORGET_PERSON, [(names, arguments)])
        return bool(wrote)

    async def _linked(self, user: str, journal: Collection[str]) -> dict[str, Link]:
        """Return the links of those visitors of a journal who are the user, absorbed or not."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for visitor in journal:
                pipeline.get(keys.link(visitor))
            links = [read_link(value) for value in await pipeline.execute()]
        return {
            visitor: link
            for visitor, link in zip(journal, links, strict=True)
            if link is not None and link.person == user
        }

    async def leave_journal(self, person: str) -> None:
        """Take the visitors who are gone out of a journal, but for who has signed in again.

        Call it when it is noted who they were: nothing else knows it.
        """
        try:
            name = keys.merges(person)
            if journal := await self._redis.hkeys(name):
                await self._scripts.run(scripts.LEAVE_JOURNAL, [([name], journal)])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"not everything is forgotten: {error}") from error

    # --- what a file job does for many people at once -------------------------------------------

    async def forget_markers(self, people: Collection[str]) -> int:
        """Remove people from what only a look at every key finds (``remains.forget_markers``).

        Parameters
        ----------
        people : collection of str
            Who is erased.

        Returns
        -------
        int
            How many marks are gone.
        """
        try:
            return await forget_markers(self._redis, self._scripts, people, self.has_left)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"not everything is forgotten: {error}") from error

    async def forget_streams(self, people: Collection[str]) -> int:
        """Remove from the streams what people did and decided before they were erased.

        Call it while holding the log (``EventLog.importing``): no archiver has read a part then.

        Parameters
        ----------
        people : collection of str
            Who is erased, the visitors among them too.

        Returns
        -------
        int
            How many entries are gone.
        """
        chosen = list(people)
        try:
            guards = await self.guards(chosen)
            cuts = {one: guard.cut for one, guard in zip(chosen, guards, strict=True)}
            digests = {digest: one for one in chosen for digest in self.salts.digests(one)}
            return await forget_streams(self._redis, cuts, digests)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"not everything is forgotten: {error}") from error


def forgotten_entry(digest: str, cut: Cut, salt: bytes, shard: str, by: str) -> dict[str, Any]:
    """Return a cut as stream and archive have it."""
    return {
        "kind": KIND,
        "person": digest,
        "at": format_time(datetime.now(UTC)),
        "by": by,
        "body": {**cut._asdict(), "salt": salt.hex(), "shard": shard},
    }


async def _pause(attempt: int) -> None:
    if attempt > 2:
        await asyncio.sleep(random.uniform(0, 0.002 * attempt))
