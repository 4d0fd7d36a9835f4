"""``recsvc keys``: make, list and revoke API keys."""

from collections.abc import Sequence
from datetime import UTC, datetime

from feature_store.key_store import KeyRecord
from feature_store.store import Store
from recsvc.auth import SCOPES, load_secret, new_key
from recsvc.commands.output import note, say, stdout, table, write_json
from recsvc.commands.session import with_store
from recsvc.settings import Settings


def create(settings: Settings, name: str, scopes: Sequence[str], *, as_json: bool) -> None:
    """Make a key and show it once."""
    key, record = make_key(settings, name, scopes)
    if as_json:
        write_json({"key": key, **_shown(record)})
        return
    say(key)
    note(f"This is key {record.key_id} for {name!r}. It is not shown again: keep it now.")


def make_key(settings: Settings, name: str, scopes: Sequence[str]) -> tuple[str, KeyRecord]:
    """Make a key and store its HMAC.

    Parameters
    ----------
    settings : Settings
        Where the store is.
    name : str
        Whose key it is.
    scopes : sequence of str
        Some of ``auth.SCOPES``, or ``all``.

    Returns
    -------
    tuple of (str, KeyRecord)
        The key, and what is kept of it.
    """
    wanted = SCOPES if "all" in scopes else scopes
    key, record = new_key(load_secret(settings), name, wanted, datetime.now(UTC))

    async def put(store: Store) -> None:
        await store.keys.put(record)

    with_store(settings, put)
    return key, record


def show_list(settings: Settings, *, as_json: bool) -> None:
    """List the keys, without the keys themselves."""

    async def read(store: Store) -> list[KeyRecord]:
        return await store.keys.all()

    records = with_store(settings, read)
    if as_json:
        write_json({"keys": [_shown(record) for record in records]})
        return
    if not records:
        say("There is no key yet: `recsvc keys create --name N --scope S` makes one.")
        return
    shown = table("id", "name", "kind", "created", "revoked", "scopes")
    for record in records:
        document = _shown(record)
        shown.add_row(
            record.key_id,
            record.name,
            "public" if record.public else "server",
            str(document["created_at"]),
            str(document["revoked_at"] or ""),
            " ".join(sorted(record.scopes)),
        )
    stdout().print(shown)


def revoke(settings: Settings, key_id: str) -> None:
    """Revoke a key."""

    async def mark(store: Store) -> KeyRecord:
        record = await store.keys.get(key_id)
        if record.revoked_at is None:
            record = record.model_copy(update={"revoked_at": datetime.now(UTC)})
            await store.keys.put(record)
        return record

    record = with_store(settings, mark)
    say(f"The key {record.key_id} of {record.name!r} is revoked, in every worker within 5 s.")


def _shown(record: KeyRecord) -> dict[str, object]:
    document = record.model_dump(mode="json", exclude={"digest"})
    return {**document, "scopes": sorted(record.scopes)}
