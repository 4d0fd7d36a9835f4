"""50,000 events a minute: the workers' memory stays flat, and what the server grows by is stated.

Run it as ``python -m tests.proofs.steady_memory --minutes 10``.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from feature_store.embedded import EmbeddedServer
from tests.proofs.nothing_lost import event
from tests.recsvc.api.service import Service, make_shop

EVENTS_A_MINUTE = 50_000
BATCH = 100
WARM_S = 60.0
MAX_GROWTH = 0.10
_JSON = {"Content-Type": "application/json"}


def memory_mb(process: psutil.Process) -> float:
    """Return the memory of a process and all below it that nobody shares, in megabytes."""
    family = [process, *process.children(recursive=True)]
    return float(sum(one.memory_full_info().uss for one in family)) / 1e6


def run(folder: Path, minutes: float) -> bool:
    """Send, and write a line every minute; return whether memory was flat after the first."""
    with EmbeddedServer(folder / "server") as server:
        shop = make_shop(folder / "data", server.url)
        with Service(shop, redis_url=server.url, workers=2) as service, service.client() as client:
            workers = psutil.Process(service.process.pid)
            server_process = psutil.Process(server.pid())
            began_s, sent, told_s, first_mb, last_mb = time.monotonic(), 0, 0.0, 0.0, 0.0
            while (elapsed_s := time.monotonic() - began_s) < 60 * minutes:
                if elapsed_s - told_s >= WARM_S:
                    told_s = elapsed_s
                    last_mb = memory_mb(workers)
                    first_mb = first_mb or last_mb
                    sys.stdout.write(
                        f"{elapsed_s:.0f} s: {sent:,} events, service {last_mb:.0f} MB,"
                        f" server {memory_mb(server_process):.0f} MB\n"
                    )
                    sys.stdout.flush()
                body = json.dumps([event(number) for number in range(sent, sent + BATCH)])
                answer = client.post("/v1/events", content=body, headers=_JSON)
                assert answer.status_code == 202, answer.text
                sent += BATCH
                due_s = sent / EVENTS_A_MINUTE * 60
                time.sleep(max(0.0, due_s - (time.monotonic() - began_s)))
    return last_mb <= first_mb * (1 + MAX_GROWTH)


def main() -> None:
    """Run it and exit with 1 if memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        sys.exit(0 if run(Path(folder), arguments.minutes) else 1)


if __name__ == "__main__":
    main()
