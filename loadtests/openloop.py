"""Latency under a load that does not wait: requests are due at fixed times, answered or not.

A closed loop asks less while the server stalls, so a stall of a second costs it one slow request
per connection: coordinated omission. Here every request has a time at which it is due, and its
latency counts from that time, also when it had to wait for a free connection.

    python loadtests/openloop.py --rate 500 --seconds 10

uses `.recsvc/demo.json` for address, key and customers.
"""

import argparse
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from loadtests.client import Address, Connection, LoadError
from loadtests.demo import Demo, recommendation_requests

DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """What an open loop found.

    Parameters
    ----------
    per_second : float
        Requests that were due in a second.
    sorted_s : sequence of float
        Latency of each request in seconds, from the time it was due to its whole reply, sorted.
    late_s : float
        99th percentile of how late the generator itself was in sending to a free connection.
    """

    per_second: float
    sorted_s: Sequence[float]
    late_s: float

    def quantile_ms(self, share: float) -> float:
        """Return the latency in ms that this share of requests does not exceed."""
        return 1_000 * quantile(self.sorted_s, share)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of sorted values that at least this share of them does not exceed."""
    if not values:
        raise ValueError("no values")
    rank = -int(-share * len(values) // 1)
    return values[min(len(values), max(1, rank)) - 1]


class OpenLoop:
    """Sends requests when they are due.

    Parameters
    ----------
    address : Address
        Where to.
    requests : iterator of bytes
        Ready requests, endless.
    n_connections : int
        Most requests under way at once; what is due beyond them waits, and its waiting counts.
    """

    def __init__(
        self, address: Address, requests: Iterator[bytes], *, n_connections: int = 64
    ) -> None:
        self._requests = requests
        self._connections = [Connection(address) for _ in range(n_connections)]

    def run(self, *, per_second: float, seconds: float) -> Latencies:
        """Send at a fixed rate for some time, then wait for the last replies.

        Raises
        ------
        LoadError
            If a reply is not a 200, or the last ones do not come within 30 seconds.
        """
        n_requests = max(1, round(per_second * seconds))
        free = deque(self._connections)
        busy: set[Connection] = set()
        latencies: list[float] = []
        late: list[float] = []
        began_s = time.perf_counter()
        n_sent = 0
        give_up_s = began_s + n_requests / per_second + DRAIN_S
        while len(latencies) < n_requests:
            now_s = time.perf_counter()
            if now_s > give_up_s:
                raise LoadError(f"{n_requests - len(latencies)} replies did not come")
            while free and n_sent < n_requests:
                due_s = began_s + n_sent / per_second
                if due_s > now_s:
                    break
                connection = free.popleft()
                connection.due_s = due_s
                connection.send(next(self._requests))
                late.append(now_s - max(due_s, connection.freed_s))
                busy.add(connection)
                n_sent += 1
            wait_s = 0.1
            if free and n_sent < n_requests:
                wait_s = max(0.0, began_s + n_sent / per_second - time.perf_counter())
            # select, not poll: it waits in microseconds.
            ready, _, _ = select.select(busy, (), (), wait_s)
            for connection in ready:
                if connection.receive():
                    connection.freed_s = time.perf_counter()
                    latencies.append(connection.freed_s - connection.due_s)
                    busy.discard(connection)
                    free.append(connection)
        latencies.sort()
        late.sort()
        return Latencies(per_second, latencies, quantile(late, 0.99))

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()


def open_loop(
    address: Address,
    requests: Iterator[bytes],
    *,
    per_second: float,
    seconds: float,
    n_connections: int = 64,
) -> Latencies:
    """Run one open loop; see :class:`OpenLoop`."""
    loop = OpenLoop(address, requests, n_connections=n_connections)
    try:
        return loop.run(per_second=per_second, seconds=seconds)
    finally:
        loop.close()


def main() -> int:
    """Measure a server that runs already."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=Path(".recsvc/demo.json"))
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--placement", default="home")
    arguments = parser.parse_args()
    try:
        demo = Demo.read(arguments.demo)
        requests = cycle(
            recommendation_requests(demo.address, demo.key, demo.user_ids, arguments.placement)
        )
        found = open_loop(
            demo.address, requests, per_second=arguments.rate, seconds=arguments.seconds
        )
    except (LoadError, OSError) as error:
        sys.stderr.write(f"openloop: {error}\n")
        return 1
    for share in (0.5, 0.9, 0.99, 0.999):
        print(f"p{100 * share:g}  {found.quantile_ms(share):8.2f} ms")
    print(f"the generator itself was up to {1000 * found.late_s:.2f} ms late (p99)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
