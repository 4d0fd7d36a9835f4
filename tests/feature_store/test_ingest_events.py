"""From rows to events: what is read, what is refused and why, and what counts once."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_store.errors import ConflictError, UserError
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog
from feature_store.ingest import run, staging
from feature_store.ingest.events import EventOptions
from feature_store.ingest.mapping import EVENT_FIELDS, parse_map
from feature_store.ingest.run import import_events, read_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.table import Progress, RejectLog
from feature_store.schema import EventType

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Import = Callable[..., ImportSummary]


class Folded:
    """Stands where the states are: remembers what it was given, once for an import and person."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], int] = {}

    def __call__(
        self, import_id: str, frames: Iterator[pl.DataFrame], n_events: int, progress: Progress
    ) -> None:
        for frame in frames:
            for person, events in frame.group_by("user_id", "anonymous_id"):
                assert (import_id, str(person)) not in self.events, "a person is in one frame"
                self.events[import_id, str(person)] = len(events)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "data")


@pytest.fixture
def bring(log: EventLog, tmp_path: Path) -> Import:
    def bring(content: str | bytes | Path, columns: str = "", **options: Any) -> ImportSummary:
        path = content if isinstance(content, Path) else tmp_path / "events.csv"
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, bytes):
            path.write_bytes(content)
        return import_events(
            log,
            find_sources(str(path)),
            parse_map(columns, EVENT_FIELDS),
            EventOptions(now=NOW, **options),
            fold=Folded(),
        )

    return bring


def rows(log: EventLog, *columns: str) -> list[tuple[Any, ...]]:
    return (
        log.scan()
        .sort("timestamp", "user_id", "item_id", "event_id")
        .select(*columns)
        .collect()
        .rows()
    )


# --- imports ------------------------------------------------------------------------------------


def test_purchases_of_a_file(bring: Import, log: EventLog) -> None:
    content = (
        "customer,sku,date,qty,total,basket\n"
        "7,A/1,2024-03-01 10:00:00,2,5.00,b1\n"
        "7,Äpfel,2024-03-01 10:00:00,1,0.99,b1\n"
        "8,A/1,2024-03-02T10:00:00+02:00,0,3.00,b2\n"
    )
    summary = bring(content, "price=total", price="line", currency="EUR", channel="store")
    assert (summary.rows_read, summary.accepted, summary.duplicates) == (3, 3, 0)
    assert (summary.people, summary.items, summary.rejected) == (2, 2, {})
    assert log.scan().collect().schema == EVENT_LOG_SCHEMA
    wanted = "user_id", "item_id", "quantity", "unit_price", "currency", "order_id", "channel"
    assert rows(log, *wanted) == [
        ("7", "A/1", 2, 2.5, "EUR", "b1", "store"),
        ("7", "Äpfel", 1, 0.99, "EUR", "b1", "store"),
        ("8", "A/1", 1, 3.0, "EUR", "b2", "store"),
    ]
    assert rows(log, "type", "trust", "extra") == [("purchase", "server", None)] * 3


def test_bad_rows_are_named_and_good_ones_kept(bring: Import, log: EventLog) -> None:
    content = (
        b"user_id,item_id,timestamp,quantity,price\n"
        b"u,i,2024-01-01,1,1\n"
        b",i,2024-01-01,1,1\n"
        b"u,,2024-01-01,1,1\n"
        b"u,i,yesterday,1,1\n"
        b"u,i,,1,1\n"
        b"u,i,1969-12-31,1,1\n"
        b"u,i,2026-06-02,1,1\n"
        b"u,i,2024-01-01,two,1\n"
        b"u,i,2024-01-01,1,cheap\n"
        b"u,i,2024-01-01,1,-1\n"
        b"u,..,2024-01-01,1,1\n"
        b"u,i\x07,2024-01-01,1,1\n"
        b"u,i,2024-01-01\n"
        b"u,caf\xe9,2024-01-01,1,1\n"
        b"u,i,2024-01-02,9999999999,1\n"
        b"v,i,2026-06-01 00:04:59,1,1\n"
    )
    summary = bring(content)
    assert (summary.rows_read, summary.accepted) == (16, 2)
    assert summary.rejects_file is not None
    refused = pl.read_csv(summary.rejects_file)
    assert dict(refused.select("line", "reason").sort("line").iter_rows()) == {
        3: "missing_user_id",
        4: "missing_item_id",
        5: "bad_timestamp",
        6: "missing_timestamp",
        7: "before_1970",
        8: "in_the_future",
        9: "bad_quantity",
        10: "bad_price",
        11: "negative_price",
        12: "bad_item_id",
        13: "bad_item_id",
        14: "broken_line",
        15: "wrong_encoding",
        16: "bad_quantity",
    }
    assert summary.rejected == dict(refused["reason"].value_counts().iter_rows())
    assert "'yesterday'" in refused["detail"].to_list()


def test_less_than_nothing_is_a_refund(bring: Import, log: EventLog) -> None:
    content = "user_id,item_id,timestamp,quantity,price\nu,i,2024-01-01,-2,-3\nu,j,2024-01-01,2,3\n"
    assert bring(content, negative_quantity="reject").rejected == {"negative_quantity": 1}
    assert bring(content, price="line").accepted == 1
    assert rows(log, "type", "item_id", "quantity", "unit_price") == [
        ("refund", "i", 2, 1.5),
        ("purchase", "j", 2, 3.0),
    ]


def test_types_of_events(bring: Import, log: EventLog) -> None:
    content = (
        "visitorid,itemid,event,timestamp\n"
        "1,a,view,1433221332117\n1,a,addtocart,1433221332118\n1,a,transaction,1433221332119\n"
        "1,a,dance,1433221332120\n1,,search,1433221332121\n1,,view,1433221332122\n"
    )
    summary = bring(content)
    assert summary.rejected == {"unknown_type": 1, "missing_item_id": 1}
    assert rows(log, "type", "anonymous_id", "item_id") == [
        ("view", "1", "a"),
        ("add_to_cart", "1", "a"),
        ("purchase", "1", "a"),
        ("search", "1", None),
    ]
    # Who says what the rows are is believed.
    assert bring(content, default_type=EventType.VIEW, type_given=True).rejected == {
        "missing_item_id": 2
    }


def test_the_rest_of_an_event_is_kept_as_json(bring: Import, log: EventLog) -> None:
    bring("user_id,item_id,timestamp,type,rating,query\nu,i,2024-01-01,rating,4.5,\n")
    ((extra,),) = rows(log, "extra")
    assert json.loads(extra) == {"value": 4.5}


def test_the_same_file_twice_changes_nothing(bring: Import, log: EventLog, tmp_path: Path) -> None:
    # Equal lines are different purchases: three of u, two of v.
    content = "user_id,item_id,timestamp\n" + "u,i,2024-01-01\n" * 3 + "v,i,2024-01-02\n" * 2
    assert bring(content).accepted == 5
    before = rows(log, *EVENT_LOG_SCHEMA)
    again = bring(content)
    assert (again.accepted, again.duplicates, again.import_id) == (0, 5, None)
    assert rows(log, *EVENT_LOG_SCHEMA) == before
    # The next export has one more of them, and the same events in another format are the same.
    assert bring(content + "u,i,2024-01-01\n").accepted == 1
    parquet = tmp_path / "same.parquet"
    same = {"user_id": ["u"] * 4, "item_id": ["i"] * 4, "when": [date(2024, 1, 1)] * 4}
    frame = pl.DataFrame(same)
    frame.write_parquet(parquet)
    assert bring(parquet, "timestamp=when").duplicates == 4
    assert len({event for (event,) in rows(log, "event_id")}) == 6


def test_files_one_by_one_or_together_are_the_same(
    bring: Import, log: EventLog, tmp_path: Path
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "1.csv").write_text("user_id,item_id,timestamp\nu,i,2024-01-01\nu,i,2024-01-01\n")
    (folder / "2.csv").write_text("user,item,time,more\nu,i,2024-01-01,x\nu,j,2024-01-01,x\n")
    (folder / "3.csv").write_text("")
    assert bring(folder).accepted == 3
    for path in sorted(folder.glob("[12].csv")):
        assert bring(path).accepted == 0


def test_an_event_with_an_id_counts_once_whatever_else_it_says(
    bring: Import, log: EventLog
) -> None:
    content = (
        "event_id,user_id,item_id,timestamp\n"
        "e1,u,first,2024-01-01\ne1,u,second,2024-02-01\ne1,v,other,2024-02-01\n,u,i,2024-01-01\n"
    )
    summary = bring(content)
    assert (summary.accepted, summary.duplicates) == (3, 1)
    later = bring("event_id,user_id,item_id,timestamp\ne1,u,third,2025-05-05\ne2,u,i,2024-01-01\n")
    assert (later.accepted, later.duplicates) == (1, 1)
    assert ("first",) in rows(log, "item_id")
    assert ("third",) not in rows(log, "item_id")


def test_a_visitor_and_a_customer_of_one_name_are_two(bring: Import, log: EventLog) -> None:
    content = (
        "event_id,user_id,anonymous_id,item_id,timestamp\ne,x,,i,2024-01-01\ne,,x,i,2024-01-01\n"
    )
    assert bring(content).accepted == 2
    assert bring(content).duplicates == 2


def test_small_batches_give_the_same_log(
    bring: Import, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"u{n % 17},i{n % 29},2024-01-{1 + n % 28:02} 10:00:00,{'' if n % 3 else f'e{n % 40}'}"
        for n in range(500)
    ]
    content = "user_id,item_id,timestamp,event_id\n" + "\n".join(lines) + "\n"
    bring(content)
    expected = rows(log, *EVENT_LOG_SCHEMA)
    monkeypatch.setattr(staging, "SPILL_ROWS", 60)
    monkeypatch.setattr(staging, "GROUP_ROWS", 50)
    monkeypatch.setattr(run, "GROUP_ROWS", 50)
    monkeypatch.setattr("feature_store.ingest.csv_table.CHUNK_BYTES", 700)
    other, folded = EventLog(tmp_path / "other"), Folded()
    sources = find_sources(str(tmp_path / "events.csv"))
    import_events(other, sources, {}, EventOptions(now=NOW), fold=folded)
    assert rows(other, *EVENT_LOG_SCHEMA) == expected
    assert sum(folded.events.values()) == len(expected)


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_file(bring: Import, content: str) -> None:
    with pytest.raises(UserError, match="is empty"):
        bring(content)


def test_a_header_alone_and_a_file_of_one_customer(bring: Import, log: EventLog) -> None:
    header = "user_id,item_id,timestamp\n"
    nothing = bring(header)
    assert (nothing.rows_read, nothing.accepted, nothing.import_id) == (0, 0, None)
    assert bring(header + "u,i,2024-01-01\n").people == 1
    assert log.count() == 1


def test_a_fold_that_failed_is_taken_up_by_the_next_import(log: EventLog, tmp_path: Path) -> None:
    class DownError(Exception):
        pass

    def fold_down(*_: object) -> None:
        raise DownError

    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\nu,i,2024-01-01\nv,i,2024-01-01\n")
    options = EventOptions(now=NOW)
    with pytest.raises(DownError):
        import_events(log, find_sources(str(path)), {}, options, fold=fold_down)
    assert log.count() == 2, "what is committed counts"
    folded = Folded()
    summary = import_events(log, find_sources(str(path)), {}, options, fold=folded)
    assert summary.duplicates == 2
    assert sum(folded.events.values()) == 2
    assert log.pending() == []


def test_what_somebody_else_committed_is_not_folded(bring: Import, log: EventLog) -> None:
    """What was archived from the server is in the states already."""
    bring("user_id,item_id,timestamp\nu,i,2024-01-01\n")
    with log.importing():
        archived = log.begin("live-1")
        archived.write(log.scan().collect().with_columns(pl.lit("x").alias("event_id")))
        archived.commit({"kind": "archive"})
    assert bring("user_id,item_id,timestamp\nv,i,2024-01-01\n").accepted == 1
    assert [journal.import_id for journal in log.pending()] == ["live-1"]
    assert log.count() == 3


def test_one_importer_at_a_time(
    bring: Import, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOCK_WAIT_S", 0.05)
    with log.importing(), pytest.raises(ConflictError, match="another import"):
        bring("user_id,item_id,timestamp\nu,i,2024-01-01\n")


def test_reading_without_a_log(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\nu,i,2024-01-01\nu,i,2024-01-01\n,i,2024-01-01\n")
    with RejectLog(None) as rejects:
        frame = read_events(find_sources(str(path)), {}, EventOptions(now=NOW), rejects)
    assert frame.schema == EVENT_LOG_SCHEMA
    assert len(frame) == 2
    assert rejects.total == 1


def test_a_column_that_is_not_there(bring: Import, log: EventLog) -> None:
    content = "customer_number,product,when\n1,2,2024-01-01\n"
    with pytest.raises(UserError, match=r"no column 'custmer_number' .* mean 'customer_number'"):
        bring(content, "user_id=custmer_number")
    with pytest.raises(UserError, match=r"which column .* is the timestamp: say --map timestamp="):
        bring(content, "user_id=customer_number")
    assert list(log.imports.glob("*/")) == [], "a mistake leaves nothing behind"
