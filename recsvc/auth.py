"""Who is asking: API keys, their scopes, and the table of them that a worker holds.

A key is 256 random bits, shown once. The store has only its HMAC-SHA256 under the server's secret,
so neither a copy of the store nor one of the secret gives a key away.
"""

import asyncio
import base64
import binascii
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from feature_store.errors import RecsvcError, UserError
from feature_store.files import make_folder
from feature_store.key_store import KeyRecord
from recsvc.settings import Settings

SCOPES = (
    "recs:read",
    "events:write",
    "catalog:write",
    "users:read",
    "users:write",
    "marketing:read",
    "marketing:write",
    "marketing:publish",
    "recall:write",
    "privacy:admin",
    "models:admin",
    "keys:admin",
)
"""Everything that a key may be allowed to do."""

KEY_PREFIX = "rk_"
PUBLIC_KEY_PREFIX = "pk_"
PUBLIC_SCOPES = frozenset({"recs:read", "events:write"})
"""What a key that stands in a page's source may be allowed at most."""
REALM = "recsvc"
SECRET_FILE = "secret"  # noqa: S105 - a file's name
POLL_S = 2.0
"""How often a worker compares the version of its table: well inside the 5 s of the contract."""

MIN_LOOKUP_INTERVAL_S = 0.2

_KEY = re.compile(rb"[rp]k_[A-Za-z0-9_-]{43}")


class UnauthorizedError(RecsvcError):
    """No key, or one that is not known: 401."""


class ForbiddenError(RecsvcError):
    """A known key that lacks the scope: 403."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what that one may do.

    Parameters
    ----------
    key_id : str
        Id of the key, never the key.
    name : str
        What its owner called it.
    scopes : frozenset of str
        Some of :data:`SCOPES`.
    kind : {"server", "public", "customer"}
        The shop's backend, a browser with a public key, or a signed-in customer.
    user_id : str or None
        The one customer that a customer token speaks for.
    origins : tuple of str
        Pages that may use a public key, such as ``https://shop.example``; empty for any.
    """

    key_id: str
    name: str
    scopes: frozenset[str]
    kind: Literal["server", "public", "customer"] = "server"
    user_id: str | None = None
    origins: tuple[str, ...] = ()


class KeySource(Protocol):
    """The part of the store that keys are read from."""

    async def all(self) -> list[KeyRecord]:
        """Return every record."""

    async def version(self) -> int:
        """Return a number that changes with every change of a key."""


def new_key(
    secret: bytes,
    name: str,
    scopes: Iterable[str],
    now: datetime,
    *,
    public: bool = False,
    origins: tuple[str, ...] = (),
) -> tuple[str, KeyRecord]:
    """Make a key.

    Parameters
    ----------
    secret : bytes
        The server's secret.
    name : str
        What its owner calls it.
    scopes : iterable of str
        Some of :data:`SCOPES`; at least one.
    now : datetime
        When it is made.
    public : bool
        Whether it is for the code of a page, where anybody can read it.
    origins : tuple of str
        Pages that may use a public key; empty for any.

    Returns
    -------
    key : str
        To be shown once.
    record : KeyRecord
        To be stored.

    Raises
    ------
    UserError
        If a scope is unknown or none is given, or a public key cannot have it.
    """
    wanted = frozenset(scopes)
    unknown = sorted(wanted - set(SCOPES))
    if unknown or not wanted:
        what = f"unknown scope {', '.join(unknown)}" if unknown else "a key needs a scope"
        raise UserError(f"{what}; the scopes are {' '.join(SCOPES)}")
    if public and not wanted <= PUBLIC_SCOPES:
        allowed = " ".join(sorted(PUBLIC_SCOPES))
        raise UserError(f"anybody can read a public key; it can have the scopes {allowed}")
    prefix = PUBLIC_KEY_PREFIX if public else KEY_PREFIX
    key = prefix + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    record = KeyRecord(
        key_id=secrets.token_hex(6),
        name=name,
        scopes=wanted,
        digest=digest_of(secret, key.encode()).hex(),
        public=public,
        origins=origins,
        created_at=now,
    )
    return key, record


def digest_of(secret: bytes, key: bytes) -> bytes:
    """Return the HMAC-SHA256 under which a key is stored."""
    return hmac.digest(secret, key, "sha256")


def load_secret(settings: Settings) -> bytes:
    """Return the server's secret; the first start makes one in the data folder.

    Raises
    ------
    UserError
        If the file cannot be read or written, or others may read it.
    """
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    path = make_folder(settings.data_dir) / SECRET_FILE
    try:
        _make_secret(path)
        status = path.stat()
        secret = path.read_bytes().strip()
    except OSError as error:
        raise UserError(f"the secret {path} cannot be used: {error.strerror}") from error
    if status.st_mode & 0o077:
        raise UserError(f"{path} can be read by others: chmod 600 {path}")
    if len(secret) < 32:
        raise UserError(f"{path} is too short for a secret; restore it, or set RECSVC_SECRET")
    return secret


def _make_secret(path: Path) -> None:
    if path.exists():
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(32).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # Of several processes that start at once, the first one's secret is everybody's.
        path.hardlink_to(partial)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def credentials(authorization: bytes | None, api_key: bytes | None) -> bytes | None:
    """Return the key from the headers of a request, or ``None`` if there is none.

    Parameters
    ----------
    authorization : bytes or None
        ``Bearer KEY``, or ``Basic`` with the key as password.
    api_key : bytes or None
        Value of ``X-API-Key``.

    Raises
    ------
    UnauthorizedError
        If ``Authorization`` is of another kind or malformed.
    """
    if authorization is None:
        return api_key.strip() if api_key is not None else None
    scheme, _, rest = authorization.strip().partition(b" ")
    rest = rest.strip()
    match scheme.lower():
        case b"bearer":
            return rest
        case b"basic":
            try:
                return base64.b64decode(rest, validate=True).partition(b":")[2]
            except binascii.Error as error:
                raise UnauthorizedError("the Basic credentials are not base64") from error
    raise UnauthorizedError("Authorization must be Bearer KEY, or Basic with the key as password")


class Authenticator:
    """A worker's table of keys.

    Known keys are answered from memory, so they go on working while the store is down; a change of
    any key is seen within :data:`POLL_S`, a new key at once.

    Parameters
    ----------
    secret : bytes
        The server's secret.
    source : KeySource
        Where the records are.
    """

    def __init__(self, secret: bytes, source: KeySource) -> None:
        self._secret = secret
        self._source = source
        self._table: dict[bytes, Principal] = {}
        self._version = -1
        self._reading = asyncio.Lock()
        self._next_look: asyncio.Task[None] | None = None
        self._looked_at_s = -MIN_LOOKUP_INTERVAL_S

    def known(self, key: bytes) -> Principal | None:
        """Return whose key it is, from memory; ``None`` if the worker does not know it.

        The table is keyed by HMAC: how long a look takes says nothing about a key.
        """
        return self._table.get(digest_of(self._secret, key))

    async def identify(self, key: bytes | None) -> Principal:
        """Return whose key it is, asking the store for one that the worker does not know.

        Raises
        ------
        UnauthorizedError
            If there is no key or nobody has it.
        StoreUnavailableError
            If the worker does not know the key and cannot ask.
        """
        if key is None:
            raise UnauthorizedError("a key is needed: Authorization: Bearer KEY")
        principal = self.known(key)
        if principal is None:
            if not _KEY.fullmatch(key):
                raise UnauthorizedError("this is not a key of this service")
            await self._look_up()
            principal = self.known(key)
        if principal is None:
            raise UnauthorizedError("the key is not known or was revoked")
        return principal

    async def refresh(self) -> bool:
        """Read the table again if a key has changed; return whether one has.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer; the old table stays.
        """
        async with self._reading:
            version = await self._source.version()
            if version == self._version:
                return False
            records = await self._source.all()
            self._table = {
                bytes.fromhex(record.digest): Principal(
                    record.key_id,
                    record.name,
                    record.scopes,
                    "public" if record.public else "server",
                    origins=record.origins,
                )
                for record in records
                if record.revoked_at is None
            }
            self._version = version
            return True

    async def _look_up(self) -> None:
        """Wait for a look into the store that begins after this call; all who wait share one.

        Looks are rare however many wrong keys come: not more than five a second.
        """
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look())
        await asyncio.shield(self._next_look)

    async def _look(self) -> None:
        await asyncio.sleep(self._looked_at_s + MIN_LOOKUP_INTERVAL_S - time.monotonic())
        # From here on the look may miss a key: who comes now waits for the next one.
        self._next_look = None
        self._looked_at_s = time.monotonic()
        await self.refresh()


def require(principal: Principal, scope: str) -> None:
    """Refuse a principal that lacks a scope.

    Raises
    ------
    ForbiddenError
        Naming the scope.
    """
    if scope not in principal.scopes:
        raise ForbiddenError(f"the key {principal.name!r} lacks the scope {scope}")


def check_origin(principal: Principal, origin: str | None) -> None:
    """Refuse a public key in a page that it is not for.

    Browsers name the page in ``Origin``; who leaves it out is no browser, and learns nothing more
    than any reader of the page's source could.

    Raises
    ------
    ForbiddenError
        If the key is bound to other origins.
    """
    if origin is not None and principal.origins and origin not in principal.origins:
        raise ForbiddenError(f"the key {principal.name!r} is not for pages of {origin[:200]}")
