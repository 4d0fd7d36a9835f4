"""``recsvc archive`` and ``recsvc rebuild``: from the server to the files, and back."""

import asyncio
from dataclasses import asdict

from feature_store.archiver import Archiver
from feature_store.errors import StoreUnavailableError, UserError
from feature_store.event_log import EventLog
from feature_store.rebuilding import rebuild
from feature_store.store import Store
from recsvc.commands.output import ProgressReport, note, say, write_json
from recsvc.commands.session import server_url, with_store
from recsvc.settings import Settings


def run(settings: Settings, *, follow: bool, as_json: bool) -> None:
    """Archive what the server has accepted; then go on for ever if `follow`."""
    log = EventLog(settings.data_dir)

    async def work(store: Store, progress: ProgressReport) -> int:
        archiver = Archiver(store.streams, log)
        moved = await archiver.drain(lambda done, total: progress("archiving", done, total))
        await archiver.compact()
        if follow:
            say(f"{moved:,} events archived; what comes is archived too. Ctrl-C ends it.")
            await archiver.run_for_ever()
        return moved

    with ProgressReport() as progress:
        moved = with_store(settings, lambda store: work(store, progress))
    if as_json:
        write_json({"archived": moved, "events": log.count()})
    else:
        say(f"{moved:,} events archived; the log holds {log.count():,}.")


def archive_first(settings: Settings, progress: ProgressReport) -> None:
    """Archive before something reads the log; without a server the log is what there is."""
    if settings.redis_url is None and not (settings.data_dir / "valkey").is_dir():
        return  # there has never been a server

    async def work(store: Store) -> int:
        archiver = Archiver(store.streams, EventLog(settings.data_dir))
        return await archiver.drain(lambda done, total: progress("archiving", done, total))

    try:
        with_store(settings, work)
    except (StoreUnavailableError, UserError) as error:
        note(f"Events that are not archived yet are left out: {error}")


def run_rebuild(settings: Settings, *, force: bool, as_json: bool) -> None:
    """Bring an emptied server back to the state that the files describe."""
    with server_url(settings) as url, ProgressReport() as progress:
        done = asyncio.run(rebuild(url, settings.data_dir, force=force, progress=progress))
    if as_json:
        write_json(asdict(done))
        return
    say(
        f"The server is rebuilt: {done.events:,} events, {done.items:,} items, {done.keys:,} API"
        f" keys, {done.visitors:,} visitors who signed in, {done.documents:,} documents of the site"
        " and of people."
    )
