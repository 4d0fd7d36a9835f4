"""Who is erased is in no file, and everybody else is in all that they were in."""

import json
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.change_log import ChangeLog
from feature_store.decision_log import DecisionLog, DecisionWriter
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog, scan_files
from feature_store.forgetting.scrubbing import arrived_ms, merged_visitors, scrub
from feature_store.ingest.table import Reject, RejectLog
from tests.feature_store.test_decision_log import record, write

CUT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CUT_MS = int(CUT.timestamp() * 1000)
BEFORE, AFTER = CUT - timedelta(hours=1), CUT + timedelta(hours=1)
OLD, NEW = "live-20260301T110000000000-aa", "live-20260301T130000000000-bb"
USER, VISITOR = "canary-user-7f", "canary-visitor-7f-0123456789"


def erased(*people: str, at_ms: int = CUT_MS) -> Callable[[str], int]:
    return lambda person: at_ms if person in people else 0


def row(user_id: str | None, anonymous_id: str | None, at: datetime, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(EVENT_LOG_SCHEMA) | {"type": "view", "trust": "server", "item_id": "i"}
    named = {"user_id": user_id, "anonymous_id": anonymous_id, "timestamp": at}
    return row | named | {"event_id": f"{user_id}-{anonymous_id}-{at:%H%M}"} | more


def put(log: EventLog, name: str, *rows: dict[str, Any], finish: bool = True) -> None:
    with log.importing():
        pending = log.begin(name)
        pending.write(pl.DataFrame(list(rows), schema=EVENT_LOG_SCHEMA))
        pending.commit({})
        if finish:
            log.finish(name)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_events_go_by_their_time_or_by_when_they_came(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    put(
        log,
        OLD,
        row(USER, None, BEFORE),
        row(USER, VISITOR, AFTER, event_id="came before it happened"),
        row(None, VISITOR, BEFORE),
        row("other", VISITOR, BEFORE, event_id="kept without the visitor"),
        row("other", "other-visitor", BEFORE),
        row(None, USER, BEFORE, event_id="a visitor of the same name"),
    )
    put(log, NEW, row(USER, None, BEFORE), row(USER, VISITOR, AFTER), row(None, VISITOR, AFTER))
    untouched = "live-20260301T140000000000-cc"
    put(log, untouched, row("other", None, BEFORE))
    inode = (log.events / "date=2026-03-01" / f"{untouched}.parquet").stat().st_ino
    counts = scrub(tmp_path, erased(f"u:{USER}", f"a:{VISITOR}"))
    assert counts == {
        ("archived_events", f"u:{USER}"): 3,
        ("archived_events", f"a:{VISITOR}"): 1,
        ("events_of_others", f"a:{VISITOR}"): 1,
    }
    left = log.scan().select("user_id", "anonymous_id", "event_id").sort("event_id").collect()
    assert left.rows() == sorted(
        [
            ("other", None, "kept without the visitor"),
            ("other", "other-visitor", "other-other-visitor-1100"),
            ("other", None, "other-None-1100"),
            (None, USER, "a visitor of the same name"),
            (USER, VISITOR, f"{USER}-{VISITOR}-1300"),
            (None, VISITOR, f"None-{VISITOR}-1300"),
        ],
        key=lambda one: one[2],
    )
    assert (log.events / "date=2026-03-01" / f"{untouched}.parquet").stat().st_ino == inode
    assert scrub(tmp_path, erased(f"u:{USER}", f"a:{VISITOR}")) == {}, "again changes nothing"


def test_a_file_in_which_nothing_is_left_can_still_be_read(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    put(log, OLD, row(USER, None, BEFORE), finish=False)
    listed = log.scan()
    files = log.files_of(log.pending()[0])
    scrub(tmp_path, erased(f"u:{USER}"))
    assert listed.collect().is_empty()
    assert scan_files(files).collect().is_empty()
    assert log.count() == 0
    assert USER.encode() not in everything(tmp_path)


def test_imports_that_wait_or_were_killed_are_no_hiding_place(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    put(log, "20260301T110000-aa", row(USER, None, BEFORE), finish=False)
    folder = log.imports / "20260301T110000-aa"
    # As an import leaves them that was killed while it told the states.
    for name in ("by_person", "scratch"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "0-0.parquet").write_bytes(USER.encode())
    killed = log.begin("20260301T110001-bb")
    killed.write(pl.DataFrame([row(USER, None, BEFORE)], schema=EVENT_LOG_SCHEMA))
    (log.events / "date=2026-03-01" / ".x.parquet.partial").write_bytes(USER.encode())
    with log.importing():
        scrub(tmp_path, erased(f"u:{USER}"))
    assert USER.encode() not in everything(tmp_path)
    assert [one.import_id for one in log.pending()] == ["20260301T110000-aa"]


def test_the_journal_of_changes_keeps_its_order_and_all_others(tmp_path: Path) -> None:
    changes = ChangeLog(tmp_path)

    def change(person: str, at_ms: int, kind: str = "preferences") -> dict[str, Any]:
        at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
        return {"kind": kind, "person": person, "at": at, "by": "x", "body": {"n": at_ms}}

    times = [CUT_MS - 5, CUT_MS - 4, CUT_MS, CUT_MS + 1]
    bodies = [change(f"u:{USER}", at) for at in times] + [change("u:other", CUT_MS - 3)]
    bodies.append(change("a1b2c3", CUT_MS, "forgotten"))
    ids = [*(f"{at}-0-7" for at in [*times, CUT_MS - 3]), f"{CUT_MS}-0-8"]
    for place in sorted(range(6), key=lambda at: ids[at]):
        changes.write("people", "epoch", [ids[place]], [bodies[place]])
    before = changes.read("people")
    counts = scrub(tmp_path, erased(f"u:{USER}"))
    assert counts == {("archived_changes", f"u:{USER}"): 3}
    left = changes.read("people")
    assert left == [one for one in before if one in left]
    assert [one.body["person"] for one in left] == ["u:other", "a1b2c3", f"u:{USER}"]


def test_decisions_rejects_and_examples(tmp_path: Path) -> None:
    log, writer = DecisionLog(tmp_path / "decisions"), DecisionWriter(tmp_path / "decisions")
    people = [f"u:{USER}", f"a:{VISITOR}", "u:other"]
    write(writer, [record(at, CUT_MS, person=one) for at, one in enumerate(people)], CUT_MS / 1000)
    writer.close()
    log.seal()
    rejects = [
        Reject("file.csv", 1, "bad", repr(USER)),
        Reject("file.csv", 2, "bad", repr(json.dumps({"ids": [{"x": VISITOR}]}))),
        Reject("file.csv", 3, "cut", repr(json.dumps({"a": USER, "long": "x" * 300})[:200])),
        Reject("file.csv", 4, "bad", repr(f"not {USER} alone")[:9]),
        Reject("file.csv", 5, "bad", "'12 \"quoted\", and a comma'"),
    ]
    (tmp_path / "imports" / "one").mkdir(parents=True)
    (tmp_path / "imports" / "one" / "done.json").write_text("{}")
    files = [tmp_path / "imports" / "one" / "rejects.csv", tmp_path / "imports/x-users-rejects.csv"]
    for path in (*files, tmp_path / "imports" / "y-rejects.jsonl"):
        with RejectLog(path) as file:
            file.add(rejects)
    demo = tmp_path / "demo.json"
    demo.write_bytes(orjson.dumps({"keys": {}, "user_ids": ["other", USER]}))
    demo.chmod(0o600)
    counts = scrub(tmp_path, erased(f"u:{USER}", f"a:{VISITOR}"))
    assert counts == {
        ("decisions", f"u:{USER}"): 1,
        ("decisions", f"a:{VISITOR}"): 1,
        ("rejected_rows", f"u:{USER}"): 6,
        ("rejected_rows", f"a:{VISITOR}"): 3,
    }
    assert log.scan().collect()["person"].to_list() == ["u:other"]
    assert files[0].read_text().splitlines() == [
        "source,line,reason,detail",
        "file.csv,4,bad,'not cana",
        'file.csv,5,bad,"\'12 ""quoted"", and a comma\'"',
    ]
    assert orjson.loads(demo.read_bytes())["user_ids"] == ["other"]
    assert stat.S_IMODE(demo.stat().st_mode) == 0o600
    for name in (USER, VISITOR):
        assert name.encode() not in everything(tmp_path)


def test_merges_say_which_visitors_an_erased_user_was(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    put(
        log, OLD, row(USER, VISITOR, BEFORE, type="merge"), row("other", "v2", BEFORE, type="merge")
    )
    put(log, NEW, row(USER, "since-then", AFTER, type="merge"))
    assert merged_visitors(tmp_path, erased(f"u:{USER}")) == {f"a:{VISITOR}": f"u:{USER}"}


def test_names_of_files_say_when_their_events_came() -> None:
    at = int(datetime(2026, 11, 22, 12, 30, 1, tzinfo=UTC).timestamp() * 1000)
    assert arrived_ms("live-20261122T123001250000-ab12.parquet") == at + 250
    assert arrived_ms("compact-20261122T123001250000-ab12cd34.parquet") == at + 250
    assert arrived_ms("20261122T123001-ab12cd34.parquet") == at
    assert arrived_ms("part-0.parquet") is None


PEOPLE = st.sampled_from([None, "p", "q", "r"])


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.tuples(PEOPLE, PEOPLE, st.sampled_from([BEFORE, AFTER])).filter(
            lambda one: one[0] is not None or one[1] is not None
        ),
        max_size=12,
    ),
    gone=st.sets(st.sampled_from(["u:p", "u:q", "a:p", "a:r"])),
)
def test_it_is_what_a_plain_loop_would_do(
    tmp_path_factory: Any, rows: list[tuple[str | None, str | None, datetime]], gone: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = EventLog(folder)
    if rows:
        events = [row(*one, event_id=str(number)) for number, one in enumerate(rows)]
        put(log, NEW, *events)
    scrub(folder, erased(*gone))
    expected = []
    for number, (user_id, anonymous_id, at) in enumerate(rows):
        person = f"u:{user_id}" if user_id is not None else f"a:{anonymous_id}"
        if at < CUT and person in gone:
            continue
        blank = at < CUT and f"a:{anonymous_id}" in gone
        expected.append((str(number), user_id, None if blank else anonymous_id))
    left = log.scan().select("event_id", "user_id", "anonymous_id").collect().rows()
    assert sorted(left) == sorted(expected)


def test_who_reads_the_log_reads_it_to_the_end(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    put(log, OLD, row(USER, None, BEFORE), row("other", None, BEFORE))
    with ThreadPoolExecutor(1) as pool:
        with log.reading(), EventLog(tmp_path).reading():
            listed = log.scan()
            scrubbing = pool.submit(scrub, tmp_path, erased(f"u:{USER}"))
            time.sleep(0.3)
            assert not scrubbing.done()
            assert listed.select(pl.len()).collect().item() == 2
        assert scrubbing.result(60).total() == 1
    assert log.count() == 1
