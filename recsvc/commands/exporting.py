"""``recsvc export users --user U``: all that is held of one person, into a file."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import UserError
from feature_store.forgetting.deliveries import Deliveries
from feature_store.schema import check_id
from feature_store.store import Store
from recsvc.commands.importing_users import replaced
from recsvc.commands.output import note, write_json
from recsvc.commands.session import with_store
from recsvc.explaining.words import Words, read_library, speak, words
from recsvc.exports.documents import as_html
from recsvc.exports.documents import as_json as json_of
from recsvc.exports.exporting import Sources, open_export
from recsvc.merchandising.segments import read_segments
from recsvc.settings import Settings

_PAGES = (".html", ".htm")


def run(settings: Settings, user_id: str, out: Path, language: str, *, as_json: bool) -> None:
    """Write all that is held of a user as JSON, or as a page if the file is called so.

    Raises
    ------
    UserError
        If it is no id, or the file cannot be written.
    """
    try:
        check_id(user_id)
    except ValueError as error:
        raise UserError(f"--user: {error}") from None
    speak(read_library(settings.words_dir))
    told = words(language)
    written = with_store(settings, lambda store: _write(settings, store, user_id, out, told))
    Deliveries(settings.data_dir).add(out, "export", datetime.now(UTC), user_id)
    if as_json:
        write_json({"user_id": user_id, "file": str(out), "bytes": written})
    else:
        note(f"all that is held of {user_id} is in {out}")


async def _write(settings: Settings, store: Store, user_id: str, out: Path, told: Words) -> int:
    segments = read_segments(await store.documents.snapshot())
    catalogue = await _catalogue(settings, store)
    export = await open_export(
        Sources(store, settings.data_dir, catalogue, segments), f"u:{user_id}"
    )
    written = as_html if out.suffix in _PAGES else json_of
    n_bytes = 0
    with replaced(out) as file:
        async for part in written(export, told):
            n_bytes += file.write(part)
    return n_bytes


async def _catalogue(settings: Settings, store: Store) -> Catalogue:
    """Return the items with what has changed since their file was written."""
    files = CatalogueFiles(settings.catalogue_dir)
    file = await asyncio.to_thread(files.load)
    for _ in range(3):
        changes = await store.catalogue.changes_since(file.sequence)
        if changes is not None:
            return file.catalogue.after(changes)
        # A newer file was written meanwhile.
        file = await asyncio.to_thread(files.load)
    return file.catalogue
