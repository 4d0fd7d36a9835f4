"""What changes on the server without being an event, on its way into the archive."""

from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import StoreUnavailableError
from feature_store.item_changes import read_change
from feature_store.people import NAME as PEOPLE

CATALOGUE = "catalogue"
"""Name of the catalogue's changes; the others are named by what their stream's tag holds."""
PEOPLE_COUNT = 1_000
"""Changes of people that are read at once from each shard."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Some changes of one kind, in their order.

    Parameters
    ----------
    name : str
        ``keys``, ``site``, ``forgotten``, ``withheld``, ``people``, ``catalogue``.
    ids : list of str
        Place of each: the id in its stream, with the shard's number at its end for ``people``, or
        its number in the catalogue's log.
    bodies : list of dict
        What changed.
    """

    name: str
    ids: list[str]
    bodies: list[dict[str, Any]]


class ChangeStore:
    """Reads the changes and trims their streams.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def read(self, catalogue_sequence: int, count: int = 1_000_000) -> list[Changes]:
        """Return what is not yet in the archive.

        Parameters
        ----------
        catalogue_sequence : int
            How many changes of the catalogue the archive knows.
        count : int
            At most so many of each kind.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for stream in keys.CHANGE_STREAMS:
                    pipeline.xrange(stream, count=count)
                for shard in keys.shards():
                    pipeline.xrange(keys.person_changes(shard), count=PEOPLE_COUNT)
                streams = await pipeline.execute()
            found = [_streamed(*one) for one in zip(keys.CHANGE_STREAMS, streams, strict=False)]
            found.append(_of_people(streams[len(keys.CHANGE_STREAMS) :]))
            found.append(await self._of_catalogue(catalogue_sequence, count))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the changes cannot be read: {error}") from error
        return [changes for changes in found if changes.ids]

    async def _of_catalogue(self, known: int, count: int) -> Changes:
        """Return changes of the catalogue; those before its log's start are in its file."""
        for _ in range(3):
            start = int(await self._redis.get(keys.CATALOGUE_START) or 0)
            first = max(0, known - start)
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(keys.CATALOGUE_START)
                pipeline.lrange(keys.CATALOGUE_LOG, first, first + count - 1)
                now, entries = await pipeline.execute()
            if int(now or 0) == start:
                break
        else:
            entries, start, first = [], 0, 0
        ids = [str(start + first + at + 1) for at in range(len(entries))]
        # As text: a rebuilt server shall hold the very same bytes.
        return Changes(CATALOGUE, ids, [{"entry": entry.decode()} for entry in entries])

    async def trim(self, archived: list[Changes]) -> None:
        """Forget what the archive holds; the catalogue's log is trimmed by its own file."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for changes in archived:
                    if changes.name == PEOPLE:
                        for stream, ids in _by_shard(changes.ids).items():
                            pipeline.xdel(stream, *ids)
                    elif changes.name != CATALOGUE:
                        pipeline.xdel(stream_of(changes.name), *changes.ids)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the changes cannot be trimmed: {error}") from error

    async def restore_catalogue(self, start: int, entries: list[bytes]) -> None:
        """Give a server that knows the catalogue's file its log again.

        Parameters
        ----------
        start : int
            How many entries there were before.
        entries : list of bytes
            Those after, without a gap; rows that the file does not know come from them.
        """
        next_row = int(await self._redis.get(keys.CATALOGUE_NEXT_ROW) or 0)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(keys.CATALOGUE_LOG)
            for entry in entries:
                change = read_change(entry)
                next_row = max(next_row, change.n_rows)
                for row, item_id in enumerate(change.item_ids, change.row):
                    pipeline.hsetnx(keys.CATALOGUE_IDS, item_id, str(row))
                pipeline.rpush(keys.CATALOGUE_LOG, entry)
            pipeline.delete(keys.CATALOGUE_START)
            if start:
                pipeline.set(keys.CATALOGUE_START, start)
            if start or entries:
                pipeline.set(keys.CATALOGUE_SEQUENCE, start + len(entries))
                pipeline.set(keys.CATALOGUE_NEXT_ROW, next_row)
            await pipeline.execute()


def stream_of(name: str) -> str:
    """Return the stream of a kind of change."""
    return f"c:{{{name}}}"


def _streamed(stream: str, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> Changes:
    name = stream.removeprefix("c:{").removesuffix("}")
    ids = [entry_id.decode() for entry_id, _ in entries]
    return Changes(name, ids, [orjson.loads(fields[b"e"]) for _, fields in entries])


def _of_people(streams: list[list[tuple[bytes, dict[bytes, bytes]]]]) -> Changes:
    """Put the shards' changes together; two shards may give the same id to different ones."""
    ids, bodies = [], []
    for shard, entries in enumerate(streams):
        for entry_id, fields in entries:
            ids.append(f"{entry_id.decode()}-{shard}")
            bodies.append(orjson.loads(fields[b"e"]))
    return Changes(PEOPLE, ids, bodies)


def _by_shard(ids: list[str]) -> dict[str, list[str]]:
    """Return the entries of each stream from places with the shard's number at their end."""
    found: dict[str, list[str]] = {}
    shards = keys.shards()
    for place in ids:
        entry_id, _, shard = place.rpartition("-")
        found.setdefault(keys.person_changes(shards[int(shard)]), []).append(entry_id)
    return found
