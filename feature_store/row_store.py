"""Which row belongs to which item: the one authority, and the log of the catalogue's changes."""

import asyncio
from collections.abc import Iterable, Sequence

import polars as pl
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys, scripts
from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFiles, merged_frame
from feature_store.errors import StoreUnavailableError
from feature_store.item_changes import ItemChange, ItemWrite, read_change, reserved_rows
from feature_store.withdrawal import withdrawn

_CHUNK = 2_000
_CACHED_ROWS = 200_000
_KEYS = (
    keys.CATALOGUE_IDS,
    keys.CATALOGUE_LOG,
    keys.CATALOGUE_SEQUENCE,
    keys.CATALOGUE_NEXT_ROW,
)


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
        self._change = redis.register_script(scripts.CHANGE_ITEMS)
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
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            self._known.update(zip(chunk, await self._allotted(chunk), strict=True))
        return [self._known[item] for item in item_ids]

    async def _allotted(self, item_ids: list[str], *, together: bool = False) -> list[int]:
        """Return rows; new ones are noted in the log, if `together` as one entry."""
        try:
            rows: list[int] = await self._allot(keys=_KEYS, args=[int(together), *item_ids])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the catalogue cannot be extended: {error}") from error
        return rows

    async def write(
        self, changes: Iterable[ItemWrite], expected_sequence: int | None = None
    ) -> bool:
        """Note changes of items in the log, all of them or none; they count from then on.

        Parameters
        ----------
        changes : iterable of ItemWrite
            Checked; an item that has no row gets one.
        expected_sequence : int or None
            How many entries the log must have had until now; ``None`` for any number.

        Returns
        -------
        bool
            False if the log has grown meanwhile; then nothing was written.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer; the changes may have been written all the same.
        """
        arguments: list[bytes | str] = ["" if expected_sequence is None else str(expected_sequence)]
        for change in changes:
            arguments += [change.item_id, change.suffix()]
        if len(arguments) == 1:
            return True
        try:
            return bool(await self._change(keys=_KEYS, args=arguments))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the items cannot be written: {error}") from error

    async def changes_since(
        self, sequence: int, *, reserved: bool = False
    ) -> list[ItemChange] | None:
        """Return the catalogue's changes after the first `sequence` ones, oldest first.

        Parameters
        ----------
        sequence : int
            How many are known.
        reserved : bool
            Whether to say for which items imports have reserved rows.

        Returns
        -------
        list of ItemChange or None
            One for each entry of the log; ``None`` when some of them are only in a newer file.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        for _ in range(3):
            start = int(await self._read(keys.CATALOGUE_START) or 0)
            if sequence < start:
                return None
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(keys.CATALOGUE_START)
                pipeline.lrange(keys.CATALOGUE_LOG, sequence - start, -1)
                try:
                    now, entries = await pipeline.execute()
                except (RedisError, OSError) as error:
                    raise _unreadable(error) from error
            # Trimmed between the two questions: the places in the list have moved.
            if int(now or 0) == start:
                return [read_change(entry, reserved=reserved) for entry in entries]
        return None

    async def _read(self, key: str) -> bytes | str | None:
        try:
            return await self._redis.get(key)
        except (RedisError, OSError) as error:
            raise _unreadable(error) from error

    async def sequence(self) -> int:
        """Return how many changes the catalogue has had."""
        return int(await self._read(keys.CATALOGUE_SEQUENCE) or 0)

    async def restore(self, catalogue: Catalogue, sequence: int) -> bool:
        """Teach an emptied server the rows that the catalogue's file has given.

        Parameters
        ----------
        catalogue : Catalogue
            As it is in the file.
        sequence : int
            The file's.

        Returns
        -------
        bool
            Whether that was needed.
        """
        if catalogue.n_rows == 0 or await self._redis.exists(keys.CATALOGUE_IDS):
            return False
        await self._redis.delete(keys.CATALOGUE_NEW_IDS)
        # Beside the real one, so that a restore that is killed leaves nothing that looks whole.
        for part in catalogue.frame.select("item_id").with_row_index("row").iter_slices(_CHUNK):
            known = part.filter(pl.col("item_id").is_not_null())
            if len(known):
                rows = dict(zip(known["item_id"].to_list(), known["row"].to_list(), strict=True))
                await self._redis.hset(keys.CATALOGUE_NEW_IDS, mapping=rows)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rename(keys.CATALOGUE_NEW_IDS, keys.CATALOGUE_IDS)
            pipeline.set(keys.CATALOGUE_START, sequence)
            pipeline.set(keys.CATALOGUE_SEQUENCE, sequence)
            # Not the number of ids: a row that was given but never written is not given again.
            pipeline.set(keys.CATALOGUE_NEXT_ROW, catalogue.n_rows)
            await pipeline.execute()
        return True

    async def import_items(
        self,
        files: CatalogueFiles,
        items: pl.DataFrame,
        absent: pl.Series | None = None,
        seen: int | None = None,
    ) -> str:
        """Add or replace items in bulk: rows from the server, columns straight into a new file.

        What is written meanwhile comes after the import, and lies over its file.

        Parameters
        ----------
        files : CatalogueFiles
            Where the catalogue lives.
        items : DataFrame
            Distinct items, ``item_id`` and any of ``item_columns.COLUMNS``.
        absent : Series of str, optional
            Items that become unavailable, and else stay as they are at that moment.
        seen : int, optional
            How many changes whoever made `items` knew of; later ones lie over them. ``None`` for
            all until now.

        Returns
        -------
        str
            Version of the new catalogue file.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        with files.editing():
            return await self._publish(files, items, absent, seen)

    async def compact(self, files: CatalogueFiles, least: int) -> str | None:
        """Publish a file with what changed since the last one, and trim the log.

        Parameters
        ----------
        files : CatalogueFiles
            Where the catalogue lives.
        least : int
            Below so many changes nothing is done.

        Returns
        -------
        str or None
            Version of the new file, if there is one.

        Raises
        ------
        ConflictError
            If an import or another compaction is at work.
        StoreUnavailableError
            If the server does not answer.
        """
        with files.editing(busy="somebody else publishes the catalogue"):
            current = await asyncio.to_thread(files.load)
            if await self.sequence() - current.sequence < max(least, 1):
                return None
            return await self._publish(files, pl.DataFrame(schema={"item_id": pl.String}))

    async def _publish(
        self,
        files: CatalogueFiles,
        items: pl.DataFrame,
        absent: pl.Series | None = None,
        seen: int | None = None,
    ) -> str:
        """Do the work of an import or a compaction, while the files are held."""
        current = await asyncio.to_thread(files.load)
        await self.restore(current.catalogue, current.sequence)
        rows: list[int] = []
        for part in items.select("item_id").iter_slices(_CHUNK):
            rows += await self._allotted(part["item_id"].to_list(), together=True)
        changes = await self.changes_since(current.sequence, reserved=True)
        if changes is None:
            raise StoreUnavailableError(
                "the server has forgotten changes that the catalogue's file does not have"
            )
        if seen is not None:
            changes = changes[: max(0, seen - current.sequence)]
        sequence = current.sequence + len(changes)

        def merge() -> str:
            catalogue = current.catalogue.after(changes)
            frame = merged_frame(catalogue, items, rows, reserved_rows(changes))
            frame = frame if absent is None else withdrawn(frame, absent)
            # The entries of one file before stay: a worker that is behind need not read the file.
            return files.replace(frame, sequence, current.sequence)

        version = await asyncio.to_thread(merge)
        await self._trim(current.sequence)
        return version

    async def _trim(self, upto: int) -> None:
        """Forget the first `upto` changes; a worker behind them reads the file."""
        start = int(await self._read(keys.CATALOGUE_START) or 0)
        if upto <= start:
            return
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.ltrim(keys.CATALOGUE_LOG, upto - start, -1)
            pipeline.set(keys.CATALOGUE_START, upto)
            try:
                await pipeline.execute()
            except (RedisError, OSError) as error:
                raise StoreUnavailableError(f"the log cannot be trimmed: {error}") from error


def _unreadable(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"the catalogue cannot be read: {error}")
