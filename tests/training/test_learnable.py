"""A training learns nothing from who was forgotten, scrubbed from the files yet or not."""

import asyncio
from pathlib import Path

from feature_store.archiver import Archiver
from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from feature_store.store import Store
from tests.feature_store.lives import did, now
from training.dataset import read_interactions
from training.run import learnable_events


async def shop(url: str, data_dir: Path) -> None:
    store = await Store.open(url, read_timeout_s=5.0)
    archiver = Archiver(store.streams, EventLog(data_dir))
    await store.events.append(
        [did(number, user=user) for user in ("ann", "bob", "cid") for number in range(3)]
    )
    await store.events.append([did(1, visitor="ann's phone"), did(1, visitor="bob's phone")])
    for user in ("ann", "bob"):
        await store.merger.merge(user, f"{user}'s phone", now())
    await archiver.run_all()
    await store.forgetting.erase("u:ann", "test")
    await store.forgetting.forget_taste("u:cid", "cid")
    await store.events.append([did(7, user="cid")])
    await archiver.run_all()
    await store.close()


def test_what_is_forgotten_is_not_learned_from(tmp_path: Path) -> None:
    assert learnable_events(tmp_path).collect().is_empty()
    with EmbeddedServer(tmp_path / "server", fsync="everysec") as server:
        asyncio.run(shop(server.url, tmp_path))
    assert EventLog(tmp_path).count() == 14
    found = read_interactions(learnable_events(tmp_path))
    names = dict(found.frame.group_by("person").len().iter_rows())
    assert {found.persons[code]: n for code, n in names.items()} == {"u:bob": 4, "u:cid": 1}
