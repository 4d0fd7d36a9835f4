"""Which workers there are, and how much of the site each of them obeys.

A worker says once a second, and at once after each change that it has applied, how far it is. Who
waits for a recall looks here. Messages make it sooner; nothing depends on them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import StoreUnavailableError

FORGET_AFTER_S = 3_600
LISTEN_TIMEOUT_S = 1.0

_ANNOUNCE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], now_ms .. ' ' .. ARGV[2])
return now_ms
"""
"""Keys: workers. Arguments: the worker, how many changes of the site it has applied. The server's
clock is the one that all workers share."""


@dataclass(frozen=True, slots=True)
class Attendance:
    """One worker as it said last.

    Parameters
    ----------
    worker : str
        Host, process id and something random.
    sequence : int
        How many changes of the site it has applied.
    age_s : float
        How long ago it said so.
    """

    worker: str
    sequence: int
    age_s: float


class WorkerStore:
    """Knows the workers of the site.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._announce = redis.register_script(_ANNOUNCE)

    async def announce(self, worker: str, sequence: int) -> None:
        """Say that a worker lives and how many changes it has applied.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            await self._announce(keys=[keys.SITE_WORKERS], args=[worker, sequence])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the worker is not announced: {error}") from error

    async def leave(self, worker: str) -> None:
        """Say that a worker ends; one that is killed is forgotten in time."""
        with contextlib.suppress(RedisError, OSError):
            await self._redis.hdel(keys.SITE_WORKERS, worker)

    async def all(self) -> list[Attendance]:
        """Return every worker that spoke within the last hour."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.hgetall(keys.SITE_WORKERS)
                (seconds, micros), found = await pipeline.execute()
            now_s = seconds + micros / 1e6
            present, forgotten = [], []
            for name, value in found.items():
                at_ms, _, sequence = value.partition(b" ")
                age_s = now_s - int(at_ms) / 1000
                if age_s > FORGET_AFTER_S:
                    forgotten.append(name)
                else:
                    present.append(Attendance(name.decode(), int(sequence), age_s))
            if forgotten:
                await self._redis.hdel(keys.SITE_WORKERS, *forgotten)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the workers cannot be read: {error}") from error
        return sorted(present, key=lambda one: one.worker)

    async def call(self) -> None:
        """Tell the workers that the site has changed; who misses it sees it at the next read."""
        with contextlib.suppress(RedisError, OSError):
            await self._redis.publish(keys.SITE_CHANNEL, b"")

    async def calls(self) -> AsyncIterator[None]:
        """Yield whenever somebody called; ends with the connection."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(keys.SITE_CHANNEL)
            while True:
                message = await channel.get_message(timeout=LISTEN_TIMEOUT_S)
                if message is not None:
                    yield
                else:
                    await asyncio.sleep(0)
