"""The columns of an item: in the catalogue's frame, from an upsert, and back to the API's form."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import polars as pl

from feature_store.schema import Item, format_time

COLUMNS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "listed": pl.Boolean(),
    "kind": pl.String(),
    "title": pl.String(),
    "url": pl.String(),
    "image_url": pl.String(),
    "price": pl.Decimal(18, 4),
    "sale_price": pl.Decimal(18, 4),
    "currency": pl.String(),
    "brand": pl.String(),
    "categories": pl.List(pl.String()),
    "available": pl.Boolean(),
    "published_at": pl.Datetime("ms", "UTC"),
    "expires_at": pl.Datetime("ms", "UTC"),
    "group_id": pl.String(),
    "attributes": pl.String(),
}
"""Columns of the catalogue. ``listed`` is false for an item known from an event only;
``attributes`` is a JSON object as text. Prices share one ``currency``."""


def as_catalogue_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Complete a frame of items to :data:`COLUMNS`: listed, available products without details.

    Parameters
    ----------
    frame : DataFrame
        ``item_id`` and any of the other columns.
    """
    defaults = {"listed": True, "kind": "product", "available": True, "attributes": "{}"}
    columns = []
    for name, dtype in COLUMNS.items():
        default = pl.lit(defaults.get(name), dtype=dtype)
        column = pl.col(name).cast(dtype).fill_null(default) if name in frame.columns else default
        columns.append(column.alias(name))
    return frame.select(columns)


def columns_of(item: Item) -> dict[str, Any]:
    """Return the columns of a listed item."""
    prices = [price for price in (item.price, item.sale_price) if price is not None]
    values = item.model_dump(exclude={"price", "sale_price", "attributes"})
    return {
        **{name: values.get(name) for name in COLUMNS},
        "listed": True,
        "price": item.price.amount if item.price else None,
        "sale_price": item.sale_price.amount if item.sale_price else None,
        "currency": prices[0].currency if prices else None,
        "attributes": orjson.dumps(item.attributes).decode(),
    }


def stub_columns(item_id: str) -> dict[str, Any]:
    """Return the columns of an item of which only the id is known."""
    known = {"item_id": item_id, "listed": False, "kind": "product", "available": True}
    return {**dict.fromkeys(COLUMNS), **known, "categories": None, "attributes": "{}"}


def as_document(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an item as the API writes it."""

    def money(amount: Decimal | None) -> dict[str, str] | None:
        if amount is None:
            return None
        exact = amount.normalize()
        places = max(2, -int(exact.as_tuple().exponent))
        return {"amount": f"{exact:.{places}f}", "currency": columns["currency"] or "XXX"}

    def time(value: datetime | None) -> str | None:
        return None if value is None else format_time(value)

    return {
        "item_id": columns["item_id"],
        "kind": columns["kind"],
        "title": columns["title"],
        "url": columns["url"],
        "image_url": columns["image_url"],
        "price": money(columns["price"]),
        "sale_price": money(columns["sale_price"]),
        "brand": columns["brand"],
        "categories": columns["categories"] or [],
        "available": columns["available"],
        "published_at": time(columns["published_at"]),
        "expires_at": time(columns["expires_at"]),
        "group_id": columns["group_id"],
        "attributes": orjson.loads(columns["attributes"] or "{}"),
    }
