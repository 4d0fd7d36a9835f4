"""Forgetting people: everything of theirs is gone, stays gone, and they may come back as new."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.change_log import ChangeLog
from feature_store.event_log import EventLog
from feature_store.forgetting.ledger import (
    Cut,
    Ledger,
    digest_of,
    epoch_ms,
    ledger_of,
    read_cut,
    read_ledger,
)
from feature_store.rebuilding import rebuild
from feature_store.schema import EventType
from feature_store.store import Store
from tests.feature_store.lives import did, having, live, mentions, now
from tests.feature_store.test_merging import Killed, dying
from tests.feature_store.test_rebuilding import snapshot

SALT = b"a salt of sixteen"


# --- who is forgotten -----------------------------------------------------------------------------


def test_people_are_known_by_keyed_digests() -> None:
    cut = Cut(50, 40)
    ledger = Ledger((SALT, b"an older one"), {digest_of(b"an older one", "u:ann"): cut})
    assert ledger.cut_of("u:ann") == cut
    assert ledger.cut_of("a:ann") == ledger.cut_of("u:bob") == Cut()
    assert digest_of(SALT, "u:ann") != digest_of(b"an older one", "u:ann")
    assert ledger
    assert not Ledger()
    assert Ledger().cut_of("u:ann") == Cut()


WHO = st.sampled_from(["ann", "bob", "v", "w", None])
ROWS = st.lists(
    st.tuples(WHO, WHO, st.integers(0, 9), st.sampled_from(["view", "merge"])).filter(
        lambda row: row[0] is not None or row[1] is not None
    ),
    max_size=20,
)
CUTS = st.dictionaries(
    st.sampled_from(["u:ann", "u:bob", "u:v", "a:v", "a:w", "a:bob"]),
    st.tuples(st.integers(0, 10), st.integers(0, 10)),
)


@given(rows=ROWS, cuts=CUTS)
def test_what_is_kept_of_a_log(
    rows: list[tuple[str | None, str | None, int, str]], cuts: dict[str, tuple[int, int]]
) -> None:
    ledger = Ledger((SALT,), {digest_of(SALT, one): Cut(*cut) for one, cut in cuts.items()})

    def stays(user: str | None, visitor: str | None, at_ms: int, kind: str) -> bool:
        if kind == "merge":
            return all(
                at_ms >= ledger.cut_of(one).erased_ms for one in (f"u:{user}", f"a:{visitor}")
            )
        person = f"u:{user}" if user is not None else f"a:{visitor}"
        return at_ms >= ledger.cut_of(person).before_ms

    moments = [datetime.fromtimestamp(at_ms / 1000, UTC) for _, _, at_ms, _ in rows]
    log = pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "anonymous_id": [row[1] for row in rows],
            "type": [row[3] for row in rows],
            "timestamp": pl.Series(moments, dtype=pl.Datetime("ms", "UTC")),
            "n": range(len(rows)),
        }
    )
    expected = [n for n, row in enumerate(rows) if stays(*row)]
    assert ledger.kept(log)["n"].to_list() == expected
    assert ledger.kept_of(log.lazy()).collect().columns == log.columns
    if not any(cuts.values()):
        assert ledger.kept(log).equals(log)


# --- erasure --------------------------------------------------------------------------------------


async def test_nothing_on_the_server_mentions_who_was_erased(store: Store) -> None:
    await live(store, "ann-77131", "anon-40417")
    await live(store, "bob-55501", "anon-99281")
    assert len(await mentions(store, "ann-77131", "anon-40417")) > 10
    others = await mentions(store, "bob-55501", "anon-99281")
    erased = await store.forgetting.erase("u:ann-77131", "test")
    assert erased.people == ("u:ann-77131", "a:anon-40417")
    assert erased.counts["state"] == erased.counts["profile"] == erased.counts["computed"] == 1
    assert erased.counts["event_ids"] == 9
    left = await mentions(store, "ann-77131", "anon-40417")
    assert {name[:2] for name in left} <= {b"e:", b"g:", b"i:"}
    n_entries = await store.forgetting.forget_streams(erased.people)
    assert n_entries == 9 + 1 + 5  # events, the merge, documents
    assert await store.forgetting.forget_markers(erased.people) == 2
    assert await mentions(store, "ann-77131", "anon-40417") == []
    assert sorted(await mentions(store, "bob-55501", "anon-99281")) == sorted(others)
    # Again: nothing is left to erase, and nothing breaks.
    again = await store.forgetting.erase("u:ann-77131", "test")
    assert (again.people, again.counts) == (("u:ann-77131",), {})
    assert again.at_ms >= erased.at_ms


async def test_what_is_late_is_withheld_and_what_is_new_is_somebody_new(store: Store) -> None:
    late = [did(n, user="ann") for n in range(3)] + [did(3, visitor="v")]
    await store.events.append(late[:2])
    await store.merger.merge("ann", "v", now())
    await store.forgetting.erase("u:ann", "test")
    for _ in range(2):
        result = await store.events.append(late)
        assert (result.accepted, result.duplicates, result.withheld) == (0, 0, 4)
    result = await store.events.append([did(7, user="ann"), did(8, visitor="v"), late[0]])
    assert (result.accepted, result.withheld) == (2, 1)
    assert (await store.load_state("u:ann")).counts.tolist() == [1]
    assert (await store.load_state("a:v")).counts.tolist() == [1]
    # The visitor is nobody else now, and may become the user again.
    assert await store.merger.merge("ann", "v", now())
    assert (await store.load_state("u:ann")).counts.sum() == 2


async def test_an_event_ahead_of_the_clock_is_forgotten_too(store: Store) -> None:
    ahead = now() + timedelta(minutes=4)
    search = did(1, user="ann", type=EventType.SEARCH, item_id=None, query="q", timestamp=ahead)
    await store.events.append([search, did(2, visitor="v", timestamp=ahead)])
    await store.merger.merge("ann", "v", now())
    await store.forgetting.erase("u:ann", "test")
    cuts = await store.forgetting.ledger()
    for person in ("u:ann", "a:v"):
        # A search leaves no fact, a purchase one of whole seconds.
        assert epoch_ms(ahead) < cuts.cut_of(person).before_ms <= epoch_ms(ahead) + 1000
    assert cuts.cut_of("u:ann").erased_ms < epoch_ms(ahead)


async def test_a_reset_keeps_choices_and_who_somebody_is(store: Store) -> None:
    await live(store, "ann", "v")
    before = await store.people.get_all(("profile", "preferences"), "u:ann")
    assert await store.forgetting.forget_taste("u:ann", "ann") > 3
    assert len((await store.load_state("u:ann")).rows) == 0
    assert len((await store.load_impressions("u:ann")).rows) == 0
    assert await store.people.get_all(("profile", "preferences"), "u:ann") == before
    assert await store.people.get("computed", "u:ann") is None
    assert await store.people.resolve("mail", "ann@example.com") == "ann"
    old = did(9, visitor="v", timestamp=now() - timedelta(minutes=1))
    result = await store.events.append([old, did(10, visitor="v")])
    assert (result.accepted, result.withheld) == (1, 1)
    assert (await store.load_state("u:ann")).counts.tolist() == [1]
    # Without choices nobody is listed any more.
    await store.people.put_many("computed", {"u:eve": {"stage": "new"}}, "training")
    await store.forgetting.forget_taste("u:eve", "eve")
    assert b"u:eve" not in await store._redis.smembers(keys.people(keys.shard_of("u:eve")))


@pytest.mark.parametrize("step", ["_seal", "_absorb", "_clear"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_visitor_whose_merge_died_is_erased_with_the_user(
    store: Store, step: str, before: bool
) -> None:
    await store.events.append([did(n, visitor="visitor-3355") for n in range(3)])
    await store.events.append([did(n, user="ann-3355") for n in range(2)])
    with pytest.raises(Killed):
        await dying(store.merger, step, before=before).merge("ann-3355", "visitor-3355", now())
    erased = await store.forgetting.erase("u:ann-3355", "test")
    await store.forgetting.forget_streams(erased.people)
    assert await mentions(store, "ann-3355") == []
    never_sealed = (step, before) == ("_seal", True)
    assert (await mentions(store, "visitor-3355") == []) != never_sealed


async def test_a_merge_that_was_sealed_before_the_erasure_brings_nothing_back(store: Store) -> None:
    """The user was erased by a process that did not see the visitor: the journal came late."""
    await store.events.append([did(n, visitor="v") for n in range(3)])
    with pytest.raises(Killed):
        await dying(store.merger, "_seal", before=False).merge("ann", "v", now())
    server: Any = store._redis
    await server.delete(keys.merges("u:ann"))
    await store.forgetting.erase("u:ann", "test")
    result = await store.events.append([did(1, visitor="v"), did(7, visitor="v")])
    assert (result.accepted, result.withheld) in {(1, 1), (2, 0)}
    assert len((await store.load_state("u:ann")).rows) == 0
    assert int((await store.load_state("a:v")).counts.sum()) == result.accepted
    assert await server.get(keys.link("a:v")) is None


# --- after a loss ---------------------------------------------------------------------------------


async def test_a_rebuild_brings_nothing_back(store: Store, tmp_path: Path) -> None:
    """Erased, reset, come back, signed in again: byte by byte what the server held."""
    archiver = Archiver(store.streams, EventLog(tmp_path))
    for user in ("ann", "bob", "cid", "dan"):
        await live(store, user, f"{user}'s phone", imported=False)
    await archiver.run_all()
    await store.forgetting.erase("u:ann", "test")
    await store.forgetting.forget_taste("u:bob", "bob")
    await store.forgetting.erase("u:cid", "test")
    await archiver.run_all()
    back = [did(50, user="cid"), did(51, visitor="cid's phone"), did(52, visitor="bob's phone")]
    assert (await store.events.append(back)).accepted == 3
    await store.people.update("profile", "u:cid", having(attributes={"x": 1}), "shop")
    await store.people.update("preferences", "u:cid", having(interests=["new"]), "cid")
    await store.merger.merge("cid", "cid's phone", now())
    await archiver.drain(lambda *_: None)
    # The next training computes these again.
    await store.people.put_many("computed", {"u:bob": None, "u:dan": None}, "test")
    before = await snapshot(store)
    assert not [name for name in before if b"ann" in name]
    for _ in range(2):
        await store._redis.flushall()
        await rebuild(store.url, tmp_path)
        assert await snapshot(store) == before
        store.catalogue._known.clear()
    late = did(1, user="ann", timestamp=now() - timedelta(minutes=1))
    assert (await store.events.append([late])).withheld == 1
    assert read_ledger(ChangeLog(tmp_path)) == await store.forgetting.ledger()


async def test_a_server_that_is_emptied_by_force_does_not_lose_who_is_forgotten(
    store: Store, tmp_path: Path
) -> None:
    await live(store, "ann", "v")
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    erased = await store.forgetting.erase("u:ann", "test")
    await store.forgetting.forget_streams(erased.people)
    # The archive never learns of it by itself.
    for shard in keys.shards():
        await store._redis.delete(keys.person_changes(shard))
    before = await store.forgetting.ledger()
    assert not read_ledger(ChangeLog(tmp_path))
    await rebuild(store.url, tmp_path, force=True)
    assert await store.forgetting.ledger() == before
    left = [name for name in await snapshot(store) if b"ann" in name or name.startswith(b"h:")]
    assert left == []


def test_entries_of_two_servers_are_one_ledger() -> None:
    def entry(salt: bytes, person: str, *cut: int) -> dict[str, Any]:
        body = {**Cut(*cut)._asdict(), "salt": salt.hex(), "shard": "{s00}"}
        return {"kind": "forgotten", "person": digest_of(salt, person), "body": body}

    ledger = ledger_of(
        [
            entry(b"first", "u:ann", 5, 0),
            entry(b"first", "u:ann", 3, 3),
            {"kind": "profile", "person": "u:bob", "body": None},
            entry(b"second", "u:ann", 4, 4),
            entry(b"second", "u:bob", 9, 0),
        ]
    )
    assert ledger.cut_of("u:ann") == Cut(5, 4)
    assert ledger.cut_of("u:bob") == Cut(9, 0)
    assert ledger.salt == b"second"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_a_cut_reads_as_it_was_written(before_ms: int) -> None:
    assert read_cut(Cut(before_ms, 7).value) == Cut(before_ms, 7)
