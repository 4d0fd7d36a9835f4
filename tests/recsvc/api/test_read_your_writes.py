"""What one process acknowledged is in the next answer of another, without a sleep or a message.

Every purchase is of an item that nobody has seen before, so the reading process must learn of the
item too. Meanwhile reads of the same customer are in flight, and models are swapped.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.registry import ModelRegistry
from tests.recsvc.api import service as service_module
from tests.recsvc.api.service import Service, event, ids_of, make_shop

WITHOUT_CHECK = """
from recsvc.serving.keeping import SnapshotKeeper

async def look_away(self, context):
    pass

SnapshotKeeper.catch_up = look_away
"""


@contextlib.contextmanager
def two_processes(folder: Path, sabotage: str = "") -> Iterator[tuple[Service, Service]]:
    """Serve one shop by two processes; `sabotage` is run in the reading one before it starts."""
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        shop = make_shop(folder / "data", server.url)
        with Service(shop, redis_url=server.url) as writer:
            program = service_module.PROGRAM
            service_module.PROGRAM = sabotage + program
            try:
                reader = Service(shop, redis_url=server.url, snapshot_poll_s=0.05)
            finally:
                service_module.PROGRAM = program
            with reader:
                yield writer, reader


async def swap_models(service: Service) -> None:
    registry = ModelRegistry(service.shop.data_dir / "models")
    while True:
        for version in service.shop.models:
            await asyncio.to_thread(registry.promote, version, datetime.now(UTC))
            await asyncio.sleep(0.05)


async def violations(writer: Service, reader: Service, purchases: int) -> int:
    """Buy and look, again and again; return how often a purchase was missing."""
    missing = 0
    swapping = asyncio.create_task(swap_models(reader))
    async with writer.async_client() as buys, reader.async_client() as looks:

        async def customer(number: int, count: int) -> int:
            missed = 0
            for step in range(count):
                # Ten purchases a customer: every one of them fits into a list of twenty.
                user = f"customer {number}/{step // 10}"
                query: dict[str, str | int] = {"user_id": user, "limit": 20}
                early = [
                    asyncio.create_task(looks.get("/v1/recommendations", params=query))
                    for _ in range(2)
                ]
                item = f"new {number}/{step}"
                stored = await buys.post("/v1/events", json=event(user, item))
                assert stored.status_code == 202
                answer = await looks.get("/v1/recommendations", params=query)
                assert answer.status_code == 200
                document = answer.json()
                assert document["degraded"] == []
                missed += item not in ids_of(document)
                await asyncio.gather(*early)
            return missed

        try:
            missing = sum(
                await asyncio.gather(*(customer(number, purchases // 4) for number in range(4)))
            )
        finally:
            swapping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await swapping
    return missing


@pytest.mark.parametrize(
    "purchases",
    [
        pytest.param(200),
        pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_a_purchase_is_in_the_next_answer_of_another_process(
    tmp_path: Path, purchases: int
) -> None:
    with two_processes(tmp_path) as (writer, reader):
        assert asyncio.run(violations(writer, reader, purchases)) == 0


@pytest.mark.slow
def test_without_the_sequence_check_purchases_are_missed(tmp_path: Path) -> None:
    with two_processes(tmp_path, WITHOUT_CHECK) as (writer, reader):
        assert asyncio.run(violations(writer, reader, 40)) > 0
