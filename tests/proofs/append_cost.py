"""What one stored event costs the process that stores it, and how long its caller waits.

    python -m tests.proofs.append_cost

People have histories of 260 items, the median customer of the demo. Events come one by one and in
batches of 100 of as many people, views and impressions apart. Prints a table in Markdown: processor
time and elapsed time of one event, medians over the calls.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from feature_store.embedded import EmbeddedServer
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store

PEOPLE = 500
ITEMS_EACH = 260
ITEMS = 5_000
FIRST_S = 1_700_000_000


def events(kind: EventType, first: int, n: int) -> list[Event]:
    """Return `n` events of as many people, one each, with ids from `first` on."""
    rng = random.Random(first)
    return [
        Event(
            event_id=f"{kind.value}-{first + at}",
            type=kind,
            user_id=f"u{(first + at) % PEOPLE}",
            item_id=ItemId(f"i{rng.randrange(ITEMS)}"),
            timestamp=datetime.fromtimestamp(FIRST_S + first + at, UTC),
        )
        for at in range(n)
    ]


async def fill(store: Store) -> None:
    """Give everybody a history."""
    rng = random.Random(0)
    people = [f"u{number}" for number in range(PEOPLE) for _ in range(ITEMS_EACH)]
    frame = pl.DataFrame(
        {
            "user_id": people,
            "anonymous_id": pl.Series([None] * len(people), dtype=pl.String),
            "item_id": [f"i{rng.randrange(ITEMS)}" for _ in people],
            "type": ["purchase"] * len(people),
            "timestamp": [datetime.fromtimestamp(FIRST_S - 86_400, UTC)] * len(people),
        }
    )
    await store.imports.apply("histories", frame, lambda *_: None)


async def measure(calls: int) -> list[tuple[str, int, float, float]]:
    """Return kind, batch, and the microseconds of processor and of elapsed time for one event."""
    rows: list[tuple[str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as name, EmbeddedServer(Path(name), "everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        await fill(store)
        for kind in (EventType.VIEW, EventType.IMPRESSION):
            for batch in (1, 100):
                cpu_s: list[float] = []
                took_s: list[float] = []
                for call in range(calls):
                    sent = events(kind, 1_000_000 * batch + call * batch, batch)
                    began_s, began_cpu_s = time.perf_counter(), time.process_time()
                    await store.events.append(sent)
                    took_s.append((time.perf_counter() - began_s) / batch)
                    cpu_s.append((time.process_time() - began_cpu_s) / batch)
                cpu_us, took_us = (1e6 * statistics.median(values) for values in (cpu_s, took_s))
                rows.append((kind.value, batch, cpu_us, took_us))
        await store.close()
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    lines = ["| event | batch | processor µs | elapsed µs |", "|---|---|---|---|"]
    for kind, batch, cpu_us, took_us in asyncio.run(measure(parser.parse_args().calls)):
        lines.append(f"| {kind} | {batch} | {cpu_us:.0f} | {took_us:.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
