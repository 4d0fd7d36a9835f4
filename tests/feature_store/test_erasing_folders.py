"""An erasure on several machines, each with files of its own; and counts that a kill keeps."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.event_log import EventLog
from feature_store.forgetting import erasing
from feature_store.forgetting.counting import Counting
from feature_store.forgetting.erasing import clear_own, is_behind, is_due, waiting_here, work
from feature_store.forgetting.folders import Folder, Mark
from feature_store.store import Store
from tests.feature_store.lives import now
from tests.feature_store.test_erasing import at_once, found, lived, named, on_server, viewed
from tests.feature_store.test_merging import Killed

__all__ = ["at_once"]  # a fixture for every test here


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "first", tmp_path / "second"


async def receipt_of(store: Store, erasure_id: str) -> dict[str, Any]:
    receipt = await store.erasures.receipt(erasure_id)
    assert receipt is not None
    return receipt


async def test_it_is_done_when_every_machine_that_is_there_has_searched_its_files(
    store: Store, folders: tuple[Path, Path]
) -> None:
    people = named(3)
    for folder in folders:
        await lived(store, folder, people)
    first, second = folders
    await store.folders.announce(Folder(second))
    ids = [
        (await store.erasures.request(f"u:{one}", "test", first))["erasure_id"] for one in people
    ]
    # Before the leading machine has begun nobody else does.
    assert await waiting_here(store, Folder(second)) == []
    assert await work(store, first) == []
    assert not found(first, people)
    assert found(second, people)
    receipt = await receipt_of(store, ids[0])
    assert (receipt["state"], "not yet gone" in receipt["error"]) == ("erasing", True)
    assert not await is_due(store, Folder(first))
    assert await clear_own(store, second) == 3
    assert not found(second, people)
    assert await clear_own(store, second) == 0
    assert await is_due(store, Folder(first))
    assert sorted(await work(store, first)) == sorted(ids)
    for one in ids:
        receipt = await receipt_of(store, one)
        assert [machine["state"] for machine in receipt["machines"]] == ["cleared"] * 2
        assert (receipt["state"], receipt["error"]) == ("done", None)
        # What stood in both is counted in both.
        assert receipt["erased"]["decisions"] == 2
    assert not await store._redis.exists(keys.ERASURE_CLEARED, keys.ERASURE_JOBS)
    assert not await on_server(store, people)


async def test_a_machine_that_was_away_does_it_when_it_is_back(
    store: Store, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = folders
    gone, later = named(2)
    for folder in folders:
        await lived(store, folder, [gone, later])
        await store.folders.announce(Folder(folder))
        assert not await is_behind(store, Folder(folder))
    monkeypatch.setattr("feature_store.forgetting.folders.LIVE_S", -1.0)
    receipt = await store.erasures.request(f"u:{gone}", "test", first)
    assert await work(store, first)
    receipt = await receipt_of(store, receipt["erasure_id"])
    states = {machine["state"] for machine in receipt["machines"]}
    assert (receipt["state"], states) == ("done", {"cleared", "away"})
    assert not found(first, [gone])
    assert not await is_behind(store, Folder(first))
    # It is back, and somebody else is being erased just then.
    monkeypatch.undo()
    monkeypatch.setattr("feature_store.forgetting.erasing.SETTLE_S", 0.0)
    await store.folders.announce(Folder(second))
    await store.erasures.request(f"u:{later}", "test", first)
    await work(store, first)
    assert await is_behind(store, Folder(second))
    await clear_own(store, second)
    assert not found(second, [gone, later])
    assert not await is_behind(store, Folder(second))
    assert len(await work(store, first)) == 1


async def test_a_visitor_whom_only_one_machine_knows_is_searched_for_on_all(
    store: Store, folders: tuple[Path, Path]
) -> None:
    first, second = folders
    user, visitor = named(2)
    await store.events.append([viewed("x", 1, visitor)])
    await Archiver(store.streams, EventLog(first)).run_all()
    await store.merger.merge(user, visitor, now())
    await Archiver(store.streams, EventLog(second)).run_all()
    await store._redis.delete(keys.merges(f"u:{user}"), keys.link(f"a:{visitor}"))
    await store.folders.announce(Folder(second))
    await store.erasures.request(f"u:{user}", "test", first)
    assert await work(store, first) == []
    assert await clear_own(store, second) == 1
    assert found(first, [visitor])
    assert len(await work(store, first)) == 1
    assert not found(first, [visitor])
    assert not found(second, [user, visitor])


def test_a_copy_of_a_folder_is_another_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "one")
    folder.cleared(7, {"a": 9, "b": 5})
    assert folder.mark() == Mark(7, {"a": 9})
    again = Folder(tmp_path / "one")
    assert (again.folder_id, again.mark()) == (folder.folder_id, folder.mark())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copy = Folder(tmp_path / "two")
    assert copy.folder_id != folder.folder_id
    assert copy.mark() == Mark()


async def test_who_is_erased_while_a_pass_is_at_work_is_counted_by_the_next(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = named(3)
    await lived(store, tmp_path, people)
    ids = [(await store.erasures.request(f"u:{people[0]}", "test", tmp_path))["erasure_id"]]
    with_visitors = erasing._with_visitors

    async def meanwhile(*given: Any) -> Any:
        if len(ids) < len(people):
            one = people[len(ids)]
            ids.append((await store.erasures.request(f"u:{one}", "test", tmp_path))["erasure_id"])
        return await with_visitors(*given)

    monkeypatch.setattr(erasing, "_with_visitors", meanwhile)
    for at in range(3):
        assert await work(store, tmp_path) == ids[at : at + 1]
        assert not await is_behind(store, Folder(tmp_path))
    # The first pass archives what of the others waits in the stream.
    for one, n_archived in zip(ids, (2, 3, 3), strict=True):
        erased = (await receipt_of(store, one))["erased"]
        assert (erased["archived_events"], erased["decisions"]) == (n_archived, 1)
    assert not found(tmp_path, people)


# --- killed in the middle -------------------------------------------------------------------------


def kills(counting: type[Counting], monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Kill a pass before, and then after, it writes down what it is about to remove; each time."""
    real = counting.will_remove
    for at in range(1_000):
        for before in (True, False):
            calls, died = 0, False

            def dying(
                self: Counting, step: str, counts: Any, at: int = at, before: bool = before
            ) -> None:
                nonlocal calls, died
                calls += 1
                if calls - 1 == at:
                    died = True
                    if not before:
                        real(self, step, counts)
                    raise Killed
                real(self, step, counts)

            monkeypatch.setattr(counting, "will_remove", dying)
            yield True
            if not died:
                monkeypatch.setattr(counting, "will_remove", real)
                return


async def test_counts_are_right_wherever_a_pass_is_killed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = named(2)
    await lived(store, tmp_path, people)
    ids = [
        (await store.erasures.request(f"u:{one}", "test", tmp_path))["erasure_id"] for one in people
    ]
    deaths = 0
    for _ in kills(Counting, monkeypatch):
        try:
            await work(store, tmp_path)
        except Killed:
            deaths += 1
    assert deaths
    for one in ids:
        receipt = await receipt_of(store, one)
        assert receipt["state"] == "done"
        files = {"archived_events": 2, "archived_changes": 1, "decisions": 1}
        assert receipt["erased"].items() >= files.items()
    assert not found(tmp_path, people)


@pytest.mark.parametrize("at", range(14))
async def test_counts_are_right_wherever_the_first_part_is_killed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    user, visitor = (secrets.token_hex(8) for _ in range(2))
    await lived(store, tmp_path, [user])
    await store.events.append([viewed("x", 1, visitor)])
    await store.merger.merge(user, visitor, now())
    run, calls = store.forgetting._scripts.run, 0

    async def dying(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 == at // 2 and at % 2 == 0:
            raise Killed
        done = await run(*given)
        if calls - 1 == at // 2:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(store.forgetting._scripts, "run", dying)
        with contextlib.suppress(Killed):
            await store.erasures.request(f"u:{user}", "test", tmp_path)
    monkeypatch.setattr("feature_store.forgetting.erasing.ABANDONED_S", 0.0)
    (erasure_id,) = await store.erasures.ids()
    assert await work(store, tmp_path) == [erasure_id]
    receipt = await receipt_of(store, erasure_id)
    server = {"state": 1, "profile": 1, "event_ids": 4, "merges": 1, "link": 1}
    assert {kind: receipt["erased"].get(kind) for kind in server} == server
    assert not found(tmp_path, [user, visitor])
    assert not await on_server(store, [user, visitor])
