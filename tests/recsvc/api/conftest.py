"""One service for most tests; those that break something start their own."""

from collections.abc import Iterator

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.service import Service, running_shop


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Service, EmbeddedServer]]:
    with running_shop(tmp_path_factory.mktemp("shop")) as both:
        yield both


@pytest.fixture(scope="session")
def service(running: tuple[Service, EmbeddedServer]) -> Service:
    return running[0]


@pytest.fixture(scope="session")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Service, EmbeddedServer]]:
    """A service with two workers, whose models and keys tests change."""
    with running_shop(tmp_path_factory.mktemp("pair"), workers=2, snapshot_poll_s=0.1) as both:
        yield both


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
