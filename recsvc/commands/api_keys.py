"""``recsvc keys``: make, list and revoke API keys and signing keys."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from feature_store.errors import UserError
from feature_store.key_store import KeyRecord
from feature_store.store import Store
from recsvc.access.auth import PUBLIC_SCOPES, SCOPES, load_secret, new_key
from recsvc.access.tokens import AUDIENCE, MAX_LIFETIME_S, new_signing_key
from recsvc.commands.output import note, say, stdout, table, write_json
from recsvc.commands.session import with_store
from recsvc.settings import Settings


def create(
    settings: Settings,
    name: str,
    scopes: Sequence[str],
    *,
    public: bool = False,
    origins: tuple[str, ...] = (),
    as_json: bool,
) -> None:
    """Make an API key and show it once."""
    key, record = make_key(settings, name, scopes, public=public, origins=origins)
    if as_json:
        write_json({"key": key, **_shown(record)})
        return
    say(key)
    kind = "public key" if public else "key"
    note(f"This is {kind} {record.key_id} for {name!r}. It is not shown again: keep it now.")


def make_key(
    settings: Settings,
    name: str,
    scopes: Sequence[str],
    *,
    public: bool = False,
    origins: tuple[str, ...] = (),
) -> tuple[str, KeyRecord]:
    """Make a key and store its HMAC.

    Parameters
    ----------
    settings : Settings
        Where the store is.
    name : str
        Whose key it is.
    scopes : sequence of str
        Some of ``auth.SCOPES``, or ``all``; none: everything that a public key may do.
    public : bool
        Whether it is for the code of pages.
    origins : tuple of str
        Pages that a public key is for.

    Returns
    -------
    tuple of (str, KeyRecord)
        The key, and what is kept of it.
    """
    wanted: Sequence[str] = SCOPES if "all" in scopes else scopes
    if public and not scopes:
        wanted = sorted(PUBLIC_SCOPES)
    secret, now = load_secret(settings), datetime.now(UTC)
    key, record = new_key(secret, name, wanted, now, public=public, origins=origins)
    store_record(settings, record)
    return key, record


def create_signing(
    settings: Settings,
    name: str,
    algorithm: str,
    public_key: Path | None,
    origins: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Make a key that a backend signs customer tokens with; show a shared secret once."""
    try:
        pem = public_key.read_bytes() if public_key is not None else None
    except OSError as error:
        raise UserError(f"{public_key} cannot be read: {error.strerror}") from error
    shared, record = new_signing_key(
        load_secret(settings),
        name,
        datetime.now(UTC),
        algorithm=algorithm,
        public_key=pem,
        origins=origins,
    )
    store_record(settings, record)
    if as_json:
        write_json({"key": shared, **_shown(record)})
        return
    say(shared or record.key_id)
    if shared is not None:
        note("This is the shared secret, as text. It is not shown again: keep it now.")
    note(
        f"Tokens of {name!r}: header kid={record.key_id} alg={algorithm}; claims sub=USER_ID"
        f" aud={AUDIENCE} exp at most {MAX_LIFETIME_S} s ahead."
    )


def store_record(settings: Settings, record: KeyRecord) -> None:
    """Add or replace the record of a key."""

    async def put(store: Store) -> None:
        await store.keys.put(record)

    with_store(settings, put)


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
    shown = table("id", "name", "kind", "created", "revoked", "scopes", "origins")
    for record in records:
        document = _shown(record)
        shown.add_row(
            record.key_id,
            record.name,
            f"signing, {record.signing.algorithm}" if record.signing else record.kind,
            str(document["created_at"]),
            str(document["revoked_at"] or ""),
            " ".join(sorted(record.scopes)),
            " ".join(record.origins),
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
    document = record.model_dump(mode="json", exclude={"digest", "signing"})
    algorithm = None if record.signing is None else record.signing.algorithm
    return {
        **document,
        "scopes": sorted(record.scopes),
        "kind": record.kind,
        "algorithm": algorithm,
    }
