"""What a worker remembers of people is forgotten with them."""

from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.forgetting.erasing import work
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.schema import ItemId
from feature_store.store import Store
from recsvc.customer.consenting import Remembered
from recsvc.serving import erasing as module
from recsvc.serving.erasing import Erasing
from recsvc.settings import Settings
from recsvc.telemetry import Metrics

HIDES = Preferences(hidden_items=frozenset({ItemId("i1")}))


@pytest.mark.parametrize("missed", [False, True], ids=["it sees the job", "it comes too late"])
async def test_a_worker_forgets_whoever_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missed: bool
) -> None:
    with EmbeddedServer(tmp_path, fsync="everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        settings = Settings(data_dir=tmp_path, redis_url=server.url)
        remembered, metrics = Remembered(), Metrics()
        watching = Erasing(settings, store, remembered, metrics, "me")
        for person in ("u:gone", "a:visit", "u:stays"):
            remembered.note(person, HIDES)
        await store.erasures.request("u:gone", "test", tmp_path)
        await store.erasures.request("a:visit", "test", tmp_path)
        if missed:
            await work(store, tmp_path)
            monkeypatch.setattr(module, "_MISSED_S", 0.0)
        await watching.look()
        assert remembered.of("u:gone") is remembered.of("a:visit") is NO_PREFERENCES
        assert remembered.of("u:stays") is HIDES
        await store.close()


async def test_only_the_leading_worker_clears_the_files(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        try:
            settings = Settings(data_dir=tmp_path, redis_url=server.url)
            await store.erasures.request("u:gone", "test", tmp_path)
            await store.streams.lead("another", 60)
            metrics = Metrics()
            await Erasing(settings, store, Remembered(), metrics, "me").work()
            assert await store.erasures.ids()
            await store.streams.resign("another")
            await Erasing(settings, store, Remembered(), metrics, "me").work()
            assert not await store.erasures.ids()
        finally:
            await store.close()
