"""The service on a Redis Cluster: a node that dies costs answers their persons, not themselves."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from feature_store import keys
from tests.feature_store.cluster import N_NODES, Cluster
from tests.recsvc.api.service import Service, event, ids_of, make_shop

RECS = "/v1/recommendations"
LEASE_S = 5.0
SITE_KEYS = (keys.CATALOGUE_SEQUENCE, keys.SITE_HEAD, keys.KEY_RECORDS)
"""What every worker needs; where they are, losing the node ends the lease."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Cluster]]:
    folder: Path = tmp_path_factory.mktemp("on a cluster")
    with Cluster(folder / "cluster") as cluster:
        shop = make_shop(folder / "data", cluster.url)
        with Service(shop, redis_url=cluster.url, recall_lease_s=LEASE_S) as service:
            yield service, cluster


def users_by_node(cluster: Cluster) -> list[str]:
    async def found() -> list[str]:
        users: dict[int, str] = {}
        number = 0
        while len(users) < N_NODES:
            user = f"user {number}"
            users.setdefault(await cluster.node_of(keys.hot(f"u:{user}")), user)
            number += 1
        return [users[node] for node in range(N_NODES)]

    return asyncio.run(found())


def asked(client: httpx.Client, user: str) -> httpx.Response:
    params: dict[str, str | int] = {"placement": "buy_again", "user_id": user, "limit": 1}
    return client.get(RECS, params=params)


def test_purchases_that_may_not_be_stored_are_counted_on_a_cluster(
    both: tuple[Service, Cluster],
) -> None:
    """The people, and the count, are on different nodes."""
    service, cluster = both
    with service.client() as client:
        for user in users_by_node(cluster):
            refused = {"consent": {"profiling": False}}
            path = f"/v1/users/{user}/preferences"
            client.patch(path, json=refused).raise_for_status()
            stored = client.post("/v1/events", json=event(user, "i00055", quantity=2))
            assert stored.json()["withheld"] == 1
            client.patch(path, json={"consent": {"profiling": None}}).raise_for_status()
        recall = {"item_ids": ["i00055"], "reason": "glass"}
        client.put("/v1/recalls/counted", json=recall).raise_for_status()
        missing = {"withheld_purchases": N_NODES, "withheld_quantity": 2 * N_NODES}
        answer = client.get("/v1/recalls/counted/customers")
        assert [json.loads(line) for line in answer.text.splitlines()] == [
            {"item_id": "i00055", **missing}
        ]
        client.delete("/v1/recalls/counted").raise_for_status()


def test_a_dead_node_gives_degraded_answers_and_no_errors(both: tuple[Service, Cluster]) -> None:
    service, cluster = both
    users = users_by_node(cluster)
    needed = {asyncio.run(cluster.node_of(key)) for key in SITE_KEYS}
    (victim,) = set(range(N_NODES)) - needed
    with service.client() as client:
        for user in users:
            stored = client.post("/v1/events", json=event(user, "i00007"))
            assert (stored.status_code, stored.json()["accepted"]) == (202, 1)
            assert ids_of(asked(client, user).json()) == ["i00007"]
        cluster.processes[victim].kill()
        cluster.processes[victim].wait()
        until_s = time.monotonic() + LEASE_S + 1.5
        seen = 0
        while time.monotonic() < until_s:
            for node, user in enumerate(users):
                answer = asked(client, user)
                assert answer.status_code == 200, answer.text
                document = answer.json()
                if node == victim:
                    assert document["degraded"] == ["store"]
                    assert document["personalized"] is False
                else:
                    assert document["degraded"] == []
                    assert ids_of(document) == ["i00007"]
                seen += 1
            time.sleep(0.2)
        assert seen
        # Longer than the recall lease: whoever is reached knows of every recall.
        assert client.get("/readyz").status_code == 200
        statuses = {
            node: {client.post("/v1/events", json=event(user, "i1")).status_code for _ in range(9)}
            for node, user in enumerate(users)
        }
        assert statuses[victim] == {503}
        assert all(202 in found for node, found in statuses.items() if node != victim), statuses
