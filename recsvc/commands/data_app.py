"""``recsvc archive``, ``rebuild``, ``backup``, ``restore`` and ``export`` on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from recsvc.commands.exits import settings
from recsvc.commands.options import Json

# Each command imports what it needs, so that `recsvc --help` is there at once.
data_app = typer.Typer()
export_app = typer.Typer(help="Write what is kept into files.", no_args_is_help=True)
data_app.add_typer(export_app, name="export")

Force = Annotated[
    bool,
    typer.Option("--force", help="Empty the server first: archive, then remove recsvc's own keys."),
]
BackupFolder = Annotated[Path, typer.Argument(help="A folder that `recsvc backup` has made.")]


@data_app.command()
def archive(
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on for ever, as a running service does by itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Move accepted events from the server into the event log.

    A running service does so by itself, every two seconds; only one process at a
    time does, and another takes over when it dies.
    """
    from recsvc.commands import archive as command  # noqa: PLC0415

    command.run(settings(), follow=follow, as_json=as_json)


@data_app.command()
def rebuild(force: Force = False, as_json: Json = False) -> None:
    """Bring a server that lost its data back to the same state, from the files.

    Stop the service first. A rebuild that was interrupted goes on when it is started
    again.
    """
    from recsvc.commands import archive as command  # noqa: PLC0415

    command.run_rebuild(settings(), force=force, as_json=as_json)


@data_app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    check: Annotated[
        bool, typer.Option("--check", help="Make none; compare that one with its manifest.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy everything that is kept into a folder; the service goes on meanwhile.

    It holds the server's secret: guard it like a key.

    \b
    Examples:
      recsvc backup /backups/2026-11-22
      recsvc backup /backups/2026-11-22 --check
    """  # noqa: D301
    from recsvc.commands import backup as command  # noqa: PLC0415

    if check:
        command.run_check(folder, as_json=as_json)
    else:
        command.run(settings(), folder, as_json=as_json)


@data_app.command()
def restore(
    folder: BackupFolder,
    erasures: Annotated[
        Path | None,
        typer.Option(help="erasures.jsonl of the lost data folder, if it could be saved."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of lost data, and rebuild the server from it.

    A damaged backup is refused, and data that is there is never overwritten. Nobody
    comes back who was erased: the backup was told if it could be reached then, and
    --erasures names what it may not know.

    \b
    Examples:
      recsvc --data-dir /var/lib/recsvc restore /backups/2026-11-22
    """  # noqa: D301
    from recsvc.commands import backup as command  # noqa: PLC0415

    command.run_restore(settings(), folder, erasures, force=force, as_json=as_json)


@data_app.command()
def erase(
    user_id: Annotated[str | None, typer.Argument(help="A user.")] = None,
    visitor: Annotated[
        str | None, typer.Option("--visitor", help="A visitor, by anonymous id.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="More users, an id a line, in one pass.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Forget somebody for good: on the server, in every file, and in what comes late.

    The same as DELETE /v1/users/USER_ID, with or without a running service. The
    receipt says what was removed, and which files outside it could not reach.

    \b
    Examples:
      recsvc erase 2375
      recsvc erase --visitor 507f191e-810c-4197-89de-860ea0123456 --json
    """  # noqa: D301
    from recsvc.commands import erase as command  # noqa: PLC0415

    people = command.people_of(user_id, visitor, file)
    command.run(settings(), people, as_json=as_json)


@export_app.command("users")
def export_users(
    out: Annotated[Path, typer.Option("--out", help="A file of JSON lines.")],
    user: Annotated[
        str | None,
        typer.Option("--user", help="All that is held of this one user: .json, or .html to read."),
    ] = None,
    language: Annotated[
        str, typer.Option("--language", help="Of the words with --user, such as de.")
    ] = "en",
    as_json: Json = False,
) -> None:
    """Write the profiles of all users, as `recsvc import users` reads them.

    With --user it writes all that is held of one person instead, each part with what
    it is and why it is held.

    \b
    Examples:
      recsvc export users --out users.jsonl
      recsvc export users --user 2375 --out 2375.html --language de
    """  # noqa: D301
    if user is not None:
        from recsvc.commands import exporting  # noqa: PLC0415

        exporting.run(settings(), user, out, language, as_json=as_json)
        return
    from recsvc.commands import importing_users  # noqa: PLC0415

    importing_users.export(settings(), out, as_json=as_json)
