"""Do page reads suffer when every write waits for the disk? Both settings, side by side.

    python -m tests.proofs.durability --seconds 10

Two servers of our own run at once, one with ``appendfsync always`` and one with ``everysec``; to
each, writers add to streams and values as the service does, while readers fetch what a page
fetches. Turns of two seconds alternate, so that whatever else the machine does meets both alike.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis.asyncio

from feature_store.embedded import EmbeddedServer

TURN_S = 2.0
WRITERS = 8
READERS = 2
VALUE = os.urandom(2_000)


async def write(client: Any, until_s: float, number: int) -> list[float]:
    """Write as an accepted event does, until a moment; return the latencies in seconds."""
    took_s: list[float] = []
    while time.perf_counter() < until_s:
        began_s = time.perf_counter()
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.set(f"h:{number}:{len(took_s) % 500}", VALUE)
            pipeline.xadd(f"e:{number}", {"e": VALUE[:300]}, maxlen=10_000)
            await pipeline.execute()
        took_s.append(time.perf_counter() - began_s)
    return took_s


async def read(client: Any, until_s: float) -> list[float]:
    """Read what a page reads, every 2 ms, until a moment; return the latencies in seconds."""
    took_s: list[float] = []
    while time.perf_counter() < until_s:
        began_s = time.perf_counter()
        await client.mget("h:1:1", "p:1", "sequence")
        took_s.append(time.perf_counter() - began_s)
        await asyncio.sleep(0.002)
    return took_s


async def turn(url: str, writers: int) -> tuple[list[float], list[float]]:
    """Run one turn against one server; return the latencies of reads and writes."""
    clients = [redis.asyncio.Redis.from_url(url) for _ in range(writers + READERS)]
    until_s = time.perf_counter() + TURN_S
    reads = [read(client, until_s) for client in clients[:READERS]]
    writes = [write(client, until_s, at) for at, client in enumerate(clients[READERS:])]
    results = await asyncio.gather(*reads, *writes)
    for client in clients:
        await client.aclose()
    split = [value for part in results[:READERS] for value in part]
    return split, [value for part in results[READERS:] for value in part]


def percentile(values: list[float], share: float) -> float:
    """Return a percentile in milliseconds; 0 for no values."""
    return 1000 * sorted(values)[int(share * (len(values) - 1))] if values else 0.0


async def measure(urls: dict[str, str], seconds: float) -> dict[tuple[str, int], Any]:
    """Measure both servers in turns, without and with writers."""
    found: dict[tuple[str, int], Any] = {}
    for _ in range(max(1, round(seconds / TURN_S))):
        for writers in (0, WRITERS):
            for fsync, url in urls.items():
                reads, writes = await turn(url, writers)
                known = found.setdefault((fsync, writers), ([], []))
                known[0].extend(reads)
                known[1].extend(writes)
    return found


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--dir", help="where the servers' files lie: the disk that is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name, contextlib.ExitStack() as stack:
        urls = {
            fsync: stack.enter_context(EmbeddedServer(Path(name) / fsync, fsync)).url
            for fsync in ("always", "everysec")
        }
        found = asyncio.run(measure(urls, arguments.seconds))
    names = ["`appendfsync`", "writers", "read p50 ms", "read p99 ms", "write p50 ms"]
    names += ["write p99 ms", "writes/s"]
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for (fsync, writers), (reads, writes) in sorted(found.items(), key=lambda one: one[0][1]):
        numbers = [percentile(values, share) for values in (reads, writes) for share in (0.5, 0.99)]
        cells = " | ".join(f"{value:.2f}" if value else "" for value in numbers)
        per_s = len(writes) / max(TURN_S, arguments.seconds)
        rows.append(f"| {fsync} | {writers} | {cells} | {per_s:,.0f} |")
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
