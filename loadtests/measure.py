"""What a benchmark is made of: targets that are asked in turn, and rows with floors."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.client import Throughput, closed_loop
from loadtests.openloop import open_loop, quantile
from loadtests.processes import Server

LOAD_SHARE = 0.5

Row = dict[str, Any]


@dataclass(slots=True)
class Target:
    """One server with one kind of request, and what the rounds found.

    Parameters
    ----------
    name : str
        What it is called in the rows.
    server : Server
        Who answers.
    requests : iterator of bytes
        Ready requests, endless.
    """

    name: str
    server: Server
    requests: Iterator[bytes]
    replies: list[Throughput] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    sorted_s: list[list[float]] = field(default_factory=list)

    @property
    def n_replies(self) -> int:
        """Replies of all rounds, throughput and latency."""
        steady = sum(len(latencies) for latencies in self.sorted_s)
        return steady + sum(found.n_replies for found in self.replies)

    @property
    def per_second(self) -> list[float]:
        """Replies a second, one value a round."""
        return [found.per_second for found in self.replies]

    def ask(self, seconds: float) -> None:
        """Keep it busy for some time; note throughput and processor time."""
        before_s = self.server.cpu_s()
        found = closed_loop(self.server.address, self.requests, seconds=seconds)
        self.cpu_us.append(1e6 * (self.server.cpu_s() - before_s) / found.n_replies)
        self.replies.append(found)

    def ask_steadily(self, seconds: float) -> None:
        """Send half of what it can take, on a fixed schedule; note the latencies."""
        rate = LOAD_SHARE * statistics.median(self.per_second)
        found = open_loop(self.server.address, self.requests, per_second=rate, seconds=seconds)
        self.sorted_s.append(list(found.sorted_s))

    @property
    def core_busy(self) -> list[float]:
        """Share of its core that the server used, in percent, one value a round."""
        pairs = zip(self.cpu_us, self.per_second, strict=True)
        return [cpu_us * per_second / 1e4 for cpu_us, per_second in pairs]

    def latency_ms(self, share: float) -> list[float]:
        """Return a quantile of the latencies, one value a round."""
        return [1_000 * quantile(latencies, share) for latencies in self.sorted_s]


def measure(
    targets: Sequence[Target],
    *,
    rounds: int,
    seconds: float,
    latency_of: Sequence[Target],
    say: Callable[[str], None],
) -> None:
    """Ask all targets in turn, again and again.

    Parameters
    ----------
    targets : sequence of Target
        Asked for throughput, each once a round.
    rounds : int
        How often.
    seconds : float
        How long each is asked.
    latency_of : sequence of Target
        Those of them that are then asked for latency, in turn as well.
    say : callable
        Is told how far it is.
    """
    for target in targets:
        closed_loop(target.server.address, target.requests, seconds=min(1.0, seconds))
    for number in range(1, rounds + 1):
        say(f"throughput, round {number} of {rounds}")
        for target in targets:
            target.ask(seconds)
    for number in range(1, rounds + 1):
        say(f"latency, round {number} of {rounds}")
        for target in latency_of:
            target.ask_steadily(seconds)


def row(
    name: str, unit: str, values: Sequence[float], floors: Sequence[float] | None = None
) -> Row:
    """Return one row of a result.

    Parameters
    ----------
    name, unit : str
        What was measured.
    values : sequence of float
        One value a round.
    floors : sequence of float or None
        What the floor had in the same rounds; ``None`` for a row without a floor.

    Returns
    -------
    dict
        ``value`` and ``floor`` are medians over the rounds. ``ratio`` is the median of value over
        floor within a round: what disturbs a whole round cancels.
    """
    floor = ratio = None
    if floors is not None:
        floor = round(statistics.median(floors), 3)
        pairs = zip(values, floors, strict=True)
        ratio = round(statistics.median(value / other for value, other in pairs), 3)
    value = round(statistics.median(values), 3)
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": ratio}


def rows_beside(floor: Target, targets: Sequence[Target]) -> list[Row]:
    """Return throughput, processor time and latency of targets beside those of a floor."""
    rows = []
    measures: list[tuple[str, Callable[[Target], list[float]]]] = [
        ("requests/s", lambda target: target.per_second),
        ("us CPU/request", lambda target: target.cpu_us),
        ("% of a core used", lambda target: target.core_busy),
        ("ms p50 at half load", lambda target: target.latency_ms(0.5)),
        ("ms p99 at half load", lambda target: target.latency_ms(0.99)),
    ]
    for unit, values in measures:
        rows.append(row(floor.name, unit, values(floor)))
        rows += [
            row(target.name, unit, values(target), values(floor))
            for target in targets
            if values(target)
        ]
    return rows
