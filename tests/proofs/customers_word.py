"""The customer's word holds: under rules that try otherwise, on two workers at once, under load.

Run it as ``python -m tests.proofs.customers_word --steps 100000``. Many customers, each with people
of their own, hide, snooze, follow, refuse, agree, forget, sign in, buy and look, in any order and
over any connection, while marketers publish rules that pin and boost what people hide. Each answer
is compared with what was acknowledged before, kept in plain Python (``word_of``). Violations are:

- something hidden, snoozed or recalled is shown, by any placement, page, rule or filter;
- without consent an answer is personal, names history, or is not that of a stranger who hides the
  same; or a key of the person changes, or an event of theirs is found in a stream or a file;
- what was acknowledged does not show in the very next answer, or an event is lost.

``--opt-in`` runs it where only who agreed may be profiled; ``--kills N`` kills workers now and then
(SIGKILL), at any moment of what they do: what was not acknowledged is sent again, to any worker.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import orjson
import polars as pl
import psutil  # type: ignore[import-untyped]
import redis.asyncio

from feature_store import keys
from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from tests.proofs.customer import Customer
from tests.proofs.marketers import Marketers
from tests.proofs.nothing_lost import workers_of
from tests.proofs.outcome import Outcome, Shop
from tests.proofs.wire import Wire
from tests.proofs.word_of import ITEMS, brand_of, path_of
from tests.recsvc.api.browser import public_key, put, secret_of
from tests.recsvc.api.service import Service, make_shop
from tests.recsvc.signing import Backend

WORKERS, CUSTOMERS, CONNECTIONS = 2, 16, 24
PUBLISH_EVERY_S = 0.25
REPORT_EVERY_S = 10.0


async def _stock(wire: Wire, key: str) -> None:
    """Give the items of the small shop categories."""
    items = []
    for item_id in ITEMS:
        path = path_of(item_id)
        said = {"item_id": item_id, "title": item_id, "brand": brand_of(item_id)}
        items.append({**said, "categories": [path] if path else []})
    status, found = await wire.ask("POST", "/v1/items", items, Authorization=f"Bearer {key}")
    assert status == 200, found


def _kill(
    service: Service, outcome: Outcome, steps: int, kills: int, seed: int, ended: Event
) -> None:
    """Kill a worker whenever the next part of the steps is done, if all of them are there."""
    rng, parent = random.Random(f"kills {seed}"), psutil.Process(service.process.pid)
    while outcome.kills < kills and not ended.wait(0.02):
        workers = workers_of(parent)
        is_due = outcome.steps >= (outcome.kills + 1) * steps // (kills + 1)
        if is_due and len(workers) == WORKERS:
            rng.choice(workers).kill()
            outcome.kills += 1


async def _run(shop: Shop, steps: int, seed: int) -> None:
    """Let everybody act until enough was done."""
    await _stock(shop.wire, shop.key)
    run, outcome, began_s = f"run{seed}", shop.outcome, time.monotonic()
    customers = [Customer(shop, number, run) for number in range(CUSTOMERS)]

    async def live(customer: Customer) -> None:
        while outcome.steps < steps:
            await customer.step()

    async def sell() -> None:
        while True:
            await shop.marketers.step()
            await asyncio.sleep(PUBLISH_EVERY_S)

    async def report() -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            rate = outcome.steps / (time.monotonic() - began_s)
            found = f"{outcome.steps:,} steps, {rate:,.0f} a second"
            sys.stderr.write(f"{found}, {outcome.violations.total()} violations\n")

    others = [asyncio.create_task(one()) for one in (sell, report)]
    try:
        await asyncio.gather(*(live(customer) for customer in customers))
        for task in others:
            if task.done():
                await task
    finally:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    for customer in customers:
        for whose in customer.people:
            await customer.read(whose)
    outcome.seconds = time.monotonic() - began_s
    outcome.busy, outcome.broken = shop.wire.busy, shop.wire.broken
    outcome.rules, outcome.recalls = shop.marketers.n_rules, shop.marketers.n_recalls


async def _event_ids(shop: Shop, data_dir: Path) -> set[str]:
    """Return the ids of all events that streams and files hold."""
    found: set[str] = set()
    for shard in keys.shards():
        for _, fields in await shop.server.xrange(keys.events(shard)):
            found.add(orjson.loads(fields[b"e"])["event_id"])
    if files := EventLog(data_dir).files():
        logged = pl.scan_parquet(files).select("event_id").collect()["event_id"]
        found.update(logged.to_list())
    return found


async def prove(
    folder: Path, steps: int, seed: int, *, opt_in: bool = False, kills: int = 0
) -> Outcome:
    """Run it in a folder of its own.

    Parameters
    ----------
    folder : Path
        Empty.
    steps : int
        How much is done at least.
    seed : int
        Of everything that is random; when things happen stays the machine's.
    opt_in : bool
        Whether only who agreed may be profiled.
    kills : int
        So often a worker is killed.
    """
    rng, outcome = random.Random(seed), Outcome()
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        made = await asyncio.to_thread(make_shop, folder / "data", server.url)
        client = redis.asyncio.Redis.from_url(server.url)
        settings = {
            "workers": WORKERS,
            "public_events_per_minute": 1_000_000,
            "profiling": "opt_in" if opt_in else "opt_out",
            # Whether an answer is whole is not to depend on how busy the machine is.
            "store_timeout_ms": 10_000,
            "recall_lease_s": 60,
        }
        with Service(made, redis_url=server.url, **settings) as service:
            backend = Backend(secret_of(service))
            page, record = public_key(service)
            await asyncio.to_thread(put, server, backend.record, record)
            key = made.keys["all"]
            wire = Wire(service.url, CONNECTIONS, rng, survives=kills > 0)
            marketers = Marketers(wire, key, rng)
            shop = Shop(wire, client, backend, marketers, outcome, key, page, opt_in)
            ended = Event()
            killing = asyncio.to_thread(_kill, service, outcome, steps, kills, seed, ended)
            killer = asyncio.create_task(killing)
            try:
                await _run(shop, steps, seed)
            finally:
                ended.set()
                await killer
                await wire.close()
        held = await _event_ids(shop, folder / "data")
        for event_id in sorted(held & shop.withheld_ids):
            outcome.wrong("an event without consent is held", event_id)
        for event_id in sorted(shop.kept_ids - held):
            outcome.wrong("an acknowledged event is lost", event_id)
        await client.aclose()
    return outcome


def main() -> None:
    """Run it, write what was found, and exit with 1 for any violation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).timestamp()))
    parser.add_argument("--opt-in", action="store_true")
    parser.add_argument("--kills", type=int, default=0)
    arguments = parser.parse_args()
    given = {"opt_in": arguments.opt_in, "kills": arguments.kills}
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        found = asyncio.run(prove(Path(folder), arguments.steps, arguments.seed, **given))
    for told in found.told:
        sys.stdout.write(f"{told}\n")
    sys.stdout.write(
        f"seed {arguments.seed}: {found.steps:,} steps in {found.seconds:.0f} s,"
        f" {found.steps / found.seconds:,.0f} a second; {found.rules} rules and {found.recalls}"
        f" recalls published; {found.events_kept:,} events kept, {found.events_withheld:,}"
        f" withheld; {found.kills} workers killed, {found.broken} requests sent again; busy"
        f" {found.busy} times\n{dict(found.actions.most_common())}\n"
        f"{found.violations.total()} violations {dict(found.violations) or ''}\n"
    )
    sys.exit(1 if found.violations else 0)


if __name__ == "__main__":
    main()
