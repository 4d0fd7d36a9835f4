"""A backup is whole or refused, and leads back to the same state."""

import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feature_store.archiver import Archiver
from feature_store.backup import MANIFEST, back_up, check, restore
from feature_store.errors import ArtifactError, ConflictError, UserError
from feature_store.event_log import EventLog
from feature_store.forgetting.deliveries import Deliveries, add_erasures, read_erasures
from feature_store.forgetting.erasing import work
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store
from tests.feature_store.test_rebuilding import fill, snapshot
from tests.proofs.searching import Needles, search_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEM = ItemId("i")


async def test_everything_comes_back_after_the_loss_of_disk_and_server(
    store: Store, tmp_path: Path
) -> None:
    shop, copy, other = tmp_path / "shop", tmp_path / "copy", tmp_path / "other"
    shop.mkdir()
    (shop / "secret").write_text("s" * 32)
    (shop / "secret").chmod(0o600)
    before = await fill(store, shop)
    made = back_up(shop, copy, NOW)
    assert (made.n_events, made.created_at) == (5_001, "2026-01-01T00:00:00Z")
    assert check(copy) == made
    assert not any(path.name.startswith(".") for path in copy.rglob("*"))
    await store._redis.flushall()
    restore(copy, other)
    await rebuild(store.url, other)
    assert await snapshot(store) == before
    assert (other / "secret").stat().st_mode & 0o777 == 0o600
    assert EventLog(other).count() == EventLog(shop).count()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "shop" / "models"
    folder.mkdir(parents=True)
    (folder / "registry.json").write_text("{}")
    (folder / ".lock").touch()
    back_up(tmp_path / "shop", tmp_path / "copy", NOW)
    return tmp_path / "copy"


@pytest.mark.parametrize("harm", ["alter", "remove", "cut the manifest", "no manifest"])
def test_a_damaged_backup_is_refused(copy: Path, tmp_path: Path, harm: str) -> None:
    file = copy / "models" / "registry.json"
    if harm == "alter":
        file.write_text("[]")
    elif harm == "remove":
        file.unlink()
    elif harm == "cut the manifest":
        (copy / MANIFEST).write_bytes((copy / MANIFEST).read_bytes()[:-20])
    else:
        (copy / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"damaged|not a whole backup"):
        check(copy)
    with pytest.raises(ArtifactError):
        restore(copy, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_nothing_that_is_there_is_overwritten(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not empty"):
        back_up(tmp_path / "shop", copy, NOW)
    with pytest.raises(UserError, match=r"holds data \(models\)"):
        restore(copy, tmp_path / "shop")
    (tmp_path / "new").mkdir()
    restore(copy, tmp_path / "new")
    assert (tmp_path / "new" / "models" / "registry.json").read_text() == "{}"


def test_an_import_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_store.backup.LOCK_WAIT_S", 0.1)
    with EventLog(tmp_path).importing(), pytest.raises(ConflictError, match="import"):
        back_up(tmp_path, tmp_path / "copy", NOW)


async def people_of_a_shop(store: Store, shop: Path) -> list[str]:
    """Let two users and a visitor leave traces, archive them, and return the users."""
    users = [f"canary-{secrets.token_hex(8)}" for _ in range(2)]
    now = datetime.now(UTC)
    for user in users:
        seen = [
            Event(event_id="1", type=EventType.VIEW, user_id=user, item_id=ITEM, timestamp=now),
            Event(
                event_id="2",
                type=EventType.VIEW,
                anonymous_id=f"of-{user}",
                item_id=ITEM,
                timestamp=now,
            ),
        ]
        await store.events.append(seen)
        profile = {f"u:{user}": {"a": user}}
        await store.people.put_many("profile", profile, "test")
        await store.merger.merge(user, f"of-{user}", now)
    await Archiver(store.streams, EventLog(shop)).drain(lambda *_: None)
    return users


def stands_in(folder: Path, name: str) -> list[str]:
    return [place.where for place in search_folder(folder, Needles([name]))]


@pytest.mark.parametrize("told", ["the backup", "by a file", "by the folder"])
async def test_a_restore_brings_nobody_back_who_was_erased_since(
    store: Store, tmp_path: Path, told: str
) -> None:
    shop, copy, other = tmp_path / "shop", tmp_path / "copy", tmp_path / "other"
    shop.mkdir()
    gone, stays = await people_of_a_shop(store, shop)
    back_up(shop, copy, NOW)
    assert stands_in(copy, gone)
    await store.erasures.request(f"u:{gone}", "test", shop)
    assert await work(store, shop)
    assert not stands_in(shop, gone)
    if told != "the backup":
        (copy / "erasures.jsonl").unlink()
    if told == "by the folder":
        other.mkdir()
        shutil.copy(shop / "erasures.jsonl", other)
    check(copy)
    await store._redis.flushall()
    restore(copy, other, erasures=shop / "erasures.jsonl" if told == "by a file" else None)
    assert not stands_in(other, gone)
    assert stands_in(other, stays)
    assert not (other / ".restore").exists()
    await rebuild(store.url, other)
    assert not await store._redis.keys(f"*{gone}*")
    assert (await store.load_state(f"u:{stays}")).n_item_facts
    assert await store.people.get("profile", f"u:{gone}") is None
    # What they did before comes too late, in whatever way it comes.
    late = datetime.now(UTC) - timedelta(hours=1)
    event = Event(event_id="3", type=EventType.VIEW, user_id=gone, item_id=ITEM, timestamp=late)
    await store.events.append([event])
    assert not (await store.load_state(f"u:{gone}")).n_item_facts
    assert not (await store.load_state(f"a:of-{gone}")).n_item_facts


async def test_a_server_that_is_lost_takes_no_erasure_with_it(store: Store, tmp_path: Path) -> None:
    gone, stays = await people_of_a_shop(store, tmp_path)
    receipt = await store.erasures.request(f"u:{gone}", "test", tmp_path)
    assert stands_in(tmp_path, gone), "the pass has not begun"
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert not stands_in(tmp_path, gone)
    assert stands_in(tmp_path, stays)
    assert not await store._redis.keys(f"*{gone}*")
    assert await store.erasures.receipt(receipt["erasure_id"]) is None, "it was not archived"


async def test_receipts_come_back(store: Store, tmp_path: Path) -> None:
    gone, _ = await people_of_a_shop(store, tmp_path)
    done = await store.erasures.request(f"u:{gone}", "test", tmp_path)
    await work(store, tmp_path)
    begun = await store.erasures.request("u:nobody-at-all", "test", tmp_path)
    await Archiver(store.streams, EventLog(tmp_path)).drain(lambda *_: None)
    before = await store.erasures.receipt(done["erasure_id"])
    assert before is not None
    assert before["state"] == "done"
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert await store.erasures.receipt(done["erasure_id"]) == before
    other = await store.erasures.receipt(begun["erasure_id"])
    assert other is not None
    assert (other["state"], other["server_files"]) == ("done", "rewritten")


def test_a_file_that_says_nothing_of_erasures_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"user_id": "x"}\n')
    with pytest.raises(UserError, match="no file of erasures"):
        restore(copy, tmp_path / "new", erasures=tmp_path / "wrong.jsonl")
    assert not (tmp_path / "new").exists()


def test_backups_are_told_of_erasures_as_long_as_they_can_be_reached(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "secret").write_text("s" * 32)
    for name in ("one", "two"):
        back_up(shop, tmp_path / name, NOW)
    body = {"before_ms": 5, "erased_ms": 5, "salt": "aa", "shard": "{s01}"}
    entry = {"kind": "forgotten", "person": "d1", "at": "2026-01-01T00:00:00Z", "body": body}
    add_erasures(shop, [entry])
    with (shop / "erasures.jsonl").open("ab") as file:
        file.write(b'{"kind": "forgot')  # a kill cut it off
    add_erasures(shop, [entry | {"person": "d2"}])
    shutil.move(tmp_path / "two", tmp_path / "far away")
    told = Deliveries(shop).tell_backups()
    assert told == {str(tmp_path / "one"): True, str(tmp_path / "two"): False}
    people = [one["person"] for one in read_erasures(tmp_path / "one" / "erasures.jsonl")]
    assert people == ["d1", "d2"]
    written = (tmp_path / "one" / "erasures.jsonl").stat().st_mtime_ns
    Deliveries(shop).tell_backups()
    assert (tmp_path / "one" / "erasures.jsonl").stat().st_mtime_ns == written
    check(tmp_path / "one")
