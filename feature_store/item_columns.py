"""The columns of an item: in the catalogue's frame, from an upsert, and back to the API's form."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import polars as pl

from feature_store.schema import Item, MarketTerms, Money, format_time

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
    "markets": pl.List(
        pl.Struct(
            {
                "market": pl.String(),
                "available": pl.Boolean(),
                "price": pl.Int64(),
                "sale_price": pl.Int64(),
                "currency": pl.String(),
            }
        )
    ),
    "deleted": pl.Boolean(),
}
"""Columns of the catalogue. ``listed`` is false for an item known from an event only;
``attributes`` is a JSON object as text. Prices share one ``currency``; those of ``markets`` are in
ten-thousandths, because decimals inside of lists cannot be memory-mapped. A ``deleted`` item keeps
its id and its row and nothing else."""

_PER_UNIT = 10_000


def as_catalogue_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Complete a frame of items to :data:`COLUMNS`: listed, available products without details.

    Parameters
    ----------
    frame : DataFrame
        ``item_id`` and any of the other columns.
    """
    defaults = {
        "listed": True,
        "kind": "product",
        "available": True,
        "attributes": "{}",
        "deleted": False,
    }
    columns = []
    for name, dtype in COLUMNS.items():
        default = pl.lit(defaults.get(name), dtype=dtype)
        column = pl.col(name).cast(dtype).fill_null(default) if name in frame.columns else default
        columns.append(column.alias(name))
    return frame.select(columns)


def columns_of(item: Item) -> dict[str, Any]:
    """Return the columns of a listed item."""
    prices = [price for price in (item.price, item.sale_price) if price is not None]
    values = item.model_dump(exclude={"price", "sale_price", "attributes", "markets"})
    return {
        **{name: values.get(name) for name in COLUMNS},
        "listed": True,
        "price": item.price.amount if item.price else None,
        "sale_price": item.sale_price.amount if item.sale_price else None,
        "currency": prices[0].currency if prices else None,
        "attributes": orjson.dumps(item.attributes).decode(),
        "markets": [_market(name, terms) for name, terms in sorted(item.markets.items())] or None,
        "deleted": False,
    }


def _market(name: str, terms: MarketTerms) -> dict[str, Any]:
    prices = [price for price in (terms.price, terms.sale_price) if price is not None]

    def units(price: Money | None) -> int | None:
        return None if price is None else int(price.amount * _PER_UNIT)

    return {
        "market": name,
        "available": terms.available,
        "price": units(terms.price),
        "sale_price": units(terms.sale_price),
        "currency": prices[0].currency if prices else None,
    }


def stub_columns(item_id: str) -> dict[str, Any]:
    """Return the columns of an item of which only the id is known."""
    known = {"item_id": item_id, "listed": False, "kind": "product", "available": True}
    return {**dict.fromkeys(COLUMNS), **known, "attributes": "{}", "deleted": False}


def deleted_columns(item_id: str) -> dict[str, Any]:
    """Return the columns of an item that was deleted: its row is never given to another."""
    known = {"item_id": item_id, "listed": False, "available": False}
    return {**dict.fromkeys(COLUMNS), **known, "attributes": "{}", "deleted": True}


def _money(amount: Decimal | None, currency: str | None) -> dict[str, str] | None:
    if amount is None:
        return None
    exact = amount.normalize()
    places = max(2, -int(exact.as_tuple().exponent))
    return {"amount": f"{exact:.{places}f}", "currency": currency or "XXX"}


def _time(value: datetime | None) -> str | None:
    # A column holds milliseconds; what has just come in may have more.
    if value is None:
        return None
    return format_time(value.replace(microsecond=value.microsecond // 1_000 * 1_000))


def _terms(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a market's entry says, as the API writes it."""
    terms: dict[str, Any] = {}
    if entry["available"] is not None:
        terms["available"] = entry["available"]
    for name in ("price", "sale_price"):
        if entry[name] is not None:
            terms[name] = _money(Decimal(entry[name]) / _PER_UNIT, entry["currency"])
    return terms


def as_document(columns: Mapping[str, Any], market: str | None = None) -> dict[str, Any]:
    """Return the columns of an item as the API writes it.

    Parameters
    ----------
    columns : mapping of str to object
        :data:`COLUMNS`.
    market : str or None
        Whose availability and prices count, where the item has an entry for it. An entry with a
        price of either kind stands for both: a sale in another market is none here.
    """
    markets = {entry["market"]: _terms(entry) for entry in columns["markets"] or ()}
    document = _own_document(columns)
    terms = markets.get(market, {}) if market is not None else {}
    if "available" in terms:
        document["available"] = terms["available"]
    if "price" in terms or "sale_price" in terms:
        document["price"], document["sale_price"] = terms.get("price"), terms.get("sale_price")
    document["markets"] = markets
    return document


def _own_document(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "item_id": columns["item_id"],
        "kind": columns["kind"],
        "title": columns["title"],
        "url": columns["url"],
        "image_url": columns["image_url"],
        "price": _money(columns["price"], columns["currency"]),
        "sale_price": _money(columns["sale_price"], columns["currency"]),
        "brand": columns["brand"],
        "categories": columns["categories"] or [],
        "available": columns["available"],
        "published_at": _time(columns["published_at"]),
        "expires_at": _time(columns["expires_at"]),
        "group_id": columns["group_id"],
        "attributes": orjson.loads(columns["attributes"] or "{}"),
    }
