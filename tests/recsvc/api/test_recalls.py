"""A recall is gone from everything with one call, and comes back by none but its end."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import polars as pl
import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from recsvc.merchandising.placements import BUILT_IN
from recsvc.snapshot import SnapshotHolder
from tests.recsvc.api.service import Service, assert_problem, event, ids_of, make_shop
from tests.recsvc.shop import item_ids
from tests.waiting import until

LEASE_S = 30.0
Pair = tuple[httpx.Client, httpx.Client, Service, EmbeddedServer]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two services over one store; that they are two processes is what matters."""
    folder = tmp_path_factory.mktemp("recalls")
    with EmbeddedServer(folder / "server", fsync="everysec") as server:
        shop = make_shop(folder / "data", server.url)
        with (
            Service(shop, redis_url=server.url, recall_lease_s=LEASE_S) as one,
            Service(shop, redis_url=server.url, recall_lease_s=LEASE_S) as other,
            one.client() as here,
            other.client() as there,
        ):
            yield here, there, other, server


def put(client: httpx.Client, name: str, **body: Any) -> dict[str, Any]:
    response = client.put(
        f"/v1/recalls/{quote(name, safe='')}", json={"reason": "splinters", **body}
    )
    assert response.status_code == 200, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


def put_everywhere(client: httpx.Client, name: str, **body: Any) -> dict[str, Any]:
    """Repeat a recall until every worker has confirmed it: one may be slow."""
    receipts: list[dict[str, Any]] = []

    def is_everywhere() -> bool:
        receipts.append(put(client, name, **body))
        return bool(receipts[-1]["confirmed"] == receipts[-1]["workers"])

    until(is_everywhere)
    return receipts[-1]


def shown(client: httpx.Client, **query: Any) -> list[str]:
    response = client.get("/v1/recommendations", params={"limit": 100, **query})
    assert response.status_code == 200, response.text
    return ids_of(response.json())


def test_a_recalled_item_is_in_no_answer_of_any_worker(pair: Pair) -> None:
    one, other, _, _ = pair
    assert one.post("/v1/events", json=event("buyer", "i00003")).status_code == 202
    assert "i00003" in shown(other, user_id="buyer")
    receipt = put_everywhere(one, "a/b", item_ids=["i00003", "never seen"])
    assert receipt == {
        "recall_id": "a/b",
        "n_items": 1,
        "workers": 2,
        "confirmed": 2,
        "fenced": [],
        "done_at_the_latest_in_s": 0.0,
    }
    for client in (one, other):
        for placement in BUILT_IN:
            query = {"placement": placement, "user_id": "buyer", "item_ids": ["i00000"]}
            assert "i00003" not in shown(client, **query)
    # Nothing but its end brings it back.
    assert one.delete("/v1/recalls/a%2Fb").json() == {"recall_id": "a/b", "ended": True}
    assert "i00003" in shown(other, user_id="buyer")
    assert_problem(one.get("/v1/recalls/a%2Fb"), 404)


def test_a_recall_by_condition_follows_the_catalogue(pair: Pair) -> None:
    one, other, _, _ = pair
    target = {"field": "item.brand", "op": "eq", "value": "Brand 2"}
    receipt = put(one, "brand", target=target)
    assert receipt["n_items"] > 20
    document = other.get("/v1/recalls/brand").json()
    assert (document["target"], document["updated_by"]) == (target, "key:all")
    titles = {
        item["item"]["brand"]
        for item in other.get(
            "/v1/recommendations", params={"limit": 100, "fields": "brand"}
        ).json()["items"]
    }
    assert "Brand 2" not in titles
    one.delete("/v1/recalls/brand").raise_for_status()


def test_who_bought_it_is_listed_before_and_after_it_is_archived(pair: Pair) -> None:
    one, other, service, _ = pair
    data_dir = service.shop.data_dir
    for user in ("u 1", "u/2"):
        for _ in range(2):
            one.post("/v1/events", json=event(user, "i00005", quantity=2, order_id="o")).json()
    put(one, "who", item_ids=["i00005"])
    mine = pl.col("item_id") == "i00005"
    for archived in (0, 4):
        until(lambda: EventLog(data_dir).scan().filter(mine).collect().height >= archived)  # noqa: B023
        lines = other.get("/v1/recalls/who/customers").text.splitlines()
        found = [json.loads(line) for line in lines]
        assert [(line["user_id"], line["quantity"]) for line in found] == [("u 1", 4), ("u/2", 4)]
    one.delete("/v1/recalls/who").raise_for_status()


def test_a_worker_that_hangs_is_named_and_never_shows_it(pair: Pair) -> None:
    one, other, service, _ = pair
    children = [service.process.pid, *_descendants(service.process.pid)]
    assert "i00006" in shown(other)
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        receipt = put(one, "hangs", item_ids=["i00006"])
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)
    assert (receipt["workers"], receipt["confirmed"]) == (2, 1)
    assert len(receipt["fenced"]) == 1
    assert 0 < receipt["done_at_the_latest_in_s"] <= LEASE_S
    assert "i00006" not in shown(other)
    assert put_everywhere(one, "hangs", item_ids=["i00006"])["confirmed"] == 2
    one.delete("/v1/recalls/hangs").raise_for_status()


def _descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *_descendants(int(child))]
    return found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "x"},
        {"reason": "x", "item_ids": []},
        {"reason": "x", "item_ids": ["a"], "group_ids": ["b"]},
        {"reason": "x", "target": {"field": "item.nothing", "op": "eq", "value": 1}},
        {"reason": "", "item_ids": ["a"]},
    ],
)
def test_a_recall_that_is_wrong_is_refused(pair: Pair, body: dict[str, Any]) -> None:
    assert_problem(pair[0].put("/v1/recalls/x", json=body), 422)


@pytest.mark.slow
def test_a_worker_that_starts_late_or_without_the_store_never_shows_it(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "server", fsync="everysec") as server:
        shop = make_shop(tmp_path / "data", server.url)
        with Service(shop, redis_url=server.url) as first, first.client() as client:
            put(client, "late", item_ids=item_ids(4))
        with Service(shop, redis_url=server.url) as second, second.client() as client:
            assert not set(item_ids(4)) & set(shown(client))
    # Without a lease a worker may start while the store is down: it knows the recall from its disk.
    folder = tmp_path / "server"
    with (
        EmbeddedServer(folder, fsync="everysec") as server,
        Service(shop, redis_url=server.url, recall_lease_s=0, workers=2) as third,
        third.client() as client,
    ):
        server.stop()
        _replace_workers(third, client)
        assert client.get("/readyz").status_code == 200
        recalled = SnapshotHolder(shop.data_dir).current.recalled
        assert recalled is not None
        assert recalled.nonzero()[0].tolist() == [0, 1, 2, 3]
        (shop.data_dir / "site.json").unlink()
        _replace_workers(third, client)
        assert client.get("/readyz").status_code == 503
        assert_problem(client.get("/v1/recommendations"), 503)


def _replace_workers(service: Service, client: httpx.Client) -> None:
    """Kill the workers, and wait until others answer."""
    before = set(_descendants(service.process.pid))
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return client.get("/livez").status_code == 200
        return False

    until(answers)
