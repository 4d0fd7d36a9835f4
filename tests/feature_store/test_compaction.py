"""Small files become one, and whoever reads at whatever moment sees every event once."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from feature_store.compaction import GRACE_S, arrived_at, compact_all, remove_superseded
from feature_store.event_log import EventLog
from feature_store.store import Store
from tests.feature_store.test_archiver import purchase
from tests.feature_store.test_event_log import events

FILES = 12


def fill(log: EventLog, days: int = 2) -> list[str]:
    """Write files as the archive does; return all ids."""
    for number in range(FILES):
        times = [datetime(2026, 1, day + 1, 9, number, tzinfo=UTC) for day in range(days)]
        with log.importing():
            pending = log.begin(f"live-20260101T00{number:02d}00000000-abcd")
            pending.write(events(times))
            pending.commit({"kind": "archive", "marks": {}})
            log.finish(pending.import_id)
            log.forget(pending.import_id)
    return sorted(log.scan().collect()["event_id"])


def test_a_day_becomes_one_file_and_the_old_ones_go_later(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    ids = fill(log)
    assert len(set(ids)) == len(ids) == 2 * FILES
    listed_before = log.scan()
    with log.importing():
        assert compact_all(log, 1_000.0) == 2
    assert len(log.files()) == 2
    assert sorted(log.scan().collect()["event_id"]) == ids
    assert sorted(listed_before.collect()["event_id"]) == ids, "an early reader reads on"
    assert arrived_at(log.files()[0].name) == "20260101T001100000000"
    with log.importing():
        assert remove_superseded(log, 1_000.0 + GRACE_S - 1) == 0
        assert remove_superseded(log, 1_000.0 + GRACE_S + 1) == 2 * FILES
        assert compact_all(log, 3_000.0) == 0, "one file is not merged again"
    assert sorted(log.scan().collect()["event_id"]) == ids
    assert len(list(log.events.glob("*/*.parquet"))) == 2
    assert log.superseded() == set()


def test_imports_and_days_with_few_files_stay_as_they_are(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for number in range(3):
        with log.importing():
            pending = log.begin(f"import-{number}")
            pending.write(events([datetime(2026, 1, 1, number, tzinfo=UTC)]))
            pending.commit({})
            log.finish(pending.import_id)
    with log.importing():
        assert compact_all(log, 0.0, min_files=2) == 0
    assert len(log.files()) == 3


DIE = """
import os, sys
from pathlib import Path
from feature_store import compaction
from feature_store.event_log import EventLog, PendingImport
from feature_store import event_log

def die(*_, **__):
    os.kill(os.getpid(), 9)

step = sys.argv[2]
calls = 0
unlink = Path.unlink
def die_at_the_fifth(self, missing_ok=False):
    global calls
    calls += self.suffix == ".parquet"
    if calls == 5:
        die()
    unlink(self, missing_ok=missing_ok)

if step == "write": PendingImport.write = die
if step == "commit": PendingImport.commit = die
if step == "move": EventLog.move_into_place = die
if step == "finish": EventLog.finish = die
if step == "unlink": Path.unlink = die_at_the_fifth
if step == "forget": EventLog.forget = die

log = EventLog(Path(sys.argv[1]))
with log.importing():
    compaction.compact_all(log, 1_000.0)
    compaction.remove_superseded(log, 5_000.0)
"""


@pytest.mark.parametrize("step", ["write", "commit", "move", "finish", "unlink", "forget"])
def test_killed_at_any_step_every_event_is_seen_once(tmp_path: Path, step: str) -> None:
    """The process dies for real, by SIGKILL, just before the step."""
    log = EventLog(tmp_path)
    ids = fill(log)
    died = subprocess.run([sys.executable, "-c", DIE, str(tmp_path), step], check=False)
    assert died.returncode == -signal.SIGKILL
    assert sorted(log.scan().collect()["event_id"]) == ids
    with log.importing():
        log.discard_unfinished()
        assert sorted(pl.read_parquet(log.files())["event_id"]) == ids, "without a reader's help"
        compact_all(log, 10_000.0)
        remove_superseded(log, 20_000.0)
    assert sorted(log.scan().collect()["event_id"]) == ids
    assert len(list(log.events.glob("*/*.parquet"))) == 2
    assert list(log.imports.glob("compact-*")) == []


def test_readers_at_every_moment(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    ids = fill(log)
    program = DIE.replace("with log", "print('ready', flush=True); sys.stdin.read()\nwith log")
    merging = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert merging.stdin is not None
    assert merging.stdout is not None
    looks = 0
    try:
        assert merging.stdout.readline() == b"ready\n"
        while merging.poll() is None:
            # Listed and opened in one go: files are only gone long after they were replaced.
            frame = log.scan()
            try:
                assert sorted(frame.collect()["event_id"]) == ids
            except (FileNotFoundError, pl.exceptions.ComputeError):
                continue  # this test waits for no grace
            looks += 1
            if looks == 3:
                merging.stdin.close()
    finally:
        if merging.poll() is None:
            os.kill(merging.pid, signal.SIGKILL)
            merging.wait()
        merging.stdout.close()
    assert merging.returncode == 0
    assert looks >= 3
    assert sorted(log.scan().collect()["event_id"]) == ids


async def test_the_archive_merges_what_it_wrote(store: Store, tmp_path: Path) -> None:
    from feature_store.archiver import Archiver

    log = EventLog(tmp_path)
    archiver = Archiver(store.streams, log)
    for number in range(FILES):
        await store.events.append([purchase(number)])
        assert await archiver.run_all() == 1
    assert len(log.files()) == FILES
    assert [path.name for path in log.imports.glob("live-*")] == []
    assert await archiver.compact() == 1
    assert len(log.files()) == 1
    assert log.count() == FILES
    # Event ids that stand in a merged file are known.
    await store._redis.flushall()
    await store.events.append([purchase(number) for number in range(FILES + 1)])
    assert await archiver.run_all() == FILES + 1
    assert log.count() == FILES + 1
