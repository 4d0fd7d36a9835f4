"""The store on a Redis Cluster of three real servers: the same as on one, whoever has the shard."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.cluster import ClusterUrl, first_key, parse_cluster_url, slot_of
from feature_store.cluster_reader import ClusterReader
from feature_store.documents import Write
from feature_store.embedded import EmbeddedServer
from feature_store.errors import StoreUnavailableError
from feature_store.event_log import EventLog
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store
from tests.feature_store.cluster import N_NODES, Cluster
from tests.feature_store.lives import did, live, mentions
from tests.feature_store.test_rebuilding import fill, snapshot

NOW = datetime.now(UTC).replace(microsecond=0)
TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[Store]:
    await cluster.empty()
    opened = await Store.open(cluster.url, TIMEOUT_S)
    yield opened
    await opened.close()


def bought(person: str, number: int, **fields: object) -> Event:
    return Event.model_validate(
        {
            "event_id": f"{person}-{number}",
            "type": EventType.PURCHASE,
            "user_id": person,
            "item_id": ItemId(f"i{number}"),
            "timestamp": NOW,
            **fields,
        }
    )


async def people_by_node(cluster: Cluster) -> list[str]:
    """Return one user for each node."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < N_NODES:
        user = f"user {number}"
        found.setdefault(await cluster.node_of(keys.hot(f"u:{user}")), user)
        number += 1
    return [found[node] for node in range(N_NODES)]


async def test_what_is_written_is_read_from_whichever_node(store: Store, cluster: Cluster) -> None:
    users = [f"user {number}" for number in range(60)]
    events = [bought(user, number % 7) for number, user in enumerate(users)]
    assert (await store.events.append(events)).accepted == 60
    again = await store.events.append(events)
    assert (again.accepted, again.duplicates) == (0, 60)
    nodes = {await cluster.node_of(keys.hot(f"u:{user}")) for user in users}
    assert len(nodes) == N_NODES
    contexts = await asyncio.gather(*(store.load_context(f"u:{user}") for user in users))
    assert [len(context.state.rows) for context in contexts] == [1] * 60
    assert {context.catalogue_sequence for context in contexts} == {7}
    assert len((await store.load_context(None)).state.rows) == 0
    assert len((await store.load_state("u:user 3")).rows) == 1


async def test_many_writers_lose_nothing_and_read_their_own_writes(
    store: Store, cluster: Cluster
) -> None:
    other = await Store.open(cluster.url, TIMEOUT_S)

    async def write(by: Store, start: int) -> None:
        for number in range(start, start + 20):
            await by.events.append([bought("many", number)])
            state = (await (store if by is other else other).load_context("u:many")).state
            rows = await by.catalogue.rows_of([f"i{number}"])
            assert rows[0] in state.rows.tolist()

    await asyncio.gather(*(write(by, 20 * n) for n, by in enumerate([store, other, store, other])))
    assert len((await store.load_state("u:many")).rows) == 80
    await other.close()


async def test_a_merge_crosses_nodes(store: Store, cluster: Cluster) -> None:
    first, second, _ = await people_by_node(cluster)
    number = 0
    while await cluster.node_of(keys.hot(f"a:visitor {number}")) == await cluster.node_of(
        keys.hot(f"u:{first}")
    ):
        number += 1
    visitor = f"visitor {number}"
    seen = [bought(visitor, n, user_id=None, anonymous_id=visitor) for n in range(3)]
    await store.events.append(seen)
    await store.events.append([bought(first, 7)])
    assert await store.merger.merge(first, visitor, NOW)
    assert not await store.merger.merge(first, visitor, NOW)
    assert len((await store.load_context(f"a:{visitor}")).state.rows) == 4
    assert (await store.events.append(seen)).duplicates == 3
    assert len((await store.load_state(f"u:{second}")).rows) == 0


async def test_forgetting_crosses_nodes(store: Store, cluster: Cluster) -> None:
    first, second, _ = await people_by_node(cluster)
    number = 0
    while await cluster.node_of(keys.hot(f"a:guest {number}")) == await cluster.node_of(
        keys.hot(f"u:{first}")
    ):
        number += 1
    guest = f"guest {number}"
    await live(store, first, guest)
    await live(store, second, "somebody else")
    late = [did(1, user=first), did(2, visitor=guest)]
    erased = await store.forgetting.erase(f"u:{first}", "test")
    assert erased.people == (f"u:{first}", f"a:{guest}")
    await store.forgetting.forget_streams(erased.people)
    assert await store.forgetting.forget_markers(erased.people) == 2
    assert await mentions(store, f"u:{first}", guest) == []
    assert (await store.events.append(late)).withheld == 2
    assert len((await store.load_state(f"u:{second}")).rows) > 0
    assert await store.forgetting.forget_taste(f"u:{second}", "test") > 0
    assert len((await store.load_state(f"u:{second}")).rows) == 0
    assert await store.refusing([f"u:{first}", f"u:{second}", f"a:{guest}"]) == set()
    assert len((await store.forgetting.ledger()).cuts) == 4


async def test_documents_people_and_quotas(store: Store) -> None:
    written, _ = await store.documents.write([Write("placement", "home", {"x": 1})], by="me")
    assert await store.documents.snapshot() == written
    assert (await store.load_context(None)).site_sequence == written.sequence == 1
    chosen = {f"u:user {n}": {"hidden_brands": [f"b{n}"]} for n in range(40)}
    await store.people.put_many("preferences", chosen, "me")
    context = await store.load_context("u:user 7")
    assert "b7" in context.preferences.hidden_brands
    found = {person async for batch in store.people.scan(["preferences"]) for person, _ in batch}
    assert found == set(chosen)
    await store.quota.take({f"a:{n}": 1 for n in range(20)}, 5, NOW.timestamp())


async def test_import_archive_and_rebuild_give_the_bytes_of_one_server(
    store: Store, cluster: Cluster, tmp_path: Path
) -> None:
    for folder in ("one", "many"):
        (tmp_path / folder).mkdir()
    with EmbeddedServer(tmp_path / "server", fsync="everysec") as server:
        single = await Store.open(server.url, TIMEOUT_S)
        on_one = await fill(single, tmp_path / "one")
        await single.close()
    on_many = await fill(store, tmp_path / "many")
    assert on_many == on_one
    await cluster.empty()
    done = await rebuild(cluster.url, tmp_path / "many")
    assert (done.events, done.keys, done.visitors) == (5_000, 3, 1)
    assert await snapshot(store) == on_many
    await rebuild(cluster.url, tmp_path / "many", force=True)
    assert await snapshot(store) == on_many
    assert EventLog(tmp_path / "many").count() == EventLog(tmp_path / "one").count()


async def test_a_slot_that_moves_is_followed(store: Store, cluster: Cluster) -> None:
    user, home = "moving", await cluster.node_of(keys.hot("u:moving"))
    away = (home + 1) % N_NODES
    await store.load_context(f"u:{user}")
    await store.events.append([bought("somebody else", 1)])
    try:
        await cluster.move(keys.hot(f"u:{user}"), away)
        contexts = await asyncio.gather(*(store.load_context(f"u:{user}") for _ in range(20)))
        assert all(len(context.state.rows) == 0 for context in contexts)
        await store.events.append([bought(user, 1), bought("somebody else", 2)])
        assert len((await store.load_context(f"u:{user}")).state.rows) == 1
        # A transaction: the keys live in one slot, wherever it is.
        other = await Store.open(cluster.url, TIMEOUT_S)
        assert len((await other.load_state(f"u:{user}")).rows) == 1
        await other.close()
    finally:
        await cluster.empty()
        await cluster.move(keys.hot(f"u:{user}"), home)


async def test_a_transaction_follows_its_slot(store: Store, cluster: Cluster) -> None:
    home = await cluster.node_of(keys.EPOCH)
    assert await store.streams.epoch() is not None
    try:
        await cluster.empty()
        await cluster.move(keys.EPOCH, (home + 1) % N_NODES)
        assert await store.streams.epoch() is not None
    finally:
        await cluster.empty()
        await cluster.move(keys.EPOCH, home)


async def test_a_node_that_hangs_fails_its_own_people_only(cluster: Cluster) -> None:
    await cluster.empty()
    users = await people_by_node(cluster)
    needed = {await cluster.node_of(key) for key in (keys.CATALOGUE_SEQUENCE, keys.SITE_HEAD)}
    assert len(needed) < N_NODES, "the tags leave a node that only people need"
    (victim, *_) = set(range(N_NODES)) - needed
    store = await Store.open(cluster.url, 1.5)
    await store.events.append([bought(user, 1) for user in users])
    cluster.pause(victim)
    try:
        for node, user in enumerate(users):
            if node == victim:
                with pytest.raises(StoreUnavailableError):
                    await store.load_context(f"u:{user}")
            else:
                context = await store.load_context(f"u:{user}")
                assert len(context.state.rows) == 1
                assert (await store.events.append([bought(user, 2)])).accepted == 1
        await store.ping()
    finally:
        cluster.resume(victim)
    async with asyncio.timeout(60):
        while True:
            try:
                assert len((await store.load_context(f"u:{users[victim]}")).state.rows) == 1
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.1)
    await store.close()


async def test_one_write_to_each_node_and_turn(store: Store, cluster: Cluster) -> None:
    """Reads that come together travel together: one MGET for each slot, however many ask."""
    reader = ClusterReader(parse_cluster_url(cluster.url), TIMEOUT_S)
    people = [f"u:user {n}" for n in range(300)]
    wanted = [(keys.hot(person), keys.CATALOGUE_SEQUENCE) for person in people]
    await asyncio.gather(*(reader.get(names) for names in wanted))

    async def calls() -> int:
        total = 0
        for at in range(N_NODES):
            async with cluster.client(at) as client:
                stats = await client.info("commandstats")
                total += int(stats.get("cmdstat_mget", {"calls": 0})["calls"])
        return total

    before = await calls()
    await asyncio.gather(*(reader.get(names) for names in wanted))
    slots = {slot_of(name) for names in wanted for name in names}
    assert await calls() - before == len(slots) <= keys.N_SHARDS + 1
    assert await reader.get([]) == []
    await reader.close()


async def test_workers_hear_of_each_other(store: Store, cluster: Cluster) -> None:
    other = await Store.open(cluster.url, TIMEOUT_S)
    calls = aiter(store.workers.calls())
    heard = asyncio.ensure_future(anext(calls))
    await other.workers.announce("w1", 7)
    assert [(one.worker, one.sequence) for one in await store.workers.all()] == [("w1", 7)]
    async with asyncio.timeout(60):
        while not heard.done():
            await other.workers.call()
            await asyncio.sleep(0.05)
    await heard
    await calls.aclose()  # type: ignore[attr-defined]  # it is a generator
    await other.close()


async def test_archiving_goes_on_over_all_nodes(store: Store, tmp_path: Path) -> None:
    await store.events.append([bought(f"user {n}", n % 5) for n in range(100)])
    archiver = Archiver(store.streams, EventLog(tmp_path))
    await archiver.drain(lambda *_: None)
    assert await store.streams.length() == 0
    assert EventLog(tmp_path).count() == 100


# --- how a cluster is named ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("redis+cluster://a:1,b:2", ClusterUrl((("a", 1), ("b", 2)), None, None, tls=False)),
        ("redis+cluster://a", ClusterUrl((("a", 6379),), None, None, tls=False)),
        ("rediss+cluster://u:p%40@a:1/", ClusterUrl((("a", 1),), "u", "p@", tls=True)),
        ("redis+cluster://:p@[::1]:7", ClusterUrl((("::1", 7),), None, "p", tls=False)),
    ],
)
def test_urls(url: str, parsed: ClusterUrl) -> None:
    assert parse_cluster_url(url) == parsed


@pytest.mark.parametrize("url", ["a:1/0", "", ",", "a:x", "a:1,,b:2", "a:1/3"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="redis\\+cluster://10"):
        parse_cluster_url(f"redis+cluster://{url}")


async def test_a_cluster_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(StoreUnavailableError, match=r"no answer from redis\+cluster://127"):
        await Store.open("redis+cluster://127.0.0.1:1")


async def test_a_server_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    reader = ClusterReader(parse_cluster_url("redis+cluster://127.0.0.1:1"), 0.1)
    with pytest.raises(StoreUnavailableError, match="no connection to the cluster"):
        await reader.get(["x"])
    await reader.close()


def test_every_key_of_one_person_is_in_one_slot() -> None:
    names = [keys.hot("u:x"), keys.rest("u:x"), keys.link("u:x"), keys.events(keys.shard_of("u:x"))]
    assert len({slot_of(name) for name in names}) == 1
    assert first_key(("EVALSHA", "sha", 2, "k1", "k2", "argument")) == "k1"
    assert first_key(("MGET", "k1", "k2")) == "k1"
    assert first_key(("TIME",)) is None


async def test_all_that_is_held_of_somebody_is_read_from_every_node(store: Store) -> None:
    user, visitor = "u:held 1", "a:visitor of held 1"
    seen = bought("held 1", 2, user_id=None, anonymous_id="visitor of held 1")
    await store.events.append([bought("held 1", 1), seen])
    profile = {"external_ids": {"one": "1", "two": "2"}}
    await store.people.update("profile", user, lambda _: profile, "test")
    await store.merger.merge("held 1", "visitor of held 1", datetime.now(UTC))
    waiting = await store.holdings.waiting_events("held 1", ())
    assert sorted(event["type"] for event in waiting.events) == ["merge", "purchase", "purchase"]
    assert waiting.visitors == {"visitor of held 1"}
    held = await store.holdings.read(user, ["no import"])
    assert held.external_ids == (("one", "1"), ("two", "2"))
    assert held.state.counts.tolist() == [1, 1]
    assert (held.documents["profile"], held.indexed) == (profile, True)
    assert list(held.visitors) == [visitor]
    assert await store.holdings.user_of(visitor) == user
    changes = await store.holdings.waiting_changes([user, visitor])
    assert [change["kind"] for change in changes] == ["profile"]
