"""``recsvc erase``: the same as ``DELETE /v1/users/{user_id}``, whether a service runs or not."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from feature_store.archiver import LEASE_S
from feature_store.errors import ConflictError, StoreUnavailableError, UserError
from feature_store.forgetting.erasing import work
from feature_store.schema import check_id
from feature_store.store import Store
from recsvc.commands.output import ProgressReport, note, say, table, write_json
from recsvc.commands.output import stdout as console
from recsvc.commands.session import with_store
from recsvc.settings import Settings

BY = "command"
_AGAIN_S = 0.2
_RENEW_S = LEASE_S / 3

Receipt = dict[str, Any]


def people_of(user_id: str | None, visitor: str | None, file: Path | None) -> list[str]:
    """Return who is to be erased.

    Parameters
    ----------
    user_id, visitor : str or None
        Somebody by name.
    file : Path or None
        More users, an id a line.

    Raises
    ------
    UserError
        If there is nobody, or one is no id.
    """
    users = [] if user_id is None else [user_id]
    if file is not None:
        try:
            users += [line for line in file.read_text("utf-8").splitlines() if line]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {file}: {error}") from None
    named = [("u:", one) for one in users] + ([] if visitor is None else [("a:", visitor)])
    if not named:
        raise UserError("say who: USER_ID, --visitor or --file")
    for _, one in named:
        try:
            check_id(one)
        except ValueError as error:
            raise UserError(f"{one!r} is no id: {error}") from None
    return list(dict.fromkeys(prefix + one for prefix, one in named))


def run(settings: Settings, people: Sequence[str], *, as_json: bool) -> None:
    """Erase some people, and show the receipts."""
    with ProgressReport() as progress:
        receipts = with_store(settings, lambda store: _erase(settings, store, people, progress))
    if as_json:
        write_json(receipts[0] if len(receipts) == 1 else {"erasures": receipts})
    elif len(receipts) == 1:
        _show(receipts[0])
    else:
        say(f"{len(receipts):,} people are erased; receipts: `--json`, GET /v1/erasures/ID.")


async def _erase(
    settings: Settings, store: Store, people: Sequence[str], progress: ProgressReport
) -> list[Receipt]:
    if await store.streams.epoch() is None:
        raise ConflictError("a rebuild of this server is not finished: finish it first")
    ids = []
    for done, person in enumerate(people):
        progress("server", done, len(people))
        ids.append((await store.erasures.request(person, BY, settings.data_dir))["erasure_id"])
    progress("server", len(people), len(people))
    holder = secrets.token_hex(8)
    renewing = asyncio.create_task(_lead(store, holder))
    said = ""
    try:
        while await _unfinished(store, ids):
            # Where a service runs, its leading worker does it.
            if await store.streams.lead(holder, LEASE_S):
                try:
                    await work(store, settings.data_dir, progress)
                except ConflictError as error:
                    if str(error) != said:
                        said = str(error)
                        note(f"The files wait: {said}")
            await asyncio.sleep(_AGAIN_S)
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        await store.streams.resign(holder)
    receipts = [await store.erasures.receipt(one) for one in ids]
    return [one for one in receipts if one is not None]


async def _unfinished(store: Store, ids: Sequence[str]) -> bool:
    return bool(set(ids) & await store.erasures.ids())


async def _lead(store: Store, holder: str) -> None:
    while True:
        with suppress(StoreUnavailableError):
            await store.streams.lead(holder, LEASE_S)
        await asyncio.sleep(_RENEW_S)


def _show(receipt: Receipt) -> None:
    say(f"Erasure {receipt['erasure_id']}: {receipt['state']}.")
    shown = table("removed", "count>")
    for kind, count in sorted(receipt["erased"].items()):
        shown.add_row(kind.replace("_", " "), f"{count:,}")
    if receipt["erased"]:
        console().print(shown)
    else:
        say("Nothing was known of them. They are noted as erased all the same.")
    say(
        f"The server's own files: {receipt['server_files']}, its logs: {receipt['server_logs']}."
        f" The model: {receipt['model']}."
    )
    for one in receipt["machines"]:
        if one["state"] == "away":
            say(f"The machine {one['host']} is away: its files are searched when it is back.")
    for one in receipt["backups"]:
        told = (
            "knows of it" if one["told"] else "cannot be reached: see `recsvc restore --erasures`"
        )
        say(f"The backup {one['path']} of {one['at']} {told}.")
    for one in receipt["delivered"]:
        say(f"Delivered outside ({one['kind']}, {one['at']}), search it by hand: {one['path']}")
