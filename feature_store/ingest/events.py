"""Rows of a file become events of the log, or are refused with the reason."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import orjson
import polars as pl

from feature_store.event_log import EVENT_LOG_SCHEMA
from feature_store.ingest.amounts import DecimalMark, Decimals
from feature_store.ingest.feedback import refuse_bad_feedback
from feature_store.ingest.mapping import plain
from feature_store.ingest.refusals import Refusals
from feature_store.ingest.table import Batch, Reject
from feature_store.ingest.values import as_number, as_text, as_time, bad_ids
from feature_store.schema import EPOCH, ITEM_EVENTS, MAX_CLOCK_SKEW_S, EventType

MAX_QUANTITY = 1_000_000
EXTRA_TEXT = ("recommendation_id", "query", "instrument")
EXTRA_NUMBERS = ("rank", "value", "score")
_ID_FIELDS = ("user_id", "anonymous_id", "item_id", "order_id", "event_id")

TYPE_NAMES: dict[str, EventType] = {
    **{plain(kind.value): kind for kind in EventType},
    **dict.fromkeys(
        ("buy", "bought", "order", "sale", "transaction", "checkout"), EventType.PURCHASE
    ),
    **dict.fromkeys(("viewed", "pageview", "detailview", "viewitem"), EventType.VIEW),
    **dict.fromkeys(("cart", "addtobasket", "basket"), EventType.ADD_TO_CART),
    **dict.fromkeys(("removefrombasket",), EventType.REMOVE_FROM_CART),
    **dict.fromkeys(("clickout",), EventType.CLICK),
    **dict.fromkeys(("rate", "rated"), EventType.RATING),
    **dict.fromkeys(("return", "returned"), EventType.REFUND),
}
"""What a column of types may hold, without case and punctuation."""


@dataclass(frozen=True, slots=True)
class EventOptions:
    """How a file of events is meant.

    Parameters
    ----------
    now : datetime
        Events more than five minutes later are refused.
    default_type : EventType
        What the rows are if no column says so.
    type_given : bool
        Whether a person has said so: then a column of types counts only if it was named too.
    timezone : str
        What times without a zone are in.
    currency : str, optional
        What prices are in if no column says so.
    price : {"unit", "line"}
        Whether a price is of one piece or of the whole line.
    negative_quantity : {"refund", "reject"}
        What a purchase of less than nothing is.
    channel : str, optional
        Where the events happened if no column says so.
    decimal : {"auto", "comma", "point"}
        What stands before the fraction of a price or a quantity.
    """

    now: datetime
    default_type: EventType = EventType.PURCHASE
    type_given: bool = False
    timezone: str = "UTC"
    currency: str | None = None
    price: Literal["unit", "line"] = "unit"
    negative_quantity: Literal["refund", "reject"] = "refund"
    channel: str | None = None
    decimal: Decimals = "auto"


@dataclass(frozen=True, slots=True)
class Normalised:
    """Events out of a batch.

    Parameters
    ----------
    events : DataFrame
        `EVENT_LOG_SCHEMA` and ``line`` (i64). Without an id of its own an event has a null
        ``event_id`` and its content's hash in ``digest``, else null there.
    rejects : list of Reject
        The other rows.
    """

    events: pl.DataFrame
    rejects: list[Reject]


def normalise(
    batch: Batch,
    mapping: Mapping[str, str],
    options: EventOptions,
    mark: DecimalMark | None = None,
) -> Normalised:
    """Turn rows into events.

    Parameters
    ----------
    batch : Batch
        Rows with at least the columns of `mapping`.
    mapping : mapping of str to str
        Column of each field (``mapping.EVENT_FIELDS``).
    options : EventOptions
        How they are meant.
    mark : DecimalMark, optional
        How the file writes amounts, as far as it has been read.
    """
    raw = {field: batch.frame[column].alias(field) for field, column in mapping.items()}
    given_amounts = {field: raw[field] for field in ("quantity", "price") if field in raw}
    mark = mark or DecimalMark(options.decimal)
    raw |= {field: mark.plain(values) for field, values in given_amounts.items()}
    height = batch.frame.height
    refusals = Refusals(height)
    columns = {name: _nulls(name, dtype, height) for name, dtype in EVENT_LOG_SCHEMA.items()}
    for field in _ID_FIELDS:
        if field in raw:
            columns[field] = as_text(raw[field]).alias(field)
    # Among the reasons against one row the most telling comes first.
    refusals.add(
        "missing_user_id", columns["user_id"].is_null() & columns["anonymous_id"].is_null()
    )
    columns["type"] = _types(raw, columns, options, refusals)
    needs_item = columns["type"].is_in([kind.value for kind in ITEM_EVENTS])
    refusals.add("missing_item_id", needs_item & columns["item_id"].is_null())
    for field in _ID_FIELDS:
        refusals.add(f"bad_{field}", bad_ids(columns[field]), columns[field])
    columns["timestamp"] = _times(raw, options, refusals)
    key_numbers = _amounts(raw, columns, options, refusals)
    _labels(raw, columns, options, refusals)
    refuse_bad_feedback(raw, columns["type"], refusals)
    columns["extra"] = _extra(raw, height)
    columns["trust"] = pl.Series("trust", ["server"]).new_from_index(0, height)

    columns["type"] = columns["type"].alias("type")
    rows = pl.DataFrame(list(columns.values())).with_columns(
        pl.Series("line", batch.lines), *key_numbers, refusals.reason
    )
    good = refusals.reason.is_null()
    events = rows.filter(good).drop("reason")
    digests = _digests(events, "currency" in raw, "channel" in raw)
    events = events.with_columns(digests).drop("quantity_key", "price_key")
    return Normalised(events, batch.rejects + refusals.rejects(batch))


def _nulls(name: str, dtype: pl.DataType, height: int) -> pl.Series:
    return pl.Series(name, [None], dtype=dtype).new_from_index(0, height)


def _types(
    raw: Mapping[str, pl.Series],
    columns: Mapping[str, pl.Series],
    options: EventOptions,
    refusals: Refusals,
) -> pl.Series:
    default = options.default_type.value
    given = as_text(raw["type"]) if "type" in raw else columns["type"]
    known: dict[str, str] = {}
    for value in given.drop_nulls().unique():
        kind = TYPE_NAMES.get(plain(value))
        if kind is not None:
            known[value] = kind.value
    unknown = given.is_not_null() & ~given.is_in(list(known))
    refusals.add("unknown_type", unknown, given)
    return given.replace_strict(known, default=None, return_dtype=pl.String).fill_null(default)


def _times(raw: Mapping[str, pl.Series], options: EventOptions, refusals: Refusals) -> pl.Series:
    if "timestamp" not in raw:
        raise ValueError("a mapping of events needs a timestamp")
    given = raw["timestamp"]
    times = as_time(given, options.timezone).alias("timestamp")
    missing = given.is_null() | (as_text(given).is_null() if given.dtype == pl.String else False)
    refusals.add("missing_timestamp", missing)
    refusals.add("bad_timestamp", times.is_null(), given)
    refusals.add("before_1970", times < EPOCH, given)
    latest = options.now + timedelta(seconds=MAX_CLOCK_SKEW_S)
    refusals.add("in_the_future", times > latest, given)
    return times


def _amounts(
    raw: Mapping[str, pl.Series],
    columns: dict[str, pl.Series],
    options: EventOptions,
    refusals: Refusals,
) -> list[pl.Series]:
    """Fill in quantity and unit price; return what of them goes into the event's hash."""
    height = len(columns["type"])
    number = {
        field: as_number(raw[field]) if field in raw else _nulls(field, pl.Float64(), height)
        for field in ("quantity", "price")
    }
    quantity, price = number["quantity"], number["price"]
    for field, values in number.items():
        if field in raw:
            given = as_text(raw[field])
            refusals.add(f"bad_{field}", given.is_not_null() & values.is_null(), given)
    negative = (quantity < 0).fill_null(value=False)
    is_purchase = columns["type"] == EventType.PURCHASE.value
    returns = negative & (is_purchase | (columns["type"] == EventType.REFUND.value))
    if options.negative_quantity == "reject":
        returns &= ~is_purchase
    refusals.add("negative_quantity", negative & ~returns, quantity)
    # A refund's price is written with either sign.
    price = price.zip_with(~returns, price.abs())
    refusals.add("negative_price", price < 0, price)
    columns["type"] = columns["type"].set(returns, EventType.REFUND.value)
    # A line of quantity 0 was a purchase all the same (it counts as one), as was half a kilogram.
    pieces = quantity.abs()
    refusals.add("bad_quantity", pieces > MAX_QUANTITY, quantity)
    whole = pieces.set(pieces > MAX_QUANTITY, None).round().clip(1, MAX_QUANTITY)
    columns["quantity"] = whole.cast(pl.Int32).alias("quantity")
    if options.price == "line":
        per = pieces.fill_null(1.0)
        price = price / per.set(per == 0, 1.0)
    columns["unit_price"] = price.alias("unit_price")
    return [_fixed(quantity, "quantity_key"), _fixed(number["price"], "price_key")]


def _fixed(values: pl.Series, name: str) -> pl.Series:
    """Return numbers as whole millionths, which no change of formatting alters."""
    return (values * 1e6).round().cast(pl.Int64, strict=False).cast(pl.String).alias(name)


def _labels(
    raw: Mapping[str, pl.Series],
    columns: dict[str, pl.Series],
    options: EventOptions,
    refusals: Refusals,
) -> None:
    """Fill in currency and channel."""
    if "currency" in raw:
        given = as_text(raw["currency"]).str.strip_chars().str.to_uppercase()
        refusals.add("bad_currency", ~given.str.contains("^[A-Z]{3}$"), given)
        columns["currency"] = given.alias("currency")
    if options.currency is not None:
        columns["currency"] = columns["currency"].fill_null(pl.lit(options.currency))
    columns["currency"] = columns["currency"].set(columns["unit_price"].is_null(), None)
    if "channel" in raw:
        columns["channel"] = as_text(raw["channel"]).str.slice(0, 64).alias("channel")
    if options.channel is not None:
        columns["channel"] = columns["channel"].fill_null(pl.lit(options.channel))


def _extra(raw: Mapping[str, pl.Series], height: int) -> pl.Series:
    """Return the rest of each row as JSON, null where there is none."""
    parts = [as_text(raw[name]) for name in EXTRA_TEXT if name in raw]
    parts += [as_number(raw[name]) for name in EXTRA_NUMBERS if name in raw]
    if not parts:
        return _nulls("extra", pl.String(), height)
    documents = []
    for row in pl.DataFrame(parts).iter_rows(named=True):
        known = {name: value for name, value in row.items() if value is not None}
        documents.append(orjson.dumps(known).decode() if known else None)
    return pl.Series("extra", documents, dtype=pl.String)


def _digests(events: pl.DataFrame, has_currency: bool, has_channel: bool) -> pl.Series:
    """Hash what the file says of each event that has no id.

    Only what stands in the file counts, with the type: the same file imported again with another
    default currency holds the same events.
    """
    parts = ["user_id", "anonymous_id", "item_id", "type", "order_id", "extra"]
    parts += ["quantity_key", "price_key"]
    parts += ["currency"] * has_currency + ["channel"] * has_channel
    texts = events.select(
        # Ids hold no control characters, so the separator keeps the parts apart.
        pl.when(pl.col("event_id").is_null()).then(
            pl.concat_str(
                pl.col("timestamp").dt.epoch("ms").cast(pl.String),
                *(pl.col(part).fill_null("") for part in parts),
                separator="\x1f",
            )
        )
    ).to_series()
    hashes = [
        None if text is None else hashlib.blake2b(text.encode(), digest_size=12).digest()
        for text in texts.to_list()
    ]
    return pl.Series("digest", hashes, dtype=pl.Binary).bin.encode("hex")
