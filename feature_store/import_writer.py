"""Adding imported events, which stand in the log already, to the states of their people.

An import goes to each person once, however often it is applied: a marker says who has had it, and
is written together with the state.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import polars as pl
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys, scripts
from feature_store.errors import StoreUnavailableError
from feature_store.facts import PersonFacts, fact_frame, people_of
from feature_store.merging import Merger
from feature_store.person_values import added, comparing, touched
from feature_store.row_store import RowStore
from feature_store.script_runner import ScriptRunner

CHUNK = 256


class ImportWriter:
    """Writes imports, and what a rebuild reads from the log.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    rows : RowStore
        Gives rows to items.
    merger : Merger
        Completes merges that were begun, before a visitor who became a user is written to.
    """

    def __init__(self, redis: "Redis", rows: RowStore, merger: Merger) -> None:
        # redis-py types the commands of a pipeline, which return at once, like those of a client.
        self._redis: Any = redis
        self._rows = rows
        self._merger = merger
        self._scripts = ScriptRunner(redis)

    async def apply(
        self, import_id: str, events: pl.DataFrame, progress: Callable[[int, int], None]
    ) -> None:
        """Add imported events, which are in the log already, to what is known of their people.

        Parameters
        ----------
        import_id : str
            A person is given the events of one import once, however often this is called.
        events : DataFrame
            Distinct events: ``user_id``, ``anonymous_id``, ``item_id``, ``type`` (str),
            ``timestamp`` and, where there is feedback, ``extra`` (JSON with what was said).
        progress : callable
            Called with the number of people done and the number of all.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer; call again.
        """
        frame = await self._facts(events)
        n_people = frame["person"].n_unique()
        people = people_of(frame)
        done = 0
        try:
            while chunk := list(islice(people, CHUNK)):
                pending = chunk
                while pending:
                    pending = await self._add_states(import_id, pending)
                done += len(chunk)
                progress(done, n_people)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the import is not complete: {error}") from error

    async def forget(self, import_id: str) -> None:
        """Drop the markers of an import that is complete and will not be applied again."""
        names = [keys.import_marker(shard, import_id) for shard in keys.shards()]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.delete(name)
            await pipeline.execute()

    async def _facts(self, events: pl.DataFrame) -> pl.DataFrame:
        item_ids = events["item_id"].drop_nulls().unique(maintain_order=True).to_list()
        rows = await self._rows.rows_of(item_ids)
        return fact_frame(events, dict(zip(item_ids, rows, strict=True)))

    async def _add_states(self, import_id: str, people: list[PersonFacts]) -> list[PersonFacts]:
        """Add to each person's values; return those whose values changed in between."""
        targets = await self._targets(import_id, [one.person for one in people])
        people = [one for one in people if one.person in targets]
        names = [touched(targets[one.person], one) for one in people]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for mine in names:
                pipeline.mget(mine)
            read = await pipeline.execute()
        calls: list[tuple[list[str], list[bytes | str | int]]] = []
        for one, mine, values in zip(people, names, read, strict=True):
            target = targets[one.person]
            changed = added(target, dict(zip(mine, values, strict=True)), one)
            call_names, arguments = comparing(changed)
            marker = keys.import_marker(keys.shard_of(target), import_id)
            call_names += [marker, keys.link(target)]
            arguments += [keys.IMPORT_MARKER_TTL_S, one.person]
            calls.append((call_names, arguments))
        outcomes = await self._scripts.run(scripts.APPLY_IMPORT, calls)
        return [one for one, wrote in zip(people, outcomes, strict=True) if not wrote]

    async def _targets(self, import_id: str, people: list[str]) -> dict[str, str]:
        """Return to whose state each person's import goes; without those who have had it.

        It is the person's own, or the user's whom a visitor became. What was given to the visitor
        before is marked there, and a visitor who has a link is given no more.
        """
        targets = {person: person for person in people}
        visitors = [person for person in people if person.startswith("a:")]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for visitor in visitors:
                pipeline.get(keys.link(visitor))
                marker = keys.import_marker(keys.shard_of(visitor), import_id)
                pipeline.sismember(marker, visitor)
            read = await pipeline.execute()
        for at, visitor in enumerate(visitors):
            link, had_it = read[2 * at : 2 * at + 2]
            if link is None:
                continue
            targets[visitor] = await self._merger.follow(visitor, link)
            if had_it:
                del targets[visitor]
        return targets
