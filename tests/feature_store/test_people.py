"""What is kept of people besides their facts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from feature_store.archiver import Archiver
from feature_store.errors import ConflictError
from feature_store.event_log import EventLog
from feature_store.people import Document
from feature_store.rebuilding import rebuild
from feature_store.store import Store


def having(**fields: Any) -> Any:
    def change(document: Document | None) -> Document:
        return {**(document or {}), **fields}

    return change


async def test_a_document_is_read_changed_and_deleted(store: Store) -> None:
    assert await store.people.get("profile", "u:{a}/ä") is None
    await store.people.update("profile", "u:{a}/ä", having(attributes={"age": 30}), "key")
    await store.people.update("profile", "u:{a}/ä", having(loyalty={"tier": "gold"}), "key")
    expected = {"attributes": {"age": 30}, "loyalty": {"tier": "gold"}}
    assert await store.people.get("profile", "u:{a}/ä") == expected
    assert await store.people.count() == 1
    assert await store.people.update("profile", "u:{a}/ä", lambda _: None, "key") is None
    assert await store.people.count() == 0


async def test_many_writers_of_one_person_lose_nothing(store: Store) -> None:
    await asyncio.gather(
        *(store.people.update("profile", "u:x", having(**{f"f{n}": n}), "k") for n in range(20))
    )
    assert await store.people.get("profile", "u:x") == {f"f{n}": n for n in range(20)}


async def test_an_external_id_stands_for_one_user(store: Store) -> None:
    people = store.people
    await people.update("profile", "u:x", having(external_ids={"crm": "1", "mail": "a"}), "k")
    assert await people.resolve("crm", "1") == "x"
    with pytest.raises(ConflictError, match="the crm '1' is another user's"):
        await people.update("profile", "u:y", having(external_ids={"mail": "b", "crm": "1"}), "k")
    assert await people.resolve("mail", "b") is None
    assert await people.get("profile", "u:y") is None
    await people.update("profile", "u:x", having(external_ids={"crm": "2"}), "k")
    assert [await people.resolve(*one) for one in [("crm", "1"), ("crm", "2"), ("mail", "a")]] == [
        None,
        "x",
        None,
    ]


async def test_many_are_written_at_once_and_the_same_again_changes_nothing(store: Store) -> None:
    documents: dict[str, Document | None] = {
        f"u:{n}": {"attributes": {"n": n}, "external_ids": {"crm": str(n // 2)}}
        for n in range(1200)
    }
    changed, refused = await store.people.put_many("profile", documents, "import")
    assert changed == 600
    assert len(refused) == 600
    assert "another user's" in refused["u:1"]
    taken = {person: document for person, document in documents.items() if person not in refused}
    assert await store.people.put_many("profile", taken, "import") == (0, {})
    computed: dict[str, Document | None] = {person: {"stage": "new"} for person in documents}
    assert await store.people.put_many("computed", computed, "training") == (1200, {})
    found = {}
    async for batch in store.people.scan():
        found.update(dict(batch))
    assert len(found) == 1200
    assert found["u:1"] == {"profile": None, "preferences": None, "computed": {"stage": "new"}}
    assert found["u:2"]["profile"] == documents["u:2"]


async def test_a_flushed_server_gets_its_people_back(store: Store, tmp_path: Path) -> None:
    archiver = Archiver(store.streams, EventLog(tmp_path))
    for step in range(3):
        documents: dict[str, Document | None] = {
            f"u:{n}": {"external_ids": {"crm": f"{step}/{n}"}} for n in range(200)
        }
        await store.people.put_many("profile", documents, "import")
        await store.people.update("preferences", "a:v", having(step=step), "me")
        await archiver.run_once()
    await store.people.update("profile", "u:7", lambda _: None, "key")
    await archiver.drain(lambda *_: None)
    before = [batch async for batch in store.people.scan()]
    await store._redis.flushall()
    assert (await rebuild(store.url, tmp_path)).documents == 200
    assert [batch async for batch in store.people.scan()] == before
    assert await store.people.resolve("crm", "2/8") == "8"
    assert await store.people.resolve("crm", "2/7") is None
    assert await store.people.resolve("crm", "1/8") is None
