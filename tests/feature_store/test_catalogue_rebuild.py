"""An emptied server gets the log of its items back, byte by byte, before and after a new file."""

from pathlib import Path

import polars as pl
import pytest

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.catalogue_compaction import compact
from feature_store.catalogue_files import CatalogueFiles
from feature_store.event_log import EventLog
from feature_store.item_changes import ItemWrite
from feature_store.rebuilding import rebuild
from feature_store.store import Store
from tests.feature_store.test_rebuilding import snapshot


async def change_items(store: Store, prefix: str) -> None:
    """Write one entry of each kind."""
    put = {"title": 'ä/\\" {x}', "price": {"amount": "1.50", "currency": "EUR"}}
    await store.catalogue.write(
        [
            ItemWrite("put", f"{prefix} a/b", put),
            ItemWrite("patch", f"{prefix} a/b", {"attributes": {"a": [None, 1.5], "b": None}}),
            ItemWrite("put", f"{prefix} gone", {}),
            ItemWrite("delete", f"{prefix} gone", {}),
        ]
    )
    await store.catalogue.rows_of([f"{prefix} stub {number}" for number in range(5)])


@pytest.mark.parametrize("times", [0, 1, 2])
async def test_changes_of_items_come_back(store: Store, tmp_path: Path, times: int) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    archiver = Archiver(store.streams, EventLog(tmp_path))
    for number in range(times):
        await change_items(store, f"before {number}")
        feed = pl.DataFrame({"item_id": [f"fed {number}", "fed"], "title": ["T", str(number)]})
        await store.catalogue.import_items(files, feed)
        await archiver.run_all()
        await change_items(store, f"between {number}")
        await archiver.run_all()
        await compact(store.url, tmp_path, 1)
    await change_items(store, "after")
    await archiver.run_all()
    before = await snapshot(store)
    assert before[keys.CATALOGUE_LOG.encode()]
    changes = await store.catalogue.changes_since(files.load().sequence)
    assert changes is not None
    items = files.load().catalogue.after(changes)
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert await snapshot(store) == before
    changes = await store.catalogue.changes_since(files.load().sequence)
    assert changes is not None
    again = files.load().catalogue.after(changes)
    documents = [[one.item(row) for row in range(one.n_rows)] for one in (items, again)]
    assert documents[0] == documents[1]
