"""Rows of a file become items of the catalogue, or are refused with the reason."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from feature_store.ingest.mapping import ATTRIBUTE, ITEM_FIELDS, plain, require, resolve
from feature_store.ingest.refusals import Refusals
from feature_store.ingest.source import Source, open_table, read_batches
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.table import Batch, EmptyFileError, Progress, Reject, RejectLog, silent
from feature_store.ingest.values import as_number, as_text, as_time, bad_ids
from feature_store.item_columns import COLUMNS

KINDS = ("product", "content", "offer")
MAX_LENGTHS = {"title": 500, "brand": 200, "url": 2000, "image_url": 2000}
MAX_CATEGORIES = 50
_MAX_PRICE = 10_000_000_000
_PRICE = pl.Decimal(18, 4)

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
    """

    currency: str
    timezone: str = "UTC"


Publish = Callable[[pl.DataFrame], None]
"""Adds distinct items, columns of ``item_columns.COLUMNS``, to the catalogue or replaces them."""


def import_items(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: ItemOptions,
    *,
    publish: Publish,
    rejects_file: Path | None = None,
    progress: Progress = silent,
) -> ImportSummary:
    """Import files of items; of several rows of one item the last one counts.

    Parameters
    ----------
    sources : sequence of Source
        Files; an empty one among several is passed over.
    given : mapping of str to str
        Columns that the person has named (``mapping.parse_map``).
    options : ItemOptions
        How the files are meant.
    publish : Publish
        Gets all items at once.
    rejects_file : Path, optional
        Where refused rows are written; ``None`` only counts them.
    progress : Progress
        Is told how far it is.

    Raises
    ------
    UserError
        If a file cannot be read, or lacks a column that is needed; then nothing was imported.
    """
    with RejectLog(rejects_file) as rejects:
        frames = list(item_batches(sources, given, options, rejects, progress))
    # Files may have different columns; an item is replaced as a whole.
    rows = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema=COLUMNS)
    items = rows.unique("item_id", keep="last", maintain_order=True)
    if len(items):
        progress("writing", 0, len(items))
        publish(items)
        progress("writing", len(items), len(items))
    return ImportSummary(
        rows_read=len(rows) + rejects.total,
        accepted=len(items),
        duplicates=len(rows) - len(items),
        rejected=dict(rejects.counts.most_common()),
        rejects_file=rejects.written_to,
        items=len(items),
    )


def item_mapping(given: Mapping[str, str], columns: Sequence[str], source: str) -> dict[str, str]:
    """Decide which column each field of an item is read from.

    Raises
    ------
    UserError
        If the id has none.
    """
    mapping = resolve(given, columns, ITEM_FIELDS, source)
    require(mapping, "item_id", columns, source)
    return mapping


def item_batches(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: ItemOptions,
    rejects: RejectLog,
    progress: Progress = silent,
) -> Iterator[pl.DataFrame]:
    """Read the items of some files: ``item_id`` and those of ``item_columns.COLUMNS`` they have."""
    total = sum(source.size for source in sources)
    done = 0
    for source in sources:
        try:
            with open_table(source) as table:
                mapping = item_mapping(given, table.columns, source.name)
                for batch in read_batches(source, table, sorted(set(mapping.values()))):
                    items, refused = normalise_items(batch, mapping, options)
                    rejects.add(refused)
                    done += batch.n_bytes
                    progress("reading", min(done, total), total)
                    yield items
        except EmptyFileError:
            if len(sources) == 1:
                raise
    progress("reading", total, total)


def normalise_items(
    batch: Batch, mapping: Mapping[str, str], options: ItemOptions
) -> tuple[pl.DataFrame, list[Reject]]:
    """Turn rows into items.

    Returns
    -------
    items : DataFrame
        ``item_id`` and those of ``item_columns.COLUMNS`` that the rows have.
    rejects : list of Reject
        The rows that are none.
    """
    raw = {field: batch.frame[column].alias(field) for field, column in mapping.items()}
    refusals = Refusals(batch.frame.height)
    columns = {"item_id": as_text(raw["item_id"])}
    refusals.add("missing_item_id", columns["item_id"].is_null())
    for field in ("item_id", "group_id"):
        if field in raw:
            columns[field] = as_text(raw[field])
            refusals.add(f"bad_{field}", bad_ids(columns[field]), columns[field])
    for field, longest in MAX_LENGTHS.items():
        if field in raw:
            columns[field] = as_text(raw[field])
            refusals.add(f"too_long_{field}", columns[field].str.len_chars() > longest, raw[field])
    if "categories" in raw:
        columns["categories"] = _categories(raw["categories"])
        refusals.add("bad_categories", columns["categories"].list.len() > MAX_CATEGORIES)
    for field in ("published_at", "expires_at"):
        if field in raw:
            columns[field] = as_time(raw[field], options.timezone)
            given = as_text(raw[field])
            refusals.add(f"bad_{field}", given.is_not_null() & columns[field].is_null(), given)
    columns |= _prices(raw, options, refusals)
    columns |= _choices(raw, refusals)
    columns |= _attributes(raw, refusals)
    good = refusals.reason.is_null()
    frame = pl.DataFrame([values.alias(name) for name, values in columns.items()])
    items = frame.filter(good).select(
        pl.col(name).cast(COLUMNS[name]) for name in COLUMNS if name in columns
    )
    return items, batch.rejects + refusals.rejects(batch)


def _categories(given: pl.Series) -> pl.Series:
    """Read ``A > B``, several with ``|`` between, or a list."""

    def path(text: str) -> str:
        return " > ".join(filter(None, (part.strip() for part in text.split(">"))))

    def paths(value: Any) -> list[str] | None:
        if value is None:
            return None
        if isinstance(value, str):
            if value.startswith("["):
                try:
                    value = [str(part) for part in orjson.loads(value)]
                except (orjson.JSONDecodeError, TypeError):
                    value = value.split("|")
            else:
                value = value.split("|")
        return list(dict.fromkeys(filter(None, (path(str(part)) for part in value))))

    if not isinstance(given.dtype, pl.List):
        given = as_text(given)
        # A shop has far fewer categories than items.
        known = {value: paths(value) for value in given.unique()}
        values = [known[value] for value in given]
    else:
        values = [paths(value) for value in given.to_list()]
    return pl.Series("categories", values, dtype=pl.List(pl.String))


def _prices(
    raw: Mapping[str, pl.Series], options: ItemOptions, refusals: Refusals
) -> dict[str, pl.Series]:
    """Read amounts such as ``15``, ``15.00`` and ``15.00 EUR``."""
    columns: dict[str, pl.Series] = {}
    currency = pl.Series("currency", [None], dtype=pl.String).new_from_index(0, len(raw["item_id"]))
    if "currency" in raw:
        currency = as_text(raw["currency"]).str.strip_chars().str.to_uppercase()
        refusals.add("bad_currency", ~currency.str.contains("^[A-Z]{3}$"), currency)
    for field in ("price", "sale_price"):
        if field not in raw:
            continue
        values = raw[field]
        given = as_text(values)
        if values.dtype == pl.String:
            suffix = values.str.extract(r"^[\s0-9.]+([A-Z]{3})\s*$")
            currency = currency.zip_with(currency.is_not_null(), suffix)
            values = values.str.replace(r"\s*[A-Z]{3}\s*$", "")
        number = as_number(values)
        wrong = given.is_not_null() & (number.is_null() | (number < 0) | (number >= _MAX_PRICE))
        refusals.add(f"bad_{field}", wrong, given)
        number = number.set(wrong, None)
        exact = values.str.strip_chars() if values.dtype == pl.String else number.round(4)
        columns[field] = exact.set(number.is_null(), None).cast(_PRICE, strict=False)
    if columns:
        # A price without a currency is in the shop's own.
        columns["currency"] = currency.fill_null(pl.lit(options.currency))
    return columns


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
    texts = [orjson.dumps(document).decode() for document in whole]
    return {"attributes": pl.Series("attributes", texts, dtype=pl.String)}


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
