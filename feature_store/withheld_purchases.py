"""Counts purchases of people who may not be profiled, so that a recall knows what it cannot see."""

from collections.abc import Mapping
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.change_log import ChangeLog
from feature_store.errors import StoreUnavailableError
from feature_store.withheld_counts import NAME, Count, Counts, Summing

MAX_WAITING = 1_000_000
"""Lines that may wait for the archive; beyond that the oldest are not counted."""
MAX_ITEMS = 1_000
"""Items of a line."""


class WithheldPurchases:
    """Counts on the server; the archiver moves the counts into the change log.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis

    async def add(self, counts: Mapping[str, Count]) -> None:
        """Count purchases that were not stored.

        Raises
        ------
        StoreUnavailableError
            If they are not counted.
        """
        items = [(item_id, list(count)) for item_id, count in counts.items()]
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for start in range(0, len(items), MAX_ITEMS):
                    line = orjson.dumps({"items": dict(items[start : start + MAX_ITEMS])})
                    pipeline.xadd(keys.WITHHELD, {"e": line}, maxlen=MAX_WAITING)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"what is withheld is not counted: {error}") from error

    async def waiting(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return epoch, place and body of the lines that may not be in the archive yet."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(keys.EPOCH)
                pipeline.xrange(keys.WITHHELD)
                epoch, entries = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"what is withheld cannot be read: {error}") from error
        name = (epoch or b"").decode()
        return [(name, place.decode(), orjson.loads(fields[b"e"])) for place, fields in entries]


def withheld(log: ChangeLog, waiting: list[tuple[str, str, dict[str, Any]]]) -> Counts:
    """Return how often which item was bought without being stored.

    Parameters
    ----------
    log : ChangeLog
        The archive.
    waiting : list
        What `WithheldPurchases.waiting` gave, read before.
    """
    summing = _archived(log)
    for epoch, place, body in waiting:
        summing.take(epoch, place, body)
    return summing.total()


def _archived(log: ChangeLog) -> Summing:
    while True:
        summing = Summing()
        try:
            for path in log.files(NAME):
                summing.take_lines(path.read_bytes())
        except FileNotFoundError:
            continue  # several files became one while they were read
        return summing
