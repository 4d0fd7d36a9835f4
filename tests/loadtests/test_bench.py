"""The benchmark's rows say what was measured, in the contract's form."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import pytest

from loadtests import bench
from loadtests.client import Address, LoadError, get_request
from loadtests.machine import Neighbours, describe_machine
from loadtests.measure import Target, measure, row, rows_beside
from loadtests.processes import Server, cpu_s, family, floor_server, name_of

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="processes are kept on cores on Linux alone"
)


def test_a_row_has_medians_and_the_median_of_the_ratios() -> None:
    assert row("a", "ms", [3.0, 1.0, 2.0]) == {
        "name": "a",
        "value": 2.0,
        "unit": "ms",
        "floor": None,
        "ratio": None,
    }
    # One disturbed round of three touches neither medians nor ratio.
    assert row("a", "requests/s", [50.0, 5.0, 52.0], [100.0, 10.0, 104.0]) == {
        "name": "a",
        "value": 50.0,
        "unit": "requests/s",
        "floor": 100.0,
        "ratio": 0.5,
    }


@pytest.fixture(scope="module")
def measured() -> list[Target]:
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.NamedTemporaryFile())
        core = max(os.sched_getaffinity(0))
        targets = []
        for kind in ("socket", "asgi", "fastapi"):
            server = floor_server(kind, core, log)
            stack.callback(server.stop)
            server.wait()
            targets.append(Target(kind, server, cycle([get_request("/ready", server.address)])))
        said: list[str] = []
        measure(targets, rounds=2, seconds=0.5, latency_of=targets[1:], say=said.append)
    assert len(said) == 4
    return targets


def test_floors_are_measured_in_turn(measured: list[Target]) -> None:
    socket, asgi, fastapi = measured
    assert all(len(target.per_second) == 2 for target in measured)
    # Both send the same body; the bare socket sends fewer headers.
    assert asgi.replies[0].bytes_per_reply == fastapi.replies[0].bytes_per_reply
    assert 1_200 < socket.replies[0].bytes_per_reply < asgi.replies[0].bytes_per_reply < 1_400
    # Processor time, not wall time: it holds on a busy machine too.
    assert 0 < min(socket.cpu_us) < min(asgi.cpu_us) < min(fastapi.cpu_us)
    assert socket.sorted_s == []
    assert socket.n_replies == sum(found.n_replies for found in socket.replies)
    assert asgi.n_replies > sum(found.n_replies for found in asgi.replies)


def test_rows_have_the_form_of_the_contract(measured: list[Target]) -> None:
    _, asgi, fastapi = measured
    rows = rows_beside(fastapi, [asgi])
    document = {
        "machine": describe_machine(),
        "at": "2026-11-22T06:00:00Z",
        "on": {"workers": 1},
        "rows": rows,
    }
    assert json.loads(json.dumps(document)) == document
    assert {tuple(one) for one in rows} == {("name", "value", "unit", "floor", "ratio")}
    assert [one["unit"] for one in rows[::2]] == [
        "requests/s",
        "us CPU/request",
        "% of a core used",
        "ms p50 at half load",
        "ms p99 at half load",
    ]
    throughput = rows[1]
    assert throughput["name"] == "asgi"
    assert throughput["ratio"] > 0
    table = bench.table(document)
    assert all(one["name"] in table for one in rows)
    assert describe_machine() in table


def test_the_processor_time_of_a_process_is_found() -> None:
    before_s = cpu_s(os.getpid())
    began_s = time.process_time()
    while time.process_time() - began_s < 0.2:
        pass
    assert 0.15 <= cpu_s(os.getpid()) - before_s <= 5


def test_a_family_is_found_without_the_programs_that_do_not_count() -> None:
    script = "import subprocess, sys; subprocess.run(['sleep', '30'])"
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        try:
            deadline_s = time.monotonic() + 60
            while len(family(parent.pid)) < 2 and time.monotonic() < deadline_s:
                time.sleep(0.02)
            while not family(parent.pid, only=("sleep",)) and time.monotonic() < deadline_s:
                time.sleep(0.02)
            (child,) = family(parent.pid, only=("sleep",))
            assert name_of(child) == "sleep"
            assert family(parent.pid, without=("sleep",)) == [parent.pid]
            assert sorted(family(parent.pid)) == sorted([parent.pid, child])
        finally:
            os.kill(child, 15)
            parent.wait()


def test_what_others_use_is_a_share_of_the_machine() -> None:
    neighbours = Neighbours(len(os.sched_getaffinity(0)))
    time.sleep(0.05)
    assert neighbours.share(own_cpu_s=1e9) == 0.0
    assert 0 <= neighbours.share(own_cpu_s=0.0) <= 2


def test_a_missing_demo_is_one_clear_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "loadtests/openloop.py", "--demo", str(tmp_path / "demo.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"openloop: {tmp_path / 'demo.json'} is missing: run `make demo` first"
    ]


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    script = "import sys; sys.exit('no such shop')"
    with (tmp_path / "log").open("wb") as log:
        address = Address("127.0.0.1", 1)
        server = Server([sys.executable, "-c", script], address, max(os.sched_getaffinity(0)), log)
        with server, pytest.raises(LoadError, match="did not start: no such shop"):
            server.wait()
