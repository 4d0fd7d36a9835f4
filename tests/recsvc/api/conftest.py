"""One service for most tests; those that break something start their own."""

from collections.abc import Iterator

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.departments import Customer, browsers, department_shop
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


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Service, EmbeddedServer]]:
    """A shop with departments, two workers, and nobody in it yet."""
    with department_shop(tmp_path_factory.mktemp("departments")) as both:
        yield both


@pytest.fixture(scope="module")
def backend(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    """The backend of the shop with departments."""
    with shop[0].client() as client:
        yield client


@pytest.fixture(scope="module")
def customer(shop: tuple[Service, EmbeddedServer]) -> Iterator[Customer]:
    """Makes browsers of its customers."""
    with browsers(*shop) as made:
        yield made
