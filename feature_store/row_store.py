"""Which row belongs to which item: the one authority, and the log of the catalogue's changes."""

from collections.abc import Sequence
from typing import Any

import orjson
import polars as pl
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys, scripts
from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFiles, merged_frame
from feature_store.errors import StoreUnavailableError
from feature_store.item_columns import stub_columns

_CHUNK = 2_000
_CACHED_ROWS = 200_000


class RowStore:
    """Gives rows to items and tells what changed.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._allot = redis.register_script(scripts.ALLOT_ROWS)
        self._known: dict[str, int] = {}

    async def rows_of(self, item_ids: Sequence[str]) -> list[int]:
        """Return the row of each item; one that has none gets the next.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        missing = list(dict.fromkeys(item for item in item_ids if item not in self._known))
        if len(self._known) + len(missing) > _CACHED_ROWS:
            missing = list(dict.fromkeys(item_ids))
            self._known = {}
        try:
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                rows = await self._allot(
                    keys=[
                        keys.CATALOGUE_IDS,
                        keys.CATALOGUE_LOG,
                        keys.CATALOGUE_SEQUENCE,
                        keys.CATALOGUE_NEXT_ROW,
                    ],
                    args=chunk,
                )
                self._known.update(zip(chunk, rows, strict=True))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the catalogue cannot be extended: {error}") from error
        return [self._known[item] for item in item_ids]

    async def changes_since(self, sequence: int) -> list[tuple[int, dict[str, Any]]] | None:
        """Return the catalogue's changes after the first `sequence` ones, oldest first.

        Returns
        -------
        list of (int, dict) or None
            Row and columns of each; ``None`` when some of them are only in a newer file.
        """
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(keys.CATALOGUE_START)
            pipeline.lrange(keys.CATALOGUE_LOG, 0, -1)
            try:
                start, entries = await pipeline.execute()
            except (RedisError, OSError) as error:
                raise StoreUnavailableError(f"the catalogue cannot be read: {error}") from error
        skip = sequence - int(start or 0)
        if skip < 0:
            return None
        changes = [orjson.loads(entry) for entry in entries[skip:]]
        return [(change["row"], stub_columns(change["item_id"])) for change in changes]

    async def sequence(self) -> int:
        """Return how many changes the catalogue has had."""
        return int(await self._redis.get(keys.CATALOGUE_SEQUENCE) or 0)

    async def restore(self, catalogue: Catalogue, sequence: int) -> bool:
        """Teach an emptied server the rows that the catalogue's file has given.

        Returns
        -------
        bool
            Whether that was needed.
        """
        if catalogue.n_rows == 0 or await self._redis.exists(keys.CATALOGUE_IDS):
            return False
        rows = [(item, row) for row, item in enumerate(catalogue.item_ids()) if item is not None]
        async with self._redis.pipeline(transaction=True) as pipeline:
            for start in range(0, len(rows), _CHUNK):
                chunk: dict[Any, Any] = dict(rows[start : start + _CHUNK])
                pipeline.hset(keys.CATALOGUE_IDS, mapping=chunk)
            pipeline.set(keys.CATALOGUE_START, sequence)
            pipeline.set(keys.CATALOGUE_SEQUENCE, sequence)
            # Not the number of ids: a row that was given but never written is not given again.
            pipeline.set(keys.CATALOGUE_NEXT_ROW, catalogue.n_rows)
            await pipeline.execute()
        return True

    async def import_items(self, files: CatalogueFiles, items: pl.DataFrame) -> str:
        """Add or replace items in bulk: rows from the server, columns straight into a new file.

        Parameters
        ----------
        files : CatalogueFiles
            Where the catalogue lives.
        items : DataFrame
            Distinct items, ``item_id`` and any of ``item_columns.COLUMNS``.

        Returns
        -------
        str
            Version of the new catalogue file.
        """
        current = files.load()
        await self.restore(current.catalogue, current.sequence)
        rows = await self.rows_of(items["item_id"].to_list())
        sequence = await self.sequence()
        changes = await self.changes_since(current.sequence) or []
        catalogue = current.catalogue.with_changes(changes)
        version = files.publish(merged_frame(catalogue, items, rows), sequence)
        await self._trim(sequence)
        return version

    async def _trim(self, sequence: int) -> None:
        """Forget the changes that the file includes; a worker behind them reads the file."""
        start = int(await self._redis.get(keys.CATALOGUE_START) or 0)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.ltrim(keys.CATALOGUE_LOG, sequence - start, -1)
            pipeline.set(keys.CATALOGUE_START, sequence)
            await pipeline.execute()
