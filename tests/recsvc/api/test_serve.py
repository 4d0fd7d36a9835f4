"""Starting and stopping: one clear line for a mistake, nothing left behind at the end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI

from feature_store.embedded import EmbeddedServer
from feature_store.errors import RecsvcError, StoreUnavailableError, UserError
from feature_store.store import Store
from recsvc.access.auth import SCOPES, load_secret, new_key
from recsvc.api.edge import Edge
from recsvc.app import create_app
from recsvc.serving.serve import base_url, serve
from recsvc.serving.worker import Worker
from recsvc.settings import Settings
from recsvc.telemetry import Metrics
from tests.recsvc.api.service import (
    PROGRAM,
    Service,
    Shop,
    event,
    ids_of,
    make_shop,
    running_shop,
)
from tests.waiting import until

OPEN = "/readyz"


def until_gone(pids: list[int]) -> None:
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def family(pid: int) -> list[int]:
    """The process and all below it; the embedded server too."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def test_an_empty_shop_is_served_learns_and_leaves_nothing_behind(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with Service(shop) as service:
        everyone = family(service.process.pid)
        server = EmbeddedServer(tmp_path)
        assert server.pid() in everyone
        shop.keys["all"] = asyncio.run(_new_key(shop, server.url))
        with service.client() as client:
            assert client.get(OPEN).json() == {
                "ready": True,
                "model_version": "",
                "catalogue_rows": 0,
                "store": "reached",
            }
            asked = "/v1/recommendations?user_id=u"
            answer = client.get(asked).json()
            assert (answer["items"], answer["degraded"]) == ([], [])
            client.post("/v1/events", json=event("other", "first item ever"))
            assert ids_of(client.get(asked).json()) == ["first item ever"]
        assert service.stop(signal.SIGINT) == 0
        until_gone(everyone)
        assert [line["event"] for line in service.log_lines()] == ["serving", "stopped"]
        assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


async def _new_key(shop: Shop, url: str) -> str:
    secret = load_secret(Settings(data_dir=shop.data_dir))
    key, record = new_key(secret, "all", SCOPES, datetime.now(UTC))
    store = await Store.open(url, read_timeout_s=5.0)
    await store.keys.put(record)
    await store.close()
    return key


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use .* --port"):
            serve(Settings(data_dir=tmp_path, port=port))
    assert not (tmp_path / "valkey").exists()


def test_a_host_that_is_not_ours_is_named(tmp_path: Path) -> None:
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(UserError, match="--host"):
            serve(Settings(data_dir=tmp_path, host=host, port=0))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--data-dir"):
        serve(Settings(data_dir=tmp_path / "file" / "data", port=0))


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://:hunter2@127.0.0.1:{taken.getsockname()[1]}/0"
        with pytest.raises(StoreUnavailableError, match="RECSVC_REDIS_URL") as caught:
            serve(Settings(data_dir=tmp_path, port=0, redis_url=url))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_model_at_the_start_is_one_clear_line(tmp_path: Path, workers: int) -> None:
    with EmbeddedServer(tmp_path / "server", fsync="everysec") as server:
        shop = make_shop(tmp_path / "data", server.url)
        file = tmp_path / "data" / "models" / shop.models[1] / "gram.npy"
        file.write_bytes(b"x")
        settings = Settings(data_dir=shop.data_dir, port=0, redis_url=server.url, workers=workers)
        with pytest.raises(RecsvcError, match=r"damaged.*recsvc models rollback"):
            serve(settings)


def test_what_the_listener_raises_stops_the_service(tmp_path: Path) -> None:
    heard = []

    def on_ready(url: str) -> None:
        heard.append(httpx.get(url + OPEN, timeout=60).status_code)
        raise RuntimeError("demo failed")

    with pytest.raises(RuntimeError, match="demo failed"):
        serve(Settings(data_dir=tmp_path, port=0), on_ready=on_ready)
    assert heard == [200]
    assert EmbeddedServer(tmp_path).pid() is None


def test_requests_under_way_are_answered_before_the_end(tmp_path: Path) -> None:
    with running_shop(tmp_path, store_timeout_ms=4000) as (service, server):
        pid = server.pid()
        assert pid is not None
        with service.client() as client, ThreadPoolExecutor() as pool:
            assert client.get("/livez").status_code == 200, "connected"
            os.kill(pid, signal.SIGSTOP)
            try:
                answer = pool.submit(client.get, "/v1/recommendations?user_id=u")
                time.sleep(1.0)
                service.process.send_signal(signal.SIGTERM)
                assert answer.result(60).json()["degraded"] == ["store"]
            finally:
                os.kill(pid, signal.SIGCONT)
        assert service.process.wait(60) == 0


def test_a_worker_that_dies_is_replaced_and_none_outlives_the_parent(tmp_path: Path) -> None:
    with running_shop(tmp_path, workers=2) as (service, _):

        def said(event: str, field: str) -> list[int]:
            return [line[field] for line in service.log_lines() if line["event"] == event]

        workers = said("worker_ready", "worker_pid")
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        with service.client() as client:

            def is_replaced() -> bool:
                assert client.get("/v1/recommendations").status_code == 200
                ready = "recsvc_ready_workers 2.0" in client.get("/metrics").text
                return ready and bool(said("worker_died", "code"))

            until(is_replaced)
        assert said("worker_died", "code") == [-9]
        everyone = family(service.process.pid)
        service.stop(signal.SIGKILL)
        until_gone(everyone)


def test_a_stop_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    for delay_s in (0.6, 1.6):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "RECSVC_DATA_DIR": str(tmp_path), "RECSVC_PORT": "0"},
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay_s)
        process.terminate()
        process.wait(60)
        assert EmbeddedServer(tmp_path).pid() is None


def test_the_address_that_is_shown_can_be_opened() -> None:
    assert base_url("127.0.0.1", 1) == "http://127.0.0.1:1"
    assert base_url("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert base_url("::", 1) == "http://[::1]:1"
    assert base_url("::1", 1) == "http://[::1]:1"


def test_nothing_asks_for_telemetry_on_a_request(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_url="unix:///nowhere")
    app = create_app(Worker(settings, b"s" * 32, Metrics()))
    assert isinstance(app, Edge)
    assert isinstance(app._app, FastAPI)
    assert not app._app._native_telemetry.enabled()
