"""The stages of a request are those of the service, and the raw edge is worth having."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop
from starlette.types import ASGIApp, Message, Scope

from feature_store.embedded import EmbeddedServer
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store
from recsvc.access.auth import load_secret
from recsvc.app import create_app
from recsvc.serving.worker import Worker
from recsvc.settings import load_settings
from recsvc.telemetry import Metrics
from tests.benchmarks import stages
from tests.benchmarks.test_ratios import best_s
from tests.recsvc.api.service import Shop, make_shop
from tests.recsvc.shop import item_ids

USER_IDS = [f"user {number}" for number in range(40)]


async def buy(url: str) -> None:
    now = datetime.now(UTC)
    events = [
        Event(
            event_id=f"{number}-{user_id}",
            type=EventType.PURCHASE,
            user_id=user_id,
            item_id=ItemId(item_id),
            timestamp=now - timedelta(days=number),
        )
        for user_id in USER_IDS
        for number, item_id in enumerate(item_ids(20))
    ]
    store = await Store.open(url, read_timeout_s=5.0)
    try:
        await store.events.append(events)
    finally:
        await store.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    data_dir: Path = tmp_path_factory.mktemp("stages")
    with EmbeddedServer(data_dir, fsync="everysec") as server:
        made = make_shop(data_dir, server.url)
        asyncio.run(buy(server.url))
        yield made


def test_every_stage_of_a_request_is_timed(shop: Shop) -> None:
    program = [sys.executable, stages.__file__, "--data-dir", str(shop.data_dir)]
    done = subprocess.run(
        [*program, "--key", shop.keys["recs:read"]],
        input=json.dumps(USER_IDS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["gc_frozen"] is True
    assert document["n_customers"] == len(USER_IDS)
    times_us = {row["stage"]: row["us"] for row in document["stages"]}
    # Each stage was on the way of these requests: none is a function that nobody calls any more.
    assert all(times_us[name] > 0 for name, _, _ in stages.STAGES)
    assert times_us["whole request, without uvicorn"] > times_us["fold in"]


async def compare_edge(shop: Shop, url: str) -> list[float]:
    settings = load_settings(data_dir=shop.data_dir, redis_url=url)
    worker = Worker(settings, load_secret(settings), Metrics())
    app = create_app(worker)
    key = shop.keys["recs:read"]
    await worker.open()
    try:
        hot = stages.scope_of(USER_IDS[0], key)
        # A mail tool's way to give the key is not the hot one: the declared route answers.
        basic = b"Basic " + base64.b64encode(f"mail:{key}".encode())
        declared = {**hot, "headers": [(b"host", b"bench"), (b"authorization", basic)]}
        return await best_s(lambda: ask(app, hot), lambda: ask(app, declared), rounds=300)
    finally:
        await worker.close()


async def ask(app: ASGIApp, scope: Scope) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        assert message.get("status", 200) == 200

    await app({**scope, "state": {}}, receive, send)


def test_the_raw_edge_is_cheaper_than_the_declared_route(shop: Shop) -> None:
    with EmbeddedServer(shop.data_dir, fsync="everysec") as server:
        edge_s, route_s = uvloop.run(compare_edge(shop, server.url))
    assert edge_s < 0.8 * route_s
