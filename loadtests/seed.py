"""Made-up purchases for a server that has none, sent over HTTP as a shop would send them.

    .venv/bin/python loadtests/seed.py --key KEY --customers 1000 --items 5000 --events 50000

Customers have tastes and items have fame (Zipf), so that there is something to learn. All follows
from ``--seed``: the same call twice has no effect the second time. Ends by writing a file like the
demo's, which `openloop.py` and `locustfile.py` take.
"""

import argparse
import http.client
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

BATCH = 1_000
N_TASTES = 20
TASTE_SHARE = 0.7
DAYS = 180


def purchases(
    *, n_customers: int, n_items: int, n_events: int, seed: int, until: datetime
) -> Iterator[dict[str, Any]]:
    """Make up purchases.

    Parameters
    ----------
    n_customers, n_items, n_events : int
        How many.
    seed : int
        What everything follows from.
    until : datetime
        No purchase is later; all are within 180 days before.

    Yields
    ------
    dict
        An event as ``POST /v1/events`` takes it.
    """
    rng = np.random.default_rng(seed)
    fame = 1.0 / np.arange(1, n_items + 1)
    fame /= fame.sum()
    customers = rng.integers(0, n_customers, n_events)
    items = rng.choice(n_items, n_events, p=fame)
    # Most of what somebody buys is of their own taste: the nearest item that is.
    own = rng.random(n_events) < TASTE_SHARE
    tastes = customers % N_TASTES
    items = np.where(own, np.minimum(items - items % N_TASTES + tastes, n_items - 1), items)
    seconds = rng.integers(0, DAYS * 86_400, n_events)
    for number in range(n_events):
        at = until - timedelta(seconds=int(seconds[number]))
        yield {
            "event_id": f"seed-{seed}-{number}",
            "type": "purchase",
            "user_id": f"seed-{customers[number]}",
            "item_id": f"seed-{items[number]}",
            "timestamp": at.isoformat().replace("+00:00", "Z"),
        }


def send(base_url: str, key: str, events: Iterator[dict[str, Any]]) -> dict[str, int]:
    """Send events in batches of 1,000.

    Returns
    -------
    dict
        How many were accepted, and how many were there before, with the same or another body.

    Raises
    ------
    OSError
        If a batch is not answered with 202.
    """
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    total = {"accepted": 0, "duplicates": 0, "conflicts": 0}
    try:
        while batch := [event for _, event in zip(range(BATCH), events, strict=False)]:
            connection.request("POST", "/v1/events", json.dumps(batch), headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 202:
                raise OSError(f"POST /v1/events: {response.status} {body[:500]!r}")
            answer = json.loads(body)
            for name in total:
                total[name] += answer[name]
    finally:
        connection.close()
    return total


def main() -> int:
    """Send made-up purchases, and write down who bought."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", required=True, help="scopes recs:read and events:write")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("seed.json"))
    arguments = parser.parse_args()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    events = purchases(
        n_customers=arguments.customers,
        n_items=arguments.items,
        n_events=arguments.events,
        seed=arguments.seed,
        until=midnight,
    )
    began_s = time.monotonic()
    try:
        total = send(arguments.base_url, arguments.key, events)
    except OSError as error:
        sys.stderr.write(f"seed: {error}\n")
        return 1
    seconds = time.monotonic() - began_s
    document = {
        "base_url": arguments.base_url,
        "keys": {"admin": arguments.key, "public": None},
        "user_ids": [f"seed-{number}" for number in range(min(20, arguments.customers))],
        "model_version": None,
    }
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    before = total["duplicates"] + total["conflicts"]
    print(
        f"{total['accepted']:,} purchases sent, {before:,} were there before,"
        f" in {seconds:.1f} s; {arguments.out} says for whom"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
