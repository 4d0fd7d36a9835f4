"""Segments on the command line, beside an embedded server."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.documents import Write
from feature_store.embedded import EmbeddedServer
from feature_store.people import Document
from feature_store.store import Store
from tests.recsvc.commandline import Cli, cli

__all__ = ["cli"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("shop")

    async def fill(url: str) -> None:
        store = await Store.open(url, read_timeout_s=5.0)
        people: dict[str, Document | None] = {
            f"u:user {n}": {"attributes": {"n": n}} for n in range(1200)
        }
        await store.people.put_many("profile", people, "test")
        await store.people.put_many("computed", {"u:user 3": {"stage": "lapsed"}}, "test")
        when = {"field": "user.attributes.n", "op": "lt", "value": 1000}
        body = {"name": "Below a thousand", "when": when}
        await store.documents.write([Write("segment", "below", body)], "test")
        await store.close()

    with EmbeddedServer(folder, fsync="everysec") as server:
        asyncio.run(fill(server.url))
        yield folder


def test_they_are_listed_with_their_members(shop: Path, cli: Cli) -> None:
    listed = cli("segments", "list", "--json", data=shop)
    assert listed.returncode == 0, listed.stderr
    document = json.loads(listed.stdout)
    assert document["n_users"] == 1200
    counts = {one["segment_id"]: one["count"] for one in document["segments"]}
    assert (counts["below"], counts["stage_lapsed"], counts["stage_new"]) == (1000, 1, 0)
    plain = cli("segments", "list", data=shop).stdout
    assert any(line.split()[:2] == ["below", "1,000"] for line in plain.splitlines())


def test_one_is_shown(shop: Path, cli: Cli) -> None:
    shown = json.loads(cli("segments", "show", "below", "--json", data=shop).stdout)
    assert (shown["count"], shown["built_in"]) == (1000, False)
    assert "1,000 of 1,200 users" in cli("segments", "show", "below", data=shop).stdout
    missing = cli("segments", "show", "above", data=shop)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_members_are_lines(shop: Path, cli: Cli) -> None:
    members = cli("segments", "members", "below", data=shop)
    assert members.stderr == "1,000 members\n"
    assert set(members.stdout.splitlines()) == {f"user {n}" for n in range(1000)}
    assert cli("segments", "members", "above", data=shop).returncode == 2
