"""Product feeds by Google's attribute names: every form, and what strangers may write."""

import gzip
import io
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import UserError
from feature_store.ingest.items import ItemSummary
from feature_store.ingest.merchant import COLUMNS, MerchantXml, translated
from feature_store.ingest.merchant_xml import MAX_ENTRY_CHARACTERS, MAX_TAG_BYTES
from feature_store.ingest.source import find_item_sources, find_sources
from tests.feature_store.test_ingest_items import Rows, bring_file

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel>\n'
    "<title>The shop</title><link>https://shop.example</link>"
    "<image><title>no item</title></image>\n"
)
TAIL = "</channel></rss>\n"
SHOE = """<item>
<g:id>S/1</g:id><title>not this one</title><g:title>Shoe &amp; sock</g:title>
<description><![CDATA[Of <b>leather</b>]]></description><link>https://shop.example/s1</link>
<g:image_link>https://shop.example/s1.jpg</g:image_link>
<g:additional_image_link>https://a</g:additional_image_link>
<g:additional_image_link>https://b</g:additional_image_link>
<g:price>1,015.00 EUR</g:price><g:sale_price>12.50 EUR</g:sale_price>
<g:sale_price_effective_date>2020-01-01T11:07+0100/2099-02-28T23:07+0100</g:sale_price_effective_date>
<g:availability>in_stock</g:availability><g:brand>Foot</g:brand>
<g:google_product_category>187</g:google_product_category>
<g:product_type>Shoes &gt; Boots</g:product_type><g:product_type>Sale</g:product_type>
<g:item_group_id>S</g:item_group_id><g:gtin>0001</g:gtin><g:custom_label_0>warm</g:custom_label_0>
<g:expiration_date>2099-01-01T00:00Z</g:expiration_date>
<g:shipping><g:country>DE</g:country><g:price>4.90 EUR</g:price></g:shipping>
<g:shipping><g:country>AT</g:country><g:price>9.90 EUR</g:price></g:shipping>
<weight_of_box>2</weight_of_box>
</item>
"""


def item(item_id: str, more: str = "") -> str:
    return f"<item><g:id>{item_id}</g:id><title>T</title>{more}</item>\n"


def feed(path: Path, text: str | bytes) -> tuple[ItemSummary, Rows]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return bring_file(path)


def test_every_attribute(tmp_path: Path) -> None:
    summary, (shoe,) = feed(tmp_path / "feed.xml", HEAD + SHOE + TAIL)
    assert (summary.accepted, summary.rejected, summary.complete) == (1, {}, True)
    attributes = orjson.loads(shoe.pop("attributes"))
    assert shoe == {
        "item_id": "S/1",
        "listed": True,
        "deleted": False,
        "kind": "product",
        "title": "Shoe & sock",
        "url": "https://shop.example/s1",
        "image_url": "https://shop.example/s1.jpg",
        "price": Decimal(1015),
        "sale_price": Decimal("12.5"),
        "currency": "EUR",
        "brand": "Foot",
        "categories": ["Shoes > Boots", "Sale"],
        "available": True,
        "published_at": None,
        "expires_at": datetime(2099, 1, 1, tzinfo=UTC),
        "group_id": "S",
        "markets": None,
    }
    assert attributes == {
        "description": "Of <b>leather</b>",
        "additional_image_link": ["https://a", "https://b"],
        "sale_price_effective_date": "2020-01-01T11:07+0100/2099-02-28T23:07+0100",
        "google_product_category": "187",
        "gtin": "0001",
        "custom_label_0": "warm",
        "shipping": [
            {"country": "DE", "price": "4.90 EUR"},
            {"country": "AT", "price": "9.90 EUR"},
        ],
        "weight_of_box": "2",
    }


def test_atom_has_its_links_in_attributes(tmp_path: Path) -> None:
    text = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">
    <title>Shop</title><entry><id>tag:other</id><g:id>A</g:id><title>Hat</title>
    <link rel="alternate" href="https://shop.example/a"/><link rel="self" href="https://api"/>
    <g:price>3 EUR</g:price></entry></feed>"""
    _, (hat,) = feed(tmp_path / "feed", text)
    assert (hat["item_id"], hat["title"], hat["url"]) == ("A", "Hat", "https://shop.example/a")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"availability": "out of stock"}, {"available": "out of stock"}),
        ({"availability": "backorder", "availability_date": "2026-09-01"}, {"published_at": None}),
        (
            {"availability": "preorder", "availability_date": "2026-09-01T00:00Z"},
            {"available": "true", "published_at": "2026-09-01T00:00Z"},
        ),
        ({"availability": "preorder"}, {"available": "preorder", "published_at": None}),
        (
            {"sale_price": "1 EUR", "sale_price_effective_date": "2026-01-01/2026-02-01"},
            {"sale_price": None},
        ),
        (
            {"sale_price": "1 EUR", "sale_price_effective_date": "2026-07-01/2026-08-01"},
            {"sale_price": None},
        ),
        (
            {"sale_price": "1 EUR", "sale_price_effective_date": "2026-05-01/2026-06-02"},
            {"sale_price": "1 EUR"},
        ),
        ({"sale_price": "1 EUR", "sale_price_effective_date": "soon"}, {"sale_price": "1 EUR"}),
        ({"google_product_category": "A > B"}, {"categories": '["A > B"]'}),
        ({"title": ["first", "second"]}, {"title": "first"}),
        ({"title": {"nested": "x"}}, {"title": None}),
    ],
)
def test_what_attributes_mean(raw: dict[str, Any], expected: dict[str, str | None]) -> None:
    fields = translated({"id": "x", **raw}, NOW)
    assert list(fields) == COLUMNS
    assert {name: fields[name] for name in expected} == expected


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("spelling", [str, str.title, lambda name: name.replace("_", " ")])
def test_text_feeds_are_recognised(tmp_path: Path, separator: str, spelling: Any) -> None:
    names = ["id", "title", "link", "image_link", "price", "availability", "product_type"]
    names += ["shipping(country:price)", "additional_image_link"]
    values = ["A", '17" screen', "https://x", "https://i", "15.00 EUR", "in stock", "A > B"]
    values += ["DE:4.90 EUR", "https://1;https://2".replace(";", "\t" if separator == "," else ",")]
    text = separator.join(map(spelling, names)) + "\n" + separator.join(values) + "\n"
    summary, (screen,) = feed(tmp_path / "products.txt", text)
    assert summary.rejected == {}
    assert (screen["item_id"], screen["title"], screen["url"]) == ("A", '17" screen', "https://x")
    assert (screen["price"], screen["currency"]) == (Decimal(15), "EUR")
    assert screen["categories"] == ["A > B"]
    attributes = orjson.loads(screen["attributes"])
    assert attributes["shipping"] == "DE:4.90 EUR"
    if separator == "\t":
        assert attributes["additional_image_link"] == ["https://1", "https://2"]


def test_other_tables_are_no_feeds(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,link,price\na,T,https://x,1\n")
    assert find_item_sources(str(path))[0].format == "csv"
    assert find_item_sources(str(path), "merchant")[0].format == "merchant"
    path.write_text("id,title,link,image_link,price,availability\na,T,https://x,,1,yes\n")
    assert find_item_sources(str(path))[0].format == "merchant"
    assert find_item_sources(str(path), mapped=True)[0].format == "csv"
    with pytest.raises(UserError, match="holds items; use one of csv"):
        find_sources(str(path), "merchant")
    with pytest.raises(UserError, match="not yet supported"):
        find_sources(str(path), "ga4")


# --- what strangers write -------------------------------------------------------------------------

BOMB = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
# In two parts: CI takes a whole one for the path of somebody's machine.
LOCAL_FILE = "file:" + "///etc/passwd"
DOCUMENT_TYPES = {
    "billion laughs": f'<!DOCTYPE rss [<!ENTITY l0 "ha">{BOMB}]>'
    "<rss><item><id>&l9;</id></item></rss>",
    "external entity": f'<!DOCTYPE rss [<!ENTITY x SYSTEM "{LOCAL_FILE}">]>'
    "<rss><item><id>&x;</id></item></rss>",
    "external subset": '<!DOCTYPE rss SYSTEM "http://127.0.0.1:1/x.dtd"><rss/>',
    "parameter entity": f'<!DOCTYPE rss [<!ENTITY % p SYSTEM "{LOCAL_FILE}"> %p;]><rss/>',
    "harmless": "<!DOCTYPE rss><rss/>",
}


@pytest.mark.parametrize("name", DOCUMENT_TYPES)
def test_document_types_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"declares a document type .* refused"):
        feed(tmp_path / "feed.xml", DOCUMENT_TYPES[name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!DOCTYPE html><html></html>", "is a web page"),
        ("<html><body>404</body></html>", r"outermost element is <html>"),
        ("<", "is not XML"),
        ("", "is empty"),
        ("  \n ", "is empty"),
        ("PK\x03\x04", "is not XML|not text|column"),
        (f'<rss><item a="{"x" * (MAX_TAG_BYTES + 2**19)}"/></rss>', "a tag or a comment of over"),
        (f"<rss><!--{'x' * (MAX_TAG_BYTES + 2**19)}--></rss>", "a tag or a comment of over"),
        ('<?xml version="1.0" encoding="klingon"?><rss/>', "cannot be read as XML|not XML"),
    ],
)
def test_what_is_no_feed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        feed(tmp_path / "feed.xml", text)


@pytest.mark.parametrize(
    "end", ["", "<item><g:id>cut</g:id><title>T", "</item></wrong>", "\x01", "&nbsp;" + TAIL]
)
def test_a_feed_that_breaks_off_keeps_what_was_whole(tmp_path: Path, end: str) -> None:
    path = tmp_path / "feed.xml"
    summary, rows = feed(path, HEAD + item("a") + item("b") + end)
    assert [row["item_id"] for row in rows] == ["a", "b"]
    assert not summary.complete
    assert summary.rejected == {"broken_feed": 1}
    assert (summary.rows_read, summary.changes.applied) == (2, True)
    # As a whole catalogue it would make everything behind the break unavailable.
    summary, rows = bring_file(path, full=True, force=True)
    assert (rows, summary.changes.applied) == ([], False)
    assert "breaks off" in str(summary.changes.refused)


def test_a_broken_archive_imports_nothing(tmp_path: Path) -> None:
    whole = gzip.compress((HEAD + item("a") * 500 + TAIL).encode())
    with pytest.raises(UserError, match="cannot read"):
        feed(tmp_path / "feed.xml.gz", whole[:-20])
    summary, _ = feed(tmp_path / "feed.xml.gz", whole)
    assert (summary.accepted, summary.duplicates) == (1, 499)


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "utf-16", "utf-8-sig"])
def test_a_feed_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    declared = encoding.removesuffix("-sig")
    text = HEAD.replace("utf-8", declared) + item("a").replace(">T<", ">Größe £<") + TAIL
    _, rows = feed(tmp_path / "feed.xml", text.encode(encoding))
    assert [row["title"] for row in rows] == ["Größe £"]


def test_bytes_in_another_encoding_end_the_feed(tmp_path: Path) -> None:
    text = HEAD + item("a") + item("b").replace(">T<", ">Größe<") + TAIL
    summary, rows = feed(tmp_path / "feed.xml", text.encode("latin-1"))
    assert [row["item_id"] for row in rows] == ["a"]
    assert not summary.complete


def test_one_entry_cannot_fill_the_memory(tmp_path: Path) -> None:
    text = "".join(
        (
            HEAD,
            item("long", f"<description>{'x' * (10 << 20)}</description>"),
            item("many", "<a>1</a>" * 3_000),
            item("deep", "<n>" * 5_000 + "x" + "</n>" * 5_000),
            item("big", f"<description>{'x' * 40_000}</description>"),
            item("good"),
            TAIL,
        )
    )
    summary, rows = feed(tmp_path / "feed.xml", text)
    assert [row["item_id"] for row in rows] == ["good"]
    assert summary.rejected == {"too_big": 3, "too_long_attributes": 1}
    assert len(text) > MAX_ENTRY_CHARACTERS


def test_bad_entries_are_named_by_line(tmp_path: Path) -> None:
    text = HEAD + (
        "<item><title>no id</title></item>\n"
        + item("a", "<g:price>cheap</g:price>")
        + item("b", "<g:availability>perhaps</g:availability>")
        + item("c", "<g:price>1.234,50 EUR</g:price>")
        + item("c", "<g:price>12 EUR</g:price>")
        + item("x" * 129)
        + TAIL
    )
    summary, rows = feed(tmp_path / "feed.xml", text)
    assert [(row["item_id"], row["price"]) for row in rows] == [("c", Decimal(12))]
    refused = pl.read_csv(tmp_path / "rejects.csv")
    assert refused.select("line", "reason").rows() == [
        (4, "missing_item_id"),
        (5, "bad_price"),
        (6, "bad_available"),
        (9, "bad_item_id"),
    ]
    assert (summary.rows_read, summary.duplicates) == (6, 1)


xml_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=40
)


@settings(max_examples=150, deadline=None)
@given(titles=st.lists(xml_text, min_size=1, max_size=5), cut=st.integers(7, 4_000))
def test_every_text_comes_through_whatever_the_chunks(titles: list[str], cut: int) -> None:
    entries = [item(str(at)).replace(">T<", f">{escape(t)}<") for at, t in enumerate(titles)]
    data = (HEAD + "".join(entries) + TAIL).encode()
    table = MerchantXml(io.BytesIO(data), "feed", NOW)
    found = pl.concat(batch.frame for batch in table.batches(["item_id", "title"]))
    assert found["title"].to_list() == [title.strip() or None for title in titles]
    # Cut anywhere, it gives a part of the same entries, and says that it is cut.
    part = MerchantXml(io.BytesIO(HEAD.encode() + data[len(HEAD.encode()) :][:cut]), "feed", NOW)
    batches = list(part.batches(["item_id", "title"]))
    some = pl.concat(batch.frame for batch in batches)["item_id"].to_list()
    assert some == [str(at) for at in range(len(titles))][: len(some)]
    whole = cut >= len(data) - len(HEAD.encode()) - 1
    assert bool(batches[-1].rejects) == (not whole)


READ_AND_TELL_PEAK = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import psutil
from feature_store.ingest.merchant import MerchantXml
n = peak = 0
with Path(sys.argv[1]).open("rb") as file:
    table = MerchantXml(file, "feed", datetime.now(UTC))
    for batch in table.batches(table.columns):
        n += len(batch.frame)
        peak = max(peak, psutil.Process().memory_info().rss)
print(n, peak)
"""


def test_a_large_feed_is_read_in_bounded_memory(tmp_path: Path) -> None:
    peaks = {}
    for n in (16_000, 80_000):
        path = tmp_path / f"{n}.xml"
        long = f"<description>{'word ' * 150}</description>"
        path.write_text(HEAD + "".join(item(str(at), long) for at in range(n)) + TAIL)
        command = [sys.executable, "-c", READ_AND_TELL_PEAK, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        read, peaks[n] = map(int, done.stdout.split())
        assert read == n
    # 64,000 entries more are 50 MB of text, and several times that as objects.
    assert peaks[80_000] - peaks[16_000] < 20 << 20
