"""The store goes away, hangs and comes back: answers go on, and say what they lack."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from recsvc.requests import RecommendationRequest
from recsvc.serving.worker import Worker
from recsvc.settings import Settings
from recsvc.telemetry import Metrics
from tests.recsvc.api.service import Service, assert_problem, event, running_shop
from tests.waiting import until

PATH = "/v1/recommendations"
LEASE_S = 6.0
"""Long enough for what is asked before it ends, on a slow machine too."""
STORE_TIMEOUT_S = 0.25


@pytest.fixture(scope="module")
def broken(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Service, EmbeddedServer]]:
    bounds = {"recall_lease_s": LEASE_S, "store_timeout_ms": 1000 * STORE_TIMEOUT_S}
    with running_shop(tmp_path_factory.mktemp("broken"), **bounds) as both:
        yield both


def buy(client: httpx.Client) -> None:
    until(lambda: client.post("/v1/events", json=event("buyer", "i00004")).status_code == 202)
    until(lambda: is_personal(client))


def is_personal(client: httpx.Client) -> bool:
    return bool(client.get(PATH, params={"user_id": "buyer"}).json()["personalized"])


def is_degraded(response: httpx.Response) -> bool:
    if response.status_code != 200:
        return False
    answer = response.json()
    assert len(answer["items"]) == 20
    assert (answer["degraded"] == ["store"]) == (not answer["personalized"])
    return bool(answer["degraded"])


def test_without_the_store_answers_are_not_personal_until_the_lease_ends(
    broken: tuple[Service, EmbeddedServer],
) -> None:
    service, server = broken
    with service.client() as client, service.client("events:write") as known:
        buy(client)
        assert_problem(known.get(PATH), 403)
        server.stop()
        stopped_s = time.monotonic()
        first = client.get(PATH, params={"user_id": "buyer"})
        assert is_degraded(first)
        assert first.headers["cache-control"] == "private, no-store"
        for_nobody = client.get(PATH)
        assert is_degraded(for_nobody)
        assert for_nobody.headers["cache-control"] == "no-store"
        assert "etag" not in for_nobody.headers
        assert client.get("/readyz").json()["ready"]
        refused = client.post("/v1/events", json=event("buyer", "i00005"))
        assert_problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        assert_problem(client.get("/v1/users/buyer"), 503)
        assert client.get("/v1/items/i00001").status_code == 200
        # A key that the worker does not know cannot be checked now; one that cannot be a key can.
        with service.client(None) as stranger:
            unknown = {"Authorization": f"Bearer rk_{'A' * 43}"}
            assert_problem(stranger.get(PATH, headers=unknown), 503)
            assert_problem(stranger.get(PATH, headers={"Authorization": "Bearer x"}), 401)

        until(lambda: client.get(PATH).status_code == 503)
        assert time.monotonic() - stopped_s > LEASE_S - 1.1
        ended = client.get(PATH, params={"user_id": "buyer"})
        assert_problem(ended, 503)
        assert "retry-after" in ended.headers
        unready = client.get("/readyz")
        assert (unready.status_code, unready.json()["store"]) == (503, "lease ended")
        assert client.get("/livez").status_code == 200
        assert 'recsvc_degraded_answers_total{missing="store"}' in client.get("/metrics").text

        server.start()
        until(lambda: client.get("/readyz").status_code == 200)
        # What was acknowledged before is still there.
        until(lambda: is_personal(client))
        buy(client)
    events = [line["event"] for line in service.log_lines()]
    # Said when it begins and when it ends, not with every answer. (A machine may stand still, too.)
    assert 1 <= events.count("store_unreachable") <= 3
    assert events.count("store_reachable") == events.count("store_unreachable")
    assert "request_failed" not in events


def test_a_store_that_hangs_costs_an_answer_no_more_than_its_time(
    broken: tuple[Service, EmbeddedServer],
) -> None:
    service, server = broken
    pid = server.pid()
    assert pid is not None
    with service.client() as client:
        buy(client)
        os.kill(pid, signal.SIGSTOP)
        try:
            took_s = []
            for _ in range(5):
                began_s = time.perf_counter()
                assert is_degraded(client.get(PATH, params={"user_id": "buyer"}))
                took_s.append(time.perf_counter() - began_s)
            # Once, not once for each of its reads, and not what a client of Redis would wait.
            assert 0.9 * STORE_TIMEOUT_S < sorted(took_s)[2] < 2.0
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: is_personal(client))


async def test_without_a_lease_answers_go_on(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "server", fsync="everysec") as server:
        settings = Settings(data_dir=tmp_path / "data", redis_url=server.url, recall_lease_s=0)
        worker = Worker(settings, b"s" * 32, Metrics())
        await worker.open()
        assert (worker.ready, worker.store_state) == (True, "reached")
        server.stop()
        worker.reached_at_s -= 1e6
        answer = await worker.recommend(RecommendationRequest(user_id="u"))
        assert b'"degraded":["store"]' in answer.body
        assert worker.ready
        await worker.close()
