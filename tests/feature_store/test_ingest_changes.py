"""What an import of items changes in the catalogue of a real server, and what it refuses."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFiles
from feature_store.embedded import EmbeddedServer
from feature_store.ingest.item_rows import ItemOptions
from feature_store.ingest.item_sink import StoreSink
from feature_store.ingest.items import import_items
from feature_store.ingest.source import find_item_sources
from feature_store.item_changes import ItemWrite
from feature_store.store import Store


class Shop:
    """A catalogue on a server, and the command that imports into it."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.folder = folder
        self.files = CatalogueFiles(folder / "catalogue")
        self.sink = StoreSink(server.url, folder / "catalogue")
        self.url = server.url

    def bring(self, text: str, *, name: str = "feed.csv", dry_run: bool = False, **how: Any) -> Any:
        path = self.folder / name
        path.write_text(text)
        options = ItemOptions(currency="EUR", **how)
        sources = find_item_sources(str(path))
        summary = import_items(sources, {}, options, sink=self.sink, dry_run=dry_run)
        return summary.changes

    def items(self) -> dict[str, dict[str, Any]]:
        catalogue = self.sink.current()
        known = [row for row in range(catalogue.n_rows) if catalogue.item_id(row) is not None]
        return {item["item_id"]: item for item in map(catalogue.item, known)}

    def available(self) -> set[str]:
        return {item_id for item_id, item in self.items().items() if item["available"]}

    def write(self, *changes: ItemWrite) -> None:
        async def run() -> None:
            store = await Store.open(self.url, read_timeout_s=5.0)
            assert await store.catalogue.write(changes)
            await store.close()

        asyncio.run(run())


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Shop:
    async def empty() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        await store._redis.flushall()
        await store.close()

    asyncio.run(empty())
    return Shop(server, tmp_path)


def lines(*ids: str, price: str = "1.00") -> str:
    return "item_id,title,price\n" + "".join(f"{one},T {one},{price}\n" for one in ids)


TEN = [f"i{n}" for n in range(10)]


def test_the_same_file_twice_writes_nothing(shop: Shop) -> None:
    text = (
        "item_id,title,price,sale_price,categories,published_at,attributes.size,markets\n"
        'a,A,15.00,,A > B|C,2024-01-01,3,"{""DE"":{""price"":{""amount"":""2"",""currency"":'
        '""EUR""}}}"\nb,B,,,,,,\n'
    )
    first = shop.bring(text)
    assert (first.added, first.updated, first.unchanged) == (2, 0, 0)
    version = shop.files.load().version
    again = shop.bring(text)
    assert (again.added, again.updated, again.unchanged) == (0, 0, 2)
    assert again.updated_fields == {}
    assert shop.files.load().version == version
    assert shop.items()["a"]["markets"] == {"DE": {"price": {"amount": "2.00", "currency": "EUR"}}}


def test_a_report_of_what_changed(shop: Shop) -> None:
    shop.bring(
        "item_id,title,price,sale_price,available\n"
        "up,T,10,,yes\ndown,T,10,,yes\nsale,T,10,,yes\nother,T,10,,yes\nsold,T,10,,yes\n"
        "back,T,10,,no\nsame,T,10,,no\n"
    )
    changes = shop.bring(
        "item_id,title,price,sale_price,available\n"
        "up,T,11,,yes\ndown,T,9.99,,yes\nsale,T,12,8,yes\nother,U,10 USD,,yes\nsold,T,10,,no\n"
        "back,T,10,,yes\nsame,T,10.00,,no\nnew,T,1,,yes\n"
    )
    assert (changes.added, changes.updated, changes.unchanged) == (1, 6, 1)
    assert changes.updated_fields == {
        "price": 3,
        "available": 2,
        "sale_price": 1,
        "currency": 1,
        "title": 1,
    }
    # What a customer pays for `sale` fell; that of `other` is in another currency.
    assert (changes.price_up, changes.price_down) == (1, 2)
    assert (changes.made_unavailable, changes.back_in_stock, changes.gone) == (1, 1, ["sold"])
    assert (changes.absent, changes.available_before, changes.applied) == (0, 5, True)


def test_what_is_absent_from_a_full_feed_is_not_available(shop: Shop) -> None:
    shop.bring(lines(*TEN))
    before = shop.items()["i9"]
    assert shop.bring(lines(*TEN[:9])).absent == 0, "only a full feed says anything of the rest"
    changes = shop.bring(lines(*TEN[:8], "new"), full=True)
    assert (changes.absent, changes.made_unavailable, changes.gone) == (2, 2, ["i8", "i9"])
    assert (changes.added, changes.unchanged, changes.updated) == (1, 8, 0)
    assert shop.available() == {*TEN[:8], "new"}
    assert shop.items()["i9"] == {**before, "available": False}
    again = shop.bring(lines(*TEN[:8], "new"), full=True)
    assert (again.absent, again.unchanged) == (0, 9), "what is gone is gone"
    back = shop.bring(lines(*TEN[:9], "new"), full=True)
    assert (back.back_in_stock, back.updated_fields) == (1, {"available": 1})


def test_more_than_a_fifth_gone_needs_force(shop: Shop) -> None:
    many = [f"n{n:02d}" for n in range(50)]
    shop.bring(lines(*many))
    version = shop.files.load().version
    changes = shop.bring(lines(*many[11:], price="2.00"), full=True)
    assert not changes.applied
    assert changes.refused == (
        "11 of 50 available items (22 %) would not be available any more: "
        f"{', '.join(many[:10])}, ...; nothing was changed; for more than 20 % say --force"
    )
    assert (shop.files.load().version, shop.available()) == (version, set(many))
    # Sold out by the feed's own word is as bad as missing.
    said = "item_id,title,price,available\n" + "".join(
        f"{one},T {one},1.00,{'no' if at < 11 else 'yes'}\n" for at, one in enumerate(many)
    )
    assert shop.bring(said, full=True).refused is not None
    assert shop.bring(lines(*many[10:]), full=True).applied, "a fifth is not more than a fifth"
    forced = shop.bring(lines("n49"), full=True, force=True)
    assert (forced.applied, forced.absent, shop.available()) == (True, 39, {"n49"})


def test_a_feed_without_items_is_refused(shop: Shop) -> None:
    shop.bring(lines(*TEN))
    assert "10 of 10" in str(shop.bring("item_id,title\n", full=True).refused)
    assert shop.available() == set(TEN)


def test_refused_rows_are_in_the_feed_all_the_same(shop: Shop) -> None:
    shop.bring(lines(*TEN))
    changes = shop.bring(lines(*TEN[:9]) + "i9,T i9,1.2.3.4\n", full=True)
    assert (changes.absent, changes.unchanged) == (0, 9)
    assert shop.available() == set(TEN)


@pytest.mark.parametrize("end", ["i8,T", 'i8,"T', "i8,T\xff,1.00"])
def test_a_table_that_is_cut_off_is_not_full(shop: Shop, end: str) -> None:
    shop.bring(lines(*TEN))
    path = shop.folder / "cut.csv"
    path.write_bytes((lines(*TEN[:8]) + end).encode("latin-1"))
    options = ItemOptions(currency="EUR", full=True, force=True)
    summary = import_items(find_item_sources(str(path)), {}, options, sink=shop.sink)
    assert not summary.complete
    assert "breaks off" in str(summary.changes.refused)
    assert shop.available() == set(TEN)


def test_a_feed_of_products_says_nothing_of_banners(shop: Shop) -> None:
    shop.bring("item_id,kind\nbanner,content\n")
    shop.bring(lines(*TEN))
    changes = shop.bring(lines(*TEN[:9]), full=True)
    assert (changes.absent, changes.available_before) == (1, 10)
    assert "banner" in shop.available()


def test_a_dry_run_reports_the_same_and_changes_nothing(shop: Shop) -> None:
    shop.bring(lines(*TEN))
    before = shop.items()
    text = lines(*TEN[:9], "new", price="3.00")
    tried = shop.bring(text, full=True, dry_run=True)
    assert shop.items() == before
    assert not tried.applied
    done = shop.bring(text, full=True)
    tried.applied = True
    assert tried == done


def test_a_partial_feed_leaves_what_it_does_not_say(shop: Shop) -> None:
    shop.bring(
        "item_id,title,price,categories,attributes.size,attributes.color\na,A,3,X > Y,9,red\n"
    )
    changes = shop.bring("item_id,available,attributes.size\na,no,10\nb,yes,1\n", partial=True)
    assert changes.updated_fields == {"available": 1, "attributes": 1}
    found = shop.items()
    assert found["a"]["title"] == "A"
    assert found["a"]["categories"] == ["X > Y"]
    assert (found["a"]["available"], found["a"]["price"]["amount"]) == (False, "3.00")
    assert found["a"]["attributes"] == {"size": "10", "color": "red"}
    assert found["b"]["title"] is None
    whole = shop.bring("item_id,available\na,no\n")
    assert set(whole.updated_fields) == {"title", "price", "currency", "categories", "attributes"}


def test_live_changes_outlive_an_import_that_says_nothing_new(shop: Shop) -> None:
    shop.bring(lines(*TEN))
    price = {"amount": "9.00", "currency": "CHF"}
    shop.write(
        ItemWrite("patch", "i0", {"title": "live", "markets": {"CH": {"price": price}}}),
        ItemWrite("patch", "i1", {"available": False}),
        ItemWrite("delete", "i2", {}),
        ItemWrite("put", "live only", {"title": "L"}),
    )
    changes = shop.bring(lines(*TEN[3:]))
    assert (changes.unchanged, changes.updated, changes.added) == (7, 0, 0)
    found = shop.items()
    assert (found["i0"]["title"], found["i1"]["available"]) == ("live", False)
    assert found["live only"]["title"] == "L"
    # A file that names them has the last word, but for what it cannot say.
    changes = shop.bring(lines(*TEN), full=True)
    assert (changes.updated, changes.added, changes.back_in_stock) == (2, 1, 1)
    assert (changes.absent, changes.gone) == (1, ["live only"])
    found = shop.items()
    assert (found["i0"]["title"], found["i2"]["title"]) == ("T i0", "T i2")
    assert found["i0"]["markets"] == {"CH": {"price": price}}


def test_a_change_that_the_import_has_not_seen_lies_over_it(shop: Shop) -> None:
    shop.bring(lines(*TEN))
    publish = shop.sink.publish

    class Late(StoreSink):
        def current(self) -> Catalogue:
            return shop_sink.current()

        def publish(self, items: pl.DataFrame, absent: pl.Series) -> None:
            shop.write(
                ItemWrite("patch", "i9", {"title": "late"}),
                ItemWrite("patch", "i0", {"title": "late"}),
                ItemWrite("patch", "i1", {"available": False}),
            )
            publish(items, absent)

    shop_sink = shop.sink
    shop.sink = Late(shop.url, shop.folder / "catalogue")
    text = lines("i0") + "i1,new,2.00\n" + lines(*TEN[2:9]).split("\n", 1)[1]
    assert shop.bring(text, full=True).applied
    found = shop.items()
    assert (found["i9"]["title"], found["i9"]["available"]) == ("late", False)
    assert found["i0"]["title"] == "late"
    assert (found["i1"]["title"], found["i1"]["available"]) == ("new", False)


def test_what_is_absent_is_available_in_no_market(shop: Shop) -> None:
    terms = {"DE": {"available": True, "price": {"amount": "2.00", "currency": "EUR"}}}
    shop.bring(lines(*TEN))
    shop.write(ItemWrite("patch", "i0", {"markets": terms}))
    assert shop.bring(lines(*TEN[1:]), full=True).applied
    catalogue = shop.sink.current()
    row = catalogue.row("i0")
    assert row is not None
    assert catalogue.item(row, "DE")["available"] is False
    assert catalogue.item(row)["markets"]["DE"] == {"price": terms["DE"]["price"]}


rows = st.dictionaries(
    st.sampled_from([f"h{n}" for n in range(8)]),
    st.tuples(st.sampled_from(["A", "B"]), st.sampled_from(["", "1.00", "2.50"]), st.booleans()),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(feeds=st.lists(st.tuples(rows, st.booleans()), min_size=1, max_size=4))
def test_any_feeds_leave_what_the_last_ones_said(
    feeds: list[tuple[dict[str, tuple[str, str, bool]], bool]],
    server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async def empty() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        await store._redis.flushall()
        await store.close()

    asyncio.run(empty())
    shop = Shop(server, tmp_path_factory.mktemp("shop"))
    expected: dict[str, tuple[str, str | None, bool]] = {}
    for feed, full in feeds:
        text = "item_id,title,price,available\n" + "".join(
            f"{one},{title},{price},{available}\n"
            for one, (title, price, available) in feed.items()
        )
        before = dict(expected)
        expected |= {one: (t, p or None, available) for one, (t, p, available) in feed.items()}
        if full:
            expected |= {one: (*expected[one][:2], False) for one in expected if one not in feed}
        changes = shop.bring(text, full=full, force=True)
        assert changes.added == len(set(feed) - set(before))
        gone = [one for one, (*_, was) in before.items() if was and not expected[one][2]]
        assert changes.made_unavailable == len(gone)
        found = {
            one: (item["title"], item["price"] and item["price"]["amount"], item["available"])
            for one, item in shop.items().items()
        }
        assert found == expected


def test_every_format_of_our_own_documents(shop: Shop) -> None:
    document = (
        '{"item_id": "a", "kind": "content", "title": "T", "price": {"amount": "15.00", "currency":'
        ' "USD"}, "sale_price": {"amount": 12.5, "currency": "USD"}, "categories": ["A > B"],'
        ' "available": true, "published_at": "2026-01-01T00:00:00Z", "group_id": "g", "attributes":'
        ' {"n": 1.5, "deep": {"x": [1]}}, "markets": {"DE": {"available": false}}}\n'
    )
    shop.bring(document + '{"item_id": "b", "price": "3,50 EUR"}\n', name="items.jsonl")
    item = shop.items()["a"]
    assert item["price"] == {"amount": "15.00", "currency": "USD"}
    assert item["sale_price"] == {"amount": "12.50", "currency": "USD"}
    assert (item["kind"], item["categories"], item["group_id"]) == ("content", ["A > B"], "g")
    assert item["attributes"] == {"n": 1.5, "deep": {"x": [1]}}
    assert item["markets"] == {"DE": {"available": False}}
    assert shop.items()["b"]["price"] == {"amount": "3.50", "currency": "EUR"}
    # The documents that the API shows can be imported again, and say nothing new.
    text = "".join(orjson.dumps(item).decode() + "\n" for item in shop.items().values())
    changes = shop.bring(text, name="again.jsonl")
    assert (changes.unchanged, changes.updated, changes.updated_fields) == (2, 0, {})
