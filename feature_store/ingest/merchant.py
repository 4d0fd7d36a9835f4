"""Google Merchant product feeds, in XML and as tab-separated text, by Google's attribute names.

Sources: https://support.google.com/merchants/answer/7052112 (attributes),
https://support.google.com/merchants/answer/160589 (RSS and Atom),
https://support.google.com/merchants/answer/160567 (text).
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import orjson
import polars as pl

from feature_store.ingest.csv_table import CsvTable
from feature_store.ingest.mapping import plain
from feature_store.ingest.merchant_xml import (
    MAX_ENTRY_CHARACTERS,
    BrokenFeedError,
    Entry,
    Raw,
    read_entries,
)
from feature_store.ingest.table import Batch, Reject, Table, text_frame
from feature_store.ingest.values import as_time

BATCH_ENTRIES = 5_000
BROKEN_FEED = "broken_feed"
"""Reason of the reject that stands for the missing end of a feed."""

_FIELDS = {
    "id": "item_id",
    "title": "title",
    "brand": "brand",
    "link": "url",
    "image_link": "image_url",
    "price": "price",
    "sale_price": "sale_price",
    "availability": "available",
    "item_group_id": "group_id",
    "expiration_date": "expires_at",
}
COLUMNS = [*_FIELDS.values(), "published_at", "categories", "attributes"]
"""What an entry becomes: fields of an item (``mapping.ITEM_FIELDS``)."""

_URLS = ("additional_image_link", "lifestyle_image_link")
_SIGNS_OF_A_FEED = {"id", "title", "link", "price", "availability", "imagelink"}


def is_merchant_header(columns: Sequence[str]) -> bool:
    """Tell whether the columns of a text file are Google's required attributes."""
    return {plain(column) for column in columns} >= _SIGNS_OF_A_FEED


def header_names(line: str) -> list[str]:
    """Return the names in the header line of a text file, whatever stands between them."""
    return [attribute_name(name.strip().strip('"')) for name in re.split(r"[\t,;|]", line)]


def is_xml(start: bytes) -> bool:
    """Tell XML from other text by its first bytes, in UTF-8 or UTF-16."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        start = start.replace(b"\0", b"")[2:]
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def translated(raw: Raw, now: datetime) -> dict[str, str | None]:
    """Turn Google's attributes of a product into fields of an item.

    Parameters
    ----------
    raw : dict
        Attributes by their names: text, objects, lists of either.
    now : datetime
        A sale price whose ``sale_price_effective_date`` does not include it is no field.

    Returns
    -------
    dict of str to (str or None)
        All of `COLUMNS`, as text; ``attributes`` is the JSON of everything else.
    """
    fields: dict[str, str | None] = dict.fromkeys(COLUMNS)
    rest = dict(raw)
    for name, field in _FIELDS.items():
        value = rest.pop(name, None)
        if isinstance(value, list):
            value = next((one for one in value if isinstance(one, str)), None)
        fields[field] = value if isinstance(value, str) else None
    period = raw.get("sale_price_effective_date")
    if fields["sale_price"] and isinstance(period, str) and not _on_sale(period, now):
        rest["sale_price"] = fields["sale_price"]
        fields["sale_price"] = None
    paths = raw.get("product_type")
    if paths is None:
        paths = raw.get("google_product_category")
    else:
        del rest["product_type"]
    if paths is not None:
        texts = paths if isinstance(paths, list) else [paths]
        fields["categories"] = orjson.dumps([one for one in texts if isinstance(one, str)]).decode()
    starts_at = rest.get("availability_date")
    if plain(fields["available"] or "") == "preorder" and isinstance(starts_at, str):
        # Shown by itself from that day on, without another feed.
        fields["available"], fields["published_at"] = "true", starts_at
    fields["attributes"] = orjson.dumps(rest).decode()
    return fields


@lru_cache(maxsize=1000)
def _on_sale(period: str, now: datetime) -> bool:
    """Tell whether a time is within ``BEGIN/END``; a period that cannot be read ends nothing."""
    if "/" not in period:
        return True
    begin, end = as_time(pl.Series([part.strip() for part in period.split("/", 1)]), "UTC")
    return (begin is None or begin <= now) and (end is None or now <= end)


class MerchantXml:
    """A product feed in XML.

    Parameters
    ----------
    file : binary file
        Read once, front to back.
    name : str
        What messages call it.
    now : datetime
        See `translated`.
    """

    def __init__(self, file: BinaryIO, name: str, now: datetime) -> None:
        self.name = name
        self.columns = list(COLUMNS)
        self._now = now
        self._entries = read_entries(file, name)
        # Now and not later: what is no feed is refused when it is opened.
        self._first = next(self._entries, ([], 0))

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read all entries; one that is broken off ends the table with a reject."""
        waiting, n_bytes = list(self._first[0]), self._first[1]
        try:
            for entries, size in self._entries:
                waiting += entries
                n_bytes += size
                if len(waiting) >= BATCH_ENTRIES or n_bytes >= 8 * MAX_ENTRY_CHARACTERS:
                    yield self._batch(waiting, wanted, n_bytes)
                    waiting, n_bytes = [], 0
        except BrokenFeedError as error:
            batch = self._batch(waiting, wanted, n_bytes)
            batch.rejects.append(Reject(self.name, error.line, BROKEN_FEED, str(error)))
            yield batch
            return
        yield self._batch(waiting, wanted, n_bytes)

    def _batch(self, entries: Sequence[Entry], wanted: Sequence[str], n_bytes: int) -> Batch:
        good = [entry for entry in entries if not entry.too_big]
        rows = [translated(entry.values, self._now) for entry in good]
        return Batch(
            self.name,
            text_frame({name: [row[name] for row in rows] for name in wanted}),
            np.array([entry.line for entry in good], dtype=np.int64),
            [
                Reject(self.name, entry.line, "too_big", "an entry of over a million characters")
                for entry in entries
                if entry.too_big
            ],
            n_bytes,
        )


class MerchantText:
    """A product feed as a table of text: tabs or commas between the columns.

    Parameters
    ----------
    file : binary file
        Read once, front to back.
    name : str
        What messages call it.
    now : datetime
        See `translated`.
    """

    def __init__(self, file: BinaryIO, name: str, now: datetime) -> None:
        self.name = name
        self.columns = list(COLUMNS)
        self._now = now
        self._table: Table = CsvTable(file, name)

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read all rows."""
        names = [attribute_name(column) for column in self._table.columns]
        for batch in self._table.batches(self._table.columns):
            rows = [
                translated(_raw(names, row), self._now)
                for row in batch.frame.iter_rows(named=False)
            ]
            frame = text_frame({name: [row[name] for row in rows] for name in wanted})
            yield Batch(self.name, frame, batch.lines, batch.rejects, batch.n_bytes)


def attribute_name(column: str) -> str:
    """Return Google's name of a text column: ``g:Image Link`` is ``image_link``."""
    bare = re.sub(r"\(.*\)$", "", column.strip()).removeprefix("g:")
    return re.sub(r"[\s_]+", "_", bare.strip()).lower()


def _raw(names: Sequence[str], values: Sequence[str | None]) -> Raw:
    raw: Raw = {}
    for name, value in zip(names, values, strict=True):
        if value is None or not (value := value.strip()):
            continue
        if name in _URLS and "," in value:
            raw[name] = [part.strip() for part in value.split(",")]
        elif name in raw:
            before = raw[name]
            raw[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            raw[name] = value
    return raw
