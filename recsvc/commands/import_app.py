"""``recsvc import`` on the command line; light, because ``recsvc --help`` imports it."""

from enum import StrEnum
from typing import Annotated

import typer

from recsvc.commands.exits import settings
from recsvc.commands.options import (
    Currency,
    DryRun,
    Format,
    Json,
    Map,
    Negative,
    PriceOf,
    Rejects,
    SourceFile,
    Timezone,
)

import_app = typer.Typer(help="Bring events, items or users in from files.", no_args_is_help=True)


class Decimal(StrEnum):
    """What stands before the fraction of a price."""

    AUTO = "auto"
    COMMA = "comma"
    POINT = "point"


DecimalOf = Annotated[
    Decimal,
    typer.Option("--decimal", help="What stands before the cents; else told from the file."),
]
ItemFormat = Annotated[
    str | None,
    typer.Option(
        "--format", help="csv, parquet, jsonl or merchant; else told from ending and content."
    ),
]


@import_app.command("events")
def import_events(  # noqa: PLR0913, PLR0917 - a command has as many options as it has
    source: SourceFile,
    form: Format = None,
    columns: Map = "",
    kind: Annotated[
        str | None, typer.Option("--type", help="What the rows are: purchase, view, ...")
    ] = None,
    timezone: Timezone = "UTC",
    currency: Currency = None,
    price: Annotated[
        PriceOf, typer.Option(help="Whether the price is of one piece or of the line.")
    ] = PriceOf.UNIT,
    negative_quantity: Annotated[
        Negative, typer.Option(help="What less than nothing is.")
    ] = Negative.REFUND,
    channel: Annotated[
        str | None, typer.Option(help="Where it happened, like store or web.")
    ] = None,
    decimal: DecimalOf = Decimal.AUTO,
    dry_run: DryRun = False,
    rejects: Rejects = None,
    as_json: Json = False,
) -> None:
    """Import purchases, views and other events.

    Columns are recognised by usual names; --map names the others. Fields:
    user_id item_id timestamp quantity price currency order_id type event_id
    anonymous_id channel. Bad rows go to a file, good ones are kept, and the
    same file twice changes nothing.

    \b
    Examples:
      recsvc import events sales.csv --dry-run
      recsvc import events sales.csv --map user_id=customer,item_id=sku,timestamp=sold_at
      recsvc import events 'exports/2026-*.parquet' --price line --currency EUR
      zcat views.jsonl.gz | recsvc import events - --format jsonl --type view
    """  # noqa: D301
    from recsvc.commands import importing  # noqa: PLC0415 - help need not wait for polars

    files = importing.FileOptions(source, form, columns, timezone, currency, rejects, decimal.value)
    options = importing.event_options(
        files,
        default_type=kind or "purchase",
        type_given=kind is not None,
        price=price.value,
        negative_quantity=negative_quantity.value,
        channel=channel,
    )
    if dry_run:
        importing.dry_run_events(settings(), files, options, as_json=as_json)
    else:
        importing.run_import_events(settings(), files, options, as_json=as_json)


@import_app.command("items")
def import_items(  # noqa: PLR0913, PLR0917 - a command has as many options as it has
    source: SourceFile,
    form: ItemFormat = None,
    columns: Map = "",
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="The files are the whole catalogue: make the rest unavailable."
        ),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave as it is what the files have no column for.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if over 20 % of the available items would be gone."),
    ] = False,
    timezone: Timezone = "UTC",
    currency: Currency = None,
    decimal: DecimalOf = Decimal.AUTO,
    dry_run: DryRun = False,
    rejects: Rejects = None,
    as_json: Json = False,
) -> None:
    """Import the catalogue: products, content, offers.

    Fields: item_id title brand categories price currency sale_price url
    image_url available kind group_id published_at expires_at markets, and
    attributes.ANYTHING. A category is a path "A > B"; several stand with |
    between. An item that is there already is replaced, one that does not change
    is not written. A Google Merchant feed, XML or text, needs no --map.

    \b
    Examples:
      recsvc import items products.csv --dry-run
      recsvc import items products.parquet --map item_id=sku,title=name,attributes.size=pack_size
      recsvc import items feed.xml --full
      recsvc import items stock.csv --partial
    """  # noqa: D301
    from recsvc.commands import importing, importing_items  # noqa: PLC0415 - help need not wait

    known = settings()
    files = importing.FileOptions(source, form, columns, timezone, currency, rejects, decimal.value)
    options = importing_items.item_options(known, files, full=full, partial=partial, force=force)
    if dry_run:
        importing_items.dry_run(known, files, options, as_json=as_json)
    else:
        importing_items.run(known, files, options, as_json=as_json)


@import_app.command("users")
def import_users(  # noqa: PLR0917
    source: SourceFile,
    form: Format = None,
    columns: Map = "",
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave as it is what the files do not say of a user.")
    ] = False,
    text: Annotated[
        str, typer.Option("--text", help="Attributes that stay text though they look like numbers.")
    ] = "",
    dry_run: DryRun = False,
    rejects: Rejects = None,
    as_json: Json = False,
) -> None:
    """Import what you know of your customers.

    Fields: user_id loyalty.program loyalty.tier loyalty.points
    attributes.ANYTHING external_ids.ANYTHING. Every other column becomes an
    attribute of its name: a number or true/false if all of its values are.
    The profile of a user that is there already is replaced.

    \b
    Examples:
      recsvc import users customers.csv --dry-run
      recsvc import users crm.parquet --map user_id=customer_no,external_ids.crm=contact_id
      recsvc import users points.csv --partial
    """  # noqa: D301
    from recsvc.commands import importing, importing_users  # noqa: PLC0415 - help need not wait

    files = importing.FileOptions(source, form, columns, "UTC", None, rejects)
    options = importing_users.user_options(text, partial=partial)
    if dry_run:
        importing_users.dry_run(settings(), files, options, as_json=as_json)
    else:
        importing_users.run(settings(), files, options, as_json=as_json)
