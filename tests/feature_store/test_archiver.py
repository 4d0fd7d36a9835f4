"""Accepted events reach the log once and for all, whoever is killed when."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from feature_store import keys
from feature_store.archiver import KIND, Archiver
from feature_store.embedded import EmbeddedServer
from feature_store.errors import OverloadedError
from feature_store.event_log import EventLog
from feature_store.schema import Event, EventType, ItemId, Money
from feature_store.store import Store
from tests.waiting import until


def purchase(number: int, day: int = 1) -> Event:
    return Event(
        event_id=f"e{number}",
        type=EventType.PURCHASE,
        user_id=f"u{number % 17}",
        item_id=ItemId(f"i{number % 5}"),
        timestamp=datetime(2026, 1, day, tzinfo=UTC),
        unit_price=Money(amount=Decimal("1.50"), currency="EUR"),
        context={"country": "DE"},
    )


async def test_events_move_into_the_log_and_leave_the_server(store: Store, tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    archiver = Archiver(store.streams, log)
    assert await archiver.run_once() == 0
    await store.events.append([purchase(number, 1 + number % 3) for number in range(100)])
    assert await store.streams.length() == 100
    assert await archiver.run_all() == 100
    assert await store.streams.length() == 0
    await store.events.append([purchase(number) for number in range(90, 110)])
    assert await archiver.run_all() == 10
    frame = log.scan().collect()
    assert sorted(frame["event_id"]) == sorted(f"e{number}" for number in range(110))
    row = frame.row(0, named=True)
    assert (row["unit_price"], row["currency"], row["trust"]) == (1.5, "EUR", "server")
    assert orjson.loads(row["extra"]) == {"context": {"country": "DE"}}
    assert log.pending() == []


@pytest.mark.parametrize("step", ["commit", "write_json", "finish", "trim"])
async def test_a_round_that_dies_at_any_step_is_taken_up_again(
    store: Store, tmp_path: Path, step: str
) -> None:
    """The process dies for real: just before a step, by SIGKILL."""
    await store.events.append([purchase(number, 1 + number % 3) for number in range(50)])
    program = f"""
import asyncio, os, sys
from pathlib import Path
import feature_store.archiver as archiver
from feature_store.event_log import EventLog, PendingImport
from feature_store.store import Store
from feature_store.stream_store import StreamStore

def die(*_, **__):
    os.kill(os.getpid(), 9)

calls = 0
trim = StreamStore.trim
async def die_at_the_second_trim(self, upto):
    global calls
    calls += 1
    if calls == 2:
        die()
    await trim(self, upto)

if {step!r} == "commit": PendingImport.commit = die
if {step!r} == "write_json": archiver.write_json = die
if {step!r} == "finish": EventLog.finish = die
if {step!r} == "trim": StreamStore.trim = die_at_the_second_trim

async def main():
    store = await Store.open(sys.argv[1], read_timeout_s=5.0)
    await archiver.Archiver(store.streams, EventLog(Path(sys.argv[2]))).run_once()

asyncio.run(main())
"""
    died = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, store.url, str(tmp_path)
    )
    assert await died.wait() == -signal.SIGKILL
    await store.events.append([purchase(number) for number in range(45, 60)])
    log = EventLog(tmp_path)
    await Archiver(store.streams, log).run_all()
    assert sorted(log.scan().collect()["event_id"]) == sorted(f"e{n}" for n in range(60))
    assert await store.streams.length() == 0
    assert [one for one in log.pending() if one.info.get("kind") == KIND] == []


async def test_an_import_in_progress_makes_the_archive_wait(store: Store, tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    await store.events.append([purchase(1)])
    with log.importing():
        assert await Archiver(store.streams, log).run_once() == 0
    assert await store.streams.length() == 1
    assert await Archiver(store.streams, log).run_once() == 1


async def test_one_leads_and_another_takes_over(store: Store) -> None:
    assert await store.streams.lead("a", 60.0)
    assert await store.streams.lead("a", 60.0)
    assert not await store.streams.lead("b", 60.0)
    await store.streams.resign("b")
    assert not await store.streams.lead("b", 60.0)
    await store._redis.pexpire(keys.ARCHIVER, 1)
    await asyncio.sleep(0.05)
    assert await store.streams.lead("b", 60.0)
    await store.streams.resign("b")
    assert await store.streams.lead("a", 30.0)
    assert await store._redis.pttl(keys.ARCHIVER) <= 30_000
    await store.streams.resign("a")


def test_a_killed_archiver_is_followed_by_another(server: EmbeddedServer, tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; "
        "import feature_store.archiver as a; a.LEASE_S = 1.0; a.ROUND_S = 0.1; "
        "from feature_store.event_log import EventLog; from feature_store.store import Store\n"
        "async def main():\n"
        "    store = await Store.open(sys.argv[1], read_timeout_s=5.0)\n"
        "    await a.Archiver(store.streams, EventLog(Path(sys.argv[2]))).run_for_ever()\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", program, server.url, str(tmp_path)]
    workers = [subprocess.Popen(command) for _ in range(2)]
    log = EventLog(tmp_path)

    async def append(first: int) -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        await store.events.append([purchase(number) for number in range(first, first + 10)])
        await store.close()

    try:
        asyncio.run(append(1000))
        until(lambda: log.count() >= 10)
        workers[0].kill()
        workers[0].wait()
        asyncio.run(append(2000))
        until(lambda: log.count() >= 20)
    finally:
        for worker in workers:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait()
    assert log.count() == 20


async def test_at_the_bound_events_are_refused_and_reading_goes_on(
    server: EmbeddedServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_store.stream_store.COUNT_EVERY_S", 0.0)
    bounded = Store(server.url, max_waiting_events=20)
    await bounded.events.append([purchase(number) for number in range(20)])
    with pytest.raises(OverloadedError, match="20 events wait to be archived") as caught:
        await bounded.events.append([purchase(20)])
    assert caught.value.retry_after_s > 0
    assert len((await bounded.load_context("u:u3")).state.rows) > 0
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    assert (await bounded.events.append([purchase(20)])).accepted == 1
    await bounded.close()


async def test_a_cancelled_archiver_ends_although_the_server_is_gone(tmp_path: Path) -> None:
    """What it may still have to say must not take the place of the cancellation."""
    server = EmbeddedServer(tmp_path / "server", fsync="everysec")
    store = await Store.open(server.start(), read_timeout_s=5.0)
    task = asyncio.create_task(Archiver(store.streams, EventLog(tmp_path)).run_for_ever())
    await asyncio.sleep(0.2)
    await asyncio.to_thread(server.stop)
    task.cancel()
    await asyncio.wait([task], timeout=60.0)
    assert task.done()
    await store.close()
