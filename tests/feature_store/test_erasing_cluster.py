"""Erasures on a cluster: every node forgets, and writes its files anew."""

import asyncio
import secrets
from pathlib import Path

import pytest

from feature_store.archiver import Archiver
from feature_store.event_log import EventLog
from feature_store.forgetting.erasing import work
from feature_store.store import Store
from tests.feature_store.cluster import N_NODES, Cluster
from tests.feature_store.test_cluster import bought
from tests.proofs.searching import Needles, search_folder
from tests.waiting import until


def test_people_on_every_node_are_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_store.forgetting.erasing.SETTLE_S", 0.0)
    data, nodes = tmp_path / "data", tmp_path / "nodes"
    for folder in (data, nodes):
        folder.mkdir()
    with Cluster(nodes) as cluster:
        asyncio.run(_erase(cluster, data, nodes))


async def _erase(cluster: Cluster, data: Path, nodes: Path) -> None:
    for at in range(N_NODES):
        async with cluster.client(at) as node:
            await node.config_set("appendonly", "yes")
    store = await Store.open(cluster.url, 5.0)
    people = [f"canary-{secrets.token_hex(8)}" for _ in range(9)]
    await store.events.append([bought(one, 1) for one in [*people, "other"]])
    await Archiver(store.streams, EventLog(data)).drain(lambda *_: None)
    # A server may hold back what it writes to its file while it syncs.
    until(lambda: {place.needle for place in search_folder(nodes, Needles(people))} == set(people))
    for one in people:
        await store.erasures.request(f"u:{one}", "test", data)
    done = await work(store, data)
    assert len(done) == len(people)
    for erasure_id in done:
        receipt = await store.erasures.receipt(erasure_id)
        assert receipt is not None
        assert (receipt["state"], receipt["server_files"]) == ("done", "rewritten")
    assert not search_folder(data, Needles(people))
    assert not search_folder(nodes, Needles(people))
    assert EventLog(data).count() == 1
    for one in people:
        assert not (await store.load_state(f"u:{one}")).n_item_facts
    assert (await store.load_state("u:other")).n_item_facts
    await store.close()
