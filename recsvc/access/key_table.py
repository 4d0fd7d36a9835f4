"""The table of keys that a worker holds: whose a key or token is, answered from memory."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Protocol

from feature_store.errors import StoreUnavailableError
from feature_store.key_store import KeyRecord
from recsvc.access.auth import Principal, UnauthorizedError, digest_of
from recsvc.access.tokens import TokenVerifier, signing_key_of, verify_key

POLL_S = 2.0
"""How often a worker compares the version of its table: well inside the 5 s of the contract."""

MIN_LOOKUP_INTERVAL_S = 0.2

_KEY = re.compile(rb"[rp]k_[A-Za-z0-9_-]{43}")


class KeySource(Protocol):
    """The part of the store that keys are read from."""

    async def all(self) -> list[KeyRecord]:
        """Return every record."""

    async def version(self) -> int:
        """Return a number that changes with every change of a key."""


@dataclass(frozen=True, slots=True)
class _Table:
    version: int
    principals: dict[bytes, Principal]
    tokens: TokenVerifier
    origins: frozenset[str]
    seen: dict[bytes, Principal] = field(default_factory=dict)
    """Keys that were found in `principals`: their HMACs need not be computed again."""


class Authenticator:
    """A worker's table of keys.

    Known keys are answered from memory, so they go on working while the store is down; a change of
    any key is seen within :data:`POLL_S`, a new key at once. Verified tokens are forgotten with the
    table, so that those of a revoked signing key end as soon.

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
        self._table = _Table(-1, {}, TokenVerifier({}), frozenset())
        self._reading = asyncio.Lock()
        self._next_look: asyncio.Task[None] | None = None
        self._looked_at_s = -MIN_LOOKUP_INTERVAL_S

    def known(self, key: bytes) -> Principal | None:
        """Return whose key or token it is, from memory; ``None`` if the worker does not know it.

        How long a look takes says nothing about a key: the table is keyed by HMAC, and what was
        seen by the interpreter's own keyed hash, before any two keys are compared.
        """
        table = self._table
        principal = table.seen.get(key)
        if principal is not None:
            return principal
        if b"." in key:
            return table.tokens.known(key, time.time())
        principal = table.principals.get(digest_of(self._secret, key))
        if principal is not None:
            table.seen[key] = principal
        return principal

    async def identify(self, key: bytes | None) -> Principal:
        """Return whose key or token it is, asking the store for one that the worker does not know.

        Raises
        ------
        UnauthorizedError
            If there is no key, nobody has it, or a token is not good.
        StoreUnavailableError
            If the worker does not know the key and cannot ask.
        """
        if key is None:
            raise UnauthorizedError("a key is needed: Authorization: Bearer KEY")
        principal = self.known(key)
        if principal is not None:
            return principal
        if b"." in key:
            if not self._table.tokens.has(signing_key_of(key)):
                await self._look_up()
            return self._table.tokens.verify(key, time.time())
        if not _KEY.fullmatch(key):
            raise UnauthorizedError("this is not a key of this service")
        await self._look_up()
        principal = self.known(key)
        if principal is None:
            raise UnauthorizedError("the key is not known or was revoked")
        return principal

    def has_origin(self, origin: str) -> bool:
        """Tell whether a good public key or signing key is bound to pages of an origin."""
        return origin in self._table.origins

    async def welcomes(self, origin: str) -> bool:
        """Tell the same, asking the store for an origin that the worker does not know.

        While the store is down, what the worker knows decides.
        """
        if not self.has_origin(origin):
            try:
                await self._look_up()
            except StoreUnavailableError:
                return False
        return self.has_origin(origin)

    async def refresh(self) -> bool:
        """Read the table again if a key has changed; return whether one has.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer; the old table stays.
        """
        async with self._reading:
            version = await self._source.version()
            if version == self._table.version:
                return False
            self._table = self._made(version, await self._source.all())
            return True

    def _made(self, version: int, records: list[KeyRecord]) -> _Table:
        good = [record for record in records if record.revoked_at is None]
        signing = {one.key_id: verify_key(self._secret, one) for one in good if one.signing}
        principals = {
            bytes.fromhex(record.digest): Principal(
                record.key_id,
                record.name,
                record.scopes,
                "public" if record.public else "server",
                origins=record.origins,
            )
            for record in good
            if record.signing is None
        }
        origins = frozenset(origin for record in good for origin in record.origins)
        return _Table(version, principals, TokenVerifier(signing), origins)

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
