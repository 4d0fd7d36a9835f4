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
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import external_ids, keys, scripts
from feature_store.errors import OverloadedError, StoreUnavailableError
from feature_store.forgetting.guards import Guard, Salts
from feature_store.forgetting.held import AHEAD, Held, days_of, names_of, newest_ms
from feature_store.forgetting.ledger import KIND, NO_CUT, Cut, Erased, Ledger, ledger_of, read_cut
from feature_store.forgetting.remains import forget_markers, forget_streams
from feature_store.links import read_link
from feature_store.person_values import Value, comparing
from feature_store.schema import format_time
from feature_store.script_runner import ScriptRunner

ATTEMPTS = 50
_SALT_BYTES = 16
_CHUNK = 2_000


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
        StoreUnavailableError, OverloadedError
            If it is not complete; ask again.
        """
        counts = await self._forget_all(person, by, erase=False)
        return counts.total()

    async def erase(self, person: str, by: str) -> Erased:
        """Forget everything of a person, and of the visitors who became the person.

        What stands in the streams (`forget_streams`), in the markers of imports
        (`forget_markers`) and in files is not reached.

        Parameters
        ----------
        person : str
            Who is erased (``schema.person_of``).
        by : str
            Who asks for it.

        Raises
        ------
        StoreUnavailableError, OverloadedError
            If it is not complete; ask again.
        """
        people: list[str] = []
        counts = await self._forget_all(person, by, erase=True, people=people)
        (guard,) = await self.guards([person])
        return Erased(tuple(people), guard.cut.erased_ms, dict(counts))

    async def _forget_all(
        self, person: str, by: str, *, erase: bool, people: list[str] | None = None
    ) -> Counter[str]:
        """Forget a person after the visitors who became the person; `people` takes them all."""
        counts: Counter[str] = Counter()
        done = {person: None}
        try:
            await self._redis.set(keys.FORGOTTEN_SALT, secrets.token_hex(_SALT_BYTES), nx=True)
            if erase:
                await self._leave_journal(person)
            for attempt in range(ATTEMPTS):
                known = await self._read(person, erase=erase)
                visitors = await self._linked(person, known.journal)
                for visitor in visitors:
                    counts += await self._forget(visitor, by, known.newest_ms, erase=erase)
                done |= dict.fromkeys(visitors)
                if await self._write(known, by):
                    break
                if attempt > 2:
                    await _pause(attempt)
            else:
                raise OverloadedError("the person is written to by too many at once", 1.0)
            counts += known.counts()
            # One of them may have signed in again in between: the link would still name the person.
            for visitor in await self._linked(person, known.journal) if erase else ():
                counts += await self._forget(visitor, by, 0, erase=True)
            # What happens after this returns is new: it must not have the millisecond of the cut.
            await asyncio.sleep(0.002)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"not everything is forgotten: {error}") from error
        if people is not None:
            people.extend(done)
        return counts

    async def forget_with(self, visitor: str, cut: Cut, by: str, *, erase: bool) -> None:
        """Forget a sealed visitor of whom the user was forgotten meanwhile, up to the same time.

        Parameters
        ----------
        visitor : str
            Who had signed in before (``schema.person_of``).
        cut : Cut
            The user's.
        by : str
            Who asks for it.
        erase : bool
            Whether the user was erased since, or only the taste was reset.
        """
        await self._forget(visitor, by, cut.before_ms - 1, erase=erase, at_ms=cut.erased_ms)

    async def _forget(
        self, person: str, by: str, floor_ms: int, *, erase: bool, at_ms: int | None = None
    ) -> Counter[str]:
        """Forget one person alone; events of the time `floor_ms`, too."""
        for attempt in range(ATTEMPTS):
            known = await self._read(person, floor_ms, erase=erase)
            if await self._write(known, by, at_ms):
                return known.counts()
            if attempt > 2:
                await _pause(attempt)
        raise OverloadedError("the person is written to by too many at once", 1.0)

    async def _read(self, person: str, floor_ms: int = 0, *, erase: bool) -> Held:
        """Read all that is forgotten."""
        names = names_of(person, erase=erase)
        days = days_of(person)
        while True:
            used = self.salts.value
            guard = Guard(self.salts, person)
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(keys.FORGOTTEN_SALT)
                pipeline.mget(list(names.values()))
                for day in days:
                    pipeline.hlen(day)
                    pipeline.hget(day, AHEAD)
                pipeline.hkeys(keys.merges(person))
                guard.ask(pipeline)
                salt, values, *answers = await pipeline.execute()
            if self.salts.learn(salt, used):
                break
        found = iter(answers)
        ids = [(next(found), next(found)) for _ in days]
        journal = sorted(name.decode("utf-8", "surrogatepass") for name in next(found))
        guard.take(found)
        ahead = max((int(value) for _, value in ids if value), default=0)
        read = dict(zip(names, values, strict=True))
        until_ms = max(floor_ms, ahead, newest_ms(read))
        n_ids = [count for count, _ in ids]
        return Held(person, guard, names, read, n_ids, journal, until_ms, erase)

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
        values = [Value(known.names[one], known.read[one], b"") for one in known.names]
        names, arguments = comparing(values)
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

    async def _linked(self, user: str, journal: Sequence[str]) -> list[str]:
        """Return which visitors of a journal are the user, absorbed or not."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for visitor in journal:
                pipeline.get(keys.link(visitor))
            links = [read_link(value) for value in await pipeline.execute()]
        return [
            visitor
            for visitor, link in zip(journal, links, strict=True)
            if link is not None and link.person == user
        ]

    async def _leave_journal(self, person: str) -> None:
        """Let the user whom a visitor became forget the visitor: joining again counts anew."""
        if person.startswith("a:"):
            link = read_link(await self._redis.get(keys.link(person)))
            if link is not None:
                await self._redis.hdel(keys.merges(link.person), person)

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
            return await forget_markers(self._redis, self._scripts, people)
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

    # --- after a loss ---------------------------------------------------------------------------

    async def entries(self) -> list[dict[str, Any]]:
        """Return all cuts as the archive has them, for an archive that may lack some."""
        ledger = await self.ledger()
        found = []
        for shard in keys.shards() if ledger else ():
            for digest in await self._redis.hkeys(keys.forgotten(shard)):
                cut = ledger.cuts.get(digest.decode(), NO_CUT)
                found.append(forgotten_entry(digest.decode(), cut, ledger.salt, shard, "rebuild"))
        return found

    async def replay(self, entries: Iterable[Mapping[str, Any]]) -> int:
        """Teach an emptied server who is forgotten.

        Parameters
        ----------
        entries : iterable of mapping
            Changes of people as the archive has them; those of another kind are passed over.

        Returns
        -------
        int
            How many cuts there are.
        """
        shard_of: dict[str, str] = {}
        kept = []
        for entry in entries:
            if entry["kind"] == KIND:
                shard_of[entry["person"]] = entry["body"]["shard"]
                kept.append(entry)
        ledger = ledger_of(kept)
        if not ledger:
            return 0
        await self._redis.set(keys.FORGOTTEN_SALT, " ".join(salt.hex() for salt in ledger.salts))
        cuts = list(ledger.cuts.items())
        for start in range(0, len(cuts), _CHUNK):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for digest, cut in cuts[start : start + _CHUNK]:
                    pipeline.hset(keys.forgotten(shard_of[digest]), digest, cut.value)
                await pipeline.execute()
        return len(cuts)


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
    await asyncio.sleep(random.uniform(0, 0.002 * attempt))
