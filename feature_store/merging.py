"""A visitor signs in: the history of ``a:ANON`` joins that of ``u:USER``, across shards.

The two may live on two nodes, so no script can do it at once. Four steps do, each of them one
script on one shard, or a read:

1. **Seal** (visitor's shard): set the link ``l:`` to ``>TIME u:USER`` unless there is one, and
   append the merge to the visitor's stream. The user's journal ``m:`` is told before (``?``), so
   that an erasure of the user finds the visitor. From now on nobody writes to the visitor's state:
   the scripts that append events and imports refuse when there is a link, and their callers follow
   it.
2. **Read** the visitor's state, impressions, preferences and remembered event ids. They change no
   more.
3. **Absorb** (user's shard): if the journal ``m:`` of the user has no TIME of the visitor yet, set
   the user's facts to the sum of both, the preferences to the stricter of both, add the event ids
   (under digests of their own, so that the visitor's ``e1`` is not the user's ``e1``) and write the
   name and TIME into the journal, all in one compare-and-set.
4. **Clear** (visitor's shard): set the link to ``=u:USER`` and delete what was absorbed.

Why a crash between any two is safe: after 1 nothing is lost or counted, it only waits in the
visitor's keys; whoever comes next - a second call, or the visitor's next event - meets ``>`` and
does 2 to 4 first. It must: before 3 the user's ids do not contain the visitor's, so an event that
is sent again would count twice. After 3 the journal turns a second absorption into nothing, whoever
does it and however late. 4 is one script, and only deletes what 3 has stored. Two who help at the
same time do the same. Who was erased between 1 and 3 takes the visitor along (``forgetting``).

In the log a merge is a row of type ``merge`` with both ids. It is appended in step 1, so it is
there exactly if the link is; `merged_people` repeats all merges over a log, in any order, and gives
what all four steps give, as adding states is commutative.

A link is for ever and the first one wins: a visitor who is somebody already cannot become
somebody else (`ConflictError`).
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import impressions, keys, scripts
from feature_store.errors import ConflictError, OverloadedError, StoreUnavailableError
from feature_store.facts import PersonFacts
from feature_store.forgetting.held import AHEAD
from feature_store.forgetting.ledger import epoch_ms
from feature_store.forgetting.server import Forgetting
from feature_store.links import ROW_TYPE, Link, linked_digest, read_link
from feature_store.people import person_change
from feature_store.person_values import Value, added, comparing, touched
from feature_store.preferences import UNREADABLE, document_of, merged, read_preferences
from feature_store.schema import format_time, person_of
from feature_store.state import join, unpack

ATTEMPTS = 50
_ABOUT_TO = "?"
"""What the journal says of a visitor who is not absorbed yet, and perhaps not even sealed."""
_DAY_S = 86_400
_SORTED = orjson.OPT_SORT_KEYS

__all__ = ["ROW_TYPE", "Link", "Merger", "linked_digest", "merged_people", "read_link"]

_ANNOUNCE = """
local joined = redis.call('HGET', KEYS[1], ARGV[1])
if not joined or joined == 'x' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
"""
_RETRACT = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""
_CLEAR = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('XADD', KEYS[3], '*', 'e', ARGV[4]) end
for i = 6, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('DEL', KEYS[2])
if redis.call('EXISTS', KEYS[5]) == 0 then redis.call('SREM', KEYS[4], ARGV[3]) end
return 1
"""
"""Keys: link, preferences, the shard's stream of changes and its index of people, profile, and what
else is deleted. Arguments: the link as it is and as it will be, the visitor, the change that says
that the preferences are gone."""


def merged_people(log: pl.LazyFrame) -> pl.LazyFrame:
    """Repeat the merges of a log: a visitor's events become the user's.

    Parameters
    ----------
    log : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``, rows of type ``merge`` among them.

    Returns
    -------
    LazyFrame
        The events without those rows; ``user_id`` is filled in where the visitor signed in. The
        rule that a person is ``user_id``, or ``anonymous_id`` when there is none, then holds.
    """
    is_merge = pl.col("type") == ROW_TYPE
    links = (
        log.filter(is_merge)
        .select("anonymous_id", pl.col("user_id").alias("_signed_in"), "timestamp")
        .sort("timestamp")
        .unique("anonymous_id", keep="first")
        .drop("timestamp")
    )
    joined = log.filter(~is_merge).join(links, on="anonymous_id", how="left")
    return joined.with_columns(pl.coalesce("user_id", "_signed_in").alias("user_id")).drop(
        "_signed_in"
    )


class Merger:
    """Joins visitors to users.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    forgetting : Forgetting, optional
        Says who is forgotten; one of its own by default.
    """

    def __init__(self, redis: "Redis", forgetting: Forgetting | None = None) -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._forgetting = forgetting or Forgetting(redis)
        self._announce = redis.register_script(_ANNOUNCE)
        self._seal = redis.register_script(scripts.SEAL_VISITOR)
        self._absorb = redis.register_script(scripts.ABSORB_VISITOR)
        self._clear = redis.register_script(_CLEAR)
        self._retract = redis.register_script(_RETRACT)

    async def merge(self, user_id: str, anonymous_id: str, now: datetime) -> bool:
        """Join a visitor to a user, or complete what was begun.

        Parameters
        ----------
        user_id, anonymous_id : str
            Who turned out to be whom.
        now : datetime
            What the time is.

        Returns
        -------
        bool
            ``False`` if there was nothing left to do.

        Raises
        ------
        ConflictError
            If the visitor is another user.
        StoreUnavailableError, OverloadedError
            If it is not complete; call again.
        """
        visitor, user = person_of(None, anonymous_id), person_of(user_id, None)
        assert visitor is not None
        assert user is not None
        try:
            for _ in range(ATTEMPTS):
                # First, so that an erasure of the user finds the visitor, absorbed or not.
                await self._announce(keys=[keys.merges(user)], args=[visitor, _ABOUT_TO])
                link = await self._seal_visitor(user_id, anonymous_id, now)
                if link.person == user and not link.complete:
                    return await self.complete(visitor, link, now)
                if await self._forgetting.has_left(visitor, link, ROW_TYPE):
                    continue
                if link.person == user:
                    return False
                await self._retract(keys=[keys.merges(user)], args=[visitor, _ABOUT_TO])
                raise ConflictError("the visitor has signed in as another user before")
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the merge is not complete: {error}") from error
        raise OverloadedError("the user is erased by too many at once", 1.0)

    async def _seal_visitor(self, user_id: str, anonymous_id: str, now: datetime) -> Link:
        """Return the link of a visitor, who is sealed now if there was none."""
        visitor, user = f"a:{anonymous_id}", f"u:{user_id}"
        names = [keys.link(visitor)]
        while True:
            (guard,) = await self._forgetting.guards([visitor])
            if link := read_link(await self._redis.get(names[0])):
                return link
            # To the millisecond, as the log has it: an erasure is before or after it in both. It is
            # after one that is known here.
            mine = Link(user, max(epoch_ms(now), guard.cut.erased_ms))
            body = _merge_row(user_id, anonymous_id, mine)
            names, arguments = comparing([Value(keys.link(visitor), None, mine.value)])
            stream = keys.events(keys.shard_of(visitor))
            arguments += [*guard.arguments(), body]
            if await self._seal(keys=[*names, guard.key, stream], args=arguments):
                return mine

    async def follow(self, visitor: str, value: bytes) -> str:
        """Return the user whom a visitor became, with the visitor's history in the user's.

        It is the visitor, as somebody new, if the user was erased since and the visitor with them.

        Parameters
        ----------
        visitor : str
            Key of the visitor.
        value : bytes
            What the visitor's link key holds.

        Raises
        ------
        OverloadedError
            If a merge that was begun cannot be completed now.
        """
        link = read_link(value)
        assert link is not None
        if not link.complete:
            joined = await self.complete(visitor, link, datetime.now(UTC))
        else:
            joined = not await self._forgetting.has_left(visitor, link, "erasure")
        return link.person if joined else visitor

    async def complete(self, visitor: str, link: Link, now: datetime) -> bool:
        """Do what follows the sealing; harmless when others do it too.

        Parameters
        ----------
        visitor : str
            Key of the visitor.
        link : Link
            The visitor's, sealed.
        now : datetime
            What the time is.

        Returns
        -------
        bool
            Whether the visitor is the user now; not if the user was erased after the sealing, which
            erases the visitor too.

        Raises
        ------
        OverloadedError
            If others changed the user faster than this could.
        """
        if link.sealed_ms is None:
            return True
        user, today = link.person, int(now.timestamp()) // _DAY_S
        days = [today - age for age in range(3)]
        theirs = [keys.deduplication(visitor, day) for day in days]
        own = [keys.hot(visitor), keys.rest(visitor), keys.impressions(visitor)]
        for _ in range(ATTEMPTS):
            (guard,) = await self._forgetting.guards([user])
            if guard.cut.erased_ms > link.sealed_ms:
                return not await self._forgetting.has_left(visitor, link, ROW_TYPE)
            if guard.cut.before_ms > link.sealed_ms:
                await self._forgetting.forget_with(visitor, link, guard.cut, ROW_TYPE)
            facts, chosen, remembered = await self._history(visitor, own, theirs)
            values, change = await self._sum(user, facts, chosen, link.sealed_ms)
            names, arguments = comparing(values)
            shard = keys.shard_of(user)
            names += [guard.key, keys.merges(user)]
            names += [*(keys.deduplication(user, day) for day in days), keys.people(shard)]
            names.append(keys.person_changes(shard))
            arguments += guard.arguments()
            sealed_s = link.sealed_ms // 1000
            arguments += [visitor, sealed_s, keys.DEDUPLICATION_TTL_S, user, change]
            if await self._absorb(keys=names, args=arguments + remembered):
                break
        else:
            raise OverloadedError("the user is written to by too many at once", 1.0)
        await self._clear_visitor(visitor, link, [*own, *theirs])
        return True

    async def _history(
        self, visitor: str, own: list[str], theirs: list[str]
    ) -> tuple[PersonFacts, bytes | None, list[bytes | str | int]]:
        """Return what a sealed visitor brings: facts, preferences, event ids for the script."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.mget([*own, keys.preferences(visitor)])
            for name in theirs:
                pipeline.hgetall(name)
            (hot, rest, shown, chosen), *ids = await pipeline.execute()
        facts = PersonFacts(visitor, join(unpack(hot), unpack(rest)), impressions.unpack(shown))
        remembered: list[bytes | str | int] = []
        for known in ids:
            remembered.append(len(known))
            for digest, body in known.items():
                is_id = digest != AHEAD
                remembered += (linked_digest(visitor, digest) if is_id else digest, body)
        return facts, chosen, remembered

    async def _sum(
        self, user: str, facts: PersonFacts, chosen: bytes | None, sealed_ms: int
    ) -> tuple[list[Value], bytes]:
        """Return what a user's values become with a visitor's, and the change of preferences."""
        names = touched(user, facts)
        if chosen is not None:
            names.append(keys.preferences(user))
        read = dict(zip(names, await self._redis.mget(names) if names else (), strict=True))
        values = added(user, read, facts)
        if chosen is None:
            return values, b""
        mine = read[keys.preferences(user)]
        if read_preferences(mine) is UNREADABLE:
            # What cannot be read is not written over; the log has what the visitor chose.
            return values, b""
        both = _joined(mine, chosen, sealed_ms)
        new = orjson.dumps(both, option=_SORTED) if both else b""
        values.append(Value(keys.preferences(user), mine, new))
        return values, person_change("preferences", user, both, ROW_TYPE)

    async def _clear_visitor(self, visitor: str, link: Link, names: list[str]) -> None:
        """Delete what has been absorbed."""
        shard = keys.shard_of(visitor)
        people = [keys.person_changes(shard), keys.people(shard)]
        documents = [keys.document("profile", visitor), keys.document("computed", visitor)]
        gone = person_change("preferences", visitor, None, ROW_TYPE)
        await self._clear(
            keys=[keys.link(visitor), keys.preferences(visitor), *people, *documents, *names],
            args=[link.value, Link(link.person, None).value, visitor, gone],
        )


def _merge_row(user_id: str, anonymous_id: str, link: Link) -> bytes:
    """Return a merge as stream and log have it."""
    assert link.sealed_ms is not None
    # With the time: who was erased and came back signs in a second time.
    named = orjson.dumps([f"a:{anonymous_id}", link.person, link.sealed_ms])
    digest = hashlib.blake2b(named, digest_size=16).hexdigest()
    return orjson.dumps(
        {
            "event_id": f"merge-{digest}",
            "type": ROW_TYPE,
            "user_id": user_id,
            "anonymous_id": anonymous_id,
            "timestamp": format_time(datetime.fromtimestamp(link.sealed_ms / 1000, UTC)),
            "trust": "server",
        },
        option=_SORTED,
    )


def _joined(mine: bytes | None, theirs: bytes, sealed_ms: int) -> dict[str, Any] | None:
    """Return the stricter of two preferences as the store keeps them."""
    at = datetime.fromtimestamp(sealed_ms / 1000, UTC)
    return document_of(merged(read_preferences(mine), read_preferences(theirs), at))
