"""The log is folded into the file while items are written, imported and killed: nothing is lost."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from feature_store import keys
from feature_store.catalogue import Catalogue
from feature_store.catalogue_compaction import compact, compact_apart
from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import ConflictError
from feature_store.event_log import EventLog
from feature_store.item_changes import ItemWrite
from feature_store.store import Store

DIE = """
import os, signal, sys, asyncio
from pathlib import Path
from feature_store import catalogue_compaction, catalogue_files, row_store
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
url, folder, step = sys.argv[1:]
if step == "before the file": catalogue_files._write = die
if step == "before it counts": catalogue_files.sync_folder = die
if step == "before the log is trimmed": row_store.RowStore._trim = die
asyncio.run(catalogue_compaction.compact(url, Path(folder), 1))
"""


async def patch(store: Store, item_id: str, **fields: object) -> None:
    await store.catalogue.write([ItemWrite("patch", item_id, fields)])


async def newest(store: Store, files: CatalogueFiles) -> Catalogue:
    file = files.load()
    changes = await store.catalogue.changes_since(file.sequence)
    assert changes is not None
    return file.catalogue.after(changes)


async def titles(store: Store, files: CatalogueFiles) -> dict[str, str]:
    catalogue = await newest(store, files)
    items = [catalogue.item(row) for row in range(catalogue.n_rows)]
    return {item["item_id"]: item["title"] for item in items}


@pytest.mark.parametrize(
    "step", ["before the file", "before it counts", "before the log is trimmed"]
)
async def test_killed_at_any_moment_it_loses_nothing(
    store: Store, tmp_path: Path, step: str
) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    for number in range(40):
        await store.catalogue.write([ItemWrite("put", f"i{number}", {"title": "0"})])
    await compact(store.url, tmp_path, 1)
    for number in range(0, 40, 2):
        await patch(store, f"i{number}", title="1")
    before = await titles(store, files)
    command = [sys.executable, "-c", DIE, store.url, str(tmp_path), step]
    died = await asyncio.to_thread(subprocess.run, command, check=False)
    assert died.returncode == -signal.SIGKILL
    assert await titles(store, files) == before
    await patch(store, "i1", title="2")
    assert await compact_apart(store.url, tmp_path, 1) is not None
    assert await titles(store, files) == {**before, "i1": "2"}
    assert not list((tmp_path / "catalogue").glob("*.partial"))


async def test_below_the_threshold_and_beside_others_nothing_is_done(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.catalogue.write([ItemWrite("put", "a", {})])
    assert await compact_apart(store.url, tmp_path, 2) is None
    files = CatalogueFiles(tmp_path / "catalogue")
    with files.editing(), pytest.raises(ConflictError):
        await compact_apart(store.url, tmp_path, 1)
    monkeypatch.setattr("feature_store.catalogue_compaction.LOCK_WAIT_S", 0.0)
    with EventLog(tmp_path).importing(), pytest.raises(ConflictError):
        await compact(store.url, tmp_path, 1)
    await store._redis.set(keys.REBUILDING, "r")
    assert await compact(store.url, tmp_path, 1) is None


async def test_a_worker_one_file_behind_goes_on_from_the_log(store: Store, tmp_path: Path) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    await store.catalogue.write([ItemWrite("put", f"i{number}", {}) for number in range(10)])
    await compact(store.url, tmp_path, 1)
    behind = files.load()
    for title in "xy":
        await patch(store, "i3", title=title)
    await compact(store.url, tmp_path, 1)
    changes = await store.catalogue.changes_since(behind.sequence)
    assert changes is not None
    assert behind.catalogue.after(changes).item(3)["title"] == "y"
    await patch(store, "i4", title="z")
    await compact(store.url, tmp_path, 1)
    assert await store.catalogue.changes_since(behind.sequence) is None
    assert (await titles(store, files))["i3"] == "y"


async def test_imports_and_writes_at_once_lose_nothing(store: Store, tmp_path: Path) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    n_rounds = 6

    async def write() -> None:
        for number in range(60):
            await patch(store, "live", attributes={f"a{number}": number})
            await store.catalogue.write([ItemWrite("put", f"new {number}", {"title": "live"})])
            await asyncio.sleep(0.01)

    async def publish() -> None:
        for number in range(n_rounds):
            frame = pl.DataFrame({"item_id": [f"f{number}", "fed"], "title": ["fed", str(number)]})
            await store.catalogue.import_items(files, frame)
            await compact(store.url, tmp_path, 1)

    await store.catalogue.write([ItemWrite("put", "live", {})])
    await asyncio.gather(write(), publish())
    catalogue = await newest(store, files)
    row = catalogue.row("live")
    assert row is not None
    assert catalogue.item(row)["attributes"] == {f"a{k}": k for k in range(60)}
    found = await titles(store, files)
    assert found["fed"] == str(n_rounds - 1)
    assert all(found[f"new {number}"] == "live" for number in range(60))
    assert all(found[f"f{number}"] == "fed" for number in range(n_rounds))


async def test_an_import_that_died_leaves_ids_not_riddles(store: Store, tmp_path: Path) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    await store.catalogue._allotted(["a", "b"], together=True)
    live = await newest(store, files)
    assert (live.n_rows, live.item_id(1)) == (2, None)
    await compact(store.url, tmp_path, 1)
    assert files.load().catalogue.item_ids() == ["a", "b"]
    assert await store.catalogue.rows_of(["b", "c"]) == [1, 2]


async def test_what_a_feed_has_not_seen_is_not_undone_by_it(store: Store, tmp_path: Path) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    await store.catalogue.write([ItemWrite("put", "a", {"title": "old"})])
    seen = await store.catalogue.sequence()
    await patch(store, "a", title="patched after the feed had looked")
    feed = pl.DataFrame(
        {"item_id": ["a", "b"], "title": ["old", "new"], "available": [False, True]}
    )
    await store.catalogue.import_items(files, feed, seen=seen)
    catalogue = await newest(store, files)
    titled = {"a": "patched after the feed had looked", "b": "new"}
    assert await titles(store, files) == titled
    assert catalogue.item(0)["available"] is False
    # The rows that it was given stand in the log after what it has seen.
    await compact(store.url, tmp_path, 1)
    assert await titles(store, files) == titled
