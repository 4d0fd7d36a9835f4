"""The customer's word holds: under rules that try otherwise, on two workers at once, under load.

Run it as ``python -m tests.proofs.customers_word --steps 100000``. Many customers, each with people
of their own, hide, snooze, follow, refuse, agree, forget, sign in, buy and look, in any order and
over any connection, while marketers publish rules that pin and boost what people hide. Each answer
is compared with what was acknowledged before, kept in plain Python (``word_of``). Violations are:

- something hidden, snoozed or recalled is shown, by any placement, page, rule or filter;
- without consent an answer is personal, names history, or is not that of a stranger who hides the
  same; or a key of the person changes, or an event of theirs is found in a stream or a file;
- what was acknowledged does not show in the very next answer, or an event is lost.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import redis.asyncio

from feature_store import keys
from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from tests.proofs.customer import Customer
from tests.proofs.marketers import Marketers
from tests.proofs.outcome import Outcome, Shop
from tests.proofs.wire import Wire
from tests.proofs.word_of import ITEMS, brand_of, path_of
from tests.recsvc.api.browser import public_key, put, secret_of
from tests.recsvc.api.service import Service, make_shop
from tests.recsvc.signing import Backend

CUSTOMERS, CONNECTIONS = 16, 24
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


async def _run(service: Service, server: EmbeddedServer, shop: Shop, steps: int, seed: int) -> None:
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

    others = [asyncio.create_task(sell()), asyncio.create_task(report())]
    try:
        await asyncio.gather(*(live(customer) for customer in customers))
        if others[0].done():
            await others[0]
    finally:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    for customer in customers:
        for whose in customer.people:
            await customer.read(whose)
    outcome.seconds = time.monotonic() - began_s
    outcome.busy = shop.wire.busy
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


async def prove(folder: Path, steps: int, seed: int) -> Outcome:
    """Run it in a folder of its own.

    Parameters
    ----------
    folder : Path
        Empty.
    steps : int
        How much is done at least.
    seed : int
        Of everything that is random; when things happen stays the machine's.
    """
    rng, outcome = random.Random(seed), Outcome()
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        made = await asyncio.to_thread(make_shop, folder / "data", server.url)
        client = redis.asyncio.Redis.from_url(server.url)
        settings = {"workers": 2, "public_events_per_minute": 1_000_000}
        with Service(made, redis_url=server.url, **settings) as service:
            backend = Backend(secret_of(service))
            page, record = public_key(service)
            await asyncio.to_thread(put, server, backend.record, record)
            key = made.keys["all"]
            wire = Wire(service.url, CONNECTIONS, rng)
            marketers = Marketers(wire, key, rng)
            shop = Shop(wire, client, backend, marketers, outcome, key, page)
            try:
                await _run(service, server, shop, steps, seed)
            finally:
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        found = asyncio.run(prove(Path(folder), arguments.steps, arguments.seed))
    for told in found.told:
        sys.stdout.write(f"{told}\n")
    sys.stdout.write(
        f"seed {arguments.seed}: {found.steps:,} steps in {found.seconds:.0f} s,"
        f" {found.steps / found.seconds:,.0f} a second; {found.rules} rules and {found.recalls}"
        f" recalls published; {found.events_kept:,} events kept, {found.events_withheld:,}"
        f" withheld; busy {found.busy} times\n{dict(found.actions.most_common())}\n"
        f"{found.violations.total()} violations {dict(found.violations) or ''}\n"
    )
    sys.exit(1 if found.violations else 0)


if __name__ == "__main__":
    main()
