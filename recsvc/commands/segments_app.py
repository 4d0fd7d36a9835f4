"""``recsvc segments``, as the command line shows it."""

from typing import Annotated

import typer

from recsvc.commands.exits import settings
from recsvc.commands.options import Json

# Each command imports what it needs, so that `recsvc --help` is there at once.
segments_app = typer.Typer(help="See the segments, and who belongs to them.", no_args_is_help=True)

SegmentId = Annotated[str, typer.Argument(help="An id from `recsvc segments list`.")]


@segments_app.command("list")
def list_segments(as_json: Json = False) -> None:
    """List the segments, and how many users belong to each."""
    from recsvc.commands import segments as command  # noqa: PLC0415

    command.show_list(settings(), as_json=as_json)


@segments_app.command()
def show(segment_id: SegmentId, as_json: Json = False) -> None:
    """Show the condition of a segment, and how many users fulfil it."""
    from recsvc.commands import segments as command  # noqa: PLC0415

    command.show(settings(), segment_id, as_json=as_json)


@segments_app.command()
def members(segment_id: SegmentId) -> None:
    r"""Write the user ids of a segment's members, one a line, as they are found.

    \b
    Examples:
      recsvc segments members stage_at_risk > at_risk.txt
    """
    from recsvc.commands import segments as command  # noqa: PLC0415

    command.write_members(settings(), segment_id)
