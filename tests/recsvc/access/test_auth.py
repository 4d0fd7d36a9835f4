"""Keys: how they are made, kept, read from headers and looked up."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from feature_store.embedded import EmbeddedServer
from feature_store.errors import StoreUnavailableError, UserError
from feature_store.key_store import KeyRecord
from feature_store.store import Store
from recsvc.access.auth import (
    SCOPES,
    ForbiddenError,
    UnauthorizedError,
    credentials,
    digest_of,
    load_secret,
    new_key,
    require,
)
from recsvc.access.key_table import MIN_LOOKUP_INTERVAL_S, Authenticator
from recsvc.settings import Settings
from tests.recsvc.signing import Backend

SECRET = b"s" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path, fsync="everysec") as running:
        yield running


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[Store]:
    opened = await Store.open(server.url, read_timeout_s=5.0)
    yield opened
    await opened.close()


async def looks_at(store: Store) -> int:
    """How often somebody asked the server for the version of the keys."""
    facts = await store._redis.info("commandstats")
    return int(facts.get("cmdstat_get", {"calls": 0})["calls"])


def test_a_key_has_256_bits_and_is_not_in_its_record() -> None:
    key, record = new_key(SECRET, "shop", ["recs:read"], NOW)
    assert key.startswith("rk_")
    assert len(base64.urlsafe_b64decode(key[3:] + "=")) == 32
    assert key not in record.model_dump_json()
    assert key[3:] not in record.model_dump_json()
    assert record.digest == digest_of(SECRET, key.encode()).hex()
    assert digest_of(b"other" * 8, key.encode()).hex() != record.digest


@pytest.mark.parametrize("scopes", [[], ["recs:write"], ["recs:read", "all"]])
def test_scopes_are_checked(scopes: list[str]) -> None:
    with pytest.raises(UserError, match="the scopes are recs:read"):
        new_key(SECRET, "shop", scopes, NOW)


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    secret = load_secret(settings)
    assert len(secret) == 64
    assert load_secret(settings) == secret
    path = tmp_path / "new" / "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret"]
    path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        load_secret(settings)
    assert load_secret(Settings(data_dir=tmp_path, secret=SecretStr("x" * 32))) == b"x" * 32


def test_a_truncated_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(0o600)
    with pytest.raises(UserError, match="too short"):
        load_secret(Settings(data_dir=tmp_path))


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("authorization", "api_key", "key"),
    [
        (b"Bearer K", None, b"K"),
        (b"bearer   K ", None, b"K"),
        (basic(b"mailer:K"), None, b"K"),
        (basic(b":K:L"), None, b"K:L"),
        (basic(b"K"), None, b""),
        (None, b" K ", b"K"),
        (b"Bearer K", b"other", b"K"),
        (None, None, None),
    ],
)
def test_where_a_key_may_stand(
    authorization: bytes | None, api_key: bytes | None, key: bytes | None
) -> None:
    assert credentials(authorization, api_key) == key


@pytest.mark.parametrize("value", [b"", b"K", b"Digest K", b"Basic ***", b"\xff\xff"])
def test_other_credentials_are_refused(value: bytes) -> None:
    with pytest.raises(UnauthorizedError):
        credentials(value, None)


async def make_key(store: Store, scopes: Iterable[str] = SCOPES) -> tuple[bytes, KeyRecord]:
    key, record = new_key(SECRET, "shop", scopes, NOW)
    await store.keys.put(record)
    return key.encode(), record


def unknown_key() -> bytes:
    return new_key(SECRET, "nobody", SCOPES, NOW)[0].encode()


async def test_known_keys_work_while_the_store_is_down(
    store: Store, server: EmbeddedServer
) -> None:
    key, record = await make_key(store)
    worker = Authenticator(SECRET, store.keys)
    await worker.refresh()
    server.stop()
    principal = await worker.identify(key)
    assert (principal.key_id, principal.name) == (record.key_id, "shop")
    with pytest.raises(StoreUnavailableError):
        await worker.identify(unknown_key())
    with pytest.raises(StoreUnavailableError):
        await worker.refresh()
    assert worker.known(key) is principal


async def test_a_new_key_works_at_once_and_a_revoked_one_not_after_the_next_look(
    store: Store,
) -> None:
    worker = Authenticator(SECRET, store.keys)
    key, record = await make_key(store)
    for _ in range(3):
        key, record = await make_key(store)
        assert (await worker.identify(key)).key_id == record.key_id
    await store.keys.put(record.model_copy(update={"revoked_at": NOW}))
    assert await worker.refresh()
    assert not await worker.refresh()
    with pytest.raises(UnauthorizedError, match="revoked"):
        await worker.identify(key)


async def test_a_key_that_was_stored_is_found_whatever_looks_are_under_way(store: Store) -> None:
    worker = Authenticator(SECRET, store.keys)
    for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.005):
        first = asyncio.create_task(worker.identify(unknown_key()))
        await asyncio.sleep(MIN_LOOKUP_INTERVAL_S + delay_s)
        key, record = await make_key(store)
        assert (await worker.identify(key)).key_id == record.key_id
        with pytest.raises(UnauthorizedError):
            await first


async def test_wrong_keys_do_not_wear_out_the_store(store: Store) -> None:
    worker = Authenticator(SECRET, store.keys)
    before = await looks_at(store)
    began = time.monotonic()
    for _ in range(2):
        outcomes = await asyncio.gather(
            *(worker.identify(unknown_key()) for _ in range(100)), return_exceptions=True
        )
        assert all(isinstance(outcome, UnauthorizedError) for outcome in outcomes)
    looks = await looks_at(store) - before
    assert looks <= 1 + (time.monotonic() - began) / MIN_LOOKUP_INTERVAL_S
    for garbage in (b"", b"rk_short", b"\xff" * 46, b"rk_" + b"!" * 43, None):
        with pytest.raises(UnauthorizedError):
            await worker.identify(garbage)
    assert await looks_at(store) - before == looks


async def test_a_scope_is_required_by_name(store: Store) -> None:
    key, _ = await make_key(store, ["recs:read"])
    principal = await Authenticator(SECRET, store.keys).identify(key)
    require(principal, "recs:read")
    with pytest.raises(ForbiddenError, match="events:write"):
        require(principal, "events:write")


# --- customer tokens and pages ------------------------------------------------------------------


async def test_a_new_signing_key_is_looked_up_and_a_revoked_one_ends(store: Store) -> None:
    worker = Authenticator(SECRET, store.keys)
    await worker.refresh()
    for algorithm in ("EdDSA", "HS256"):
        backend = Backend(SECRET, algorithm)
        token = backend.token("ann").encode()
        with pytest.raises(UnauthorizedError, match="not known"):
            await worker.identify(token)
        await store.keys.put(backend.record)
        principal = await worker.identify(token)
        assert (principal.kind, principal.user_id) == ("customer", "ann")
        looks = await looks_at(store)
        assert worker.known(token) is principal
        assert (await worker.identify(backend.token("bob").encode())).user_id == "bob"
        assert await looks_at(store) == looks, "what is known asks nobody"
        await store.keys.put(backend.revoked())
        await worker.refresh()
        assert worker.known(token) is None
        with pytest.raises(UnauthorizedError, match="revoked"):
            await worker.identify(token)


async def test_tokens_work_while_the_store_is_down(store: Store, server: EmbeddedServer) -> None:
    backend = Backend(SECRET)
    await store.keys.put(backend.record)
    worker = Authenticator(SECRET, store.keys)
    await worker.refresh()
    server.stop()
    assert (await worker.identify(backend.token("ann").encode())).user_id == "ann"
    with pytest.raises(StoreUnavailableError):
        await worker.identify(Backend(SECRET).token("ann").encode())


async def test_only_pages_of_good_keys_are_welcome(store: Store, server: EmbeddedServer) -> None:
    page, other = "https://shop.example", "https://other.example"
    worker = Authenticator(SECRET, store.keys)
    assert not await worker.welcomes(page)
    backend = Backend(SECRET, origins=(page,))
    await store.keys.put(backend.record)
    assert await worker.welcomes(page)
    assert not await worker.welcomes(other)
    await store.keys.put(backend.revoked())
    await worker.refresh()
    assert not await worker.welcomes(page)
    server.stop()
    assert not await worker.welcomes(page)
