"""An emptied server gets back, byte by byte, what it held."""

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import ConflictError, UserError
from feature_store.event_log import EventLog
from feature_store.ingest.events import EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.run import import_events
from feature_store.ingest.source import find_sources
from feature_store.key_store import KeyRecord
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, ItemId, Money
from feature_store.store import Store

NOW = datetime.now(UTC).replace(microsecond=0)
VOLATILE = (b"{archive}:", b"i:", b"e:", b"c:", b"g:", b"q:")
"""Who archives, markers of imports that are over, streams that are empty, counters of a minute."""


async def snapshot(store: Store) -> dict[bytes, Any]:
    """Return every key of the server with its value, but for the volatile ones."""
    server: Any = store._redis
    found: dict[bytes, Any] = {}
    async for name in server.scan_iter(count=1000):
        if name.startswith(VOLATILE):
            continue
        kind = await server.type(name)
        if kind == b"string":
            found[name] = await server.get(name)
        elif kind == b"hash":
            found[name] = await server.hgetall(name)
        elif kind == b"list":
            found[name] = await server.lrange(name, 0, -1)
        elif kind == b"set":
            found[name] = await server.smembers(name)
        else:
            raise AssertionError(f"{name!r} is of the kind {kind!r}")
    return found


def event(number: int, **fields: Any) -> Event:
    kinds = [EventType.PURCHASE, EventType.VIEW, EventType.LIKE, EventType.IMPRESSION]
    said: dict[str, Any] = {}
    if number % 11 == 0:
        said = {"type": EventType.SURVEY, "instrument": "nps", "score": number % 11}
    elif number % 13 == 0:
        said = {"type": EventType.RATING, "value": 1 + number % 41 / 10}
    whose: dict[str, Any] = {"user_id": f"u{number % 23}"}
    if number % 5 == 0:
        whose = {"anonymous_id": f"v{number % 7}"}
    return Event(
        **{
            "event_id": f"live-{number}",
            "type": kinds[number % 4],
            "item_id": ItemId(f"i/{number % 400} ä"),
            "timestamp": datetime.fromtimestamp(1_750_000_000.125 + number * 977, UTC),
            "quantity": number % 3,
            "unit_price": Money(amount=Decimal(f"1.{number % 20}"), currency="EUR"),
            "context": {"z": 1, "country": "DE"},
            **said,
            **whose,
            **fields,
        }
    )


async def import_purchases(url: str, data_dir: Path, n: int) -> None:
    file = data_dir / "sales.csv"
    lines = [f"u{k % 9},i{k % 700},2024-0{1 + k % 9}-11T10:00:{k % 60:02d}Z" for k in range(n)]
    file.write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    fold = store_fold(url, data_dir / "catalogue")
    options = EventOptions(now=NOW)
    log, sources = EventLog(data_dir), find_sources(str(file), None)
    await asyncio.to_thread(import_events, log, sources, {}, options, fold=fold)


async def fill(store: Store, data_dir: Path) -> dict[bytes, Any]:
    """Import, live events, keys, a merge; return what the server holds, all of it archived."""
    await import_purchases(store.url, data_dir, 4_000)
    archiver = Archiver(store.streams, EventLog(data_dir))
    record = KeyRecord(key_id="k1", name="ä", scopes=frozenset({"a"}), digest="d", created_at=NOW)
    for start in range(0, 900, 300):
        await store.events.append([event(number) for number in range(start, start + 300)])
        await store.keys.put(record.model_copy(update={"key_id": f"k{start}"}))
        await archiver.run_all()
    await store.keys.put(record.model_copy(update={"key_id": "k0", "revoked_at": NOW}))
    for person, hidden in (("a:v5", ["i/5 ä", "b"]), ("u:u1", ["a"])):
        chosen = {"hidden_items": hidden, "email": {"frequency_days": len(hidden)}}
        await store.people.put_many("preferences", {person: chosen}, "me")
    await store.merger.merge("u1", "v5", NOW)
    await store.events.append([event(number) for number in range(900, 1000)])
    await archiver.compact()
    await archiver.drain(lambda *_: None)
    assert await store.streams.length() == 0
    return await snapshot(store)


async def test_a_flushed_server_is_rebuilt_byte_by_byte(store: Store, tmp_path: Path) -> None:
    before = await fill(store, tmp_path)
    kinds = {name.split(b"{")[0] for name in before}
    assert kinds == {b"h:", b"r:", b"t:", b"p:", b"n:", b"d:", b"l:", b"m:", b""}
    await store._redis.flushall()
    done = await rebuild(store.url, tmp_path)
    assert (done.events, done.keys, done.visitors) == (5_000, 3, 1)
    assert await snapshot(store) == before
    store.catalogue._known.clear()
    again = await store.events.append([event(number) for number in range(1000)])
    assert (again.accepted, again.duplicates, again.conflicts) == (0, 1000, 0)
    assert await snapshot(store) == before
    # And it goes on: what comes now is archived, and a second rebuild knows it.
    await store.events.append([event(2000, item_id=ItemId("new after the rebuild"))])
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    before = await snapshot(store)
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert await snapshot(store) == before


async def test_parts_of_a_second_come_back_as_they_were_taken(store: Store, tmp_path: Path) -> None:
    parts_us = (0, 1, 400, 999, 1_000, 1_999, 999_999)
    times = [NOW.replace(microsecond=one) for one in parts_us]
    sent = [event(n, event_id=f"at {n}", timestamp=at) for n, at in enumerate(times, start=1)]
    await store.events.append(sent)
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    before = await snapshot(store)
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert await snapshot(store) == before
    again = await store.events.append(sent)
    assert (again.duplicates, again.conflicts) == (len(sent), 0)


async def test_a_server_that_is_not_empty_is_refused(store: Store, tmp_path: Path) -> None:
    before = await fill(store, tmp_path)
    with pytest.raises(UserError, match="not empty"):
        await rebuild(store.url, tmp_path)
    assert await snapshot(store) == before
    await store._redis.set("somebody:else", "1")
    await store.events.append([event(5000, event_id="not yet archived")])
    changed = await snapshot(store)
    await rebuild(store.url, tmp_path, force=True)
    assert await snapshot(store) == changed
    assert "not yet archived" in EventLog(tmp_path).scan().collect()["event_id"]


async def test_not_while_a_service_works(store: Store, tmp_path: Path) -> None:
    assert await store.streams.lead("a service", 10.0)
    with pytest.raises(ConflictError, match="stop it"):
        await rebuild(store.url, tmp_path)


DIE = """
import asyncio, os, sys
from pathlib import Path
from feature_store import rebuilding
from feature_store import import_writer
from feature_store.import_writer import ImportWriter

step, calls = sys.argv[3], 0
if step == "states":
    add = ImportWriter._add_states
    async def die(self, *arguments):
        global calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), 9)
        return await add(self, *arguments)
    ImportWriter._add_states = die
    import_writer.CHUNK = 10
else:
    def die(*_, **__):
        os.kill(os.getpid(), 9)
    setattr(rebuilding._Rebuild, step, die)
asyncio.run(rebuilding.rebuild(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.mark.parametrize(
    "step", ["_restore_keys", "_restore_links", "states", "_restore_event_ids"]
)
async def test_a_killed_rebuild_goes_on(store: Store, tmp_path: Path, step: str) -> None:
    before = await fill(store, tmp_path)
    await store._redis.flushall()
    command = [sys.executable, "-c", DIE, store.url, str(tmp_path), step]
    died = await asyncio.to_thread(subprocess.run, command, check=False)
    assert died.returncode == -signal.SIGKILL
    archiver = Archiver(store.streams, EventLog(tmp_path))
    assert await archiver.run_once() == 0
    await rebuild(store.url, tmp_path)
    assert await snapshot(store) == before


async def test_rows_that_no_file_knows_come_back(store: Store, tmp_path: Path) -> None:
    items = [f"x{number}" for number in range(2_500)]
    await store.catalogue.rows_of(items)
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    before = await snapshot(store)
    assert CatalogueFiles(tmp_path / "catalogue").load().sequence == 0
    assert len(before[keys.CATALOGUE_LOG.encode()]) == 2_500
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert await snapshot(store) == before
