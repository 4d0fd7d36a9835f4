"""Who is asking: API keys and their scopes, how they are made and where a request carries one.

A key is 256 random bits, shown once. The store has only its HMAC-SHA256 under the server's secret,
so neither a copy of the store nor one of the secret gives a key away.
"""

import base64
import binascii
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

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

Kind = Literal["server", "public", "customer"]
"""The shop's backend, a browser with a public key, or a signed-in customer."""

_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


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
        What sort of caller it is, see :data:`Kind`.
    user_id : str or None
        The one customer that a customer token speaks for.
    origins : tuple of str
        Pages that may use a public key or a token, such as ``https://shop.example``.
    """

    key_id: str
    name: str
    scopes: frozenset[str]
    kind: Kind = "server"
    user_id: str | None = None
    origins: tuple[str, ...] = ()


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
        Pages that may use a public key; at least one.

    Returns
    -------
    key : str
        To be shown once.
    record : KeyRecord
        To be stored.

    Raises
    ------
    UserError
        If a scope is unknown or none is given, a public key cannot have it or has no origin, or an
        origin is none.
    """
    wanted = frozenset(scopes)
    unknown = sorted(wanted - set(SCOPES))
    if unknown or not wanted:
        what = f"unknown scope {', '.join(unknown)}" if unknown else "a key needs a scope"
        raise UserError(f"{what}; the scopes are {' '.join(SCOPES)}")
    if public and not wanted <= PUBLIC_SCOPES:
        allowed = " ".join(sorted(PUBLIC_SCOPES))
        raise UserError(f"anybody can read a public key; it can have the scopes {allowed}")
    if public and not origins:
        raise UserError(
            "a public key is bound to the pages of a shop: --origin https://shop.example"
        )
    if origins and not public:
        raise UserError("only public keys and signing keys have origins; a secret key is no page's")
    check_origins(origins)
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


def check_origins(origins: Iterable[str]) -> None:
    """Refuse what no browser would send as ``Origin``.

    Raises
    ------
    UserError
        Naming the first that is wrong, and how it is written.
    """
    for origin in origins:
        default = {"https": ":443", "http": ":80"}.get(origin.partition("://")[0], "")
        if not _ORIGIN.fullmatch(origin) or (default and origin.endswith(default)):
            raise UserError(
                f"{origin[:200]!r} is not an origin; write it as browsers do: https://shop.example"
                " or http://localhost:8000, in lower case, without a path, a slash at the end, a"
                " wildcard or the usual port"
            )


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


def credentials(
    authorization: bytes | None, api_key: bytes | None, in_address: bytes | None = None
) -> bytes | None:
    """Return the key or token that a request carries, or ``None`` if there is none.

    A header counts before the address: a page may name its public key everywhere and add the token
    of whoever has signed in.

    Parameters
    ----------
    authorization : bytes or None
        ``Bearer KEY``, or ``Basic`` with the key as password.
    api_key : bytes or None
        Value of ``X-API-Key``.
    in_address : bytes or None
        Value of ``?key=``.

    Raises
    ------
    UnauthorizedError
        If ``Authorization`` is of another kind or malformed, or the address holds anything but a
        public key: addresses stand in logs and histories.
    """
    if in_address is not None and not in_address.startswith(PUBLIC_KEY_PREFIX.encode()):
        if in_address.startswith(KEY_PREFIX.encode()):
            raise UnauthorizedError(
                "a secret key must not stand in an address, where logs and histories keep it: send"
                " it as Authorization: Bearer KEY, and revoke this one"
            )
        raise UnauthorizedError(f"?key= is for public keys, which begin with {PUBLIC_KEY_PREFIX}")
    if authorization is None:
        return api_key.strip() if api_key is not None else in_address
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
    """Refuse a public key or a token in a page that it is not for.

    Browsers name the page in ``Origin``; who leaves it out is no browser, and learns nothing more
    than any reader of the page's source could.

    Raises
    ------
    ForbiddenError
        If the key, or the token's signing key, is bound to other origins.
    """
    if origin is not None and principal.kind != "server" and origin not in principal.origins:
        raise ForbiddenError(f"the key {principal.name!r} is not for pages of {origin[:200]}")
