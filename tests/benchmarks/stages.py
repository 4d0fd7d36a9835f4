"""What one personal answer costs, stage by stage: real requests in one process, without a network.

    .venv/bin/python tests/benchmarks/stages.py --data-dir .recsvc --key KEY < customers.json

reads user ids as a JSON list and asks the ASGI application for the `home` of each, 32 at once as a
busy worker has them, one customer after the other so that caches are as cold as in service. Stages
are functions of the service, timed where they are called, each without those inside it. Prints one
JSON document: microseconds of processor time for one request, medians over the batches.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import asyncio  # noqa: E402
import gc  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Awaitable, Callable, Sequence  # noqa: E402
from contextlib import redirect_stdout  # noqa: E402
from functools import wraps  # noqa: E402
from pathlib import Path  # noqa: E402
from time import thread_time  # noqa: E402
from typing import Any, ParamSpec, TypeVar  # noqa: E402
from urllib.parse import quote  # noqa: E402

import orjson  # noqa: E402
import uvloop  # noqa: E402
from starlette.types import ASGIApp, Message, Receive, Scope, Send  # noqa: E402

import feature_store.store  # noqa: E402
import recsvc.access.auth  # noqa: E402
import recsvc.access.key_table  # noqa: E402
import recsvc.answer  # noqa: E402
import recsvc.answering  # noqa: E402
import recsvc.api.edge  # noqa: E402
import recsvc.decisions  # noqa: E402
import recsvc.engine  # noqa: E402
import recsvc.ranking.sources  # noqa: E402
import recsvc.retrieval  # noqa: E402
import recsvc.serving.worker  # noqa: E402
import recsvc.telemetry  # noqa: E402
from feature_store.embedded import EmbeddedServer  # noqa: E402
from feature_store.fold_in import FoldIn  # noqa: E402
from feature_store.schema import person_of  # noqa: E402
from recsvc.app import create_app  # noqa: E402
from recsvc.memory import COLLECTOR_THRESHOLDS  # noqa: E402
from recsvc.settings import load_settings  # noqa: E402

P = ParamSpec("P")
R = TypeVar("R")

ROUNDS = 10
IN_FLIGHT = 32

STAGES: list[tuple[str, Any, str]] = [
    ("look up the key", recsvc.access.key_table.Authenticator, "known"),
    ("parse the query", recsvc.api.edge, "parse_query"),
    ("unpack the state", feature_store.store, "unpack"),
    ("weigh the history", recsvc.engine, "read_history"),
    ("what may be shown", recsvc.engine, "allowed_mask"),
    ("fold in", FoldIn, "solve"),
    ("search the index", recsvc.retrieval.Index, "search"),
    ("features", recsvc.ranking.sources, "personal_features"),
    ("rest of the engine", recsvc.answering, "recommend"),
    ("reasons", recsvc.answer, "reasons"),
    ("rest of the answer", recsvc.answering, "answer"),
    ("record the decision", recsvc.decisions.DecisionRecorder, "note"),
    ("count in metrics", recsvc.telemetry.Metrics, "answered"),
]
"""What each stage is called, where its function is looked up, and the function's name."""


class Stopwatch:
    """Sums the processor time of functions, each without the timed functions that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner_s = 0.0

    def timed(self, stage: str, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function with a watch around it."""
        self.seconds[stage] = 0.0

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            outer_s, self._inner_s = self._inner_s, 0.0
            began_s = thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took_s = thread_time() - began_s
                self.seconds[stage] += took_s - self._inner_s
                self._inner_s = outer_s + took_s

        return call


def scope_of(user_id: str, key: str) -> Scope:
    """Return the ASGI scope of a request for a customer's page, as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/recommendations",
        "raw_path": b"/v1/recommendations",
        "query_string": b"placement=home&user_id=" + quote(user_id, safe="").encode(),
        "root_path": "",
        "headers": [(b"host", b"bench"), (b"authorization", b"Bearer " + key.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


async def batches(
    user_ids: Sequence[str], ask: Callable[[str], Awaitable[object]], done: Callable[[float], None]
) -> None:
    """Ask for all customers, 32 at once, ten times.

    Parameters
    ----------
    user_ids : sequence of str
        At least 32.
    ask : callable
        Answers for one.
    done : callable
        Is told after each batch the seconds of processor time that one request took.
    """
    for _ in range(ROUNDS):
        for at in range(0, len(user_ids) - IN_FLIGHT + 1, IN_FLIGHT):
            began_s = thread_time()
            await asyncio.gather(*map(ask, user_ids[at : at + IN_FLIGHT]))
            done((thread_time() - began_s) / IN_FLIGHT)


async def time_stages(app: ASGIApp, key: str, user_ids: Sequence[str]) -> dict[str, list[float]]:
    """Return the seconds of each stage, and of whole requests, one value a batch."""
    statuses: set[int] = set()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask(user_id: str) -> None:
        await call(app, scope_of(user_id, key), receive, send)

    found: dict[str, list[float]] = {stage: [] for stage, _, _ in STAGES}
    whole_s = found["whole request, without uvicorn"] = []
    # First without the watches, which cost something themselves.
    await batches(user_ids, ask, whole_s.append)
    watch = Stopwatch()
    originals = [(owner, name, getattr(owner, name)) for _, owner, name in STAGES]
    for (stage, owner, name), (_, _, function) in zip(STAGES, originals, strict=True):
        setattr(owner, name, watch.timed(stage, function))

    def note(_: float) -> None:
        for stage, seconds in watch.seconds.items():
            found[stage].append(seconds / IN_FLIGHT)
            watch.seconds[stage] = 0.0

    try:
        await batches(user_ids, ask, note)
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    if statuses != {200}:
        raise RuntimeError(f"statuses {sorted(statuses)} instead of 200")
    return found


async def call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Await the application; a coroutine function of its own, so that `gather` makes a task."""
    await app(scope, receive, send)


async def measure(data_dir: Path, key: str, user_ids: Sequence[str]) -> dict[str, Any]:
    """Return the times of all stages.

    Parameters
    ----------
    data_dir : Path
        A data directory with a model.
    key : str
        An API key that may read recommendations.
    user_ids : sequence of str
        Customers with a history, at least 32.
    """
    with EmbeddedServer(data_dir) as server:
        settings = load_settings(data_dir=data_dir, redis_url=server.url)
        secret = recsvc.access.auth.load_secret(settings)
        worker = recsvc.serving.worker.Worker(settings, secret, recsvc.telemetry.Metrics())
        app = create_app(worker)
        await worker.open()
        # As the service does for its process.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        reads: list[float] = []
        try:
            persons = [person_of(user_id, None) or "" for user_id in user_ids]
            await batches(persons, worker.context, lambda _: None)
            await batches(persons, worker.context, reads.append)
            found = await time_stages(app, key, user_ids)
        finally:
            await worker.close()
    stages = {"read the store, with unpacking": reads, **found}
    whole = stages.pop("whole request, without uvicorn")
    rows = {stage: 1e6 * statistics.median(seconds) for stage, seconds in stages.items()}
    rows["rest: edge, asyncio"] = 1e6 * statistics.median(whole) - sum(rows.values())
    rows["rest: edge, asyncio"] += rows["unpack the state"]  # is in two rows
    rows["whole request, without uvicorn"] = 1e6 * statistics.median(whole)
    return {
        "n_customers": len(user_ids),
        "gc_frozen": gc.get_freeze_count() > 0,
        "stages": [{"stage": stage, "us": round(value, 1)} for stage, value in rows.items()],
    }


def main() -> None:
    """Read user ids from standard input, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path(".recsvc"))
    parser.add_argument("--key", required=True, help="an API key that may read recommendations")
    parser.add_argument("--core", type=int, help="the core to stay on (Linux)")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    user_ids = orjson.loads(sys.stdin.buffer.read())
    # What the worker logs must not stand in the document.
    with redirect_stdout(sys.stderr):
        found = uvloop.run(measure(arguments.data_dir, arguments.key, user_ids))
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
