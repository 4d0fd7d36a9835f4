"""Who may come in when there is too much: pages before events before everything else.

Every class of requests has a gate: so many may be in flight, the rest are refused at once, before
a byte of the body is read. As each class has places of its own, events cannot take those of pages.
When the event loop itself falls behind (for `LOOKS` looks in a row, as a single late one is a
pause of the collector or of the machine), gates close from the least urgent up: other requests at
the setting, events at twice, pages at eight times as much. What a customer decides about
themselves, and probes, pass always.

An open gate costs a page two additions and a comparison.
"""

import asyncio
import time
from collections import deque

from recsvc.settings import Settings
from recsvc.telemetry import Metrics

LOOK_S = 0.05
LOOKS = 3
EVENTS_LAG = 2
PAGES_LAG = 8
RETRY_AFTER_S = 1

_ALWAYS = ("/livez", "/readyz", "/metrics", "/v1/me")
_PAGES = ("/v1/recommendations", "/v1/pages/", "/v1/me/page", "/v1/rank")
_CHOICES = ("/preferences", "/preferences/reset")
_EVENTS = ("/v1/events", "/v1/orders")


class Gate:
    """The places of one class of requests.

    Parameters
    ----------
    name : str
        What the metric calls it.
    places : int
        So many may be in flight.
    lag_s : float
        The gate closes when the event loop is later than this.
    """

    __slots__ = ("in_flight", "lag_s", "name", "open_places", "places")

    def __init__(self, name: str, places: int, lag_s: float) -> None:
        self.name = name
        self.places = places
        self.lag_s = lag_s
        self.open_places = places
        """How many may be in flight now: `places`, or none while the loop is late."""
        self.in_flight = 0
        """Whoever enters adds one, and takes it away when done."""


class Admission:
    """The gates of a worker.

    Parameters
    ----------
    settings : Settings
        The bounds.
    metrics : Metrics
        Where refusals are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        lag_s = settings.max_loop_lag_ms / 1000
        self.pages = Gate("pages", settings.max_pages_in_flight, PAGES_LAG * lag_s)
        self.events = Gate("events", settings.max_events_in_flight, EVENTS_LAG * lag_s)
        self.other = Gate("other", settings.max_other_in_flight, lag_s)
        self._gates = (self.pages, self.events, self.other)
        self._shed = {gate.name: metrics.shed.labels(gate.name) for gate in self._gates}
        self._lags_s: deque[float] = deque([0.0] * LOOKS, maxlen=LOOKS)

    def gate_of(self, path: str) -> Gate | None:
        """Return the gate that a request has to pass; ``None`` if it may always come in.

        Parameters
        ----------
        path : str
            What was asked for.
        """
        if path.startswith(_PAGES):
            return self.pages
        if path.startswith(_EVENTS):
            return self.events
        if path.startswith(_ALWAYS) or (path.startswith("/v1/users/") and path.endswith(_CHOICES)):
            return None
        return self.other

    def refused(self, gate: Gate) -> str:
        """Count a request that has to come again, and return what to tell the caller."""
        self._shed[gate.name].inc()
        if gate.open_places:
            return f"{gate.places} requests of this kind are being answered; come again"
        return "the service is behind with its work; come again"

    def note_lag(self, lag_s: float) -> None:
        """Close or open the gates by how late the event loop was last."""
        self._lags_s.append(lag_s)
        least_s = min(self._lags_s)
        for gate in self._gates:
            gate.open_places = 0 if least_s > gate.lag_s else gate.places

    async def watch(self) -> None:
        """Look at the event loop for ever."""
        while True:
            due_s = time.perf_counter() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.note_lag(time.perf_counter() - due_s)
