"""Forgetting people: everything of theirs is gone, stays gone, and they may come back as new."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.change_log import ChangeLog
from feature_store.event_log import EventLog
from feature_store.forgotten import (
    Cut,
    Ledger,
    digest_of,
    epoch_ms,
    ledger_of,
    read_ledger,
)
from feature_store.ingest.events import EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.run import finish_pending, import_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.withholding import store_withholding
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store
from tests.feature_store.test_merging import Killed, dying
from tests.feature_store.test_rebuilding import snapshot

SALT = b"a salt of sixteen"


def now() -> datetime:
    return datetime.now(UTC)


def did(number: int, *, user: str | None = None, visitor: str | None = None, **said: Any) -> Event:
    """Return an event that names its person in its id, too."""
    fields: dict[str, Any] = {
        "event_id": f"{user or visitor}/{number}",
        "type": EventType.PURCHASE,
        "user_id": user,
        "anonymous_id": visitor,
        "item_id": ItemId(f"i{number % 5}"),
        "timestamp": now(),
    }
    return Event(**{**fields, **said})


async def dump(store: Store) -> dict[bytes, bytes]:
    """Return every key of the server with all that it holds, as one text."""
    server: Any = store._redis
    found: dict[bytes, bytes] = {}
    async for name in server.scan_iter(count=1000):
        kind = await server.type(name)
        value: Any
        if kind == b"string":
            value = await server.get(name)
        elif kind == b"hash":
            value = await server.hgetall(name)
        elif kind == b"list":
            value = await server.lrange(name, 0, -1)
        elif kind == b"set":
            value = await server.smembers(name)
        else:
            assert kind == b"stream"
            value = await server.xrange(name)
        found[name] = value if isinstance(value, bytes) else repr(value).encode()
    return found


async def mentions(store: Store, *texts: str) -> list[bytes]:
    """Return the keys that name one of some texts, or hold it."""
    wanted = [text.encode() for text in texts]
    return [
        name
        for name, value in (await dump(store)).items()
        if any(text in name or text in value for text in wanted)
    ]


def having(**fields: Any) -> Any:
    return lambda document: {**(document or {}), **fields}


async def live(store: Store, user: str, visitor: str, *, imported: bool = True) -> None:
    """Let a user and a visitor leave something of every kind."""
    seen = {"type": EventType.IMPRESSION}
    await store.events.append(
        [
            *(did(n, user=user) for n in range(3)),
            did(3, user=user, **seen),
            did(4, user=user, type=EventType.SEARCH, item_id=None, query=f"present for {user}"),
            *(did(n, visitor=visitor) for n in range(3)),
            did(3, visitor=visitor, **seen),
        ]
    )
    ids = {"crm": f"number of {user}", "mail": f"{user}@example.com"}
    await store.people.update("profile", f"u:{user}", having(external_ids=ids), "shop")
    await store.people.update("preferences", f"u:{user}", having(hidden_brands=["B"]), user)
    await store.people.update("preferences", f"a:{visitor}", having(interests=["x"]), visitor)
    await store.people.put_many("computed", {f"u:{user}": {"stage": "active"}}, "training")
    await store.quota.take({f"a:{visitor}": 3}, 9, now().timestamp())
    frame = pl.DataFrame(
        {
            "user_id": [user, None],
            "anonymous_id": [None, visitor],
            "item_id": ["i7", "i8"],
            "type": ["purchase", "purchase"],
            "timestamp": [now() - timedelta(days=9)] * 2,
        }
    )
    if imported:
        await store.imports.apply("last year", frame, lambda *_: None)
    await store.merger.merge(user, visitor, now())


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


# --- races ----------------------------------------------------------------------------------------


async def everything_at_once(store: Store, other: Store, user: str, *, erase: bool) -> None:
    """Append, choose, sign in and forget, all at the same time, by two processes."""
    visitors = [f"{user}-v{n}" for n in range(3)]

    async def shop(by: Store, start: int) -> None:
        for n in range(start, start + 12):
            await by.events.append([did(n, user=user), did(n, visitor=visitors[n % 3])])
            await asyncio.sleep(0)

    async def choose(by: Store, start: int) -> None:
        for n in range(start, start + 8):
            ids = {"crm": f"{user} {n}"}
            await by.people.update("profile", f"u:{user}", having(external_ids=ids), "shop")
            person = f"a:{visitors[n % 3]}"
            await by.people.update("preferences", person, having(**{f"f{n}": n}), user)

    async def sign_in(by: Store) -> None:
        for visitor in visitors:
            await asyncio.sleep(0.01)
            await by.merger.merge(user, visitor, now())

    async def forget(by: Store) -> None:
        for _ in range(4):
            await asyncio.sleep(0.01)
            await by.forgetting.erase(f"u:{user}", "test")
            await by.forgetting.forget_taste(f"u:{user}", "test")

    await asyncio.gather(
        *(shop(by, 100 * n) for n, by in enumerate((store, other, store, other))),
        *(choose(by, 100 * n) for n, by in enumerate((store, other))),
        *(sign_in(by) for by in (store, other)),
        *(forget(by) for by in (store, other)),
    )
    if not erase:
        return
    # The last word: of all that came before it nothing may be left.
    erased = await store.forgetting.erase(f"u:{user}", "test")
    people = {*erased.people}
    for visitor in visitors:
        people |= set((await store.forgetting.erase(f"a:{visitor}", "test")).people)
    await store.forgetting.forget_streams(people)
    assert await mentions(store, user) == []


async def test_an_erasure_among_writers_leaves_nothing(store: Store) -> None:
    other = await Store.open(store.url)
    for round_ in range(4):
        await everything_at_once(store, other, f"user-{round_}-81763", erase=True)
    await other.close()


async def test_what_the_stream_has_and_what_is_known_agree_under_fire(
    store: Store, tmp_path: Path
) -> None:
    """A rebuild after any interleaving of writers and resets gives the very same bytes."""
    other = await Store.open(store.url)
    for round_ in range(3):
        await everything_at_once(store, other, f"user-{round_}-90917", erase=False)
        for n in range(3):
            await store.merger.merge(f"user-{round_}-90917", f"user-{round_}-90917-v{n}", now())
    await other.close()
    await Archiver(store.streams, EventLog(tmp_path)).run_all()
    before = known(await snapshot(store))
    await store._redis.flushall()
    await rebuild(store.url, tmp_path)
    assert known(await snapshot(store)) == before


def known(held: dict[bytes, Any]) -> dict[bytes, Any]:
    """Return what a rebuild must bring back: all but how far events were ahead of the clock."""
    return {
        name: {field: one for field, one in value.items() if field != b"ahead"}
        if name.startswith(b"d:")
        else value
        for name, value in held.items()
    }


async def test_no_event_is_stored_after_consent_was_taken_back(store: Store) -> None:
    other = await Store.open(store.url)
    withdrawn = False
    after: list[int] = []
    accepted = 0

    async def shop(by: Store, start: int) -> None:
        nonlocal accepted
        for n in range(start, start + 40):
            began_after = withdrawn
            result = await by.events.append([did(n, user="carl"), did(n, visitor="carl's phone")])
            accepted += result.accepted
            assert result.accepted + result.withheld == 2
            if began_after:
                after.append(result.accepted)

    async def withdraw() -> None:
        nonlocal withdrawn
        await asyncio.sleep(0.02)
        await store.merger.merge("carl", "carl's phone", now())
        said = having(consent={"profiling": False})
        await other.people.update("preferences", "u:carl", said, "carl")
        withdrawn = True

    await asyncio.gather(*(shop(by, 100 * n) for n, by in enumerate((store, other))), withdraw())
    assert after
    assert not any(after)
    assert int((await store.load_state("u:carl")).counts.sum()) == accepted
    waiting = await store.streams.read({}, 1000)
    assert sum(orjson.loads(one.body)["type"] == "purchase" for one in waiting) == accepted
    await other.close()


@pytest.mark.parametrize(
    ("said", "in_event", "user", "is_kept"),
    [
        (None, None, True, True),
        (None, False, True, False),
        ({"consent": {"profiling": False}}, None, True, False),
        ({"consent": {"profiling": False}}, True, True, False),
        ({"consent": {"profiling": False}}, True, False, True),
        ({"personalization": False}, True, False, False),
        ({"consent": {"profiling": "not readable"}}, True, True, False),
        ({"consent": {"email_marketing": False}}, None, True, True),
    ],
)
async def test_whose_events_are_kept(
    store: Store, said: Any, in_event: bool | None, user: bool, is_kept: bool
) -> None:
    who = {"user": "dora"} if user else {"visitor": "dora"}
    person = "u:dora" if user else "a:dora"
    if said is not None:
        await store._redis.set(keys.preferences(person), orjson.dumps(said))
    consent = None if in_event is None else {"profiling": in_event}
    kinds = [EventType.PURCHASE, EventType.UNSUBSCRIBE, EventType.OPEN, EventType.COMPLAINT]
    sent = [did(n, **who, type=kind, consent=consent) for n, kind in enumerate(kinds)]
    result = await store.events.append(sent)
    assert (result.accepted, result.withheld) == ((4, 0) if is_kept else (0, 4))
    assert await store.streams.length() == result.accepted


async def test_a_site_that_asks_first_keeps_nothing_of_who_never_answered(store: Store) -> None:
    asking = await Store.open(store.url, profiling="opt_in")
    allowed = {"consent": {"profiling": True}}
    result = await asking.events.append([did(1, user="eve"), did(2, user="eve", **allowed)])
    assert (result.accepted, result.withheld) == (1, 1)
    await asking.people.update("preferences", "u:eve", having(**allowed), "eve")
    assert (await asking.events.append([did(1, user="eve")])).accepted == 1
    assert await asking.refusing(["u:eve", "u:adam", "a:v"]) == {"u:adam", "a:v"}
    await asking.merger.merge("eve", "v", now())
    assert await asking.refusing(["u:eve", "u:adam", "a:v"]) == {"u:adam"}
    await asking.close()


# --- documents of visitors who sign in ------------------------------------------------------------


async def test_what_a_visitor_chooses_while_signing_in_is_not_lost(store: Store) -> None:
    other = await Store.open(store.url)
    for n in range(15):
        user, visitor = f"u{n}", f"v{n}"
        chosen = having(hidden_brands=["mine"])
        await store.people.update("preferences", f"u:{user}", chosen, "me")

        async def choose(by: Store, brand: str, whose: str = f"a:{visitor}") -> None:
            def add(document: Any) -> Any:
                hidden = {*((document or {}).get("hidden_brands") or ()), brand}
                return {**(document or {}), "hidden_brands": sorted(hidden)}

            await by.people.update("preferences", whose, add, "me")

        brands = [f"b{k}" for k in range(8)]
        await asyncio.gather(
            *(choose((store, other)[k % 2], brand) for k, brand in enumerate(brands)),
            store.merger.merge(user, visitor, now()),
        )
        held = await store.people.get("preferences", f"u:{user}")
        assert held is not None
        assert held["hidden_brands"] == sorted([*brands, "mine"])
        assert await store.people.get("preferences", f"a:{visitor}") is None
    await other.close()


@pytest.mark.parametrize("step", ["_seal", "_absorb", "_clear"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_choice_after_a_merge_that_died_is_the_users(
    store: Store, step: str, before: bool
) -> None:
    await store.people.update("preferences", "a:v", having(interests=["old"]), "me")
    with pytest.raises(Killed):
        await dying(store.merger, step, before=before).merge("ann", "v", now())
    whose, document = await store.people.update_whoever(
        "preferences", "a:v", lambda _, held: having(hidden_brands=["B"])(held), "me"
    )
    assert whose == ("a:v" if (step, before) == ("_seal", True) else "u:ann")
    assert document == {"interests": ["old"], "hidden_brands": ["B"]}
    await store.merger.merge("ann", "v", now())
    assert await store.people.get("preferences", "u:ann") == document
    changed = await store.people.put_many("preferences", {"a:v": having(hidden_brands=["C"])}, "me")
    assert changed == (1, {})
    assert (await store.people.get("preferences", "u:ann") or {})["hidden_brands"] == ["C"]
    assert await store.people.put_many("computed", {"a:v": {"stage": "new"}}, "me") == (0, {})


# --- imports --------------------------------------------------------------------------------------


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
    from feature_store.forgotten import read_cut

    assert read_cut(Cut(before_ms, 7).value) == Cut(before_ms, 7)
