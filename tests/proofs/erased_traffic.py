"""What a shop does while some of its people are erased."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.proofs.canaries import ask, event_of, user
from tests.recsvc.api.service import Service


class Traffic:
    """What goes on meanwhile: pages and events of everybody else, late events of the erased."""

    def __init__(self, service: Service, others: list[int]) -> None:
        self._service, self._others = service, others
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), daemon=True)
            for work in (self._event, self._event, self._page, self._late)
        ]
        self.gone: list[int] = []
        self.sent: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self._next = iter(range(1_000_000, 100_000_000))
        self._lock = threading.Lock()

    def start(self) -> None:
        """Let it begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let it end; what was sent is in `sent`."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, work: Callable[[httpx.Client, random.Random], None]) -> None:
        rng = random.Random(id(work))
        with self._service.client() as client:
            while not self._stop.wait(0.01):
                try:
                    work(client, rng)
                except (AssertionError, httpx.HTTPError) as error:
                    self.counts["failed"] += 1
                    self.errors.append(repr(error))

    def _event(self, client: httpx.Client, rng: random.Random) -> None:
        with self._lock:
            numbers = [next(self._next) for _ in range(10)]
        events = [_traffic_event(rng.choice(self._others), number) for number in numbers]
        answer = ask(client, "POST", "/v1/events", json=events).json()
        # What was sent again after "not now" may have been stored the first time.
        assert answer["accepted"] + answer["duplicates"] == len(events), answer
        with self._lock:
            self.sent += events
        self.counts["events"] += len(events)

    def _page(self, client: httpx.Client, rng: random.Random) -> None:
        whose = user(rng.choice(self._others))
        answer = ask(client, "GET", "/v1/recommendations", params={"user_id": whose})
        assert answer.json()["items"], answer.text
        self.counts["pages"] += 1

    def _late(self, client: httpx.Client, rng: random.Random) -> None:
        """Send an event of an erased person again, and another one from before."""
        if not self.gone:
            return
        number = rng.choice(self.gone)
        again, new = event_of(number, rng.randrange(10)), event_of(number, rng.randrange(1000))
        late = [again, new | {"event_id": f"late-{number}"}]
        answer = ask(client, "POST", "/v1/events", json=late)
        self.counts["kept late"] += answer.json()["accepted"]
        self.counts["late"] += 2


def _traffic_event(number: int, at: int) -> dict[str, Any]:
    event = event_of(number, at)
    now = datetime.now(UTC).isoformat()
    about = {"type": "view", "item_id": f"i{at % 90:05d}", "timestamp": now}
    return {"event_id": event["event_id"], "user_id": user(number), **about}
