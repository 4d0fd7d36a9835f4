"""Documents of the site: written as a whole, never over each other, in a chain of hashes."""

import asyncio
from pathlib import Path

import pytest

from feature_store.archiver import Archiver
from feature_store.change_log import ChangeLog
from feature_store.documents import NAME, SiteDocuments, Write, verify_chain
from feature_store.errors import ConflictError, StaleRevisionError
from feature_store.event_log import EventLog
from feature_store.rebuilding import rebuild
from feature_store.store import Store


async def test_a_document_is_made_changed_deleted_and_made_again(store: Store) -> None:
    site, (made,) = await store.documents.write([Write("rule", "r/1", {"a": 1}, 0)], "anna")
    assert (made.revision, made.body, made.updated_by, site.sequence) == (1, {"a": 1}, "anna", 1)
    _, (changed,) = await store.documents.write([Write("rule", "r/1", {"a": 2}, 1)], "ben")
    assert changed.revision == 2
    with pytest.raises(StaleRevisionError, match="at revision 2, not 1"):
        await store.documents.write([Write("rule", "r/1", {"a": 3}, 1)], "anna")
    await store.documents.write([Write("rule", "r/1", None, 2)], "ben")
    found = await store.documents.snapshot()
    assert found.get("rule", "r/1") is None
    assert found.of_kind("rule") == []
    assert found.sequence == 3
    # The number of the revision is not used again: an old If-Match cannot fit a new document.
    _, (again,) = await store.documents.write([Write("rule", "r/1", {"a": 4}, 0)], "ben")
    assert again.revision == 4


async def test_of_many_documents_all_are_written_or_none(store: Store) -> None:
    await store.documents.write([Write("rule", "a", {})], "anna")
    with pytest.raises(StaleRevisionError):
        await store.documents.write([Write("rule", "b", {}), Write("rule", "a", {}, 7)], "anna")
    assert [one.id for one in (await store.documents.snapshot()).of_kind("rule")] == ["a"]
    site, _ = await store.documents.write([Write("rule", "b", {}), Write("rule", "c", {})], "anna")
    assert site.sequence == 2
    assert site == await store.documents.snapshot()
    assert SiteDocuments.from_json(site.as_json()) == site


async def test_writers_at_the_same_time_lose_nothing(store: Store) -> None:
    def plus_one(site: SiteDocuments) -> list[Write]:
        known = site.get("counter", "c")
        n = 0 if known is None or known.body is None else known.body["n"]
        return [Write("counter", "c", {"n": n + 1})]

    others = [await Store.open(store.url, read_timeout_s=5.0) for _ in range(3)]
    await asyncio.gather(
        *(one.documents.change(plus_one, "w") for one in [store, *others] for _ in range(4))
    )
    found = (await store.documents.snapshot()).get("counter", "c")
    assert found is not None
    assert found.body == {"n": 16}
    for other in others:
        await other.close()


async def test_the_context_says_that_the_site_changed(store: Store) -> None:
    assert (await store.load_context(None)).site_sequence == 0
    await store.documents.write([Write("rule", "a", {})], "anna")
    assert (await store.load_context(None)).site_sequence == 1
    assert (await store.load_context("u:x")).site_sequence == 1
    assert (await store.load_context("a:x")).site_sequence == 1


async def test_a_flushed_server_gets_its_documents_back(store: Store, tmp_path: Path) -> None:
    archiver = Archiver(store.streams, EventLog(tmp_path))
    for number in range(80):
        await store.documents.write([Write("rule", f"r{number % 7}", {"n": number})], "anna", "why")
        if number % 2:
            await archiver.run_once()
    await archiver.drain(lambda *_: None)
    before = await store.documents.snapshot()
    assert await store.documents.waiting() == []
    assert len(ChangeLog(tmp_path).files(NAME)) <= 33
    await store._redis.flushall()
    assert (await rebuild(store.url, tmp_path)).documents == 7
    assert await store.documents.snapshot() == before
    entries = [change.body for change in ChangeLog(tmp_path).read(NAME)]
    assert verify_chain(entries) == 80


@pytest.mark.parametrize("at", [0, 3, 6])
async def test_the_chain_shows_what_was_tampered_with(store: Store, at: int) -> None:
    for number in range(7):
        await store.documents.write([Write("rule", "r", {"n": number})], "anna")
    entries = await store.documents.waiting()
    assert verify_chain(entries) == 7
    altered = [dict(entry) for entry in entries]
    altered[at]["by"] = "mallory"
    with pytest.raises(ConflictError, match=rf"change {at + 1} .* was altered"):
        verify_chain(altered)
    if at < 6:
        with pytest.raises(ConflictError, match="was removed"):
            verify_chain(entries[:at] + entries[at + 1 :])
