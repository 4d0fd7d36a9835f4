"""``recsvc backup`` and ``recsvc restore``."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from feature_store.backup import Backup, back_up, check, restore
from feature_store.rebuilding import rebuild
from recsvc.commands.archive import archive_first
from recsvc.commands.output import ProgressReport, say, write_json
from recsvc.commands.session import server_url
from recsvc.settings import Settings


def run(settings: Settings, target: Path, *, as_json: bool) -> None:
    """Archive, then copy everything."""
    with ProgressReport() as progress:
        archive_first(settings, progress)
        made = back_up(settings.data_dir, target.absolute(), datetime.now(UTC), progress)
    _report(made, f"saved in {target}", as_json=as_json)


def run_check(source: Path, *, as_json: bool) -> None:
    """Compare every file of a backup with its manifest."""
    with ProgressReport() as progress:
        found = check(source, progress)
    _report(found, "is whole", as_json=as_json)


def run_restore(
    settings: Settings, source: Path, erasures: Path | None, *, force: bool, as_json: bool
) -> None:
    """Put a backup in the place of lost data, and rebuild the server from it."""
    with ProgressReport() as progress:
        found = restore(source, settings.data_dir, progress, erasures)
        with server_url(settings) as url:
            asyncio.run(rebuild(url, settings.data_dir, force=force, progress=progress))
    _report(found, f"restored to {settings.data_dir}, and the server rebuilt", as_json=as_json)


def _report(backup: Backup, what: str, *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(backup))
        return
    size = f"{backup.n_files:,} files, {backup.n_bytes / 1e6:,.1f} MB, {backup.n_events:,} events"
    say(f"The backup of {backup.created_at} ({size}) {what}.")
