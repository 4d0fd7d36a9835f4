"""Folding the catalogue's log into its file, in a process of its own.

A worker asks for it when much lies over the file. A million items are sorted and written in a few
seconds, with memory and processor time that a worker shall not lose. Killed at any moment, nothing
is lost: the new file counts from one rename on, and the log is trimmed after that, only as far as
the file before.
"""

import asyncio
import sys
from pathlib import Path

import orjson

from feature_store.catalogue_files import CatalogueFiles
from feature_store.child import run_child
from feature_store.errors import ConflictError, RecsvcError
from feature_store.event_log import EventLog
from feature_store.store import Store

LOCK_WAIT_S = 15.0


async def compact(url: str, data_dir: Path, least: int) -> str | None:
    """Publish what changed as a new file, if at least so much did.

    Imports, backups and rebuilds wait meanwhile, or this does nothing while they are at work.

    Parameters
    ----------
    url : str
        Of the Redis server.
    data_dir : Path
        With ``catalogue/``.
    least : int
        Changes below which nothing is done.

    Returns
    -------
    str or None
        Version of the new file, if there is one.

    Raises
    ------
    ConflictError
        If somebody else is at work.
    StoreUnavailableError
        If the server does not answer.
    """
    with EventLog(data_dir).importing(LOCK_WAIT_S):
        store = await Store.open(url)
        try:
            # While a rebuild is not finished the log is not whole.
            if await store.streams.epoch() is None:
                return None
            return await store.catalogue.compact(CatalogueFiles(data_dir / "catalogue"), least)
        finally:
            await store.close()


async def compact_apart(url: str, data_dir: Path, least: int) -> str | None:
    """Do what `compact` does, in another process.

    Parameters, returns
        As in `compact`.

    Raises
    ------
    ConflictError
        If it could not be done now.
    """
    asked = {"url": url, "data_dir": str(data_dir), "least": least}
    try:
        output = await run_child("feature_store.catalogue_compaction", asked)
    except ConflictError as error:
        raise ConflictError(f"the catalogue's log stays as it is: {error}") from error
    return output.decode() or None


def main() -> int:
    """Read the question from standard input, and write the version of the new file."""
    asked = orjson.loads(sys.stdin.buffer.read())
    try:
        version = asyncio.run(compact(asked["url"], Path(asked["data_dir"]), asked["least"]))
    except RecsvcError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(version or "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
