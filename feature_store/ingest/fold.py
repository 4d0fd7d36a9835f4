"""The last step of an import: its events join the states of their people in Redis."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from feature_store.catalogue_files import CatalogueFiles
from feature_store.ingest.run import Fold
from feature_store.ingest.table import Progress
from feature_store.store import Store


def store_fold(url: str, catalogue_dir: Path) -> Fold:
    """Return what `import_events` calls to reach the states.

    Parameters
    ----------
    url : str
        Of the Redis server.
    catalogue_dir : Path
        Where the catalogue lives; items that only the events know are added to it.
    """

    def fold(
        import_id: str, frames: Iterator[pl.DataFrame], n_events: int, progress: Progress
    ) -> None:
        asyncio.run(_fold(url, catalogue_dir, import_id, frames, n_events, progress))

    return fold


async def _fold(
    url: str,
    catalogue_dir: Path,
    import_id: str,
    frames: Iterator[pl.DataFrame],
    n_events: int,
    progress: Progress,
) -> None:
    store = await Store.open(url)
    try:
        files = CatalogueFiles(catalogue_dir)
        current = files.load()
        # A server that lost its data must not give rows anew that states and files refer to.
        await store.catalogue.restore(current.catalogue, current.sequence)
        done = 0
        for frame in frames:

            def tell(people: int, of: int, before: int = done, size: int = len(frame)) -> None:
                progress("folding", before + size * people // max(of, 1), n_events)

            await store.imports.apply(import_id, frame, tell)
            done += len(frame)
        if await store.catalogue.sequence() > current.sequence:
            # Thousands of new items belong into the mapped file, not into every worker's memory.
            await store.catalogue.import_items(files, pl.DataFrame(schema={"item_id": pl.String}))
    finally:
        await store.close()
