"""An import that is killed at any moment, and the same import again: as if nothing had happened."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_store.catalogue_files import CatalogueFiles
from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog
from feature_store.ingest.events import EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.run import import_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.table import Progress
from feature_store.store import Store

N_EVENTS, N_PEOPLE, N_ITEMS, N_DAYS = 6_000, 40, 60, 25

PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from feature_store.event_log import EventLog
from feature_store.ingest import staging
from feature_store.ingest.events import EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.run import import_events
from feature_store.ingest.source import find_sources

source, data, url = sys.argv[1:]
staging.SPILL_ROWS = staging.GROUP_ROWS = 2_000
print("ready", flush=True)
import_events(
    EventLog(Path(data)),
    find_sources(source),
    {},
    EventOptions(now=datetime(2026, 1, 1, tzinfo=UTC)),
    fold=store_fold(url, Path(data) / "catalogue"),
)
print("done", flush=True)
"""


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    rng = random.Random(5)
    lines = [
        f"u{rng.randrange(N_PEOPLE)},i{rng.randrange(N_ITEMS)},"
        f"2024-01-{1 + rng.randrange(N_DAYS):02} {rng.randrange(24):02}:00:00"
        for _ in range(N_EVENTS)
    ]
    path = tmp_path / "sales.csv"
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    return path


Facts = list[tuple[str, int, int, int]]


def content(data: Path) -> list[tuple[Any, ...]]:
    frame = EventLog(data).scan().collect()
    return frame.sort("timestamp", "user_id", "event_id").select(list(EVENT_LOG_SCHEMA)).rows()


async def states(url: str, data: Path) -> dict[str, Facts]:
    """Return each person's facts by item id: rows may be given in another order."""
    ids = CatalogueFiles(data / "catalogue").load().catalogue.item_ids()
    store = await Store.open(url, read_timeout_s=5)
    try:
        found: dict[str, Facts] = {}
        for number in range(N_PEOPLE):
            state = await store.load_state(f"u:u{number}")
            facts = zip(state.rows, state.counts, state.first_s, state.last_s, strict=True)
            found[f"u{number}"] = sorted(
                (str(ids[row]), int(count), int(first), int(last))
                for row, count, first, last in facts
            )
        return found
    finally:
        await store.close()


@contextmanager
def importer(source: Path, data: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an import in a process of its own; it has just begun."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source), str(data), url],
        stdout=subprocess.PIPE,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process


@pytest.mark.parametrize("n_kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_imported_again(sales: Path, tmp_path: Path, n_kills: int) -> None:
    clean, torn = tmp_path / "clean", tmp_path / "torn"
    rng = random.Random(n_kills)
    with EmbeddedServer(clean, fsync="everysec") as server:
        with importer(sales, clean, server.url) as process:
            began = time.monotonic()
            process.wait()
        takes_s = time.monotonic() - began
        expected, expected_states = content(clean), asyncio.run(states(server.url, clean))
    assert len(expected) == N_EVENTS
    counted = sum(count for facts in expected_states.values() for _, count, *_ in facts)
    assert counted == N_EVENTS
    with EmbeddedServer(torn, fsync="everysec") as server:
        for _ in range(n_kills):
            with importer(sales, torn, server.url) as process:
                time.sleep(rng.uniform(0, takes_s))
                process.kill()
            assert len(content(torn)) in (0, N_EVENTS), "all or nothing"
        with importer(sales, torn, server.url) as process:
            process.wait()
        assert process.returncode == 0
        assert content(torn) == expected
        assert asyncio.run(states(server.url, torn)) == expected_states
    assert EventLog(torn).pending() == []
    left = [path.name for path in (torn / "imports").iterdir() if path.is_dir()]
    assert len(left) == 1, "nothing of the killed ones is left"


def test_a_committed_import_is_folded_once_however_often_it_is_tried(
    sales: Path, tmp_path: Path
) -> None:
    """Killed in the middle of the fold: some people have the import's events, some have not."""
    data = tmp_path / "data"
    log = EventLog(data)
    options = EventOptions(now=datetime(2026, 1, 1, tzinfo=UTC))
    with EmbeddedServer(data, fsync="everysec") as server:
        fold = store_fold(server.url, data / "catalogue")

        def interrupted(
            import_id: str, frames: Iterator[pl.DataFrame], n_events: int, progress: Progress
        ) -> None:
            some = (frame.filter(pl.col("user_id").is_in(["u1", "u2"])) for frame in frames)
            fold(import_id, some, n_events, progress)
            raise KeyboardInterrupt

        sources = find_sources(str(sales))
        with pytest.raises(KeyboardInterrupt):
            import_events(log, sources, {}, options, fold=interrupted)
        assert len(log.pending()) == 1
        import_events(log, sources, {}, options, fold=fold)
        facts = asyncio.run(states(server.url, data))
    bought = dict(log.scan().group_by("user_id").len().collect().iter_rows())
    assert {user: sum(fact[1] for fact in mine) for user, mine in facts.items()} == bought
