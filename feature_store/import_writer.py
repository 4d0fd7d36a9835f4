"""Adding imported events, which stand in the log already, to the states of their people.

An import goes to each person once, however often it is applied: a marker says who has had it, and
is written together with the state. What was forgotten of a person since the import began is left
out: the script compares what is forgotten with what the facts were made from.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import polars as pl
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys, scripts
from feature_store.errors import StoreUnavailableError
from feature_store.facts import PersonFacts, fact_frame, people_of, person_column
from feature_store.forgetting.ledger import Cut
from feature_store.forgetting.server import Forgetting
from feature_store.impressions import HOUR_S, NO_IMPRESSIONS
from feature_store.merging import Merger
from feature_store.person_values import added, comparing, touched
from feature_store.row_store import RowStore
from feature_store.script_runner import ScriptRunner
from feature_store.state import EMPTY_STATE

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
    forgetting : Forgetting
        Says who is forgotten.
    """

    def __init__(
        self, redis: "Redis", rows: RowStore, merger: Merger, forgetting: Forgetting
    ) -> None:
        # redis-py types the commands of a pipeline, which return at once, like those of a client.
        self._redis: Any = redis
        self._rows = rows
        self._merger = merger
        self._forgetting = forgetting
        self._scripts = ScriptRunner(redis)

    async def apply(
        self,
        import_id: str,
        events: pl.DataFrame,
        progress: Callable[[int, int], None],
        *,
        kept: bool = False,
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
        kept : bool
            Whether what is forgotten was left out already, and merges were repeated since.

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
                    pending = await self._add_states(import_id, pending, None if kept else events)
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

    async def _add_states(
        self, import_id: str, people: list[PersonFacts], events: pl.DataFrame | None
    ) -> list[PersonFacts]:
        """Add to each person's values; return those whose values changed in between."""
        targets = await self._targets(import_id, [one.person for one in people])
        people = [one for one in people if one.person in targets]
        owners = await self._forgetting.guards([targets[one.person] for one in people])
        if events is not None:
            own = await self._forgetting.guards([one.person for one in people])
            kept = await self._without_forgotten(people, [guard.cut for guard in own], events)
        else:
            kept = people
        names = [touched(targets[one.person], one) for one in kept]
        read = await self._values(names)
        calls: list[tuple[list[str], list[bytes | str | int]]] = []
        for one, mine, values, guard in zip(kept, names, read, owners, strict=True):
            target = targets[one.person]
            changed = added(target, dict(zip(mine, values, strict=True)), one)
            call_names, arguments = comparing(changed)
            marker = keys.import_marker(keys.shard_of(target), import_id)
            call_names += [guard.key, marker, keys.link(target), keys.merges(target)]
            arguments += [*guard.arguments(), keys.IMPORT_MARKER_TTL_S, one.person]
            arguments.append("" if target == one.person else one.person)
            calls.append((call_names, arguments))
        outcomes = await self._scripts.run(scripts.APPLY_IMPORT, calls)
        return [one for one, wrote in zip(people, outcomes, strict=True) if not wrote]

    async def _values(self, names: list[list[str]]) -> list[list[bytes | None]]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for mine in names:
                if mine:
                    pipeline.mget(mine)
            found = iter(await pipeline.execute())
        return [next(found) if mine else [] for mine in names]

    async def _without_forgotten(
        self, people: list[PersonFacts], cuts: list[Cut], events: pl.DataFrame
    ) -> list[PersonFacts]:
        """Make the facts of who is forgotten again, from the events that are not."""
        before = {
            one.person: cut.before_ms
            for one, cut in zip(people, cuts, strict=True)
            if _oldest_ms(one) < cut.before_ms
        }
        if not before:
            return people
        table = pl.DataFrame(
            {"person": list(before), "before": list(before.values())},
            {"person": pl.String, "before": pl.Int64},
        )
        late = (
            events.with_columns(person_column())
            .join(table, on="person")
            .filter(pl.col("timestamp").dt.epoch("ms") >= pl.col("before"))
        )
        made = {one.person: one for one in people_of(await self._facts(late.drop("before")))}
        return [
            made.get(one.person, PersonFacts(one.person, EMPTY_STATE, NO_IMPRESSIONS))
            if one.person in before
            else one
            for one in people
        ]

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


def _oldest_ms(one: PersonFacts) -> int:
    """Return a time before which no event that a person's facts are made of can lie."""
    times_s = [int(one.state.first_s.min())] if len(one.state.rows) else []
    if len(one.impressions.rows):
        times_s.append(int(one.impressions.hours.min()) * HOUR_S)
    return 1000 * min(times_s, default=0)
