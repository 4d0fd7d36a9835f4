"""What browsers hold: public keys and tokens, stored in the service's own server."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx

from feature_store.embedded import EmbeddedServer
from feature_store.key_store import KeyRecord
from feature_store.store import Store
from recsvc.access.auth import PUBLIC_SCOPES, load_secret, new_key
from recsvc.settings import Settings
from tests.recsvc.api.service import Service

ORIGIN = "https://shop.example"
OTHER_ORIGIN = "https://evil.example"
VISITOR = "507f191e-810c-4197-89de-860ea0123456"


def secret_of(service: Service) -> bytes:
    return load_secret(Settings(data_dir=service.shop.data_dir))


def put(server: EmbeddedServer, *records: KeyRecord) -> None:
    """Store keys behind the back of a running service."""

    async def run() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        try:
            for record in records:
                await store.keys.put(record)
        finally:
            await store.close()

    asyncio.run(run())


def public_key(service: Service, origin: str = ORIGIN) -> tuple[str, KeyRecord]:
    now = datetime.now(UTC)
    return new_key(secret_of(service), "page", PUBLIC_SCOPES, now, public=True, origins=(origin,))


@contextmanager
def page_of(service: Service, **headers: str) -> Iterator[httpx.Client]:
    """A client that sends what the code of a page would."""
    with httpx.Client(
        base_url=service.url, headers={"Origin": ORIGIN, **headers}, verify=False, timeout=60
    ) as client:
        yield client
