"""The streams of accepted events: read in order, trimmed behind what the archive holds."""

import secrets
import time
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.change_store import ChangeStore
from feature_store.errors import OverloadedError, StoreUnavailableError

Position = tuple[int, int]
"""A place in a stream: milliseconds and number of an entry's id, which compare as tuples do."""
START: Position = (0, 0)

MAX_WAITING_EVENTS = 1_000_000
"""About 270 MB of the server's memory: 267 bytes were measured for a purchase with a price."""
COUNT_EVERY_S = 1.0
RETRY_AFTER_S = 5.0

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted event in a stream.

    Parameters
    ----------
    shard : str
        Tag of the shard.
    position : tuple of int
        Where it stands.
    body : bytes
        The event as JSON.
    """

    shard: str
    position: Position
    body: bytes


class StreamRoom:
    """Keeps the server's memory bounded while the archive is behind.

    The streams are counted at most once a second by each process, so the bound is exceeded by no
    more than a second of events.

    Parameters
    ----------
    streams : StreamStore
        The streams.
    max_waiting_events : int
        How many may wait.
    """

    def __init__(self, streams: "StreamStore", max_waiting_events: int) -> None:
        self._streams = streams
        self._max_waiting_events = max_waiting_events
        self._counted_at_s = -COUNT_EVERY_S
        self._waiting = 0

    async def check(self) -> None:
        """Return if more events may be accepted.

        Raises
        ------
        OverloadedError
            If too many wait already.
        StoreUnavailableError
            If they cannot be counted.
        """
        now_s = time.monotonic()
        if now_s - self._counted_at_s >= COUNT_EVERY_S:
            # Before the answer comes: one of many concurrent writers counts.
            self._counted_at_s = now_s
            self._waiting = await self._streams.length()
        if self._waiting >= self._max_waiting_events:
            raise OverloadedError(
                f"{self._waiting:,} events wait to be archived, which is as many as may;"
                " see that `recsvc archive` runs and has disk space",
                RETRY_AFTER_S,
            )


class StreamStore:
    """Reads and trims the shards' streams, and says who may do so; `changes` has all but events.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self.changes = ChangeStore(redis)
        self._renew = redis.register_script(_RENEW)
        self._release = redis.register_script(_RELEASE)

    async def read(self, after: dict[str, Position], count: int) -> list[Entry]:
        """Return the next entries of every shard.

        Parameters
        ----------
        after : dict of str to tuple
            Last position of each shard that is known already.
        count : int
            At most so many of each shard.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        shards = keys.shards()
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in shards:
                    since = f"({_text(after.get(shard, START))}"
                    pipeline.xrange(keys.events(shard), min=since, count=count)
                read = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the streams cannot be read: {error}") from error
        return [
            Entry(shard, _position(name), fields[b"e"])
            for shard, entries in zip(shards, read, strict=True)
            for name, fields in entries
        ]

    async def trim(self, upto: dict[str, Position]) -> None:
        """Forget every entry up to and including a position of its shard."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard, (milliseconds, number) in upto.items():
                    least = f"{milliseconds}-{number + 1}"
                    pipeline.xtrim(keys.events(shard), minid=least, approximate=False)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the streams cannot be trimmed: {error}") from error

    async def ends(self) -> dict[str, Position]:
        """Return the position of the newest entry of every stream that is not empty."""
        names = {shard: keys.events(shard) for shard in keys.shards()}
        names |= {name: name for name in keys.CHANGE_STREAMS}
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name in names.values():
                    pipeline.xrevrange(name, count=1)
                read = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the streams cannot be read: {error}") from error
        return {
            name: _position(found[0][0]) for name, found in zip(names, read, strict=True) if found
        }

    async def waiting(self, upto: dict[str, Position]) -> int:
        """Return how many of the streams still hold something that is not newer than `upto`."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name, position in upto.items():
                    stream = name if name in keys.CHANGE_STREAMS else keys.events(name)
                    pipeline.xrange(stream, max=_text(position), count=1)
                return sum(map(bool, await pipeline.execute()))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the streams cannot be read: {error}") from error

    async def epoch(self) -> str | None:
        """Return the name of the server's memory, which is another one after it was emptied.

        Returns
        -------
        str or None
            ``None`` while a rebuild is not finished: nothing may be archived meanwhile.
        """
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(keys.EPOCH, secrets.token_hex(8), nx=True)
                pipeline.mget(keys.EPOCH, keys.REBUILDING)
                _, (epoch, rebuilding) = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the server cannot be read: {error}") from error
        return None if rebuilding else str(epoch.decode())

    async def length(self) -> int:
        """Return how many accepted events are not yet in the archive."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in keys.shards():
                    pipeline.xlen(keys.events(shard))
                return sum(await pipeline.execute())
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the streams cannot be counted: {error}") from error

    async def lead(self, holder: str, ttl_s: float) -> bool:
        """Take, or keep, the right to archive; whoever dies loses it after `ttl_s` seconds.

        Parameters
        ----------
        holder : str
            Names the process; random, so that nobody else has the name.
        ttl_s : float
            For how long.

        Returns
        -------
        bool
            Whether the right is `holder`'s now.
        """
        milliseconds = int(ttl_s * 1000)
        try:
            if await self._redis.set(keys.ARCHIVER, holder, nx=True, px=milliseconds):
                return True
            return bool(await self._renew(keys=[keys.ARCHIVER], args=[holder, milliseconds]))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"no lease on the archive: {error}") from error

    async def resign(self, holder: str) -> None:
        """Give the right to archive back, so that another need not wait."""
        try:
            await self._release(keys=[keys.ARCHIVER], args=[holder])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the lease was not given back: {error}") from error


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def _position(name: bytes) -> Position:
    milliseconds, _, number = name.partition(b"-")
    return int(milliseconds), int(number)
