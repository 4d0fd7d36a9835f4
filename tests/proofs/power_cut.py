"""Copies of the server's files at random moments: what was acknowledged before is in every one.

A copy is what a disk would hold if the machine stopped there, given that the disk holds what the
server has handed over to it. Run it as ``python -m tests.proofs.power_cut --copies 200``.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_store.embedded import EmbeddedServer
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store


@dataclass
class Outcome:
    """How many copies were started, how many events they had to have, and how many were missing."""

    copies: int = 0
    acknowledged: int = 0
    missing: int = 0
    states_behind: int = 0


def event(number: int) -> Event:
    return Event(
        event_id=f"e{number}",
        type=EventType.VIEW if number // 50 % 2 else EventType.IMPRESSION,
        user_id=f"u{number % 50}",
        item_id=ItemId(f"i{number % 200}"),
        timestamp=datetime.fromtimestamp(1_700_000_000 + number, UTC),
    )


class Writing:
    """Writes without a pause, and knows up to which number everything was acknowledged."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged = 0
        self.goes_on = True

    async def run(self) -> None:
        number = 0
        # Asked to end, not cancelled: before Python 3.12 ``asyncio.wait_for``, which the client
        # writes with, now and then swallows a cancellation, and the loop would never end.
        while self.goes_on:
            await self.store.events.append([event(number + step) for step in range(5)])
            number += 5
            self.acknowledged = number


async def copy_files(source: Path, target: Path) -> None:
    """Copy the append-only files as they are at this moment, half-written ones too."""
    await asyncio.to_thread(shutil.copytree, source / "appendonlydir", target / "appendonlydir")


async def prove(folder: Path, n_copies: int) -> Outcome:
    outcome = Outcome()
    rng = random.Random(0)
    with EmbeddedServer(folder / "server", fsync="always") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        writing = Writing(store)
        task = asyncio.create_task(writing.run())
        try:
            for number in range(n_copies):
                await asyncio.sleep(rng.uniform(0.0, 0.1))
                # Noted before the copy begins: later ones may be in it, or not.
                acknowledged = writing.acknowledged
                copied = folder / f"copy-{number}"
                await copy_files(server.folder, copied / "valkey")
                await _check(copied, acknowledged, outcome)
                shutil.rmtree(copied)
        finally:
            writing.goes_on = False
            await task
            await store.close()
    return outcome


async def _check(copied: Path, acknowledged: int, outcome: Outcome) -> None:
    """Start a server on a copy and look for every event that had been acknowledged."""
    server = EmbeddedServer(copied)
    await asyncio.to_thread(server.start)
    try:
        store = await Store.open(server.url, read_timeout_s=5.0)
        entries = await store.streams.read({}, 10_000_000)
        bodies: list[Any] = [entry.body for entry in entries]
        found = {int(body.partition(b'"event_id":"e')[2].partition(b'"')[0]) for body in bodies}
        outcome.missing += len(set(range(acknowledged)) - found)
        # A state and its event are written as one: neither is there without the other.
        of_user = Counter(number % 50 for number in found)
        for user in range(50):
            state = await store.load_state(f"u:u{user}")
            shown = await store.load_impressions(f"u:u{user}")
            known = int(state.counts.sum()) + int(shown.counts.sum())
            outcome.states_behind += known != of_user[user]
        await store.close()
    finally:
        await asyncio.to_thread(server.stop)
    outcome.copies += 1
    outcome.acknowledged += acknowledged


def main() -> None:
    """Run the proof and print what it has shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=200)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        outcome = asyncio.run(prove(Path(folder), arguments.copies))
    sys.stdout.write(f"{outcome} in {time.monotonic() - began_s:.0f} s\n")
    sys.exit(0 if outcome.missing == outcome.states_behind == 0 else 1)


if __name__ == "__main__":
    main()
