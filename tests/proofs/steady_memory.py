"""50,000 events a minute: the workers' memory stays flat, and what the server grows by is stated.

Run it as ``python -m tests.proofs.steady_memory --minutes 10``.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import psutil  # type: ignore[import-untyped]

from feature_store.embedded import EmbeddedServer
from tests.proofs.nothing_lost import event
from tests.recsvc.api.service import Service, make_shop

EVENTS_A_MINUTE = 50_000
BATCH = 100
SENDERS = 4
MAX_GROWTH = 0.10
_JSON = {"Content-Type": "application/json"}


def memory_mb(process: psutil.Process) -> float:
    """Return the memory of a process and all below it that nobody shares, in megabytes."""
    family = [process, *process.children(recursive=True)]
    return float(sum(one.memory_full_info().uss for one in family)) / 1e6


class Senders:
    """Send events at the wanted rate from several connections; who is behind catches up.

    Parameters
    ----------
    service : Service
        Where to.
    """

    def __init__(self, service: Service) -> None:
        self.sent = [0] * SENDERS
        self.refused = 0
        self._service, self._stop = service, threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(at,)) for at in range(SENDERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, sender: int) -> None:
        began_s, number = time.monotonic(), sender
        with self._service.client() as client:
            while not self._stop.is_set():
                body = json.dumps([event(number + SENDERS * at) for at in range(BATCH)])
                answer = client.post("/v1/events", content=body, headers=_JSON)
                if answer.status_code in (429, 503):
                    self.refused += 1
                    self._stop.wait(float(answer.headers["retry-after"]))
                    continue
                assert answer.status_code == 202, answer.text
                number += SENDERS * BATCH
                self.sent[sender] += BATCH
                due_s = began_s + self.sent[sender] * SENDERS / EVENTS_A_MINUTE * 60
                self._stop.wait(max(0.0, due_s - time.monotonic()))


def run(folder: Path, minutes: int) -> bool:
    """Send, and write a line every minute; return whether memory was flat after the first."""
    with EmbeddedServer(folder / "server") as server:
        shop = make_shop(folder / "data", server.url)
        with Service(shop, redis_url=server.url, workers=2) as service:
            workers, began_s = psutil.Process(service.process.pid), time.monotonic()
            server_process = psutil.Process(server.pid())
            found_mb: list[float] = []
            n, elapsed_s = 0, 0.0
            with Senders(service) as senders:
                for minute in range(1, minutes + 1):
                    time.sleep(max(0.0, began_s + 60 * minute - time.monotonic()))
                    found_mb.append(memory_mb(workers))
                    n, elapsed_s = sum(senders.sent), time.monotonic() - began_s
                    sys.stdout.write(
                        f"{elapsed_s:.0f} s: {n:,} events, {senders.refused} refusals, service"
                        f" {found_mb[-1]:.0f} MB, server {memory_mb(server_process):.0f} MB\n"
                    )
                    sys.stdout.flush()
    flat = found_mb[-1] <= found_mb[0] * (1 + MAX_GROWTH)
    rate = 60 * n / elapsed_s
    sys.stdout.write(f"{'flat' if flat else 'GREW'}; {rate:,.0f} events a minute\n")
    return flat


def main() -> None:
    """Run it and exit with 1 if memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        sys.exit(0 if run(Path(folder), arguments.minutes) else 1)


if __name__ == "__main__":
    main()
