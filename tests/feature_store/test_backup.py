"""A backup is whole or refused, and leads back to the same state."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_store.backup import MANIFEST, back_up, check, restore
from feature_store.errors import ArtifactError, ConflictError, UserError
from feature_store.event_log import EventLog
from feature_store.rebuilding import rebuild
from feature_store.store import Store
from tests.feature_store.test_rebuilding import fill, snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)


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
