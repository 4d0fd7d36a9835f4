"""`make bench`: the service beside its floors, measured in turn in one run.

Every round asks each server for a while, one after the other, so that what the machine does
meanwhile touches all of them alike. Servers run on the first core, load generator and store on the
last. Writes ``bench.json``: ``{machine, at, on, rows: [{name, value, unit, floor, ratio}]}``; a
ratio is value over floor, so more is better for requests/s and less for times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from loadtests.client import LoadError, get_request
from loadtests.demo import customers_with_items, recommendation_requests
from loadtests.machine import Neighbours, describe_machine, require_linux
from loadtests.measure import Row, Target, measure, row, rows_beside
from loadtests.processes import floor_server, pin
from loadtests.service import DemoService, bench_key, ensure_demo

STAGES = Path(__file__).resolve().parent.parent / "tests" / "benchmarks" / "stages.py"
MEDIAN_ITEMS, P90_ITEMS = 260, 713
MAX_DEGRADED = 0.005
GENERATOR, ASGI, FLOOR = "load generator's own limit", "raw ASGI", "bare FastAPI route"


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(data_dir: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure everything.

    Parameters
    ----------
    data_dir : Path
        Of the demo shop; it is made if it is not there.
    rounds : int
        How often each target is asked.
    seconds : float
        How long, each time.

    Returns
    -------
    dict
        The document of ``bench.json``.
    """
    require_linux()
    ensure_demo(data_dir)
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = cores[0], cores[-1]
    customers = {
        f"home, customers with {MEDIAN_ITEMS} items": customers_with_items(MEDIAN_ITEMS),
        f"home, customers with {P90_ITEMS} items": customers_with_items(P90_ITEMS),
    }
    with ExitStack() as stack:
        log = stack.enter_context(
            tempfile.NamedTemporaryFile(prefix="recsvc-bench-", suffix=".log", delete=False)
        )
        say(f"starting the servers; their log is {log.name}")
        key = stack.enter_context(bench_key(data_dir))
        service = DemoService(data_dir, key, server_core, load_core, log)
        stack.callback(service.server.stop)
        targets = []
        for name, kind in ((GENERATOR, "socket"), (ASGI, "asgi"), (FLOOR, "fastapi")):
            server = floor_server(kind, server_core, log)
            stack.callback(server.stop)
            server.wait()
            targets.append(Target(name, server, cycle([get_request("/ready", server.address)])))
        service.wait()
        for name, user_ids in customers.items():
            requests = recommendation_requests(service.server.address, service.key, user_ids)
            targets.append(Target(name, service.server, cycle(requests)))
        on = service.what_is_on(customers_with_items(MEDIAN_ITEMS)[:50])
        before = service.n_degraded()
        rows, busy = measure_all(targets, service, load_core, rounds, seconds)
        n_degraded = service.n_degraded() - before
        n_answers = sum(target.n_replies for target in targets if target.server is service.server)
        if n_degraded > MAX_DEGRADED * n_answers:
            raise LoadError(
                f"{n_degraded} of {n_answers} answers were degraded, and those are cheap: the"
                f" machine is too busy (others used {100 * busy:.0f} % of it)"
            )
        on["degraded"] = f"{n_degraded} of {n_answers:,} answers"
        on["customers"] = {name: len(user_ids) for name, user_ids in customers.items()}
        on["other_processes"] = f"used {100 * busy:.0f} % of the machine meanwhile"
        rows += stage_rows(data_dir, key, server_core, customers[targets[-2].name])
    return {
        "machine": describe_machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "on": on,
        "rows": rows,
    }


def measure_all(
    targets: Sequence[Target], service: DemoService, load_core: int, rounds: int, seconds: float
) -> tuple[list[Row], float]:
    """Return the rows, and the share of the machine that others used meanwhile."""
    cores = os.sched_getaffinity(0)

    def own_cpu_s() -> float:
        servers = {target.server.pid: target.server for target in targets}.values()
        mine = sum(os.times()[:2]) + service.store_cpu_s()
        return mine + sum(server.cpu_s() for server in servers)

    generator, asgi, floor, *_ = targets
    pin(os.getpid(), {load_core})
    try:
        neighbours, before_s = Neighbours(len(cores)), own_cpu_s()
        # Half of what raw ASGI takes is more than the open loop can send on time.
        measure(targets, rounds=rounds, seconds=seconds, latency_of=targets[2:], say=say)
        busy = neighbours.share(own_cpu_s() - before_s)
    finally:
        pin(os.getpid(), cores)
    rows = [row(GENERATOR, "requests/s", generator.per_second, asgi.per_second)]
    others = [target for target in targets if target not in (generator, floor)]
    return rows + rows_beside(floor, others), busy


def stage_rows(data_dir: Path, key: str, core: int, user_ids: Sequence[str]) -> list[Row]:
    """Return what each stage of one request costs, measured inside the service's own code."""
    say("stages of one request")
    command = [sys.executable, str(STAGES), "--data-dir", str(data_dir), "--key", key]
    done = subprocess.run(
        [*command, "--core", str(core)],
        input=json.dumps(user_ids).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise LoadError(f"{STAGES.name} failed ({done.returncode})")
    return [
        row(f"stage: {stage['stage']}", "us", [stage["us"]])
        for stage in json.loads(done.stdout)["stages"]
    ]


def table(document: dict[str, Any]) -> str:
    """Return the result as text, floors beside the values."""
    lines = [document["machine"], ""]
    lines += [f"  {name}: {value}" for name, value in document["on"].items()]
    lines += ["", f"{'':44}{'value':>12}  {'unit':<22}{'floor':>12}{'ratio':>8}"]
    for one in document["rows"]:
        floor = "" if one["floor"] is None else f"{one['floor']:,.1f}"
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        lines.append(
            f"{one['name']:<44}{one['value']:>12,.1f}  {one['unit']:<22}{floor:>12}{ratio:>8}"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path(".recsvc"))
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--rounds", type=int, default=7, help="how often each server is asked")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long, each time")
    arguments = parser.parse_args()
    try:
        document = run(arguments.data_dir, arguments.rounds, arguments.seconds)
    except LoadError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(table(document))
    print(f"\nwritten to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
