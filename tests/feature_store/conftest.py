"""One real embedded server for the tests of the store; each test has a database of its own keys."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.store import Store


@pytest.fixture(scope="session", autouse=True)
def _unhurried() -> Iterator[None]:
    """Connecting takes as long as it takes, for hundreds of connections at once too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feature_store.cluster.CONNECT_TIMEOUT_S", 60.0)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder: Path = tmp_path_factory.mktemp("server")
    with EmbeddedServer(folder, fsync="everysec") as running:
        yield running


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[Store]:
    opened = await Store.open(server.url, read_timeout_s=5.0)
    await opened._redis.flushall()
    yield opened
    await opened.close()
