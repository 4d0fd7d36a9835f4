"""What is forgotten, and who does not consent, stays out of imports."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_store.event_log import EventLog
from feature_store.ingest.events import EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.run import finish_pending, import_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.users import put_profiles
from feature_store.ingest.withholding import store_withholding
from feature_store.store import Store
from tests.feature_store.lives import having, mentions, now


def sales(folder: Path, people: Sequence[str], at: datetime) -> Any:
    path = folder / "sales.csv"
    lines = [f"{person},i{n},{at:%Y-%m-%dT%H:%M:%SZ}" for n, person in enumerate(people)]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    return find_sources(str(path), None)


async def test_an_import_leaves_out_the_forgotten_and_those_without_consent(
    store: Store, tmp_path: Path
) -> None:
    await store.forgetting.erase("u:ann", "test")
    await store.people.update("preferences", "u:bob", having(personalization=False), "bob")
    log, options = EventLog(tmp_path), EventOptions(now=now())
    sources = sales(tmp_path, ["ann", "ann", "bob", "cid"], now() - timedelta(days=1))
    summary = await asyncio.to_thread(
        import_events,
        log,
        sources,
        {},
        options,
        fold=store_fold(store.url, tmp_path / "catalogue"),
        withhold=store_withholding(store.url, "opt_out"),
    )
    assert (summary.accepted, summary.duplicates) == (1, 0)
    assert (summary.forgotten, summary.without_consent) == (2, 1)
    assert log.scan().collect()["user_id"].to_list() == ["cid"]
    assert len((await store.load_state("u:ann")).rows) == 0
    # Who agrees is imported the next time.
    await store.people.update("preferences", "u:bob", lambda _: None, "bob")
    summary = await asyncio.to_thread(
        import_events,
        log,
        sources,
        {},
        options,
        fold=store_fold(store.url, tmp_path / "catalogue"),
        withhold=store_withholding(store.url, "opt_out"),
    )
    assert (summary.accepted, summary.duplicates, summary.forgotten) == (1, 1, 2)


async def test_an_import_that_was_killed_forgets_who_was_erased_since(
    store: Store, tmp_path: Path
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    log, options = EventLog(tmp_path), EventOptions(now=now())
    sources = sales(tmp_path, ["ann", "ann", "bob"], now() - timedelta(days=1))
    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(import_events, log, sources, {}, options, fold=killed)
    await store.forgetting.erase("u:ann", "test")
    fold = store_fold(store.url, tmp_path / "catalogue")
    with log.importing():
        assert len(await asyncio.to_thread(finish_pending, log, fold)) == 1
    assert len((await store.load_state("u:ann")).rows) == 0
    assert len((await store.load_state("u:bob")).rows) == 1


async def test_an_erasure_between_the_reading_and_the_writing_of_an_import(store: Store) -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["ann", "ann"],
            "anonymous_id": pl.Series([None, None], dtype=pl.String),
            "item_id": ["old", "new"],
            "type": ["purchase", "impression"],
            "timestamp": [now() - timedelta(days=1), now() + timedelta(days=1)],
        }
    )
    run, began = store.imports._scripts.run, False

    async def run_after_the_erasure(script: str, calls: Any) -> list[int]:
        nonlocal began
        if not began:
            began = True
            await store.forgetting.erase("u:ann", "test")
        return await run(script, calls)

    store.imports._scripts.run = run_after_the_erasure  # type: ignore[method-assign]
    await store.imports.apply("one", frame, lambda *_: None)
    assert began
    assert len((await store.load_state("u:ann")).rows) == 0
    assert (await store.load_impressions("u:ann")).counts.tolist() == [1]


async def test_an_import_of_users_that_began_before_an_erasure_brings_nobody_back(
    store: Store,
) -> None:
    put = put_profiles(store.url, now())
    profiles: Any = {
        f"u:{name}": {"external_ids": {"crm": f"number of {name}"}}
        for name in ("ann-4711", "bob", "cid")
    }
    await store.forgetting.erase("u:ann-4711", "test")
    await store.forgetting.forget_taste("u:bob", "test")
    refused: dict[str, str] = {}
    assert await asyncio.to_thread(put, iter([profiles]), refused.update) == 2
    assert refused == {}
    assert await mentions(store, "ann-4711") == []
    assert await store.people.get("profile", "u:bob") == profiles["u:bob"]
    # The next one is of somebody new.
    put = put_profiles(store.url, now())
    assert await asyncio.to_thread(put, iter([profiles]), refused.update) == 1
    assert await store.people.get("profile", "u:ann-4711") == profiles["u:ann-4711"]
