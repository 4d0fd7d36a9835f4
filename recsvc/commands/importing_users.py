"""``recsvc import users`` and ``recsvc export users``."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import orjson

from feature_store.errors import UserError
from feature_store.forgetting.deliveries import Deliveries
from feature_store.ingest.mapping import USER_FIELDS, parse_map
from feature_store.ingest.source import find_sources
from feature_store.ingest.table import RejectLog
from feature_store.ingest.user_rows import user_mapping
from feature_store.ingest.users import UserOptions, UserSummary, import_users, put_profiles
from feature_store.profile import check_name
from feature_store.store import Store
from recsvc.commands.importing import (
    FileOptions,
    delivered,
    finish_dry_run,
    look,
    rejects_file,
    report,
)
from recsvc.commands.output import ProgressReport, note, write_json
from recsvc.commands.session import server_url
from recsvc.settings import Settings

_USER = "u:"


def user_options(text: str, *, partial: bool) -> UserOptions:
    """Check the options of an import of users.

    Parameters
    ----------
    text : str
        Names of attributes, with commas between, that stay text.
    partial : bool
        What a file does not say stays as it is.

    Raises
    ------
    UserError
        If one is no name.
    """
    names = frozenset(filter(None, (name.strip() for name in text.split(","))))
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            raise UserError(f"--text: {name!r}: {error}") from None
    return UserOptions(text=names, partial=partial)


def run(settings: Settings, files: FileOptions, options: UserOptions, *, as_json: bool) -> None:
    """Import users and say what became of them."""
    sources = find_sources(files.source, files.form)
    given = parse_map(files.columns, USER_FIELDS)
    began, began_at = time.monotonic(), datetime.now(UTC)
    with server_url(settings) as url, ProgressReport() as progress:
        summary = import_users(
            sources,
            given,
            options,
            put=put_profiles(url, began_at),
            rejects_file=files.rejects or rejects_file(settings, "users"),
            progress=progress,
        )
    summary.seconds = time.monotonic() - began
    delivered(settings, summary.rejects_file)
    report(summary, "users", as_json=as_json)


def dry_run(settings: Settings, files: FileOptions, options: UserOptions, *, as_json: bool) -> None:
    """Show what an import of users would read, without importing."""
    sources = find_sources(files.source, files.form)
    given = parse_map(files.columns, USER_FIELDS)
    looked = look(sources, given, user_mapping)
    summary = UserSummary()
    if looked.problem is None:
        with ProgressReport() as progress:
            summary = import_users(
                sources, given, options, put=None, rejects_file=files.rejects, progress=progress
            )
    delivered(settings, summary.rejects_file)
    rejects = RejectLog(None)
    rejects.counts.update(summary.rejected)
    more = {"types": summary.types}
    finish_dry_run(looked, sources, summary.accepted, rejects, as_json=as_json, more=more)


def export(settings: Settings, out: Path, *, as_json: bool) -> None:
    """Write the profiles of all users as JSON lines, some at a time.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    with server_url(settings) as url, replaced(out) as file:
        n_users = asyncio.run(_export(url, file))
    # An erasure names it: nobody can be taken out of it.
    Deliveries(settings.data_dir).add(out, "export", datetime.now(UTC))
    if as_json:
        write_json({"users": n_users, "file": str(out)})
    else:
        note(f"{n_users:,} users are in {out}")


async def _export(url: str, file: BinaryIO) -> int:
    store = await Store.open(url)
    n_users = 0
    try:
        async for people in store.people.scan(["profile"]):
            for person, documents in people:
                profile = documents["profile"]
                if profile is not None and person.startswith(_USER):
                    line = {"user_id": person.removeprefix(_USER), **profile}
                    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
                    n_users += 1
    finally:
        await store.close()
    return n_users


@contextmanager
def replaced(out: Path) -> Iterator[BinaryIO]:
    """Give a file that stands at its place once it is whole.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
