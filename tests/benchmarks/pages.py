"""What a whole page costs, beside the same lists asked for one by one.

    .venv/bin/python -m tests.benchmarks.pages [--items 100000]

A page of four modules of ten items against four answers of the same placements. First the engine
and the writing alone, for customers who bought 256 different items of a made-up shop: microseconds
of processor time, the best of many rounds. Then over HTTP, on a small shop, whose engine costs
next to nothing: processor time of the service for each, all that a request costs besides. Last the
longest page that can be asked for, which nobody else can answer beside.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from time import thread_time  # noqa: E402
from typing import Any  # noqa: E402

import httpx  # noqa: E402
import numpy as np  # noqa: E402
import orjson  # noqa: E402

from feature_store.preferences import NO_PREFERENCES  # noqa: E402
from feature_store.store import UserContext  # noqa: E402
from recsvc.answering import Question, finish  # noqa: E402
from recsvc.merchandising.page_documents import Module, Page  # noqa: E402
from recsvc.pages import make_page  # noqa: E402
from recsvc.requests import RecommendationRequest  # noqa: E402
from recsvc.retrieval import JoinedModel  # noqa: E402
from recsvc.snapshot import Snapshot  # noqa: E402
from recsvc.telemetry import Metrics  # noqa: E402
from tests.benchmarks.rules import N_HISTORY, make_artifact, make_items  # noqa: E402
from tests.recsvc.api.service import Service, event, running_shop  # noqa: E402
from tests.recsvc.shop import bought  # noqa: E402

PLACEMENTS = ("home", "buy_again", "trending", "new")
LIMIT = 10
ROUNDS, N_CUSTOMERS = 30, 8
TURNS, REQUESTS = 8, 100


def _page(placements: tuple[str, ...], limit: int) -> Page:
    modules = (Module(f"m{at}", name, limit=limit) for at, name in enumerate(placements))
    return Page("bench", "", tuple(modules))


def _questions(n_items: int) -> list[Question]:
    rng = np.random.default_rng(3)
    found = []
    for number in range(N_CUSTOMERS):
        rows = rng.choice(min(n_items, 20_000), N_HISTORY, replace=False).tolist()
        days = rng.integers(0, 300, N_HISTORY).tolist()
        state = bought(*zip(rows, days, strict=True))
        user = f"customer {number}"
        context = UserContext(state, NO_PREFERENCES, 0, person=f"u:{user}")
        request = RecommendationRequest(user_id=user)
        found.append(Question(request, f"u:{user}", context, True, True, None, 0, [], 0.0))
    return found


def _best_us(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = thread_time()
        work()
        times.append(thread_time() - began)
    return round(min(times) * 1e6 / N_CUSTOMERS, 1)


def measure_engine(snapshot: Snapshot, questions: list[Question]) -> dict[str, Any]:
    """Return microseconds of one page and of its lists alone, for one customer."""
    page, metrics = _page(PLACEMENTS, LIMIT), Metrics()

    def lists() -> None:
        # One customer after the other, as they come: a list finds no other's data in the caches.
        for one in questions:
            for name in PLACEMENTS:
                asked = replace(one.request, placement=name, limit=LIMIT)
                finish(snapshot, replace(one, request=asked), None)

    alone = _best_us(lists)
    whole = _best_us(lambda: [make_page(snapshot, page, one, None, metrics) for one in questions])
    longest = _page(("home", "buy_again", "trending", "new", "popular") * 4, 100)
    most = _best_us(lambda: [make_page(snapshot, longest, one, None, metrics) for one in questions])
    return {
        "lists_us": alone,
        "page_us": whole,
        "page_of_lists": round(whole / alone, 3),
        "twenty_modules_of_100_us": most,
    }


def _processor_s(service: Service) -> float:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _served_us(service: Service, *ways: Callable[[], object]) -> list[float]:
    """Return what each way costs; they take turns, so that a busy neighbour meets all of them."""
    spent = [0.0] * len(ways)
    for turn in range(TURNS + 1):
        for at, ask in enumerate(ways):
            began = _processor_s(service)
            for _ in range(REQUESTS):
                ask()
            if turn:  # the first one warms up
                spent[at] += _processor_s(service) - began
    return [round(one * 1e6 / (TURNS * REQUESTS), 1) for one in spent]


def measure_http(folder: Path) -> dict[str, Any]:
    """Return microseconds that the service works for one page and for its lists alone."""
    with running_shop(folder) as (service, _), service.client() as client:
        user = {"user_id": "bench of pages"}
        events = [event("bench of pages", f"i{number:05d}") for number in range(30)]
        client.post("/v1/events", json=events).raise_for_status()
        modules = [
            {"module": f"m{at}", "placement": name, "limit": LIMIT}
            for at, name in enumerate(PLACEMENTS)
        ]
        client.put("/v1/pages/bench", json={"modules": modules}).raise_for_status()

        def ask(path: str, **params: Any) -> httpx.Response:
            return client.get(path, params={**user, **params}).raise_for_status()

        def lists() -> None:
            for name in PLACEMENTS:
                ask("/v1/recommendations", placement=name, limit=LIMIT)

        page_us, lists_us = _served_us(service, lambda: ask("/v1/pages/bench"), lists)
    return {
        "lists_us": lists_us,
        "page_us": page_us,
        "page_of_lists": round(page_us / lists_us, 3),
    }


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    items = parser.parse_args().items
    with tempfile.TemporaryDirectory() as folder:
        catalogue = make_items(items)
        artifact = make_artifact(Path(folder) / "models", items)
        snapshot = Snapshot(catalogue, JoinedModel(artifact, catalogue))
        found = {"items": items, "engine": measure_engine(snapshot, _questions(items))}
        found["http"] = measure_http(Path(folder) / "shop")
    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
