"""What a training computed of customers: in the store, in what it says, and gone when it must."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from recsvc.commands.customers import store_computed
from tests.recsvc.commandline import HEADER, Cli, cli, shop

NOW = datetime(2026, 11, 1, tzinfo=UTC)

__all__ = ["cli", "shop"]


@pytest.fixture
async def store(shop: EmbeddedServer) -> AsyncIterator[Store]:
    opened = await Store.open(shop.url, read_timeout_s=5.0)
    yield opened
    await opened.close()


def frame(**people: Any) -> pl.DataFrame:
    texts = [json.dumps(document) for document in people.values()]
    return pl.DataFrame(
        {"person": [f"u:{name}" for name in people], "computed": texts},
        schema={"person": pl.String, "computed": pl.String},
    )


async def computed(store: Store) -> dict[str, Any]:
    return {
        person: documents["computed"]
        async for batch in store.people.scan(("computed",))
        for person, documents in batch
        if documents["computed"] is not None
    }


async def test_only_what_changed_is_written_and_who_left_is_removed(store: Store) -> None:
    first = frame(a={"stage": "new"}, b={"stage": "active"}, c={"stage": "lapsed"})
    heard: list[tuple[int, int]] = []
    told = await store_computed(store, first, NOW, lambda done, total: heard.append((done, total)))
    assert told == (3, 0)
    assert heard[-1] == (3, 3)
    assert await store_computed(store, first, NOW) == (0, 0)
    second = frame(a={"stage": "new"}, b={"stage": "at_risk"}, d={"stage": "new"})
    assert await store_computed(store, second, NOW) == (2, 1)
    assert await computed(store) == {
        "u:a": {"stage": "new"}, "u:b": {"stage": "at_risk"}, "u:d": {"stage": "new"}
    }  # fmt: skip
    assert await store_computed(store, frame(), NOW) == (0, 3)
    assert await store.people.count() == 0


@pytest.mark.parametrize("said", [{"personalization": False}, {"consent": {"profiling": False}}])
async def test_who_does_not_want_a_profile_has_none(store: Store, said: dict[str, Any]) -> None:
    people = frame(a={"stage": "new"}, b={"stage": "active"})
    await store_computed(store, people, NOW)
    await store.people.update("preferences", "u:a", lambda _: said, "test")
    assert await store_computed(store, people, NOW) == (0, 1)
    assert await computed(store) == {"u:b": {"stage": "active"}}
    # What they said stays.
    assert await store.people.get("preferences", "u:a") == said
    await store.people.update("preferences", "u:a", lambda _: {"personalization": True}, "test")
    assert await store_computed(store, people, NOW) == (1, 0)


async def test_who_was_forgotten_during_a_training_gets_nothing_of_it(store: Store) -> None:
    people = frame(a={"stage": "new"}, b={"stage": "active"})
    began = datetime.now(UTC)
    await store.forgetting.erase("u:a", "test")
    assert await store_computed(store, people, began) == (1, 0)
    assert await computed(store) == {"u:b": {"stage": "active"}}
    await store.forgetting.forget_taste("u:b", "test")
    assert await computed(store) == {}
    assert await store_computed(store, people, began) == (0, 0)
    assert await store_computed(store, people, datetime.now(UTC) + timedelta(seconds=1)) == (2, 0)


def bought(days: int) -> str:
    day = datetime.now(UTC) - timedelta(days=days)
    return f"{day:%Y-%m-%dT12:00:00Z}"


@pytest.fixture
def purchases(tmp_path: Path) -> Path:
    lines = [f"p{n},i{n % 3},{bought(day)}" for n in range(5) for day in (2 + n, 20)]
    path = tmp_path / "purchases.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def stored(url: str) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        opened = await Store.open(url, read_timeout_s=5.0)
        try:
            return await computed(opened)
        finally:
            await opened.close()

    return asyncio.run(read())


def test_train_stores_and_tells(cli: Cli, shop: EmbeddedServer, purchases: Path) -> None:
    imported = cli("import", "events", purchases)
    assert imported.returncode == 0, imported.stderr
    skipped = cli("train", "--no-customers")
    assert skipped.returncode == 0, skipped.stderr
    assert "customers who bought" not in skipped.stdout
    assert "5 customers who bought" in cli("train", "--no-publish").stdout
    assert stored(shop.url) == {}, "neither of them shall show anything"
    done = cli("train")
    assert done.returncode == 0, done.stderr
    assert "5 customers who bought" in done.stdout
    assert "none: too few customers came back" in done.stdout
    found = stored(shop.url)
    assert set(found) == {f"u:p{n}" for n in range(5)}
    assert found["u:p0"]["stage"] == "new"
    assert found["u:p0"]["rfm"]["frequency"] == 2
    told = json.loads(cli("train", "--json").stdout)
    assert told["customers"]["stages"]["new"] == 5
    assert stored(shop.url) == found, "the same events give the same values"


def test_train_without_a_server_ever_says_that_nothing_is_stored(cli: Cli, tmp_path: Path) -> None:
    done = cli("train")
    assert done.returncode == 0, done.stderr
    assert "there has never been a server here" in done.stderr
    assert not (tmp_path / "data" / "valkey").exists()
