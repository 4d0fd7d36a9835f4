"""From rows to items of the catalogue, and what a file looks like before it is imported."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from feature_store.catalogue import Catalogue
from feature_store.errors import UserError
from feature_store.ingest.item_rows import ItemOptions
from feature_store.ingest.items import ItemSummary, import_items
from feature_store.ingest.mapping import EVENT_FIELDS, ITEM_FIELDS, parse_map, resolve
from feature_store.ingest.profile import profile_file
from feature_store.ingest.source import find_item_sources, find_sources
from feature_store.item_columns import COLUMNS

Rows = list[dict[str, Any]]


class NewCatalogue:
    """The catalogue of a new shop."""

    def __init__(self) -> None:
        self.published: list[pl.DataFrame] = []

    def current(self) -> Catalogue:
        return Catalogue.empty()

    def publish(self, items: pl.DataFrame, absent: pl.Series) -> None:
        assert absent.is_empty()
        self.published.append(items)


def bring(path: Path, content: str, columns: str = "") -> tuple[ItemSummary, Rows]:
    path.write_text(content, encoding="utf-8")
    return bring_file(path, columns)


def bring_file(path: Path, columns: str = "", **how: Any) -> tuple[ItemSummary, Rows]:
    sink = NewCatalogue()
    summary = import_items(
        find_item_sources(str(path)),
        parse_map(columns, ITEM_FIELDS),
        ItemOptions(currency="EUR", **how),
        sink=sink,
        rejects_file=path.parent / "rejects.csv",
    )
    for frame in sink.published:
        assert frame.schema == COLUMNS
    return summary, [row for frame in sink.published for row in frame.to_dicts()]


def test_every_field(tmp_path: Path) -> None:
    no_column = ("attributes", "markets")
    header = ",".join([*(name for name in ITEM_FIELDS if name not in no_column), "attributes.size"])
    line = (
        "A/1,Red wine,Cellar,Drinks > Wine>Red|Gifts,15.00,USD,12.5,https://x/a,https://x/a.jpg,"
        "out of stock,product,wines,2024-01-01,2030-01-01T00:00:00Z,0.75 l"
    )
    summary, (item,) = bring(tmp_path / "items.csv", f"{header}\n{line}\n")
    assert (summary.accepted, summary.rejected) == (1, {})
    assert item == {
        "item_id": "A/1",
        "title": "Red wine",
        "brand": "Cellar",
        "categories": ["Drinks > Wine > Red", "Gifts"],
        "price": Decimal(15),
        "currency": "USD",
        "sale_price": Decimal("12.5"),
        "url": "https://x/a",
        "image_url": "https://x/a.jpg",
        "available": False,
        "kind": "product",
        "group_id": "wines",
        "published_at": datetime(2024, 1, 1, tzinfo=UTC),
        "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
        "attributes": '{"size":"0.75 l"}',
        "listed": True,
        "deleted": False,
        "markets": None,
    }


def test_prices_are_decimals_in_the_shop_currency_or_their_own(tmp_path: Path) -> None:
    content = "sku,price\na,0.1\nb,19.99 USD\nc,\nd,12345678901.5\ne,-1\nf,free\n"
    summary, rows = bring(tmp_path / "items.csv", content)
    assert {row["item_id"]: (row["price"], row["currency"]) for row in rows} == {
        "a": (Decimal("0.1"), "EUR"),
        "b": (Decimal("19.99"), "USD"),
        "c": (None, None),
    }
    assert summary.rejected == {"bad_price": 3}


def test_the_last_row_of_an_item_counts(tmp_path: Path) -> None:
    content = "product_id,name\na,old\nb,other\na,new\n"
    summary, rows = bring(tmp_path / "items.csv", content)
    assert (summary.rows_read, summary.accepted, summary.duplicates) == (3, 2, 1)
    assert {row["item_id"]: row["title"] for row in rows} == {"a": "new", "b": "other"}


def test_bad_rows_are_named(tmp_path: Path) -> None:
    content = (
        "item_id,title,available,kind,published_at,group_id\n"
        ",x,,,,\n..,x,,,,\na,x,maybe,,,\nb,x,,toy,,\nc,x,,,soon,\nd,x,,,,g\x01\n"
        f"e,{'x' * 501},,,,\ng,y,yes,content,,\n"
    )
    summary, rows = bring(tmp_path / "items.csv", content)
    assert [row["item_id"] for row in rows] == ["g"]
    assert summary.rejected == dict.fromkeys(
        (
            "missing_item_id",
            "bad_item_id",
            "bad_available",
            "bad_kind",
            "bad_published_at",
            "bad_group_id",
            "too_long_title",
        ),
        1,
    )
    refused = pl.read_csv(tmp_path / "rejects.csv")
    assert refused["line"].to_list() == [2, 3, 4, 5, 6, 7, 8]


def test_attributes_keep_the_types_that_a_format_has(tmp_path: Path) -> None:
    document = (
        b'{"item_id": 5, "categories": ["A > B", "C"], "attributes": {"n": 1.5, "of": [1]}}\n'
    )
    _, (item,) = bring(tmp_path / "items.jsonl", document.decode())
    assert item["item_id"] == "5"
    assert item["categories"] == ["A > B", "C"]
    assert orjson.loads(item["attributes"]) == {"n": 1.5, "of": [1]}
    frame = pl.DataFrame({"id": [1, 2], "weight": [1.5, None], "categories": [["A", "B"], None]})
    frame.write_parquet(tmp_path / "items.parquet")
    _, rows = bring_file(tmp_path / "items.parquet", "attributes.kg=weight")
    assert [(row["item_id"], row["categories"], row["attributes"]) for row in rows] == [
        ("1", ["A", "B"], '{"kg":1.5}'),
        ("2", None, "{}"),
    ]


def test_no_rows_publish_nothing(tmp_path: Path) -> None:
    summary, rows = bring(tmp_path / "items.csv", "item_id,title\n")
    assert (summary.rows_read, rows) == (0, [])
    with pytest.raises(UserError, match=r"which column .* is the item_id"):
        bring(tmp_path / "items.csv", "title\nx\n")


def test_a_profile_says_what_each_column_is(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text(
        "customer,sku,sold,qty,note\n7,a,2024-03-01,10,\n8,b,2024-01-02,9,\n7,a,2024-02-01,,hello\n"
    )
    (source,) = find_sources(str(path))
    mapping = resolve({"timestamp": "sold"}, ["customer", "sku", "sold", "qty"], EVENT_FIELDS, "f")
    profile = profile_file(source, mapping)
    assert (profile.rows, profile.truncated) == (3, False)
    by_name = {column.name: column for column in profile.columns}
    assert {name: column.type for name, column in by_name.items()} == {
        "customer": "integer",
        "sku": "text",
        "sold": "time",
        "qty": "integer",
        "note": "text",
    }
    assert by_name["qty"].least == "9", "numbers are compared as numbers"
    assert by_name["qty"].greatest == "10"
    assert by_name["qty"].nulls == 1
    assert by_name["sold"].least == "2024-01-02 00:00:00"
    assert by_name["customer"].distinct == 2
    assert by_name["customer"].field == "user_id"
    assert by_name["note"].field is None
    assert by_name["note"].examples == ("hello",)
