"""A real service in a process of its own, on a free port, over a small shop."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import polars as pl

from feature_store.catalogue_files import CatalogueFiles
from feature_store.embedded import EmbeddedServer
from feature_store.registry import ModelRegistry
from feature_store.store import Store
from recsvc.access.auth import SCOPES, load_secret, new_key
from recsvc.settings import Settings
from tests.recsvc.shop import item_ids, write_artifact

N_MODEL = 60
N_ITEMS = 90
ODD_IDS = ("a/b", "100%", "a%2Fb", "{id}", "x:y", "..a", "é ü", "日本/語", "?q=1&r#f", "a+b", "\\")
TIMEOUT_S = 60.0
"""A test waits no longer for an answer, or for an end."""

PROGRAM = """
import sys
from recsvc.serving.serve import serve
from recsvc.settings import load_settings
serve(load_settings(), on_ready=lambda url: print(url, flush=True))
"""


@dataclass
class Shop:
    """What a service serves: a data folder with a catalogue, two models and keys."""

    data_dir: Path
    models: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    def headers(self, scope: str = "all") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[scope]}"}


def make_shop(data_dir: Path, url: str) -> Shop:
    """Fill a data folder, and the server at `url`, with a small shop."""
    shop = Shop(data_dir)
    registry = ModelRegistry(data_dir / "models")
    for seed in range(2):
        artifact = write_artifact(data_dir / "models", N_MODEL, seed)
        registry.publish(artifact.version, datetime.now(UTC))
        shop.models.append(artifact.version)
    asyncio.run(_fill(shop, url))
    return shop


async def _fill(shop: Shop, url: str) -> None:
    ids = [*item_ids(N_ITEMS), *ODD_IDS]
    frame = pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"Item {number} of Brand {number % 4}" for number in range(len(ids))],
            "brand": [f"Brand {number % 4}" for number in range(len(ids))],
            "price": [f"{1 + number}.50" for number in range(len(ids))],
            "currency": ["EUR"] * len(ids),
        }
    ).with_columns(pl.col("price").cast(pl.Decimal(18, 4)))
    store = await Store.open(url, read_timeout_s=5.0)
    try:
        await store.catalogue.import_items(CatalogueFiles(shop.data_dir / "catalogue"), frame)
        secret = load_secret(Settings(data_dir=shop.data_dir))
        for name, scopes in [("all", SCOPES), *((scope, [scope]) for scope in SCOPES)]:
            key, record = new_key(secret, name, scopes, datetime.now(UTC))
            await store.keys.put(record)
            shop.keys[name] = key
    finally:
        await store.close()


class Service:
    """A running service.

    Parameters
    ----------
    shop : Shop
        What it serves.
    **settings
        Values for ``RECSVC_*``.
    """

    def __init__(self, shop: Shop, **settings: Any) -> None:
        self.shop = shop
        # As in tests/conftest.py, without which the long proofs run.
        given = {"data_dir": shop.data_dir, "port": 0, "store_timeout_ms": 5000, **settings}
        environment = {f"RECSVC_{name.upper()}": str(value) for name, value in given.items()}
        self._log = shop.data_dir / f"service-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Self:
        if not self.url:
            self.stop()
            raise AssertionError(f"the service did not start: {self.log_text()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it and return its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            code = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def log_text(self) -> str:
        return self._log.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_text().splitlines()]

    def client(self, scope: str | None = "all") -> httpx.Client:
        """Return a client that sends the key with a scope."""
        headers = {} if scope is None else self.shop.headers(scope)
        # Without `verify` each client would read all certificates of the machine, for plain HTTP.
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S, verify=False)

    def async_client(self, scope: str = "all", connections: int = 20) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers=self.shop.headers(scope),
            timeout=TIMEOUT_S,
            verify=False,
            limits=httpx.Limits(max_connections=connections),
        )


@contextlib.contextmanager
def running_shop(folder: Path, **settings: Any) -> Iterator[tuple[Service, EmbeddedServer]]:
    """Make a shop with a server of its own, outside the data folder, and serve it."""
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        shop = make_shop(folder / "data", server.url)
        with Service(shop, redis_url=server.url, **settings) as service:
            yield service, server


def event(user_id: str, item_id: str, **more: Any) -> dict[str, Any]:
    """Return a purchase, now, with an id of its own."""
    return {
        "event_id": f"{user_id}-{item_id}-{time.monotonic_ns()}"[:128],
        "type": "purchase",
        "user_id": user_id,
        "item_id": item_id,
        "timestamp": datetime.now(UTC).isoformat(),
        **more,
    }


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def unscored(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items without their scores, which fall as what was bought grows older."""
    return [{**item, "score": None} for item in answer["items"]]


def assert_problem(response: httpx.Response, status: int, *pointers: str) -> dict[str, Any]:
    """Check that an answer is a problem document that names these parts."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["type"].startswith("urn:recsvc:problem:")
    assert document["request_id"] == response.headers["x-request-id"]
    assert "server-timing" in response.headers
    named: Sequence[str] = [error["pointer"] for error in document.get("errors", [])]
    if pointers:
        assert sorted(named) == sorted(pointers)
    return document
