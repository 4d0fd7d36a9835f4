"""Which column of a file is which field of recsvc."""

import difflib
import re
from collections.abc import Mapping, Sequence

from feature_store.errors import UserError

EVENT_FIELDS: dict[str, tuple[str, ...]] = {
    "event_id": ("eventid",),
    "type": ("eventtype", "eventname", "event", "action", "behavior", "behaviour"),
    "user_id": (
        "user",
        "customerid",
        "customer",
        "householdid",
        "household",
        "memberid",
        "accountid",
        "clientid",
        "shopperid",
    ),
    "anonymous_id": ("visitorid", "deviceid", "cookieid"),
    "item_id": (
        "item",
        "productid",
        "product",
        "sku",
        "articleid",
        "stockcode",
        "productcode",
        "asin",
        "variantid",
    ),
    "timestamp": (
        "datetime",
        "eventtime",
        "eventtimestamp",
        "transactiontimestamp",
        "transactiondate",
        "purchasedat",
        "purchasedate",
        "orderdate",
        "orderedat",
        "placedat",
        "invoicedate",
        "createdat",
        "occurredat",
        "ts",
        "tdat",
        "date",
        "time",
    ),
    "quantity": ("qty", "units", "unitssold"),
    "price": ("unitprice", "priceperunit"),
    "currency": ("currencycode",),
    "order_id": (
        "order",
        "basketid",
        "basket",
        "transactionid",
        "invoice",
        "invoiceno",
        "invoiceid",
        "receiptid",
    ),
    "channel": (),
    "recommendation_id": (),
    "rank": (),
    "query": ("searchquery", "searchterm"),
    "value": ("rating",),
    "instrument": (),
    "score": (),
}
"""Fields of an event, with other names that columns of them commonly have."""

ITEM_FIELDS: dict[str, tuple[str, ...]] = {
    "item_id": EVENT_FIELDS["item_id"] + ("id",),
    "title": ("name", "producttitle", "productname", "itemname", "description"),
    "brand": ("brandname", "manufacturer"),
    "categories": ("category", "categorypath", "productcategory", "producttype"),
    "price": ("unitprice", "listprice", "regularprice", "priceamount"),
    "currency": ("currencycode", "pricecurrency"),
    "sale_price": ("specialprice", "discountprice", "salepriceamount"),
    "url": ("link", "producturl", "itemurl"),
    "image_url": ("image", "imagelink"),
    "available": ("availability", "instock", "isavailable"),
    "kind": (),
    "group_id": ("itemgroupid", "parentid", "parentsku"),
    "published_at": ("availabilitydate", "releasedate", "launchdate"),
    "expires_at": ("expirationdate", "enddate"),
    "attributes": (),
    "markets": (),
}
"""Fields of an item, with other names that columns of them commonly have."""

ATTRIBUTE = "attributes."
EXTERNAL_ID = "external_ids."

USER_FIELDS: dict[str, tuple[str, ...]] = {
    "user_id": EVENT_FIELDS["user_id"] + ("id",),
    "loyalty.program": ("program",),
    "loyalty.tier": ("tier",),
    "loyalty.points": ("points",),
    "attributes": (),
}
"""Fields of a user, with other names that columns of them commonly have."""


def _prefixes(fields: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return how fields begin that have a name of their own behind that."""
    if fields is USER_FIELDS:
        return ATTRIBUTE, EXTERNAL_ID
    return (ATTRIBUTE,) if fields is ITEM_FIELDS else ()


def parse_map(text: str, fields: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Read ``field=COLUMN,field=COLUMN``.

    Parameters
    ----------
    text : str
        As given to ``--map``; a column's name may hold ``=`` but no comma.
    fields : mapping
        The fields that there are; ``attributes.X`` is one too if the others are those of items,
        ``external_ids.X`` if they are those of users.

    Returns
    -------
    dict of str to str
        The column of each field that was named.

    Raises
    ------
    UserError
        If a part has another form, or a field does not exist or is named twice.
    """
    mapping: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, equals, column = part.partition("=")
        field, column = field.strip(), column.strip()
        if not equals or not column:
            raise UserError(f"--map takes field=COLUMN pairs, separated by commas; not {part!r}")
        prefixes = _prefixes(fields)
        named = field.startswith(prefixes) and field not in prefixes
        if field not in fields and not named:
            also = "".join(f" and {prefix}NAME" for prefix in prefixes)
            raise UserError(
                f"--map: there is no field {field!r}{_suggest(field, fields)}; "
                f"the fields are {', '.join(fields)}{also}"
            )
        if field in mapping:
            raise UserError(f"--map names the field {field!r} twice")
        mapping[field] = column
    return mapping


def resolve(
    given: Mapping[str, str],
    columns: Sequence[str],
    fields: Mapping[str, Sequence[str]],
    source: str,
) -> dict[str, str]:
    """Decide which column each field is read from.

    Parameters
    ----------
    given : mapping
        What the person said; it counts before any guess.
    columns : sequence of str
        Columns of the file.
    fields : mapping
        Fields with their synonyms: `EVENT_FIELDS`, `ITEM_FIELDS` or `USER_FIELDS`.
    source : str
        Name of the file, for messages.

    Returns
    -------
    dict of str to str
        Column of each field; a field without a column is absent. Columns that nobody named are
        recognised by the field's own name or a synonym, whatever their case and punctuation.

    Raises
    ------
    UserError
        If a named column is not in the file.
    """
    for field, column in given.items():
        if column not in columns:
            raise UserError(
                f"{source} has no column {column!r} (--map {field}={column})"
                f"{_suggest(column, columns)}; its columns are {', '.join(columns)}"
            )
    mapping = dict(given)
    free = {plain(column): column for column in reversed(columns) if column not in given.values()}
    for field, synonyms in fields.items():
        if field in mapping:
            continue
        for name in (plain(field), *synonyms):
            if name in free:
                mapping[field] = free.pop(name)
                break
    taken = set(mapping.values())
    prefixes = _prefixes(fields)
    mapping |= {
        column: column
        for column in columns
        if column.startswith(prefixes) and column not in taken and column not in mapping
    }
    return mapping


def require(mapping: Mapping[str, str], needed: str, columns: Sequence[str], source: str) -> None:
    """Insist on a column for a field.

    Raises
    ------
    UserError
        If the field has none.
    """
    if needed not in mapping:
        raise UserError(
            f"cannot tell which column of {source} is the {needed}: say --map {needed}=COLUMN; "
            f"its columns are {', '.join(columns)}"
        )


def plain(name: str) -> str:
    """Return a column's name without case and punctuation."""
    return re.sub(r"[\W_]+", "", name).lower()


def _suggest(wrong: str, known: Sequence[str] | Mapping[str, Sequence[str]]) -> str:
    by_plain = {plain(name): name for name in known}
    close = difflib.get_close_matches(plain(wrong), by_plain, n=1, cutoff=0.5)
    return f"; did you mean {by_plain[close[0]]!r}?" if close else ""
