"""Erasures as jobs: what a pass does, what it waits for, and what a kill at any moment leaves."""

import asyncio
import contextlib
import json
import random
import secrets
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.exceptions import NoPermissionError

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.decision_log import DecisionLog, DecisionWriter
from feature_store.embedded import EmbeddedServer
from feature_store.errors import ConflictError
from feature_store.event_log import EventLog
from feature_store.forgetting.erasing import work
from feature_store.forgetting.server_files import reset_logs, rewrite_files
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store
from tests.feature_store.test_decision_log import record
from tests.proofs.searching import Needles, search_folder

PROGRAM = (sys.executable, "-m", "feature_store.forgetting.erasing")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker runs here, so there is nothing to let settle."""
    monkeypatch.setattr("feature_store.forgetting.erasing.SETTLE_S", 0.0)
    monkeypatch.setattr("feature_store.forgetting.erasing.LOCK_WAIT_S", 0.1)


def viewed(person: str, number: int = 1, visitor: str | None = None) -> Event:
    return Event(
        event_id=f"{person}-{number}",
        type=EventType.VIEW,
        user_id=person if visitor is None else None,
        anonymous_id=visitor,
        item_id=ItemId("i"),
        timestamp=datetime.now(UTC),
    )


def named(count: int = 1) -> list[str]:
    return [f"canary-{secrets.token_hex(8)}" for _ in range(count)]


async def lived(store: Store, folder: Path, people: list[str]) -> None:
    """Let people leave traces in the archive, in records and on the server."""
    log = EventLog(folder)
    for part in range(2):
        await store.events.append([viewed(one, part) for one in [*people, "other"]])
        await Archiver(store.streams, log).drain(lambda *_: None)
    for one in people:
        await store.people.put_many("profile", {f"u:{one}": {"attributes": {"who": one}}}, "test")
    await Archiver(store.streams, log).drain(lambda *_: None)
    await store.events.append([viewed(one, 7) for one in people])  # waits in the stream
    writer = DecisionWriter(folder / "decisions")
    now_ms = int(time.time() * 1000)
    lines = [orjson.dumps(record(n, now_ms, person=f"u:{one}")) for n, one in enumerate(people)]
    writer.write(lines, now_ms, now_ms / 1000)
    writer.close()


def found(folder: Path, people: list[str]) -> list[Any]:
    return search_folder(folder, Needles(people))


async def on_server(store: Store, people: list[str]) -> list[str]:
    names = [str(name) for name in await store._redis.keys("*")]
    return [name for name in names if any(one in name for one in people)]


async def test_a_pass_takes_all_jobs_together(store: Store, tmp_path: Path) -> None:
    people = named(5)
    await lived(store, tmp_path, people)
    receipts = [await store.erasures.request(f"u:{one}", "test", tmp_path) for one in people]
    assert not await on_server(store, people)
    assert receipts[0]["state"] == "erasing"
    done = await work(store, tmp_path)
    assert sorted(done) == sorted(one["erasure_id"] for one in receipts)
    assert not found(tmp_path, people)
    assert EventLog(tmp_path).count() == 2
    for one in done:
        receipt = await store.erasures.receipt(one)
        assert receipt is not None
        assert receipt["state"] == "done"
        assert receipt["erased"]["decisions"] == 1
        assert receipt["erased"]["archived_events"] == 2
        assert receipt["erased"]["archived_changes"] == 1
    assert not await store._redis.exists(keys.ERASURE_JOBS)
    assert await work(store, tmp_path) == []


async def test_a_pass_waits_for_imports_and_says_so(store: Store, tmp_path: Path) -> None:
    (gone,) = named()
    await lived(store, tmp_path, [gone])
    receipt = await store.erasures.request(f"u:{gone}", "test", tmp_path)
    with EventLog(tmp_path).importing(), pytest.raises(ConflictError):
        await work(store, tmp_path)
    waiting = await store.erasures.receipt(receipt["erasure_id"])
    assert waiting is not None
    assert (waiting["state"], "import" in waiting["error"]) == ("erasing", True)
    await work(store, tmp_path)
    done = await store.erasures.receipt(receipt["erasure_id"])
    assert done is not None
    assert (done["state"], done["error"]) == ("done", None)


async def test_a_pass_is_not_done_while_a_worker_writes_to_a_file_from_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone,) = named()
    await lived(store, tmp_path, [gone])
    now_ms = int(time.time() * 1000)
    stopped, busy = (DecisionWriter(tmp_path / "decisions") for _ in range(2))
    for writer in (stopped, busy):
        writer.write([orjson.dumps(record(1, now_ms, person=f"u:{gone}"))], now_ms, now_ms / 1000)
    await store.erasures.request(f"u:{gone}", "test", tmp_path)

    async def flushing() -> None:
        while True:
            busy.close_if_due(time.time())
            await asyncio.sleep(0.01)

    working = asyncio.create_task(flushing())
    with monkeypatch.context() as patch:
        patch.setattr("feature_store.forgetting.erasing.CLOSE_WAIT_S", 0.3)
        with pytest.raises(ConflictError, match="still writes"):
            await work(store, tmp_path)
    assert found(tmp_path, [gone])
    stopped.close()
    await work(store, tmp_path)
    working.cancel()
    assert not found(tmp_path, [gone])


async def test_events_of_others_that_wait_in_the_stream_lose_the_visitor(
    store: Store, tmp_path: Path
) -> None:
    user, visitor = named(2)
    await store.merger.merge(user, visitor, datetime.now(UTC))
    seen = viewed("other", 3).model_copy(update={"anonymous_id": visitor})
    await store.events.append([seen])
    await store.erasures.request(f"u:{user}", "test", tmp_path)
    await work(store, tmp_path)
    assert not found(tmp_path, [user, visitor])
    left = EventLog(tmp_path).scan().select("user_id", "anonymous_id").collect()
    assert left.rows() == [("other", None)]


async def test_visitors_whom_only_the_log_remembers_are_erased_with_the_user(
    store: Store, tmp_path: Path
) -> None:
    user, visitor = named(2)
    await store.events.append([viewed("x", 1, visitor)])
    await store.merger.merge(user, visitor, datetime.now(UTC))
    await Archiver(store.streams, EventLog(tmp_path)).drain(lambda *_: None)
    await store._redis.delete(keys.merges(f"u:{user}"), keys.link(f"a:{visitor}"))
    await store.erasures.request(f"u:{user}", "test", tmp_path)
    await work(store, tmp_path)
    assert not found(tmp_path, [user, visitor])
    assert not await on_server(store, [user, visitor])
    ledger = await store.forgetting.ledger()
    assert ledger.cut_of(f"a:{visitor}").erased_ms


async def test_who_was_killed_while_asking_is_helped(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone,) = named()
    await lived(store, tmp_path, [gone])

    async def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.erasures, "erase", killed)
        with pytest.raises(KeyboardInterrupt):
            await store.erasures.request(f"u:{gone}", "test", tmp_path)
    assert await on_server(store, [gone])
    assert await work(store, tmp_path) == [], "it may still be at it"
    monkeypatch.setattr("feature_store.forgetting.erasing.ABANDONED_S", 0.0)
    assert len(await work(store, tmp_path)) == 1
    assert not found(tmp_path, [gone])
    assert not await on_server(store, [gone])


async def test_a_pass_that_is_killed_at_any_moment_is_finished_by_the_next(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        people = named(40)
        await lived(store, tmp_path, people)
        receipts = [await store.erasures.request(f"u:{one}", "test", tmp_path) for one in people]
        asked = json.dumps({"url": server.url, "data_dir": str(tmp_path), "leading": True}).encode()
        chance = random.Random(7)
        for _ in range(6):
            # Starting takes about a second, settling two: most are killed in the middle.
            child = await asyncio.create_subprocess_exec(*PROGRAM, stdin=PIPE, stdout=DEVNULL)
            assert child.stdin is not None
            child.stdin.write(asked)
            child.stdin.close()
            await asyncio.sleep(chance.uniform(0.5, 1.6))
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            if not await store.erasures.ids():
                break
        await work(store, tmp_path)
        assert not await store.erasures.ids()
        assert not found(tmp_path, people)
        assert not await on_server(store, people)
        assert EventLog(tmp_path).count() == 2
        assert DecisionLog(tmp_path / "decisions").scan().collect().is_empty()
        for one in receipts:
            receipt = await store.erasures.receipt(one["erasure_id"]) or {}
            files = {"archived_events": 2, "archived_changes": 1, "decisions": 1}
            assert receipt["erased"].items() >= files.items()
        await store.close()


async def test_a_rebuild_finishes_what_waits(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        people = named(3)
        await lived(store, tmp_path, people)
        receipts = [await store.erasures.request(f"u:{one}", "test", tmp_path) for one in people]
        assert found(tmp_path, people)
        await rebuild(server.url, tmp_path, force=True)
        assert not found(tmp_path, people)
        assert not await store.erasures.ids()
        for one in receipts:
            receipt = await store.erasures.receipt(one["erasure_id"])
            assert receipt is not None
            assert (receipt["state"], receipt["server_files"]) == ("done", "rewritten")
        await store.close()


async def test_the_servers_files_are_written_anew_where_it_keeps_some(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        (gone,) = named()
        await store._redis.set("x", gone)
        await store._redis.delete("x")
        assert found(tmp_path / "valkey", [gone])
        assert await rewrite_files(store._redis) == "rewritten"
        assert not found(tmp_path / "valkey", [gone])
        await store._redis.set("x", gone)
        await store._redis.config_set("save", "3600 1")
        await store._redis.bgsave()
        await store._redis.delete("x")
        assert await rewrite_files(store._redis) == "rewritten"
        assert not found(tmp_path / "valkey", [gone])
        # As a server that somebody else runs for us.
        forbidden = ["-bgrewriteaof", "-bgsave", "-config"]
        await store._redis.acl_setuser("default", enabled=True, nopass=True, commands=forbidden)
        assert await rewrite_files(store._redis) == "not allowed"
        all_again = ["+bgrewriteaof", "+bgsave", "+config"]
        await store._redis.acl_setuser("default", enabled=True, nopass=True, commands=all_again)
        # One that the server has begun by itself, before the names were gone, is waited for.
        await store._redis.set("x", gone)
        await store._redis.bgrewriteaof()
        await store._redis.delete("x")
        assert await rewrite_files(store._redis) == "rewritten"
        assert not found(tmp_path / "valkey", [gone])
        await store._redis.config_set("appendonly", "no")
        await store._redis.config_set("save", "")
        assert await rewrite_files(store._redis) == "not kept"
        await store.close()


async def test_the_server_forgets_the_commands_that_it_remembers(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="everysec") as server:
        store = await Store.open(server.url, read_timeout_s=5.0)
        (gone,) = named()
        redis: Any = store._redis
        slow, refused = ("SLOWLOG", "GET", "-1"), ("ACL", "LOG")
        await redis.config_set("slowlog-log-slower-than", "0")
        await redis.set("x", gone)
        await redis.config_set("slowlog-log-slower-than", "-1")
        await redis.acl_setuser("default", enabled=True, nopass=True, reset_keys=True)
        with contextlib.suppress(NoPermissionError):
            await redis.get(gone)
        await redis.acl_setuser("default", enabled=True, nopass=True, keys=["*"])
        for command in (slow, refused):
            assert gone in repr(await redis.execute_command(*command))
        assert await reset_logs(redis) == "reset"
        for command in (slow, refused):
            assert gone not in repr(await redis.execute_command(*command))
        await redis.acl_setuser("default", enabled=True, nopass=True, commands=["-slowlog"])
        assert await reset_logs(redis) == "not allowed"
        await store.close()
