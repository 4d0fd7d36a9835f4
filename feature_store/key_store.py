"""API keys as the store keeps them: records by id, with an HMAC instead of the key."""

from collections.abc import Sequence
from typing import Any, Literal

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import NotFoundError, StoreUnavailableError
from feature_store.schema import Frozen, Timestamp


class SigningKey(Frozen):
    """What customer tokens are verified with; nobody can sign with a copy of it.

    ``public_key`` is an Ed25519 key as 32 bytes in hex; ``salt``, of HS256, makes the shared secret
    only together with the server's secret. One of the two is there.
    """

    algorithm: Literal["HS256", "EdDSA"]
    public_key: str | None = None
    salt: str | None = None


class KeyRecord(Frozen):
    """One API key, or one key that a shop's backend signs customer tokens with.

    The key itself is not in it: ``digest`` is its HMAC-SHA256 under the server's secret. A signing
    key has neither digest nor scopes.
    """

    key_id: str
    name: str
    scopes: frozenset[str] = frozenset()
    digest: str = ""
    public: bool = False
    origins: tuple[str, ...] = ()
    signing: SigningKey | None = None
    created_at: Timestamp
    revoked_at: Timestamp | None = None

    @property
    def kind(self) -> Literal["server", "public", "signing"]:
        """What it is for: a backend, the code of a page, or signing tokens."""
        if self.signing is not None:
            return "signing"
        return "public" if self.public else "server"


class KeyStore:
    """Keeps the records and a number that grows with every change.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def put(self, record: KeyRecord) -> None:
        """Add or replace a record; every worker sees it when it next compares versions."""
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(keys.KEY_RECORDS, record.key_id, record.model_dump_json())
                pipeline.incr(keys.KEY_VERSION)
                # The same transaction: what the server knows, the archive will know.
                pipeline.xadd(keys.KEY_CHANGES, {"e": _change(record)})
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the key was not stored: {error}") from error

    async def replay(self, changes: Sequence[dict[str, Any]]) -> None:
        """Teach an emptied server the records that the archive holds, in their order."""
        records = [KeyRecord.model_validate(change["record"]) for change in changes]
        async with self._redis.pipeline(transaction=True) as pipeline:
            for record in records:
                pipeline.hset(keys.KEY_RECORDS, record.key_id, record.model_dump_json())
            if records:
                pipeline.set(keys.KEY_VERSION, len(records))
            await pipeline.execute()

    async def get(self, key_id: str) -> KeyRecord:
        """Return one record.

        Raises
        ------
        NotFoundError
            If there is no such key.
        """
        value = await self._redis.hget(keys.KEY_RECORDS, key_id)
        if value is None:
            raise NotFoundError(f"there is no key with the id {key_id!r}; see `recsvc keys list`")
        return KeyRecord.model_validate_json(value)

    async def all(self) -> list[KeyRecord]:
        """Return all records, revoked ones too, oldest first."""
        try:
            values = await self._redis.hvals(keys.KEY_RECORDS)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the keys cannot be read: {error}") from error
        records = [KeyRecord.model_validate_json(value) for value in values]
        return sorted(records, key=lambda record: (record.created_at, record.key_id))

    async def version(self) -> int:
        """Return a number that changes with every change of a key."""
        try:
            return int(await self._redis.get(keys.KEY_VERSION) or 0)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the keys cannot be read: {error}") from error


def _change(record: KeyRecord) -> bytes:
    return orjson.dumps({"kind": "key", "record": record.model_dump(mode="json")})
