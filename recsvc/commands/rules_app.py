"""``recsvc rules``, as the command line shows it."""

from pathlib import Path
from typing import Annotated

import typer

from recsvc.commands.exits import settings
from recsvc.commands.options import Json

# Each command imports what it needs, so that `recsvc --help` is there at once.
rules_app = typer.Typer(
    help="Check the marketers' rules, see who changed them, keep them in files.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(help="A .toml or .json file.")]


@rules_app.command("lint")
def rules_lint(
    live: Annotated[
        bool, typer.Option("--live", help="The rules in force, not what was written last.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is probably wrong: exit code 1 if a rule does nothing, or far too much.

    \b
    Examples:
      recsvc rules lint
      recsvc rules lint --live --json
    """  # noqa: D301
    from recsvc.commands import rules  # noqa: PLC0415

    rules.show_lint(settings(), live=live, as_json=as_json)


@rules_app.command("audit")
def rules_audit(
    rule_id: Annotated[str | None, typer.Option(help="The changes of one rule alone.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check that nothing was altered or removed.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many changes, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Say who changed what, and when; the chain of hashes is checked each time.

    \b
    Examples:
      recsvc rules audit --verify
      recsvc rules audit --rule-id summer
    """  # noqa: D301
    from recsvc.commands import rules  # noqa: PLC0415

    rules.show_audit(settings(), rule_id, verify=verify, limit=limit, as_json=as_json)


@rules_app.command("export")
def rules_export(
    file: File,
    live: Annotated[
        bool, typer.Option("--live", help="The rules in force, not what was written last.")
    ] = False,
) -> None:
    """Write all rules and placements into one file, for review in git.

    \b
    Examples:
      recsvc rules export rules.toml
    """  # noqa: D301
    from recsvc.commands import rules  # noqa: PLC0415

    rules.export_rules(settings(), file, live=live)


@rules_app.command("import")
def rules_import(
    file: File,
    publish: Annotated[
        bool, typer.Option("--publish", help="Let them come into force at once, all together.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what others changed since the export.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Take rules and placements from a file that `recsvc rules export` has written.

    What is the same is left alone; a rule that somebody changed since the export is a
    conflict, and then nothing is imported. Rules that are not in the file stay.

    \b
    Examples:
      recsvc rules import rules.toml --dry-run
      recsvc rules import rules.toml --publish
    """  # noqa: D301
    from recsvc.commands import rules  # noqa: PLC0415

    rules.import_rules(
        settings(), file, publish=publish, force=force, dry_run=dry_run, as_json=as_json
    )
