"""The catalogue as an import of items reaches it: in Redis and in its file."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import StoreUnavailableError
from feature_store.store import Store

T = TypeVar("T")
_ATTEMPTS = 5


class StoreSink:
    """An ``items.ItemSink``.

    Parameters
    ----------
    url : str
        Of the Redis server.
    catalogue_dir : Path
        Where the catalogue lives.
    """

    def __init__(self, url: str, catalogue_dir: Path) -> None:
        self._url = url
        self._files = CatalogueFiles(catalogue_dir)
        self._seen: int | None = None

    def current(self) -> Catalogue:
        """Return the catalogue as it is now, changes of a moment ago included."""

        async def read(store: Store) -> Catalogue:
            # A file may be published between the two reads; then the changes are in the newer one.
            for _ in range(_ATTEMPTS):
                current = self._files.load()
                await store.catalogue.restore(current.catalogue, current.sequence)
                changes = await store.catalogue.changes_since(current.sequence)
                if changes is not None:
                    self._seen = current.sequence + len(changes)
                    return current.catalogue.after(changes)
            raise StoreUnavailableError(
                "the server has forgotten changes that the catalogue's file does not have"
            )

        return self._with_store(read)

    def publish(self, items: pl.DataFrame, absent: pl.Series) -> None:
        """Add distinct items or replace them, and make others unavailable, all at once."""

        async def write(store: Store) -> None:
            await store.catalogue.import_items(self._files, items, absent, self._seen)

        self._with_store(write)

    def _with_store(self, use: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            store = await Store.open(self._url)
            try:
                return await use(store)
            finally:
                await store.close()

        return asyncio.run(run())
