"""Ratios that must hold on any machine, of processor time, never absolute times.

What is compared is measured in turn, and the best of several rounds counts: a busy neighbour can
only add time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import thread_time

import pytest
import redis.asyncio
import uvloop

from feature_store.batching import BatchedReader
from feature_store.embedded import EmbeddedServer

N_READS = 64
ROUNDS = 15


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("benchmark")
    with EmbeddedServer(folder, fsync="everysec") as server:
        yield server.url


async def best_s(*calls: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> list[float]:
    """Return the least processor time of each call, asked in turn.

    The shorter a call, the more likely it is that some of them were not interrupted.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, found in zip(calls, times, strict=True):
            began_s = thread_time()
            await call()
            found.append(thread_time() - began_s)
    return [min(found) for found in times]


async def _compare_reads(url: str) -> tuple[list[float], list[object]]:
    client = redis.asyncio.Redis.from_url(url)
    reader = BatchedReader(url, timeout_s=5.0)
    keys = [f"key{number}" for number in range(N_READS)]
    await client.mset(dict.fromkeys(keys, b"x" * 3000))

    async def each_alone() -> list[object]:
        return await asyncio.gather(*(client.get(key) for key in keys))

    async def batched() -> list[object]:
        found = await asyncio.gather(*(reader.get((key,)) for key in keys))
        return [value for (value,) in found]

    try:
        assert await each_alone() == await batched()
        times = await best_s(each_alone, batched)
        return times, await batched()
    finally:
        await reader.close()
        await client.aclose()


def test_reads_in_flight_cost_a_fraction_of_single_reads(url: str) -> None:
    # On the loop that serves: uvloop's transports are not those of asyncio.
    (alone_s, batched_s), values = uvloop.run(_compare_reads(url))
    assert values == [b"x" * 3_000] * N_READS
    assert batched_s < 0.33 * alone_s
