"""Too much at once: events are refused quickly, pages are answered, probes and choices pass."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsvc.serving.admission import EVENTS_LAG, LOOKS, PAGES_LAG, Admission
from recsvc.settings import Settings
from recsvc.telemetry import Metrics
from tests.recsvc.api.service import Service, assert_problem, event, running_shop
from tests.waiting import DEADLINE_S, until

SENDERS = 24


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with few places."""
    bounds = {"max_events_in_flight": 2, "max_other_in_flight": 1, "max_loop_lag_ms": 60_000}
    with running_shop(tmp_path_factory.mktemp("small"), **bounds) as (service, _):
        yield service


async def test_pages_are_answered_while_events_are_shed(small: Service) -> None:
    batches = [
        [event(f"user {number}-{at}", f"i{at % 90:05d}") for at in range(300)]
        for number in range(SENDERS)
    ]
    outcomes: Counter[int] = Counter()
    refusals: list[httpx.Response] = []
    stop = asyncio.Event()

    async def send(client: httpx.AsyncClient, batch: list[dict[str, Any]]) -> None:
        while not stop.is_set():
            response = await client.post("/v1/events", json=batch)
            outcomes[response.status_code] += 1
            if response.status_code == 503:
                refusals.append(response)
                await asyncio.sleep(0.01)

    async with (
        small.async_client(connections=SENDERS) as crowd,
        small.async_client(connections=4) as page,
    ):
        senders = [asyncio.create_task(send(crowd, batch)) for batch in batches]
        answers: list[httpx.Response] = []
        while len(answers) < 20 or len(outcomes) < 2:
            answers.append(await page.get("/v1/recommendations", params={"user_id": "reader"}))
            assert (await page.get("/livez")).status_code == 200
        stop.set()
        await asyncio.gather(*senders)
    assert {answer.status_code for answer in answers} == {200}
    assert all(not answer.json()["degraded"] for answer in answers)
    assert set(outcomes) == {202, 503}
    for refused in refusals[:5]:
        assert_problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
    with small.client() as client:
        # Whoever was sent away is welcome later.
        assert client.post("/v1/events", json=batches[0]).status_code == 202
        text = client.get("/metrics").text
    [line] = [line for line in text.splitlines() if 'shed_requests_total{class="events"}' in line]
    assert float(line.rpartition(" ")[2]) == outcomes[503]


async def test_a_refusal_does_not_wait_for_the_body(small: Service) -> None:
    """Of three who send their bodies slowly, two hold all the places and one is refused at once."""
    reader_writers = []
    host, _, port = small.url.removeprefix("http://").partition(":")
    head = (
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {small.shop.keys['all']}\r\nContent-Length: 100000\r\n\r\n["
    ).encode()
    for _ in range(3):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        await writer.drain()
        reader_writers.append((reader, writer))
    lines = [asyncio.create_task(reader.readline()) for reader, _ in reader_writers]
    refused, waiting = await asyncio.wait(
        lines, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED
    )
    assert [b" 503 " in one.result() for one in refused] == [True]
    for _, writer in reader_writers:
        writer.close()
        await writer.wait_closed()
    await asyncio.wait(waiting)
    # Those who went away have given their places back.
    with small.client() as client:
        until(lambda: client.post("/v1/events", json=event("u", "i00001")).status_code == 202)


def admission(**bounds: Any) -> Admission:
    return Admission(Settings(data_dir=Path(), **bounds), Metrics())


def test_every_address_has_its_class() -> None:
    gates = admission()
    for path, gate in (
        ("/v1/recommendations", gates.pages),
        ("/v1/pages/home", gates.pages),
        ("/v1/me/page", gates.pages),
        ("/v1/events", gates.events),
        ("/v1/events/segment", gates.events),
        ("/v1/orders", gates.events),
        ("/v1/items", gates.other),
        ("/v1/users/ann/merge", gates.other),
        ("/nothing/preferences", gates.other),
        ("/livez", None),
        ("/readyz", None),
        ("/metrics", None),
        ("/v1/me/preferences", None),
        ("/v1/users/ann/preferences", None),
    ):
        assert gates.gate_of(path) is gate, path


def test_a_late_loop_closes_the_gates_from_the_least_urgent_up() -> None:
    gates = admission(max_loop_lag_ms=100)
    by_urgency = (gates.other, gates.events, gates.pages)

    def open_after(lag_s: float) -> list[bool]:
        for _ in range(LOOKS):
            gates.note_lag(lag_s)
        return [gate.open_places > 0 for gate in by_urgency]

    assert open_after(0.09) == [True, True, True]
    assert open_after(0.11) == [False, True, True]
    assert open_after(0.1 * EVENTS_LAG + 0.01) == [False, False, True]
    assert open_after(0.1 * PAGES_LAG + 0.01) == [False, False, False]
    # One look in time opens them all, one that is late closes none.
    gates.note_lag(0.0)
    assert [gate.open_places > 0 for gate in by_urgency] == [True, True, True]
    gates.note_lag(9.0)
    assert [gate.open_places > 0 for gate in by_urgency] == [True, True, True]
