"""Records of answers: found by their id at every moment of their life."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from feature_store.decision_log import DecisionLog, DecisionWriter, as_frame

NOON_MS = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000)


def record(number: int, at_ms: int = NOON_MS, **more: Any) -> dict[str, Any]:
    return {
        "recommendation_id": f"r{number}",
        "at": at_ms + number,
        "person": f"u:{number % 3}",
        "context": {"channel": "web"},
        "answer": {
            "placement": "home",
            "model_version": "m",
            "rules_version": 1,
            "personalized": True,
            "items": [{"item_id": "ä/1", "source": "popular"}],
        },
        **more,
    }


def write(writer: DecisionWriter, records: list[dict[str, Any]], now_s: float) -> None:
    writer.write([orjson.dumps(one) for one in records], records[0]["at"], now_s)


def erased(cuts: dict[str, int]) -> Callable[[str], int]:
    return lambda person: cuts.get(person, 0)


def test_a_record_is_found_while_written_closed_and_sealed(tmp_path: Path) -> None:
    log, writer = DecisionLog(tmp_path), DecisionWriter(tmp_path)
    assert log.find("r7", NOON_MS) is None
    write(writer, [record(number) for number in range(10)], NOON_MS / 1000)
    assert log.find("r7", NOON_MS + 7) == record(7)
    assert log.seal() == 0, "its writer lives"
    writer.close()
    assert log.find("r7", NOON_MS + 7) == record(7)
    assert log.seal() == 10
    assert log.find("r7", NOON_MS + 7) == record(7)
    assert log.find("r10", NOON_MS + 10) is None
    assert log.scan().collect().equals(as_frame([record(number) for number in range(10)]))
    assert log.scan(date(2026, 11, 23)).collect().height == 0
    assert log.seal() == 0


def test_files_are_closed_by_size_and_by_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, writer = DecisionLog(tmp_path), DecisionWriter(tmp_path)
    write(writer, [record(0)], NOON_MS / 1000)
    write(writer, [record(1)], NOON_MS / 1000 + 301)
    assert log.seal() == 1
    monkeypatch.setattr("feature_store.decision_log.MAX_BYTES", 100)
    write(writer, [record(2)], NOON_MS / 1000 + 302)
    assert log.seal() == 1
    assert [log.find(f"r{number}", NOON_MS) is not None for number in range(3)] == [True] * 3
    # Also when nothing more comes: whoever was erased must not stand there for long.
    writer.close_if_due(NOON_MS / 1000 + 602)
    assert log.seal() == 0
    writer.close_if_due(NOON_MS / 1000 + 603)
    assert log.seal() == 1


def test_what_a_killed_worker_has_written_is_kept(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from feature_store.decision_log import DecisionWriter
from tests.feature_store.test_decision_log import record, write
writer = DecisionWriter(Path({str(tmp_path)!r}))
write(writer, [record(n) for n in range(5)], 0)
next(Path({str(tmp_path)!r}).glob("live/*")).open("ab").write(b'{{"recommendation_id": "cut')
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -9
    log = DecisionLog(tmp_path)
    assert log.find("r4", NOON_MS + 4) == record(4)
    assert log.seal() == 5
    assert log.find("r4", NOON_MS + 4) == record(4)


def test_sealing_again_after_a_kill_changes_nothing(tmp_path: Path) -> None:
    log, writer = DecisionLog(tmp_path), DecisionWriter(tmp_path)
    midnight_ms = NOON_MS + 12 * 3_600_000
    write(writer, [record(number, midnight_ms - 5) for number in range(10)], NOON_MS / 1000)
    writer.close()
    (source,) = (tmp_path / "live").iterdir()
    kept = source.read_bytes()
    assert log.seal() == 10
    source.write_bytes(kept)
    assert log.seal() == 10
    assert log.scan().collect().height == 10
    assert {path.name for path in tmp_path.glob("date=*")} == {"date=2026-11-22", "date=2026-11-23"}
    assert all(log.find(f"r{n}", midnight_ms - 5 + n) is not None for n in range(10))
    assert log.drop_before(date(2026, 11, 23)) == 1
    assert log.scan().collect().height == 5


def test_a_person_is_forgotten(tmp_path: Path) -> None:
    log, writer = DecisionLog(tmp_path), DecisionWriter(tmp_path)
    write(writer, [record(number) for number in range(9)], NOON_MS / 1000)
    write(writer, [record(9, person=None)], NOON_MS / 1000)
    writer.close()
    log.seal()
    assert log.forget(erased({"u:1": NOON_MS + 9})) == {"u:1": 3}
    assert b"u:1" not in b"".join(path.read_bytes() for path in tmp_path.glob("date=*/*"))
    assert log.find("r1", NOON_MS + 1) is None
    assert log.find("r9", NOON_MS + 9) is not None


def test_what_was_recorded_of_somebody_erased_is_not_sealed_but_what_they_did_later_is(
    tmp_path: Path,
) -> None:
    log, writer = DecisionLog(tmp_path), DecisionWriter(tmp_path)
    later = [record(1, NOON_MS + 60_000), record(4, NOON_MS + 70_000)]
    write(writer, [*(record(number) for number in range(6)), *later], NOON_MS / 1000)
    assert log.ask_to_close()
    assert log.seal() == 0
    writer.close_if_due(NOON_MS / 1000)
    writer.close_if_due(NOON_MS / 1000)
    assert log.seal(erased({"u:1": NOON_MS + 4})) == 5, "a minute later they are somebody new"
    people = log.scan().collect()["person"].to_list()
    assert sorted(people) == ["u:0", "u:0", "u:1", "u:2", "u:2"]
    assert not log.forget(erased({"u:1": NOON_MS + 4}))
    assert log.forget(erased({"u:1": NOON_MS + 90_000, "u:2": 1})) == {"u:1": 1}
    assert not log.ask_to_close(), "closed files are nobody's"
