"""Metrics and logs. ``docs/operations.md`` explains every one of them, and a test holds it to that.

With several workers ``prometheus_client`` keeps its values in memory-mapped files, so that any
worker answers for all; that costs microseconds for each value. So what happens on every request is
counted in plain numbers, which are handed over once a second and whenever somebody looks.
"""

import contextlib
import logging
import os
import sys
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Literal, TextIO, cast

import orjson
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector


@contextlib.contextmanager
def _without(library: str) -> Iterator[None]:
    """Import something as if an optional library of its own were not installed."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[library]


# With rich, structlog loads all that it needs for colours on a terminal: 100 modules, never used.
with _without("rich"):
    import structlog

# Series that say when each counter was created double the scrape and help nobody.
disable_created_metrics()  # type: ignore[no-untyped-call]

NAMESPACE = "recsvc"
MULTIPROCESS_ENV = "PROMETHEUS_MULTIPROC_DIR"
PHASES = ("parse", "store", "engine", "write")
"""What a recommendation spends its time on: reading the request and its key, reading the person's
context, choosing the items, writing JSON."""

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0,
)  # fmt: skip
IGNORED_NAMES = 100
"""So many names of ignored events have a series of their own."""
_OTHER_ROUTE = "other"
_Mode = Literal["livesum", "livemax", "livemin"]


class SummedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations.

        Parameters
        ----------
        counts : sequence of int
            How many fell into each bucket; the last one has no upper bound.
        total : float
            Their sum.
        """
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class _Answers:
    """Answers of one route and status that are not handed over yet."""

    __slots__ = ("counts", "latency", "requests", "seconds")

    def __init__(self, requests: Counter, latency: SummedHistogram) -> None:
        self.requests = requests
        self.latency = latency
        self.counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.seconds = 0.0

    def hand_over(self) -> None:
        if any(self.counts):
            self.requests.inc(sum(self.counts))
            self.latency.add(self.counts, self.seconds)
            self.counts = [0] * len(self.counts)
            self.seconds = 0.0


class Metrics:
    """Every metric of a worker.

    Parameters
    ----------
    registry : CollectorRegistry or None
        Where they are registered; a new one by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        counter, gauge = self._counter, self._gauge
        self.latency = SummedHistogram(
            "http_request_duration_seconds",
            "Time from the arrival of a request to the end of its answer",
            ["route"],
            namespace=NAMESPACE,
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.requests = counter("http_requests", "Answers by route and status", "route", "status")
        self.shed = counter("shed_requests", "Requests refused before they were read", "class")
        self.errors = counter("unhandled_errors", "Requests that failed by our own fault")
        self.recommendations = counter(
            "recommendations", "Recommendation answers", "placement", "personalized"
        )
        self.degraded = counter("degraded_answers", "Answers that lacked something", "missing")
        self.phase_seconds = counter(
            "recommendation_phase_seconds", "Time spent in each phase", "phase"
        )
        self.events = counter("events", "Events received, by what became of them", "outcome")
        self.ignored_events = counter(
            "ignored_events", "Events of other platforms without a meaning here", "platform", "name"
        )
        self.decisions = counter("decisions", "Answers, by whether they were recorded", "outcome")
        self.archived = counter("events_archived", "Accepted events moved into the log")
        self.erasures = counter("erasures", "Erasures finished, and passes that failed", "outcome")
        self.erasure_seconds = counter("erasure_seconds", "Time that passes of erasures took")
        self.erasures_pending = gauge("erasures_pending", "Erasures not finished", "livemax")
        self.swaps = counter("snapshot_swaps", "New snapshots, by outcome", "outcome")
        self.model_workers = gauge("model_workers", "Workers by model", "livesum", "version")
        self.ready_workers = gauge("ready_workers", "Workers that are ready", "livesum")
        self.snapshot_age = gauge("snapshot_age_seconds", "Age of the oldest snapshot", "livemax")
        self.model_age = gauge("model_age_seconds", "Time since the model was trained", "livemax")
        self.catalogue_rows = gauge("catalogue_rows", "Rows of the catalogue", "livemin")
        self.catalogue_behind = gauge(
            "catalogue_changes_behind", "Changes that a worker has not applied yet", "livemax"
        )
        self.store_contact_age = gauge(
            "store_contact_age_seconds", "Time since the store was reached", "livemax"
        )
        self.loop_lag = gauge("event_loop_lag_seconds", "How late the event loop was", "livemax")
        self._phases = [self.phase_seconds.labels(phase) for phase in PHASES]
        self.phase_sums = [0.0] * len(PHASES)
        """Seconds in each phase since the last :meth:`flush`; the hot path adds to it."""
        self._answers: dict[tuple[str | None, int], _Answers] = {}
        self._shown: Counts[tuple[str, bool]] = Counts()
        self._version: str | None = None
        self._ignored: set[str] = set()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
        return Gauge(
            name,
            text,
            labels,
            namespace=NAMESPACE,
            registry=self.registry,
            multiprocess_mode=mode,
        )

    def answered(self, route: str | None, status: int, seconds: float) -> None:
        """Count one answer.

        Parameters
        ----------
        route : str or None
            The route's template, never a path: a path would make a series for every item.
        status : int
            The HTTP status.
        seconds : float
            How long it took.
        """
        answers = self._answers.get((route, status))
        if answers is None:
            name = route or _OTHER_ROUTE
            answers = _Answers(self.requests.labels(name, status), self.latency.labels(name))
            self._answers[route, status] = answers
        answers.counts[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        answers.seconds += seconds

    def recommended(self, placement: str, *, personalized: bool) -> None:
        """Count one recommendation answer; `placement` is one that exists."""
        self._shown[placement, personalized] += 1

    def ignored_names(self, platform: str, names: Mapping[str, int]) -> None:
        """Count events that another platform named; a sender cannot make series without end."""
        for name, count in names.items():
            if len(self._ignored) < IGNORED_NAMES:
                self._ignored.add(name)
            shown = name if name in self._ignored else _OTHER_ROUTE
            self.ignored_events.labels(platform, shown).inc(count)

    def serves(self, version: str) -> None:
        """Say which model this worker serves."""
        if version != self._version:
            if self._version is not None:
                self.model_workers.labels(self._version).set(0)
            self.model_workers.labels(version).set(1)
            self._version = version

    def flush(self) -> None:
        """Hand over what the hot path has counted."""
        for answers in self._answers.values():
            answers.hand_over()
        for (placement, personalized), count in self._shown.items():
            self.recommendations.labels(placement, str(personalized).lower()).inc(count)
        self._shown.clear()
        for at, child in enumerate(self._phases):
            seconds, self.phase_sums[at] = self.phase_sums[at], 0.0
            if seconds > 0:
                child.inc(seconds)

    def exposition(self) -> bytes:
        """Return all metrics, of all workers, in the text format of Prometheus."""
        self.flush()
        registry = self.registry
        if MULTIPROCESS_ENV in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def names(self) -> list[str]:
        """Return the name of every metric as a scrape shows it."""
        families = self.registry.collect()
        return [family.name + ("_total" if family.type == "counter" else "") for family in families]


CONTENT_TYPE = CONTENT_TYPE_LATEST


def configure_logging(level: str) -> None:
    """Write logs as one JSON object per line on stderr; libraries' logs likewise.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}
        The least level that is written.
    """
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        # Without local variables: they hold ids of people, and secrets.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_as_json)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_library_line, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_as_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))


class _StandardError:
    """Whatever ``sys.stderr`` is when a line is written: loggers are kept for longer than it is."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _library_line(
    _logger: Any, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Show a library's words as a field, so that ``event`` is always one of ours."""
    record = line["_record"]
    line["message"] = line["event"]
    line["event"] = "library"
    line["logger"] = record.name
    return line


def _as_json(line: Any, **_: Any) -> str:
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def get_logger() -> Any:
    """Return the logger; it reads its configuration when first used."""
    return structlog.get_logger()
