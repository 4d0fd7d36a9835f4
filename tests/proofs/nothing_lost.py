"""Many writers with retries while everything is killed: no event is lost, none counts twice.

Run it as ``python -m tests.proofs.nothing_lost --events 1000000 --writers 8``. Workers, the archive
in one of them, and the server die by SIGKILL at random. In the end the ids in the files are counted
by a program that shares no code with ours, and every person's state is compared with one computed
here from what was sent, by a few lines of plain Python.
"""

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from feature_store.schema import EVENT_TYPE_CODES, EventType
from feature_store.store import Store
from tests.recsvc.api.service import Service, Shop, make_shop

KINDS = ("purchase", "view", "add_to_cart", "like", "impression", "survey")
NPS_ROW = 0xFFFF_0000
"""What a score of 0 has instead of an item's row; written here, not asked of the program."""
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
GIVE_UP_S = 120.0

COUNT = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
ids = set()
for path in Path(sys.argv[1]).glob("date=*/*.parquet"):
    table = pq.ParquetFile(path).read(["event_id"])
    ids.update(table.column("event_id").to_pylist())
print(len(ids))
"""

Fact = tuple[str, str]
Times = list[int]


@dataclass
class Outcome:
    """What a run has shown.

    ``killed`` counts SIGKILLs by victim, ``retries`` the requests that were sent again.
    """

    events: int
    distinct_ids: int = 0
    rows: int = 0
    people: int = 0
    wrong_states: int = 0
    seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    retries: int = 0


def event(number: int) -> dict[str, Any]:
    """Return the event of a number: the same one whoever asks."""
    rng = random.Random(number)
    whose = {"user_id": f"u{rng.randrange(2_000)}"}
    if rng.random() < 0.2:
        whose = {"anonymous_id": f"v{rng.randrange(500)}"}
    kind = KINDS[rng.randrange(len(KINDS))]
    about: dict[str, Any] = {"item_id": f"item-{rng.randrange(3_000)}"}
    if kind == "survey":
        about = {"instrument": "nps", "score": rng.randrange(11)}
    return {
        "event_id": f"e{number}",
        "type": kind,
        "timestamp": (FIRST + timedelta(seconds=rng.randrange(5 * 86_400))).isoformat(),
        **about,
        **whose,
    }


class Writer(threading.Thread):
    """Sends its share in batches, again and again until each is acknowledged, some twice."""

    def __init__(self, service: Service, numbers: range, batch: int) -> None:
        super().__init__(daemon=True)
        self.service, self.numbers, self.batch = service, numbers, batch
        self.acknowledged = self.retries = 0
        self.error: str | None = None

    def run(self) -> None:
        rng = random.Random(self.numbers.start)
        with self.service.client() as client:
            for start in range(0, len(self.numbers), self.batch):
                numbers = self.numbers[start : start + self.batch]
                body = json.dumps([event(number) for number in numbers]).encode()
                for _ in range(2 if rng.random() < 0.05 else 1):
                    if not self._send(client, body, len(numbers)):
                        return
                self.acknowledged += len(numbers)

    def _send(self, client: httpx.Client, body: bytes, n: int) -> bool:
        deadline_s = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline_s:
            try:
                answer = client.post("/v1/events", content=body, headers=_JSON)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 202:
                document = answer.json()
                if document["accepted"] + document["duplicates"] != n or document["conflicts"]:
                    self.error = f"unexpected: {document}"
                    return False
                return True
            if answer is not None and answer.status_code not in (429, 503):
                self.error = f"{answer.status_code}: {answer.text[:300]}"
                return False
            self.retries += 1
            time.sleep(0.05)
        self.error = "no answer for too long"
        return False


_JSON = {"Content-Type": "application/json"}


def kill_now_and_then(
    service: Service,
    server_folder: Path,
    stop: threading.Event,
    killed: Counter[str],
    pause_s: tuple[float, float],
    acknowledged: Callable[[], int],
) -> None:
    """Kill a worker or the server every few seconds; the server is started again.

    Nobody is killed before something was acknowledged again: on a busy machine a worker would die
    before it is ready, every time.
    """
    rng, before = random.Random(7), 0
    parent = psutil.Process(service.process.pid)
    with contextlib.ExitStack() as servers:
        while not stop.wait(rng.uniform(*pause_s)):
            if acknowledged() == before:
                continue
            before = acknowledged()
            if killed["worker"] <= killed["server"]:
                with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                    rng.choice(workers_of(parent)).kill()
                    killed["worker"] += 1
                continue
            server = EmbeddedServer(server_folder, fsync="always")
            if (pid := server.pid()) is not None:
                psutil.Process(pid).kill()
                killed["server"] += 1
                time.sleep(rng.uniform(0.1, 0.5))
            servers.enter_context(server)


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """Return the processes of a service that answer, without the interpreter's own helper."""
    found = []
    for one in parent.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just been killed
            if "resource_tracker" not in " ".join(one.cmdline()):
                found.append(one)
    return found


def prove(folder: Path, n_events: int, n_writers: int, batch: int = 100) -> Outcome:
    """Run it in a folder and return what it has shown."""
    outcome, began_s = Outcome(n_events), time.monotonic()
    with EmbeddedServer(folder / "server", fsync="always") as server:
        shop = make_shop(folder / "data", server.url)
        with Service(shop, redis_url=server.url, workers=2) as service:
            _write(service, folder / "server", outcome, n_writers, batch)
        outcome.seconds = time.monotonic() - began_s
        asyncio.run(_verify(shop, server.url, outcome))
    return outcome


def _write(
    service: Service, server_folder: Path, outcome: Outcome, n_writers: int, batch: int
) -> None:
    share = -(-outcome.events // n_writers)
    shares = [range(outcome.events)[at * share : (at + 1) * share] for at in range(n_writers)]
    writers = [Writer(service, numbers, batch) for numbers in shares]
    stop = threading.Event()
    # A worker that dies young is given ever longer pauses, up to 30 s: a long run must not starve.
    pause_s = (0.8, 3.0) if outcome.events <= 50_000 else (5.0, 20.0)

    def acknowledged() -> int:
        return sum(writer.acknowledged for writer in writers)

    arguments = (service, server_folder, stop, outcome.killed, pause_s, acknowledged)
    killer = threading.Thread(target=kill_now_and_then, args=arguments, daemon=True)
    for thread in (*writers, killer):
        thread.start()
    for writer in writers:
        writer.join()
    stop.set()
    killer.join()
    errors = [writer.error for writer in writers if writer.error]
    assert not errors, errors
    assert acknowledged() == outcome.events
    outcome.retries = sum(writer.retries for writer in writers)


async def _verify(shop: Shop, url: str, outcome: Outcome) -> None:
    log = EventLog(shop.data_dir)
    store = await Store.open(url, read_timeout_s=5.0)
    try:
        archiver = Archiver(store.streams, log)
        await archiver.drain(lambda *_: None)
        assert await store.streams.length() == 0
        program = [sys.executable, "-c", COUNT, str(log.events)]
        counting = await asyncio.to_thread(subprocess.check_output, program)
        outcome.distinct_ids, outcome.rows = int(counting), log.count()
        server: Any = store._redis
        row_of = await server.hgetall(keys.CATALOGUE_IDS)
        items = {int(row): item.decode() for item, row in row_of.items()}
        items |= {NPS_ROW + score: f"nps {score}" for score in range(11)}
        shown = impressions(outcome.events)
        for person, facts in expected(outcome.events):
            state = await store.load_state(person)
            columns = (state.rows, state.types, state.counts, state.first_s, state.last_s)
            found = {
                (items[row], kind): [count, first, last]
                for row, kind, count, first, last in zip(
                    *(column.tolist() for column in columns), strict=True
                )
            }
            seen = await store.load_impressions(person)
            cells = (column.tolist() for column in (seen.rows, seen.hours, seen.counts))
            known = {(items[row], hour): n for row, hour, n in zip(*cells, strict=True)}
            outcome.people += 1
            outcome.wrong_states += found != facts or known != shown.get(person, {})
    finally:
        await store.close()


def expected(n_events: int) -> Iterator[tuple[str, dict[tuple[str, int], Times]]]:
    """Yield what each person's facts must be: count, first and last time of item and type."""
    people: dict[str, dict[tuple[str, int], Times]] = {}
    for number in range(n_events):
        one = event(number)
        if one["type"] == "impression":
            continue
        person, at_s = _whose(one), _second(one)
        about = one.get("item_id") or f"nps {one['score']}"
        key = (about, EVENT_TYPE_CODES[EventType(one["type"])])
        fact = people.setdefault(person, {}).setdefault(key, [0, at_s, at_s])
        fact[0] += 1
        fact[1], fact[2] = min(fact[1], at_s), max(fact[2], at_s)
    yield from people.items()


def impressions(n_events: int) -> dict[str, Counter[tuple[str, int]]]:
    """Return how often each person was shown each item in each hour; nobody reaches the bound."""
    people: dict[str, Counter[tuple[str, int]]] = {}
    for number in range(n_events):
        one = event(number)
        if one["type"] == "impression":
            cells = people.setdefault(_whose(one), Counter())
            cells[one["item_id"], _second(one) // 3_600] += 1
    assert all(len(cells) <= 512 for cells in people.values())
    return people


def _whose(one: dict[str, Any]) -> str:
    return f"u:{one['user_id']}" if "user_id" in one else f"a:{one['anonymous_id']}"


def _second(one: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(one["timestamp"]).timestamp())


def main() -> None:
    """Run the proof and print what it has shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        outcome = prove(Path(folder), arguments.events, arguments.writers, arguments.batch)
    sys.stdout.write(f"{outcome}\n")
    proven = outcome.distinct_ids == outcome.rows == outcome.events and not outcome.wrong_states
    sys.exit(0 if proven else 1)


if __name__ == "__main__":
    main()
