"""Amounts as people write them, and tables of items that are wrong in every way."""

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import UserError
from feature_store.ingest.amounts import DecimalMark, Decimals, split_currency
from feature_store.ingest.events import EventOptions
from feature_store.ingest.run import read_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.table import RejectLog
from tests.feature_store.test_ingest_items import bring, bring_file
from tests.feature_store.test_ingest_values import NOW


def numbers(said: Decimals, *texts: str) -> list[float | None]:
    read = DecimalMark(said).plain(pl.Series(texts, dtype=pl.String))
    return read.cast(pl.Float64, strict=False).to_list()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("15,00",), [15.0]),
        (("1.234,50", "0,125", "-3,5", "12"), [1234.5, 0.125, -3.5, 12.0]),
        (("1.234.567", "1.234"), [1_234_567.0, 1234.0]),
        (("1234,567",), [1234.567]),
        (("1 234 567,50", "1'234,50", "1\u202f234,5"), [1_234_567.5, 1234.5, 1234.5]),
        (("15.00", "1,234", "1.234"), [15.0, 1234.0, 1.234]),
        (("1,234,567.89", ".5", "7.", "1e3"), [1_234_567.89, 0.5, 7.0, 1000.0]),
        # Either a thousand or one and a bit: only other amounts of the file can tell.
        (("1,234",), [None]),
        (("1,234", "15,00"), [1.234, 15.0]),
        (("1,234", "15.00"), [1234.0, 15.0]),
        (("1.234",), [1.234]),
        (("1.234", "15,00"), [1234.0, 15.0]),
        # Both kinds in one file: what is clear counts, what is not is refused.
        (("15,00", "15.00", "1.234", "1,234"), [15.0, 15.0, None, None]),
        (("1.2.3", "1,2,3", "12,34,567.8", "1.23,456", "free", "1,"), [None] * 6),
    ],
)
def test_the_mark_is_told_from_the_file(
    texts: tuple[str, ...], expected: list[float | None]
) -> None:
    assert numbers("auto", *texts) == expected


def test_what_is_said_counts() -> None:
    assert numbers("comma", "1,234", "1.234", "15.00", "7") == [1.234, 1234.0, None, 7.0]
    assert numbers("point", "1,234", "1.234", "15,00", "7") == [1234.0, 1.234, None, 7.0]


def test_what_was_seen_counts_for_the_rest_of_the_file() -> None:
    mark = DecimalMark()
    mark.plain(pl.Series(["15,00"]))
    assert mark.plain(pl.Series(["1,234", "1.234"])).to_list() == ["1.234", "1234"]


@given(
    amounts=st.lists(st.decimals(0, 9_999_999, places=2), min_size=1, max_size=9),
    comma=st.booleans(),
    separated=st.booleans(),
)
def test_any_list_of_prices_is_read_as_it_was_meant(
    amounts: list[Decimal], comma: bool, separated: bool
) -> None:
    def written(amount: Decimal) -> str:
        text = f"{amount:,.2f}" if separated else f"{amount:.2f}"
        return text.translate(str.maketrans(",.", ".,")) if comma else text

    texts = [written(amount) for amount in amounts]
    for said in ("auto", "comma" if comma else "point"):
        read = DecimalMark(said).plain(pl.Series(texts))
        assert [Decimal(text) for text in read.to_list()] == amounts, said


def test_currencies() -> None:
    given = ["15,00 €", "EUR 15", "15EUR", "£3", "15 usd", "15 $", "-1 USD", None, "EUROPE"]
    amounts, currencies = split_currency(pl.Series(given))
    assert currencies.to_list() == ["EUR", "EUR", "EUR", "GBP", None, None, "USD", None, None]
    assert amounts.to_list() == ["15,00", "15", "15", "3", "15 usd", "15 $", "-1", None, "EUROPE"]


def test_a_german_table(tmp_path: Path) -> None:
    content = "sku;price;sale_price\na;1.015,00 €;15,00\nb;3,5;\nc;1.234;\nd;2,00 USD;1,00 EUR\n"
    summary, rows = bring(tmp_path / "items.csv", content)
    assert {row["item_id"]: (row["price"], row["sale_price"]) for row in rows} == {
        "a": (Decimal(1015), Decimal(15)),
        "b": (Decimal("3.5"), None),
        "c": (Decimal(1234), None),
    }
    assert summary.rejected == {"two_currencies": 1}
    (tmp_path / "items.csv").write_text("sku;price\na;1.234\n")
    assert bring_file(tmp_path / "items.csv", decimal="comma")[1][0]["price"] == Decimal(1234)
    assert bring_file(tmp_path / "items.csv")[1][0]["price"] == Decimal("1.234")


def test_a_price_of_two_parts(tmp_path: Path) -> None:
    price = {"amount": "3.50", "currency": "CHF"}
    frame = pl.DataFrame({"item_id": ["a", "b"], "price": [price, None]})
    frame.write_parquet(tmp_path / "items.parquet")
    _, rows = bring_file(tmp_path / "items.parquet")
    assert [(row["price"], row["currency"]) for row in rows] == [
        (Decimal("3.5"), "CHF"),
        (None, None),
    ]


def test_events_have_prices_too(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("user_id;item_id;date;quantity;price\n7;a;2024-01-01;1,5;1.015,50\n")
    with RejectLog(None) as rejects:
        events = read_events(find_sources(str(path)), {}, EventOptions(now=NOW), rejects)
    assert events.select("quantity", "unit_price").rows() == [(2, 1015.5)]
    assert rejects.total == 0


# --- tables that are wrong ------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    for name, content in {
        "items.csv": "item_id,title\na,Größe\n",
        "items.jsonl": '{"item_id":"a","title":"Größe"}\n',
    }.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        _, rows = bring_file(tmp_path / name)
        assert [(row["item_id"], row["title"]) for row in rows] == [("a", "Größe")]


def test_wrong_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("item_id,title\na,Größe\nb,ok\n".encode("latin-1"))
    summary, rows = bring_file(path)
    assert ([row["item_id"] for row in rows], summary.rejected) == (["b"], {"wrong_encoding": 1})
    path.write_bytes("item_id,title\na,b\n".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16"):
        bring_file(path)
    path = tmp_path / "items.jsonl"
    path.write_bytes('{"item_id":"a","title":"Größe"}\n{"item_id":"b"}\n'.encode("latin-1"))
    summary, rows = bring_file(path)
    assert ([row["item_id"] for row in rows], summary.rejected) == (["b"], {"wrong_encoding": 1})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("items.csv", "item_id,title\nbig,{}\nok,T\n", "too_long_title"),
        ("items.csv", 'item_id,title\nbig,"{}"\nok,T\n', "too_long_title"),
        ("items.csv", "item_id,title\n{},T\nok,T\n", "bad_item_id"),
        ("items.csv", "item_id,categories\nbig,{}\nok,C\n", "bad_categories"),
        ("items.csv", "item_id,price\nbig,{}\nok,1\n", "bad_price"),
        ("items.csv", "item_id,attributes.a\nbig,{}\nok,1\n", "too_long_attributes"),
        ("items.jsonl", '{{"item_id":"big","title":"{}"}}\n{{"item_id":"ok"}}\n', "too_long_title"),
    ],
)
def test_a_field_of_ten_megabytes(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content.format("x" * (10 << 20)))
    summary, rows = bring_file(tmp_path / name)
    assert ([row["item_id"] for row in rows], summary.rejected) == (["ok"], {reason: 1})
    assert (tmp_path / "rejects.csv").stat().st_size < 10_000


def test_documents_that_are_wrong(tmp_path: Path) -> None:
    deep = '{"a":' * 20 + "1" + "}" * 20
    lines = [
        '{"title":"no id"}',
        '{"item_id":"a","price":{"amount":"1"},"sale_price":{"cents":100}}',
        '{"item_id":"b","price":{"amount":"x","currency":"EUR"}}',
        f'{{"item_id":"c","attributes":{deep}}}',
        '{"item_id":"d","attributes":"text"}',
        '{"item_id":"e","markets":{"D E":{}}}',
        '{"item_id":"f","markets":{"DE":{"price":"1"}}}',
        '{"item_id":"g","published_at":"1969-12-31T00:00:00Z"}',
        '{"item_id":"h","available":"perhaps"}',
        '["item_id"]',
        '{"item_id":"ok"}',
        '{"item_id":"cut',
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    summary, rows = bring_file(tmp_path / "items.jsonl")
    assert [row["item_id"] for row in rows] == ["ok"]
    refused = pl.read_csv(tmp_path / "rejects.csv")
    assert dict(refused.select("line", "reason").rows()) == {
        1: "missing_item_id",
        2: "bad_sale_price",
        3: "bad_price",
        4: "bad_attributes",
        5: "bad_attributes",
        6: "bad_markets",
        7: "bad_markets",
        8: "before_1970",
        9: "bad_available",
        10: "broken_line",
        12: "broken_line",
    }
    assert not summary.complete
