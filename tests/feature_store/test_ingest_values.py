"""Ids, times, numbers and the names of columns, in every form that files have."""

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.errors import UserError
from feature_store.ingest.events import EventOptions
from feature_store.ingest.mapping import EVENT_FIELDS, parse_map, resolve
from feature_store.ingest.run import read_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.table import RejectLog
from feature_store.ingest.values import as_text, as_time, bad_ids
from feature_store.schema import check_id

NOW = datetime(2026, 6, 1, tzinfo=UTC)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-03-01T10:00:00Z", "2024-03-01 10:00:00"),
        ("2024-03-01t10:00:00.5z", "2024-03-01 10:00:00.500"),
        ("2024-03-01 10:00:00", "2024-03-01 10:00:00"),
        ("2024-03-01T10:00:00+02:00", "2024-03-01 08:00:00"),
        ("2024-03-01 10:00:00.123456 -0530", "2024-03-01 15:30:00.123"),
        ("2024-03-01 10:00", "2024-03-01 10:00:00"),
        ("2019-10-01 00:00:00 UTC", "2019-10-01 00:00:00"),
        ("2024-03-01", "2024-03-01 00:00:00"),
        ("2024/3/1", "2024-03-01 00:00:00"),
        ("20240301", "2024-03-01 00:00:00"),
        ("1709287200", "2024-03-01 10:00:00"),
        ("1709287200.25", "2024-03-01 10:00:00.250"),
        ("1709287200123", "2024-03-01 10:00:00.123"),
        ("1709287200123456", "2024-03-01 10:00:00.123"),
        ("0", "1970-01-01 00:00:00"),
    ],
)
def test_times(text: str, utc: str) -> None:
    expected = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    mixed = pl.Series([text, "nonsense", None, "2020-01-01T00:00:00Z"])
    assert as_time(mixed, "UTC").to_list() == [
        expected,
        None,
        None,
        datetime(2020, 1, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    "text", ["", "x", "2024-13-01", "01.03.2024", "24:00", "nan", "inf", "1e300", "9" * 30]
)
def test_what_is_no_time(text: str) -> None:
    assert as_time(pl.Series([text]), "UTC").to_list() == [None]


def test_a_time_without_a_zone_is_in_the_one_that_is_said() -> None:
    texts = pl.Series(["2024-03-01 10:00:00", "2024-03-31 02:30:00", "2024-10-27 02:30:00"])
    # The clock skips 02:30 in spring, and shows it twice in autumn.
    assert [time.isoformat() for time in as_time(texts, "Europe/Berlin")] == [
        "2024-03-01T09:00:00+00:00",
        "2024-03-31T01:30:00+00:00",
        "2024-10-27T00:30:00+00:00",
    ]


def test_times_of_parquet() -> None:
    moment = datetime(2024, 3, 1, 10, tzinfo=timezone(timedelta(hours=2)))
    aware = pl.Series([moment]).cast(pl.Datetime("ns", "Asia/Tokyo"))
    assert as_time(aware, "Europe/Berlin").to_list() == [moment]
    naive = pl.Series([datetime(2024, 3, 1, 10, tzinfo=UTC)]).dt.replace_time_zone(None)
    assert as_time(naive, "Europe/Berlin").to_list() == [datetime(2024, 3, 1, 9, tzinfo=UTC)]
    days = pl.Series([date(2024, 3, 1), None])
    assert as_time(days, "UTC").to_list() == [datetime(2024, 3, 1, tzinfo=UTC), None]
    numbers = pl.Series([1709287200, 20240301], dtype=pl.Int32)
    assert as_time(numbers, "UTC").dt.date().to_list() == [date(2024, 3, 1)] * 2


def test_whole_numbers_are_ids_without_a_fraction() -> None:
    assert as_text(pl.Series([7.0, None, 7.5, float("nan")])).to_list() == ["7", None, "7.5", None]
    assert as_text(pl.Series([2**62, 1])).to_list() == [str(2**62), "1"]
    assert as_text(pl.Series(["", " a ", "007"])).to_list() == [None, " a ", "007"]
    assert as_text(pl.Series([b"a", b"\xff"])).to_list() == ["a", "\0"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=140), min_size=1, max_size=5))
@example(["."])
@example(["..", "a/b:{c}%", "x" * 129, "é" * 128, "\u200b", "\ud7ff"])
def test_an_id_is_what_the_contract_says(texts: list[str]) -> None:
    def allowed(text: str) -> bool:
        try:
            return bool(check_id(text))
        except ValueError:
            return False

    found = bad_ids(as_text(pl.Series(texts, dtype=pl.String))).to_list()
    assert found == [bool(text) and not allowed(text) for text in texts]


# --- mapping ------------------------------------------------------------------------------------


def test_columns_are_recognised_by_usual_names() -> None:
    columns = ["Customer ID", "StockCode", "InvoiceDate", "Qty", "Invoice", "Country"]
    assert resolve({}, columns, EVENT_FIELDS, "f") == {
        "user_id": "Customer ID",
        "item_id": "StockCode",
        "timestamp": "InvoiceDate",
        "quantity": "Qty",
        "order_id": "Invoice",
    }


def test_what_a_person_says_comes_before_any_guess() -> None:
    columns = ["user_id", "buyer", "item_id", "ts"]
    mapping = resolve({"user_id": "buyer"}, columns, EVENT_FIELDS, "f")
    assert mapping == {"user_id": "buyer", "item_id": "item_id", "timestamp": "ts"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id", "field=COLUMN pairs"),
        ("user_id=", "field=COLUMN pairs"),
        ("usr_id=a", "no field 'usr_id'; did you mean 'user_id'"),
        ("user_id=a,user_id=b", "'user_id' twice"),
        ("attributes.x=a", "no field"),
    ],
)
def test_a_wrong_map_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_map(text, EVENT_FIELDS)


ids = st.text(
    st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S"]) | st.just(" "),
    min_size=1,
    max_size=12,
).filter(lambda text: text not in (".", ".."))


@settings(max_examples=40, deadline=None)
@given(people=st.lists(st.tuples(ids, ids), min_size=1, max_size=6))
def test_every_id_comes_through_every_format_unchanged(
    people: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _ in people],
            "item_id": [item for _, item in people],
            "timestamp": [1_700_000_000 + at for at in range(len(people))],
        }
    )
    frame.write_csv(folder / "f.csv")
    frame.write_parquet(folder / "f.parquet")
    frame.write_ndjson(folder / "f.jsonl")
    for path in sorted(folder.iterdir()):
        with RejectLog(None) as rejects:
            events = read_events(find_sources(str(path)), {}, EventOptions(now=NOW), rejects)
        assert rejects.counts == {}
        assert events.select("user_id", "item_id").rows() == people, path.suffix
