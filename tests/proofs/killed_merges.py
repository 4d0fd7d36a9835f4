"""Processes that merge visitors into users are killed at random: no history is lost or doubled.

Run it as ``python -m tests.proofs.killed_merges --rounds 60``. Two processes at a time send the
events of visitors and users and merge them, ten visitors at once, everything again from the start
after each death. In the end every user has what a plain count says, the log holds each event once,
and an emptied server that is rebuilt from it holds the same.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from feature_store.merging import ROW_TYPE
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store

VISITORS, USERS = 120, 30
AT_ONCE = 10
BEFORE, AFTER, OF_USER = 6, 3, 5
"""Events of a visitor before and after the sign-in, and of a user."""
AT = datetime(2026, 11, 1, tzinfo=UTC)
KINDS = (EventType.VIEW, EventType.PURCHASE, EventType.IMPRESSION)
DEATHS = 3
"""So often both processes die in a round."""


@dataclass
class Outcome:
    """What a run has shown; ``half_done`` counts merges that a death left between two steps."""

    kills: int = 0
    half_done: int = 0
    people: int = 0
    wrong: int = 0
    wrong_after_rebuild: int = 0
    events: int = 0
    logged: int = 0


def events_of(visitor: int | None, user: int, numbers: range) -> list[Event]:
    """Return events of a visitor, or of a user; the ids of all of them are alike."""
    return [
        Event(
            event_id=f"e{number}",
            type=KINDS[number % 3],
            user_id=f"u{user}" if visitor is None else None,
            anonymous_id=None if visitor is None else f"v{visitor}",
            item_id=ItemId(f"i{number % 4}"),
            timestamp=AT,
        )
        for number in numbers
    ]


async def work(url: str, seed: int) -> None:
    """Send and merge everything once, in an order of its own."""
    store = await Store.open(url, read_timeout_s=5.0)

    async def one(visitor: int) -> None:
        user = visitor % USERS
        await store.events.append(events_of(visitor, user, range(BEFORE)))
        await store.merger.merge(f"u{user}", f"v{visitor}", datetime.now(UTC))
        await store.events.append(
            events_of(visitor, user, range(BEFORE, BEFORE + AFTER))
            + events_of(None, user, range(OF_USER))
        )

    visitors = list(range(VISITORS))
    random.Random(seed).shuffle(visitors)
    for start in range(0, VISITORS, AT_ONCE):
        await asyncio.gather(*(one(visitor) for visitor in visitors[start : start + AT_ONCE]))
    await store.close()


NURSERY = """
import asyncio, os, signal, sys
from tests.proofs.killed_merges import work
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(work(sys.argv[1], int(line)))
        os._exit(0)
    print(child, flush=True)
"""
"""Has imported what the work needs, so that a new process begins at once."""


class Nursery:
    """Starts processes that work, and kills them.

    Parameters
    ----------
    url : str
        Of the server.
    """

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._told() == "ready"

    def _told(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, seed: int) -> int:
        """Start a process and return its id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return int(self._told())

    @staticmethod
    def alive(pid: int) -> bool:
        """Tell whether a process has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        return False

    def kill(self, pid: int) -> bool:
        """Kill a process and wait until it is gone; return whether it lived."""
        if not self.alive(pid):
            return False
        os.kill(pid, signal.SIGKILL)
        while self.alive(pid):
            time.sleep(0.001)
        return True

    def close(self) -> None:
        """Stop the nursery itself."""
        self._process.kill()
        self._process.communicate()


async def links(store: Store) -> list[bytes]:
    """Return the links of all visitors who have one: ``>`` is sealed, ``=`` is done."""
    redis: Any = store._redis
    found = await redis.mget([keys.link(f"a:v{visitor}") for visitor in range(VISITORS)])
    return [link for link in found if link is not None]


async def prove(folder: Path, rounds: int) -> Outcome:
    """Kill both processes at three moments of every round, then let one finish, and compare."""
    outcome, rng = Outcome(), random.Random(0)
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        nursery = Nursery(server.url)
        for number in range(rounds):
            for begun in sorted(rng.sample(range(VISITORS), DEATHS)):
                running = [nursery.start(rng.randrange(10**6)) for _ in range(2)]
                while len(await links(store)) <= begun and any(map(nursery.alive, running)):
                    pass
                await asyncio.sleep(rng.uniform(0.0, 0.005))
                outcome.kills += sum(map(nursery.kill, running))
                outcome.half_done += sum(link.startswith(b">") for link in await links(store))
            await work(store.url, 0)
            await _check(store, folder / f"data-{number}", outcome)
        nursery.close()
        await store.close()
    return outcome


async def _check(store: Store, data_dir: Path, outcome: Outcome) -> None:
    """Compare every person live and rebuilt, and empty the server."""
    outcome.wrong += await wrong(store)
    outcome.people += VISITORS + USERS
    log = EventLog(data_dir)
    await Archiver(store.streams, log).run_all()
    rows = log.scan().filter(pl.col("type") != ROW_TYPE).collect()
    outcome.events += VISITORS * (BEFORE + AFTER) + USERS * OF_USER
    outcome.logged += len(rows.unique(["user_id", "anonymous_id", "event_id"]))
    assert len(rows) == rows.unique(["user_id", "anonymous_id", "event_id"]).height
    await store._redis.flushall()
    await rebuild(store.url, data_dir)
    outcome.wrong_after_rebuild += await wrong(store)
    await store._redis.flushall()
    store.catalogue._known.clear()


async def wrong(store: Store) -> int:
    """Return how many people have another history than a plain count says."""
    items = [f"i{number}" for number in range(4)]
    rows = dict(zip(await store.catalogue.rows_of(items), items, strict=True))
    found = 0
    for person in [f"u:u{user}" for user in range(USERS)] + [
        f"a:v{one}" for one in range(VISITORS)
    ]:
        state, shown = await store.load_state(person), await store.load_impressions(person)
        known: Counter[tuple[str, str]] = Counter()
        facts = (column.tolist() for column in (state.rows, state.types, state.counts))
        for row, kind, count in zip(*facts, strict=True):
            known[rows[row], list(EventType)[kind].value] += count
        for row, count in zip(shown.rows.tolist(), shown.counts.tolist(), strict=True):
            known[rows[row], "impression"] += count
        found += known != expected(person)
    return found


def expected(person: str) -> Counter[tuple[str, str]]:
    """Count what a person must have: a user all events of four visitors too, a visitor nothing."""
    counts: Counter[tuple[str, str]] = Counter()
    if person.startswith("a:"):
        return counts
    parts = [range(OF_USER)] + [range(BEFORE + AFTER)] * (VISITORS // USERS)
    for number in (number for part in parts for number in part):
        counts[f"i{number % 4}", KINDS[number % 3].value] += 1
    return counts


def main() -> None:
    """Run the proof and print what it has shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        outcome = asyncio.run(prove(Path(folder), arguments.rounds))
    sys.stdout.write(f"{outcome} in {time.monotonic() - began_s:.0f} s\n")
    good = outcome.events == outcome.logged and not outcome.wrong + outcome.wrong_after_rebuild
    sys.exit(0 if good and outcome.half_done else 1)


if __name__ == "__main__":
    main()
