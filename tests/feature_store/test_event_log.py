"""The event log: pruned scans, and imports that count as a whole or not at all."""

import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from feature_store.errors import ConflictError, UserError
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog, scan_files

MORNING = datetime(2024, 3, 1, 9, tzinfo=UTC)


def events(times: list[datetime], user: str = "u") -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "event_id": [f"{time:%Y%m%d%H%M%S}" for time in times],
            "timestamp": pl.Series(times, dtype=pl.Datetime("ms", "UTC")),
        }
    )
    return frame.with_columns(
        pl.lit("purchase").alias("type"),
        pl.lit(user).alias("user_id"),
        pl.lit("i").alias("item_id"),
        pl.lit("server").alias("trust"),
        *(
            pl.lit(None, dtype).alias(name)
            for name, dtype in EVENT_LOG_SCHEMA.items()
            if name not in ("event_id", "timestamp", "type", "user_id", "item_id", "trust")
        ),
    )


def write(log: EventLog, import_id: str, frame: pl.DataFrame) -> None:
    with log.importing():
        pending = log.begin(import_id)
        pending.write(frame)
        pending.commit({"from": "a test"})
        log.finish(import_id)


def test_an_empty_log_has_the_columns_of_a_full_one(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    assert log.count() == 0
    assert log.scan().collect().schema == EVENT_LOG_SCHEMA
    assert not (tmp_path / "imports").exists(), "reading writes nothing"


def test_events_come_back_by_the_day_they_happened(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    times = [MORNING, MORNING + timedelta(days=1), MORNING + timedelta(hours=20)]
    write(log, "one", events(times))
    assert [path.parent.name for path in log.files()] == ["date=2024-03-01", "date=2024-03-02"]
    assert sorted(log.scan().collect()["timestamp"]) == sorted(times)
    assert log.scan().collect().schema == EVENT_LOG_SCHEMA


def test_a_scan_includes_its_start_and_excludes_its_end(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    midnight = datetime(2024, 3, 2, tzinfo=UTC)
    write(log, "one", events([MORNING, midnight, midnight + timedelta(hours=5)]))
    assert log.scan(end=midnight).collect()["timestamp"].to_list() == [MORNING]
    assert log.scan(start=midnight, end=midnight).collect().is_empty()
    assert len(log.scan(start=midnight).collect()) == 2
    assert len(log.scan(MORNING, midnight + timedelta(seconds=1)).collect()) == 2


def test_a_scan_opens_only_the_days_that_it_needs(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    days = [MORNING + timedelta(days=day) for day in range(10)]
    write(log, "one", events(days))
    # A file that is not Parquet would fail as soon as it is opened.
    for path in log.files()[:4] + log.files()[6:]:
        path.write_bytes(b"not opened")
    assert len(log.scan(days[4], days[6].replace(hour=0)).collect()) == 2


def test_a_second_importer_is_refused_in_one_line(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    with (
        log.importing(),
        pytest.raises(ConflictError, match=r"another import .* wait"),
        EventLog(tmp_path).importing(),
    ):
        pytest.fail("two importers at once")
    with EventLog(tmp_path).importing():
        pass


def test_nothing_counts_before_the_commit(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    with log.importing():
        pending = log.begin("one")
        pending.write(events([MORNING]))
        assert log.count() == 0
        pending.discard()
    assert not (log.imports / "one").exists()


def test_what_a_killed_import_left_is_removed(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    write(log, "done", events([MORNING]))
    with log.importing():
        log.begin("killed").write(events([MORNING]))
    with log.importing():
        assert log.discard_unfinished() == ["killed"]
    assert log.count() == 1
    assert log.pending() == []


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_reader_completes_a_half_moved_import(tmp_path: Path, moved: int) -> None:
    """Killed between the journal and the last rename, an import still counts as a whole."""
    log = EventLog(tmp_path)
    with log.importing():
        pending = log.begin("one")
        pending.write(events([MORNING + timedelta(days=day) for day in range(3)]))
        pending.commit({})
    # Back to the moment after the journal was written: some files had moved.
    for path in log.files()[moved:]:
        staged = log.imports / "one" / "staging" / path.relative_to(log.events)
        path.rename(staged)
    assert EventLog(tmp_path).count() == 3
    assert [journal.rows for journal in log.pending()] == [3]
    assert scan_files(log.files_of(log.pending()[0])).collect().height == 3
    log.finish("one")
    assert log.pending() == []


def test_a_committed_import_cannot_be_discarded(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    with log.importing():
        pending = log.begin("one")
        pending.write(events([MORNING]))
        pending.commit({})
        pending.discard()
    assert log.count() == 1


def test_a_day_is_written_once_in_an_import(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    with log.importing():
        pending = log.begin("one")
        pending.write(events([MORNING]))
        with pytest.raises(ValueError, match="twice"):
            pending.write(events([MORNING]))


def test_a_data_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match="cannot create the folder"),
        EventLog(tmp_path / "file" / "data").importing(),
    ):
        pass


def test_the_lock_of_a_killed_importer_is_free(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from feature_store.event_log import EventLog
        with EventLog(Path({str(tmp_path)!r})).importing():
            print("locked", flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(ConflictError), EventLog(tmp_path).importing():
            pass
        os.kill(process.pid, signal.SIGKILL)
    with EventLog(tmp_path).importing():
        pass
