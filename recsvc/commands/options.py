"""The options that several commands share; light, because ``recsvc --help`` imports it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class PriceOf(StrEnum):
    """What a price in a file is of."""

    UNIT = "unit"
    LINE = "line"


class Negative(StrEnum):
    """What a negative quantity in a file means."""

    REFUND = "refund"
    REJECT = "reject"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
SourceFile = Annotated[
    str, typer.Argument(help="A file, a folder, a glob in quotes, or - for standard input.")
]
Format = Annotated[
    str | None, typer.Option("--format", help="csv, parquet or jsonl; else told from the ending.")
]
Map = Annotated[
    str, typer.Option("--map", help="Which column is what: field=COLUMN,field=COLUMN,...")
]
Timezone = Annotated[str, typer.Option(help="Zone of times that do not name one.")]
Currency = Annotated[
    str | None, typer.Option(help="Currency of prices that do not name one, like EUR.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show each column and what it is read as; import nothing.")
]
Rejects = Annotated[
    Path | None,
    typer.Option(help="Where refused rows go, with line and reason: .csv or .jsonl."),
]
Version = Annotated[str, typer.Argument(help="A version from `recsvc models list`.")]
