"""Reading files: every good row with its line, every broken one named, nothing else lost."""

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.errors import UserError
from feature_store.ingest.csv_records import MAX_FIELD_BYTES
from feature_store.ingest.csv_table import CsvTable
from feature_store.ingest.jsonl_table import JsonlTable
from feature_store.ingest.parquet_table import ParquetTable
from feature_store.ingest.source import find_sources, open_table, read_batches
from feature_store.ingest.table import EmptyFileError, Reject, RejectLog, Table

Rows = list[tuple[str | None, ...]]


def read(table: Table, wanted: list[str] | None = None) -> tuple[Rows, list[int], list[Reject]]:
    rows: Rows = []
    lines: list[int] = []
    rejects: list[Reject] = []
    for batch in table.batches(wanted or table.columns):
        rows += [tuple(value or None for value in row) for row in batch.frame.rows()]
        lines += batch.lines.tolist()
        rejects += batch.rejects
    return rows, lines, rejects


def read_csv(
    data: bytes, chunk_bytes: int = 1 << 20, wanted: list[str] | None = None
) -> tuple[Rows, list[int], list[tuple[int, str]]]:
    rows, lines, rejects = read(CsvTable(io.BytesIO(data), "f.csv", chunk_bytes), wanted)
    return rows, lines, [(reject.line, reject.reason) for reject in rejects]


CHUNKS = pytest.mark.parametrize("chunk_bytes", [7, 20, 1 << 20])
"""A file must read the same wherever the chunks are cut."""


@CHUNKS
def test_a_plain_file(chunk_bytes: int) -> None:
    data = b"a,b\n1,2\n3,\n,4\n"
    assert read_csv(data, chunk_bytes) == ([("1", "2"), ("3", None), (None, "4")], [2, 3, 4], [])


@CHUNKS
def test_line_ends_bom_blank_lines_and_no_newline_at_the_end(chunk_bytes: int) -> None:
    data = b"\xef\xbb\xbfa;b\r\n\r\n1;2\r\n\r\n3;4"
    assert read_csv(data, chunk_bytes) == ([("1", "2"), ("3", "4")], [3, 5], [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_from_the_header(delimiter: str) -> None:
    data = f"a{delimiter}b c{delimiter}d\n1{delimiter}2{delimiter}3\n".encode()
    table = CsvTable(io.BytesIO(data), "f.csv")
    assert table.columns == ["a", "b c", "d"]
    assert read(table)[0] == [("1", "2", "3")]


@CHUNKS
def test_only_wanted_columns_in_any_order(chunk_bytes: int) -> None:
    data = b'a,b,c\n1,2,3\n4,"5\n5",6\n'
    rows, lines, _ = read_csv(data, chunk_bytes, ["c", "a"])
    assert rows == [("3", "1"), ("6", "4")]
    assert lines == [2, 3]


@CHUNKS
def test_broken_lines_are_named_and_cost_nothing_else(chunk_bytes: int) -> None:
    data = b"a,b\n1,2\n3\n4,5,6\n7,\xff\n8,9\n"
    rows, lines, rejects = read_csv(data, chunk_bytes)
    assert rows == [("1", "2"), ("8", "9")]
    assert lines == [2, 6]
    assert rejects == [(3, "broken_line"), (4, "broken_line"), (5, "wrong_encoding")]


@CHUNKS
def test_newlines_and_delimiters_in_quotes_belong_to_the_value(chunk_bytes: int) -> None:
    data = b'a,b\n1,"x\r\ny, ""z"""\n"2",3\n'
    assert read_csv(data, chunk_bytes) == ([("1", 'x\r\ny, "z"'), ("2", "3")], [2, 4], [])


@CHUNKS
@pytest.mark.parametrize(
    ("broken", "good"),
    [
        (b'3,"not closed', True),
        (b'3,"closed" too early', True),
        (b'"3"x,4', True),
        (b'3,5" tall', False),  # an inch sign in a bare field is just a sign
    ],
)
def test_a_stray_quote_costs_its_own_line_at_most(
    chunk_bytes: int, broken: bytes, good: bool
) -> None:
    data = b"a,b\n1,2\n" + broken + b'\n5,6\n"7",8\n9,"10"\n'
    rows, _, rejects = read_csv(data, chunk_bytes)
    assert [row for row in rows if row[0] != "3"] == [
        ("1", "2"),
        ("5", "6"),
        ("7", "8"),
        ("9", "10"),
    ]
    assert rejects == ([(3, "broken_line")] if good else [])


def test_an_unclosed_quote_does_not_swallow_a_long_file() -> None:
    tail = b"".join(b"%d,x\n" % number for number in range(300_000))
    assert len(tail) > 2 * MAX_FIELD_BYTES
    rows, _, rejects = read_csv(b'a,b\n"open,1\n' + tail, 1 << 20)
    assert len(rows) == 300_000
    assert rejects == [(2, "broken_line")]


def test_two_stray_quotes_do_not_swallow_the_rows_between_them() -> None:
    between = b"".join(b"%d,x\n" % number for number in range(100))
    rows, _, rejects = read_csv(b'a,b\n1,2,"open\n' + between + b'close",3\n4,5\n')
    assert len(rows) == 101 or (len(rows) == 102 and rows[-2] == ('close"', "3"))
    assert rejects[0] == (2, "broken_line")


def test_a_bare_carriage_return_stays_in_its_value() -> None:
    rows, _, _ = read_csv(b"a,b\nx\r,y\n")
    assert rows == [("x\r", "y")]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_said_to_be_empty(data: bytes) -> None:
    with pytest.raises(EmptyFileError, match="is empty"):
        CsvTable(io.BytesIO(data), "f.csv")


def test_a_header_alone_is_no_rows() -> None:
    assert read_csv(b"a,b") == ([], [], [])
    assert read_csv(b"a,b\r\n") == ([], [], [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"PAR1....", "--format parquet"),
        (b"a\x00b\n", "not text"),
        (b"a,b\r1,2\r", "carriage return"),
        (b"a,a\n1,2\n", "two columns of the name 'a'"),
        (b"\xff,b\n", "header line .* not UTF-8"),
    ],
)
def test_what_is_no_csv_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CsvTable(io.BytesIO(data), "f.csv")


def test_a_column_without_a_name_is_called_by_its_place() -> None:
    assert CsvTable(io.BytesIO(b"a,,c\n1,2,3\n"), "f.csv").columns == ["a", "column_2", "c"]


values = st.text(st.sampled_from('ab",;\n\r\té '), max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(values, values, values), max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    chunk_bytes=st.sampled_from([5, 17, 64, 1 << 20]),
)
@example(rows=[('"', "\r", "\n")], end="\r\n", chunk_bytes=5)
def test_what_a_csv_writer_writes_is_read_back(
    rows: list[tuple[str, str, str]], end: str, chunk_bytes: int
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("x", "y", "z"), *rows])
    read_rows, lines, rejects = read_csv(text.getvalue().encode(), chunk_bytes)
    assert read_rows == [tuple(value or None for value in row) for row in rows]
    assert rejects == []
    newlines = [sum(value.count("\n") for value in row) for row in rows]
    assert lines == [2 + at + sum(newlines[:at]) for at in range(len(rows))]


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=60), chunk_bytes=st.sampled_from([3, 16, 1 << 20]))
def test_any_bytes_are_read_or_refused_without_an_accident(data: bytes, chunk_bytes: int) -> None:
    try:
        table = CsvTable(io.BytesIO(b"a,b\n" + data), "f.csv", chunk_bytes)
    except UserError:
        return
    rows, lines, rejects = read(table)
    assert len(rows) == len(lines)
    found = sorted([*lines, *(reject.line for reject in rejects)])
    assert all(2 <= line <= 2 + data.count(b"\n") for line in found)
    assert len(set(found)) == len(found)


# --- other formats ------------------------------------------------------------------------------


def test_json_lines() -> None:
    data = (
        b'{"a": 12, "b": {"c": "x", "d": [1, "y"]}}\n\nnot json\n[1]\n{"a": null}\n{"a": "\xff"}\n'
    )
    table = JsonlTable(io.BytesIO(data), "f.jsonl")
    assert table.columns == ["a", "b.c", "b.d"]
    rows, lines, rejects = read(table)
    assert rows == [("12", "x", '[1,"y"]'), (None, None, None)]
    assert lines == [1, 5]
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (3, "broken_line"),
        (4, "broken_line"),
        (6, "wrong_encoding"),
    ]


def test_parquet_keeps_types_and_reaches_into_structs(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, 2], "about": [{"size": "L"}, {"size": None}], "x": [0.5, None]})
    frame.write_parquet(tmp_path / "f.parquet")
    with (tmp_path / "f.parquet").open("rb") as file:
        table = ParquetTable(file, "f.parquet")
        assert table.columns == ["id", "about.size", "x"]
        (batch,) = table.batches(["about.size", "id"])
    assert batch.frame.rows() == [("L", 1), (None, 2)]
    assert batch.lines.tolist() == [1, 2]


@pytest.mark.parametrize("cut", [0, 4, 50])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "f.parquet"
    pl.DataFrame({"id": range(100)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:cut])
    (source,) = find_sources(str(path))
    with pytest.raises(UserError, match=r"f\.parquet is not a Parquet"), open_table(source):
        pass


def test_a_compressed_file_is_read_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n" * 1 + b"3,4\n" * 50_000))
    (source,) = find_sources(str(path))
    with open_table(source) as table:
        assert sum(batch.frame.height for batch in read_batches(source, table, ["a"])) == 50_001
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot read"), open_table(source) as table:
        list(read_batches(source, table, ["a"]))


# --- naming files -------------------------------------------------------------------------------


def test_a_folder_a_glob_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.csv", "deep/b.parquet", "c.txt", "_SUCCESS", ".hidden.csv", "read.me"):
        (tmp_path / name).write_text("x")
    found = [(Path(source.name).name, source.format) for source in find_sources(str(tmp_path))]
    assert found == [("a.csv", "csv"), ("c.txt", "csv"), ("b.parquet", "parquet")]
    assert [source.format for source in find_sources(str(tmp_path / "*.csv"))] == ["csv"]
    assert find_sources(str(tmp_path / "read.me"), "jsonl")[0].format == "jsonl"
    (stdin,) = find_sources("-")
    assert (stdin.path, stdin.format) == (None, "csv")


@pytest.mark.parametrize(
    ("named", "form", "message"),
    [
        ("nowhere.csv", None, "there is no file"),
        ("*.nothing", None, "no file matches"),
        (".", None, "holds no file"),
        ("read.me", None, "say --format"),
        ("read.me", "ga4", "not yet supported in this version"),
        ("read.me", "xls", "there is no format 'xls'"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, named: str, form: str | None, message: str
) -> None:
    (tmp_path / "read.me").write_text("x")
    with pytest.raises(UserError, match=message):
        find_sources(str(tmp_path / named), form)


# --- rejects ------------------------------------------------------------------------------------


def test_rejects_are_counted_and_written(tmp_path: Path) -> None:
    refused = [Reject("f.csv", 3, "bad_price", "'a,b'"), Reject("f.csv", 9, "bad_price", "")]
    with RejectLog(tmp_path / "r.csv") as as_csv, RejectLog(tmp_path / "r.jsonl") as as_json:
        for log in (as_csv, as_json):
            log.add(refused)
    assert as_csv.counts == {"bad_price": 2}
    assert RejectLog(None).written_to is None
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["line"] for row in rows] == ["3", "9"]
    assert rows[0]["detail"] == "'a,b'"
    assert pl.read_ndjson(tmp_path / "r.jsonl").rows(named=True)[1]["line"] == 9


def test_no_rejects_no_file(tmp_path: Path) -> None:
    with RejectLog(tmp_path / "r.csv") as log:
        log.add([])
    assert not (tmp_path / "r.csv").exists()
    with pytest.raises(UserError, match="no such folder"):
        RejectLog(tmp_path / "none" / "r.csv")
