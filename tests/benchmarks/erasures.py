"""How long an erasure takes until its receipt says that it is done.

    .venv/bin/python -m tests.benchmarks.erasures [--events 1000000] [--people 10000]

Made-up purchases over a year, a file a day, and a profile of everybody; then `recsvc erase` of one
person, and of a tenth of all in one pass. Prints one JSON document: seconds of the whole command,
with the start of the program and of the embedded server, and two seconds in which it lets workers
finish what they are at.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

FIRST_S, LAST_S = 1_750_000_000, 1_781_500_000


def main(n_events: int, n_people: int) -> dict[str, Any]:
    """Fill a shop, erase, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="recsvc-") as name:
        folder = Path(name)
        fill(folder, n_events, n_people)
        one, _ = erase(folder, "p-000001")
        ids = folder / "ids.txt"
        ids.write_text("".join(f"p-{n:06d}\n" for n in range(10, 10 + n_people // 10)))
        many, receipts = erase(folder, "--file", str(ids))
        gone = sum(one["erased"].get("archived_events", 0) for one in receipts["erasures"])
        return {
            "events": n_events,
            "people": n_people,
            "one_s": round(one, 1),
            "many": len(receipts["erasures"]),
            "many_s": round(many, 1),
            "events_gone": gone,
        }


def fill(folder: Path, n_events: int, n_people: int) -> None:
    """Import events and users."""
    rng = np.random.default_rng(1)
    times = pl.Series(rng.integers(FIRST_S, LAST_S, n_events))
    events = pl.DataFrame(
        {
            "user_id": [f"p-{n:06d}" for n in rng.integers(0, n_people, n_events)],
            "item_id": [f"i{n}" for n in rng.integers(0, 5_000, n_events)],
            "timestamp": pl.from_epoch(times).dt.replace_time_zone("UTC"),
        }
    )
    events.write_parquet(folder / "events.parquet")
    users = pl.DataFrame({"user_id": [f"p-{n:06d}" for n in range(n_people)]})
    users.with_columns(city=pl.lit("Bonn")).write_parquet(folder / "users.parquet")
    for what in ("events", "users"):
        recsvc(folder, "import", what, str(folder / f"{what}.parquet"))


def erase(folder: Path, *who: str) -> tuple[float, dict[str, Any]]:
    """Return the seconds and the receipts of an erasure."""
    began_s = time.monotonic()
    done = recsvc(folder, "erase", *who, "--json")
    return time.monotonic() - began_s, orjson.loads(done)


def recsvc(folder: Path, *arguments: str) -> str:
    """Run a command and return what it writes."""
    environment = {**os.environ, "RECSVC_DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "recsvc.cli", *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=10_000)
    chosen = parser.parse_args()
    document = main(chosen.events, chosen.people)
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
