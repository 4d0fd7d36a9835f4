"""A catalogue of a million items: how long it takes, and what a second worker costs.

    .venv/bin/python -m tests.benchmarks.million_items --folder /tmp/million

makes items and a model of them (not trained: random factors), imports the items from Parquet and
CSV with the command line, serves them with two workers, changes items live, searches, and reads
what each worker holds for itself (``Private_Dirty`` of ``/proc/PID/smaps_rollup``). Prints one JSON
document. Linux only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import httpx
import numpy as np
import polars as pl

from feature_store.artifact import ArtifactWriter
from feature_store.embedded import EmbeddedServer
from feature_store.registry import ModelRegistry
from feature_store.signals import FEATURES
from tests.recsvc.shop import DEFAULT_WEIGHTS

N_ITEMS = 1_000_000
N_FACTORS = 64
N_NEIGHBOURS = 20
N_HEAD = 16_000
DAY_S = 86_400
RECSVC = Path(sys.executable).with_name("recsvc")
START_TIMEOUT_S = 120.0
COMPACTION_TIMEOUT_S = 120.0
N_CHANGES = 1_800


SEARCHES: dict[str, tuple[dict[str, str], int]] = {
    "search_rare": ({"query": "shoe 765432"}, 1),
    "search_common": ({"query": "tra"}, 20),
    "search_nothing": ({"query": "zebra"}, 0),
    "search_id": ({"query": "sku-09"}, 20),
    "by_brand": ({"brand": "Brand 1999"}, 20),
    "by_category": ({"category": "Department 39 > Category 3999"}, 20),
}
"""What is looked for, and how many items a page must have then."""


def item_ids(n_items: int) -> pl.Series:
    return pl.Series("item_id", [f"sku-{number:07d}" for number in range(n_items)])


def make_items(n_items: int) -> pl.DataFrame:
    """Return items as a shop would export them."""
    number = pl.int_range(n_items)
    return pl.DataFrame({"item_id": item_ids(n_items)}).with_columns(
        title=pl.format("Trail shoe {} for {} in colour {}", number, number % 7, number % 1_000),
        brand=pl.format("Brand {}", number % 2_000),
        categories=pl.format("Department {} > Category {}", number % 40, number % 4_000),
        price=(number % 9_000 + 99).cast(pl.Float64) / 100,
        url=pl.format("https://shop.example/p/{}", number),
        image_url=pl.format("https://cdn.example/i/{}.jpg", number),
        available=number % 20 != 0,
        group_id=pl.format("group-{}", number // 3),
        published_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC))
        + pl.duration(minutes=number % 900_000),
    )


def make_model(models_dir: Path, n_items: int) -> None:
    """Publish a model that knows every item."""
    rng = np.random.default_rng(0)
    factors = rng.normal(0, 0.1, (n_items, N_FACTORS)).astype(np.float32)
    factors *= rng.exponential(1, (n_items, 1)).astype(np.float32)
    popularity = rng.pareto(1.2, n_items)
    popularity /= popularity.sum()
    neighbours = rng.integers(0, n_items, (n_items, N_NEIGHBOURS), dtype=np.int32)
    scores = np.broadcast_to(np.linspace(1, 0.1, N_NEIGHBOURS), neighbours.shape)
    arrays: dict[str, Any] = {
        "item_factors": factors,
        "gram": factors.T @ factors,
        "popularity": popularity,
        "popularity_recent": popularity * rng.random(n_items),
        "trending": rng.random(n_items),
        "together_rows": neighbours,
        "together_scores": scores,
        "similar_rows": neighbours,
        "similar_scores": scores,
        "repeat_rate": rng.random(n_items),
        "repeat_interval_s": np.full(n_items, 20.0 * DAY_S),
        "first_seen_s": np.full(n_items, 1_700_000_000),
    }
    head = np.sort(np.argpartition(-np.linalg.norm(factors, axis=1), N_HEAD)[:N_HEAD])
    with ArtifactWriter(models_dir, datetime.now(UTC)) as writer:
        for name, values in arrays.items():
            writer.array(name, values)
        writer.item_ids(item_ids(n_items).to_list())
        index = faiss.IndexIDMap(faiss.IndexFlatIP(N_FACTORS))
        index.add_with_ids(factors[head], head)
        writer.index(lambda path: faiss.write_index(index, path))
        writer.manifest |= {
            "config": {"alpha": 1.0, "regularization": 0.1},
            "index": {"form": "head", "nprobe": 0, "n_indexed": len(head)},
            "blend": {"features": list(FEATURES), "weights": {"home": list(DEFAULT_WEIGHTS)}},
        }
        version = writer.publish().version
    ModelRegistry(models_dir).publish(version, datetime.now(UTC))


def run(environment: dict[str, str], *arguments: str) -> float:
    """Run a command of recsvc; return the seconds it took."""
    began = time.perf_counter()
    subprocess.run([RECSVC, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextmanager
def serving(
    environment: dict[str, str], port: int
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Serve with two workers; yield the process and how long it took to answer."""
    began = time.perf_counter()
    command = [str(RECSVC), "serve", "--port", str(port), "--workers", "2"]
    process = subprocess.Popen(command, env=environment)
    try:
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if time.perf_counter() - began > START_TIMEOUT_S or process.poll() is not None:
                raise RuntimeError("the service did not start")
            time.sleep(0.1)
        yield process, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(60)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]


def workers_of(pid: int) -> list[int]:
    """Return the workers of a service: they have the catalogue mapped."""
    found = [pid, *children(pid)]
    return [one for one in found if "items.arrow" in Path(f"/proc/{one}/maps").read_text()]


def memory_mib(pid: int) -> dict[str, float]:
    """Return what a process holds, in MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Private_Dirty", "Pss", "Rss"):
            found[name] = round(int(value.split()[0]) / 1024, 1)
    return found


def ask(client: httpx.Client, number: int, n_items: int) -> None:
    """Ask what a page asks: several placements, with a filter and without."""
    item = f"sku-{number * 977 % n_items:07d}"
    for body in (
        {"placement": "home", "user_id": f"u{number}"},
        {"placement": "product", "item_ids": [item], "fields": ["title", "price"]},
        {"placement": "trending", "context": {"country": "DE"}},
        {"placement": "new"},
    ):
        client.post("/v1/recommendations", json=body).raise_for_status()


def timed_ms(work: Any, rounds: int) -> dict[str, float]:
    """Return median and worst of some calls, in milliseconds."""
    taken = []
    for number in range(rounds):
        began = time.perf_counter()
        work(number)
        taken.append((time.perf_counter() - began) * 1_000)
    return {"median_ms": round(statistics.median(taken), 1), "max_ms": round(max(taken), 1)}


def compacted_s(client: httpx.Client, data: Path) -> float:
    """Change so much that the log becomes a file; return the seconds until it serves."""
    pointer = data / "catalogue" / "current.json"
    before = pointer.read_bytes()
    batch = [{"item_id": f"fresh-{k}", "title": "Fresher"} for k in range(1_000)]
    client.post("/v1/items", json=batch).raise_for_status()
    began = time.perf_counter()
    while pointer.read_bytes() == before:
        ask(client, 1, 1_000)
        if time.perf_counter() - began > COMPACTION_TIMEOUT_S:
            raise RuntimeError("no new file of the catalogue was published")
    taken_s = time.perf_counter() - began
    # Until both workers have loaded it.
    for _ in range(60):
        ask(client, 1, 1_000)
        time.sleep(0.1)
    return round(taken_s, 1)


def measure(client: httpx.Client, pids: list[int], data: Path, n_items: int) -> dict[str, Any]:
    """Use the service and measure."""
    result: dict[str, Any] = {"worker_after_start": [memory_mib(pid) for pid in pids]}
    for number in range(200):
        event = {
            "event_id": f"e{number}",
            "type": "purchase",
            "user_id": f"u{number % 50}",
            "item_id": f"sku-{number * 7919 % n_items:07d}",
            "timestamp": datetime.now(UTC).isoformat(),
        }
        client.post("/v1/events", json=event).raise_for_status()
    for number in range(100):
        ask(client, number, n_items)
    result["worker_after_requests"] = [memory_mib(pid) for pid in pids]
    result["answer"] = timed_ms(lambda number: ask(client, number, n_items), 40)

    def change(number: int, **fields: Any) -> None:
        response = client.patch(f"/v1/items/sku-{number * 4999 % n_items:07d}", json=fields)
        response.raise_for_status()

    price = {"amount": "1.00", "currency": "EUR"}
    result["patch_price"] = timed_ms(lambda number: change(number, price=price), 30)
    result["patch_available"] = timed_ms(lambda number: change(number, available=False), 30)
    result["patch_category"] = timed_ms(lambda number: change(number, categories=["New > One"]), 30)

    def change_and_ask(number: int) -> None:
        change(number, available=True)
        client.post("/v1/recommendations", json={"placement": "new"}).raise_for_status()

    result["patch_and_answer"] = timed_ms(change_and_ask, 30)
    # Together with the changes above almost as many as may lie over the file.
    for start in range(0, N_CHANGES, 300):
        batch = [{"item_id": f"fresh-{start + k}", "title": "Fresh"} for k in range(300)]
        client.post("/v1/items", json=batch).raise_for_status()
        ask(client, start, n_items)
    result["worker_after_changes"] = [memory_mib(pid) for pid in pids]
    for name, (query, expected) in SEARCHES.items():
        result[name] = timed_ms(lambda _, q=query: client.get("/v1/items", params=q), 5)
        found = len(client.get("/v1/items", params=query).json()["items"])
        if found < expected * (n_items == N_ITEMS):
            raise RuntimeError(f"{name} found {found}")
    result["compaction_s"] = compacted_s(client, data)
    result["worker_after_compaction"] = [memory_mib(pid) for pid in pids]
    return result


def main() -> None:
    """Measure, and print the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--items", type=int, default=N_ITEMS)
    parser.add_argument("--port", type=int, default=8765)
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    items = make_items(given.items)
    items.write_parquet(folder / "items.parquet")
    items.write_csv(folder / "items.csv")
    del items
    result: dict[str, Any] = {"items": given.items}
    environment = {**os.environ, "RECSVC_STORE_TIMEOUT_MS": "2000"}
    with EmbeddedServer(folder / "server-csv", fsync="everysec") as server:
        environment |= shop(folder / "data-csv", server)
        taken_s = run(environment, "import", "items", str(folder / "items.csv"))
        result["import_csv_s"] = round(taken_s, 1)
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        environment |= shop(data, server)
        taken_s = run(environment, "import", "items", str(folder / "items.parquet"))
        result["import_parquet_s"] = round(taken_s, 1)
        make_model(data / "models", given.items)
        key = subprocess.run(
            [RECSVC, "keys", "create", "--name", "bench", "--json", *scopes()],
            env=environment,
            check=True,
            capture_output=True,
        )
        with serving(environment, given.port) as (process, started_s):
            result["start_s"] = round(started_s, 1)
            headers = {"Authorization": f"Bearer {json.loads(key.stdout)['key']}"}
            url = f"http://127.0.0.1:{given.port}"
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                # A connection each, so that both workers answer.
                client.headers["Connection"] = "close"
                result |= measure(client, workers_of(process.pid), data, given.items)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


def shop(data: Path, server: EmbeddedServer) -> dict[str, str]:
    """Return the settings of a shop that is empty."""
    return {"RECSVC_DATA_DIR": str(data), "RECSVC_REDIS_URL": server.url}


def scopes() -> list[str]:
    names = ("recs:read", "events:write", "catalog:write")
    return [part for name in names for part in ("--scope", name)]


if __name__ == "__main__":
    main()
