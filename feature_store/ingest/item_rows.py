"""Rows of a batch become items, or are refused with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl
from pydantic import ValidationError

from feature_store.ingest.amounts import DecimalMark, Decimals, split_currency
from feature_store.ingest.mapping import ATTRIBUTE, plain
from feature_store.ingest.refusals import Refusals
from feature_store.ingest.table import Batch, Reject
from feature_store.ingest.values import as_number, as_text, as_time, bad_ids
from feature_store.item_columns import COLUMNS, columns_of
from feature_store.schema import (
    EPOCH,
    MAX_ATTRIBUTES_BYTES,
    MAX_ATTRIBUTES_DEPTH,
    Item,
)

KINDS = ("product", "content", "offer")
MAX_LENGTHS = {"title": 500, "brand": 200, "url": 2000, "image_url": 2000}
MAX_CATEGORIES = 50
MAX_CATEGORY_CHARACTERS = 500
_MAX_PRICE = 10_000_000_000
_PRICE = pl.Decimal(18, 4)
_LIST = pl.List(pl.String)
_BETWEEN = "\x1f"

AVAILABLE: dict[str, bool] = {
    **dict.fromkeys(("true", "1", "yes", "y", "t", "instock", "available", "backorder"), True),
    **dict.fromkeys(
        ("false", "0", "no", "n", "f", "outofstock", "soldout", "unavailable", "preorder"), False
    ),
}
"""What a column of availability may hold, without case and punctuation."""


@dataclass(frozen=True, slots=True)
class ItemOptions:
    """How a file of items is meant.

    Parameters
    ----------
    currency : str
        What prices are in if no column says so.
    timezone : str
        What times without a zone are in.
    decimal : {"auto", "comma", "point"}
        What stands before the fraction of a price.
    full : bool
        The files hold the whole catalogue: available items of the same kinds that no row names
        are made unavailable. Refused if a file breaks off.
    partial : bool
        What a file has no column for stays as it is.
    force : bool
        Make items unavailable even if they are more than a fifth of the available ones.
    """

    currency: str
    timezone: str = "UTC"
    decimal: Decimals = "auto"
    full: bool = False
    partial: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class NormalisedItems:
    """Items out of a batch.

    Parameters
    ----------
    items : DataFrame
        ``item_id`` and those of ``item_columns.COLUMNS`` that the rows have.
    refused_ids : Series of str
        Ids of refused rows, as far as they are ids: those items are in the file all the same.
    rejects : list of Reject
        The refused rows.
    """

    items: pl.DataFrame
    refused_ids: pl.Series
    rejects: list[Reject]


def normalise_items(
    batch: Batch, mapping: Mapping[str, str], options: ItemOptions, mark: DecimalMark
) -> NormalisedItems:
    """Turn rows into items.

    Parameters
    ----------
    batch : Batch
        Rows with at least the columns of `mapping`.
    mapping : mapping of str to str
        Column of each field (``mapping.ITEM_FIELDS``).
    options : ItemOptions
        How they are meant.
    mark : DecimalMark
        How the file writes amounts, as far as it has been read.
    """
    raw = {field: batch.frame[column].alias(field) for field, column in mapping.items()}
    refusals = Refusals(batch.frame.height)
    columns = {"item_id": as_text(raw["item_id"])}
    bad_id = columns["item_id"].is_null() | bad_ids(columns["item_id"])
    refusals.add("missing_item_id", columns["item_id"].is_null())
    refusals.add("bad_item_id", bad_id, columns["item_id"])
    if "group_id" in raw:
        columns["group_id"] = as_text(raw["group_id"])
        refusals.add("bad_group_id", bad_ids(columns["group_id"]), columns["group_id"])
    for field, longest in MAX_LENGTHS.items():
        if field in raw:
            columns[field] = as_text(raw[field])
            refusals.add(f"too_long_{field}", columns[field].str.len_chars() > longest, raw[field])
    if "categories" in raw:
        columns["categories"] = _categories(raw["categories"])
        refusals.add("bad_categories", columns["categories"].list.len() > MAX_CATEGORIES)
        longest_path = columns["categories"].list.eval(pl.element().str.len_chars()).list.max()
        refusals.add("bad_categories", longest_path > MAX_CATEGORY_CHARACTERS)
    for field in ("published_at", "expires_at"):
        if field in raw:
            columns[field] = as_time(raw[field], options.timezone)
            given = as_text(raw[field])
            refusals.add(f"bad_{field}", given.is_not_null() & columns[field].is_null(), given)
            refusals.add("before_1970", columns[field] < EPOCH, given)
    columns |= _prices(raw, options, mark, refusals)
    columns |= _choices(raw, refusals)
    columns |= _attributes(raw, refusals)
    columns |= _markets(raw, refusals)
    good = refusals.reason.is_null()
    frame = pl.DataFrame([values.alias(name) for name, values in columns.items()])
    items = frame.filter(good).select(
        pl.col(name).cast(COLUMNS[name]) for name in COLUMNS if name in columns
    )
    refused_ids = columns["item_id"].filter(~good & ~bad_id)
    return NormalisedItems(items, refused_ids, batch.rejects + refusals.rejects(batch))


def _categories(given: pl.Series) -> pl.Series:
    """Read ``A > B``, several with ``|`` between, or a list."""
    if isinstance(given.dtype, pl.List):
        texts = given.cast(pl.List(pl.String), strict=False).list.join(_BETWEEN, ignore_nulls=True)
    else:
        texts = as_text(given)
    # A shop has far fewer categories than items: each is read, and made a list, once.
    different = texts.drop_nulls().unique()
    known = pl.DataFrame(
        {
            "text": different,
            "categories": pl.Series([_paths(text) for text in different], dtype=_LIST),
        }
    )
    found = pl.DataFrame({"text": texts}).join(known, on="text", how="left", maintain_order="left")
    return found["categories"]


def _paths(text: str) -> list[str]:
    if text.startswith("["):
        listed = _loaded(text)
        parts = [str(part) for part in listed] if isinstance(listed, list) else text.split("|")
    else:
        parts = text.split(_BETWEEN if _BETWEEN in text else "|")
    paths = (" > ".join(filter(None, map(str.strip, part.split(">")))) for part in parts)
    return list(dict.fromkeys(filter(None, paths)))


def _prices(
    raw: Mapping[str, pl.Series], options: ItemOptions, mark: DecimalMark, refusals: Refusals
) -> dict[str, pl.Series]:
    """Read amounts such as ``15``, ``15.00 EUR``, ``15,00 €`` and the API's objects."""
    columns: dict[str, pl.Series] = {}
    currency = pl.Series("currency", [None], dtype=pl.String).new_from_index(0, len(raw["item_id"]))
    if "currency" in raw:
        currency = as_text(raw["currency"]).str.strip_chars().str.to_uppercase()
        refusals.add("bad_currency", ~currency.str.contains("^[A-Z]{3}$"), currency)
    for field in ("price", "sale_price"):
        if field not in raw:
            continue
        values, given = raw[field], as_text(raw[field])
        if values.dtype == pl.String:
            values, own = split_currency(_amounts_of_objects(values))
            other = own.is_not_null() & currency.is_not_null() & (own != currency)
            refusals.add("two_currencies", other, given)
            currency = currency.zip_with(currency.is_not_null(), own)
            values = mark.plain(values)
        number = as_number(values)
        wrong = given.is_not_null() & (number.is_null() | (number < 0) | (number >= _MAX_PRICE))
        refusals.add(f"bad_{field}", wrong, given)
        number = number.set(wrong, None)
        # A decimal is read from its digits; only what has an exponent goes through a float.
        exact = values if values.dtype == pl.String else number.round(4)
        exact = exact.set(number.is_null(), None).cast(_PRICE, strict=False)
        rounded = number.round(4).cast(_PRICE)
        columns[field] = exact.zip_with(exact.is_not_null(), rounded).alias(field)
    if columns:
        # A price without a currency is in the shop's own; what has no price has none.
        priced = pl.DataFrame(list(columns.values())).select(
            pl.any_horizontal(pl.all().is_not_null())
        )
        own = currency.fill_null(pl.lit(options.currency))
        columns["currency"] = own.set(~priced.to_series(), None)
    return columns


def _amounts_of_objects(values: pl.Series) -> pl.Series:
    """Write ``{"amount": "15.00", "currency": "EUR"}`` as ``15.00 EUR``."""
    is_object = values.str.starts_with("{").fill_null(value=False)
    if not is_object.any():
        return values

    def flat(text: str) -> str:
        money = _object(text)
        if not money or set(money) - {"amount", "currency"} or "amount" not in money:
            return text
        return f"{money['amount']} {money.get('currency') or ''}".strip()

    known = {value: flat(value) for value in values.filter(is_object).unique()}
    return values.replace(known)


def _choices(raw: Mapping[str, pl.Series], refusals: Refusals) -> dict[str, pl.Series]:
    columns: dict[str, pl.Series] = {}
    if "available" in raw:
        given = as_text(raw["available"])
        known = {
            value: AVAILABLE[plain(value)]
            for value in given.drop_nulls().unique()
            if plain(value) in AVAILABLE
        }
        refusals.add("bad_available", given.is_not_null() & ~given.is_in(list(known)), given)
        columns["available"] = given.replace_strict(known, default=None, return_dtype=pl.Boolean)
    if "kind" in raw:
        given = as_text(raw["kind"]).str.to_lowercase()
        refusals.add("bad_kind", ~given.is_in(list(KINDS)), given)
        columns["kind"] = given
    return columns


def _attributes(raw: Mapping[str, pl.Series], refusals: Refusals) -> dict[str, pl.Series]:
    """Put a column of JSON objects and the columns of single attributes together."""
    single = {field: values for field, values in raw.items() if field.startswith(ATTRIBUTE)}
    if not single and "attributes" not in raw:
        return {}
    height = len(raw["item_id"])
    whole: list[dict[str, Any]] = [{} for _ in range(height)]
    if "attributes" in raw:
        given = as_text(raw["attributes"])
        read = [_object(text) for text in given]
        refusals.add("bad_attributes", pl.Series([part is None for part in read]), given)
        whole = [part or {} for part in read]
    for field, values in single.items():
        name = field.removeprefix(ATTRIBUTE)
        typed = values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.List(pl.String))
        column = values if typed else as_text(values)
        for document, value in zip(whole, column.to_list(), strict=True):
            if value is not None:
                document[name] = value
    texts = pl.Series(
        "attributes", [orjson.dumps(document).decode() for document in whole], dtype=pl.String
    )
    refusals.add("too_long_attributes", texts.str.len_bytes() > MAX_ATTRIBUTES_BYTES)
    deep = [_is_deep(text) for text in texts.to_list()]
    refusals.add("bad_attributes", pl.Series(deep, dtype=pl.Boolean), texts)
    return {"attributes": texts}


def _markets(raw: Mapping[str, pl.Series], refusals: Refusals) -> dict[str, pl.Series]:
    """Read ``{"DE": {"available": true, "price": {...}, "sale_price": {...}}}``."""
    if "markets" not in raw:
        return {}
    given = as_text(raw["markets"])
    read: dict[str | None, Any] = {None: None}
    bad: list[str] = []
    for text in given.drop_nulls().unique():
        try:
            item = Item.model_validate({"item_id": "x", "markets": _object(text)})
            read[text] = columns_of(item)["markets"]
        except ValidationError:
            read[text] = None
            bad.append(text)
    refusals.add("bad_markets", given.is_in(bad), given)
    values = [read[text] for text in given]
    return {"markets": pl.Series("markets", values, dtype=COLUMNS["markets"])}


def _object(text: str | None) -> dict[str, Any] | None:
    value = {} if text is None else _loaded(text)
    return value if isinstance(value, dict) else None


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _is_deep(text: str) -> bool:
    """Tell whether objects and lists are nested beyond `MAX_ATTRIBUTES_DEPTH`."""
    if text.count("{") + text.count("[") <= MAX_ATTRIBUTES_DEPTH:
        return False
    level: list[Any] = [orjson.loads(text)]
    for _ in range(MAX_ATTRIBUTES_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
