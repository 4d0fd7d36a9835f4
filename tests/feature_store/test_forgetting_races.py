"""Forgetting, choosing and signing in while others write: nothing is lost, nothing comes back."""

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.errors import ConflictError
from feature_store.event_log import EventLog
from feature_store.rebuilding import rebuild
from feature_store.schema import EventType
from feature_store.store import Store
from tests.feature_store.lives import did, having, mentions, now
from tests.feature_store.test_merging import Killed, dying
from tests.feature_store.test_rebuilding import snapshot

# --- races ----------------------------------------------------------------------------------------


async def fire(store: Store, other: Store, user: str, *, erase: bool) -> None:
    """Append, choose, sign in and forget, all at the same time, by two processes."""
    visitors = [f"{user}-v{n}" for n in range(3)]

    async def shop(by: Store, start: int) -> None:
        for n in range(start, start + 12):
            # Clocks of browsers are ahead, now and then.
            at = now() + timedelta(milliseconds=7 * (n % 5 == 0))
            whose: list[dict[str, Any]] = [{"user": user}, {"visitor": visitors[n % 3]}]
            await by.events.append([did(n, **one, timestamp=at) for one in whose])
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
            if erase:
                await by.forgetting.erase(f"u:{user}", "test")
                with contextlib.suppress(ConflictError):  # has signed in
                    await by.forgetting.erase(f"a:{visitors[0]}", "test")
            await by.forgetting.forget_taste(f"u:{user}", "test")

    await asyncio.gather(
        *(shop(by, 100 * n) for n, by in enumerate((store, other, store, other))),
        *(choose(by, 100 * n) for n, by in enumerate((store, other))),
        *(sign_in(by) for by in (store, other)),
        *(forget(by) for by in (store, other)),
    )


async def test_an_erasure_among_writers_leaves_nothing(store: Store) -> None:
    other = await Store.open(store.url, read_timeout_s=5.0)
    for round_ in range(4):
        user = f"user-{round_}-81763"
        await fire(store, other, user, erase=True)
        # The last word: of all that came before it nothing may be left.
        people = {*(await store.forgetting.erase(f"u:{user}", "test")).people}
        for visitor in (f"a:{user}-v{n}" for n in range(3)):
            people |= {*(await store.forgetting.erase(visitor, "test")).people}
        await store.forgetting.forget_streams(people)
        assert await mentions(store, user) == []
    await other.close()


@pytest.mark.parametrize("erase", [False, True])
async def test_what_the_stream_has_and_what_is_known_agree_under_fire(
    store: Store, tmp_path: Path, erase: bool
) -> None:
    """A rebuild after any interleaving of writers, resets and erasures gives the very same."""
    other = await Store.open(store.url, read_timeout_s=5.0)
    users = [f"user-{n}-90917" for n in range(3)]
    for user in users:
        await fire(store, other, user, erase=erase)
        for n in range(3):
            await store.merger.merge(user, f"{user}-v{n}", now())
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
    other = await Store.open(store.url, read_timeout_s=5.0)
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
    who: dict[str, Any] = {"user": "dora"} if user else {"visitor": "dora"}
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
    asking = await Store.open(store.url, profiling="opt_in", read_timeout_s=5.0)
    allowed: dict[str, Any] = {"consent": {"profiling": True}}
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
    other = await Store.open(store.url, read_timeout_s=5.0)
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
        "preferences", "a:v", lambda _, held, __: having(hidden_brands=["B"])(held), "me"
    )
    assert whose == ("a:v" if (step, before) == ("_seal", True) else "u:ann")
    assert document == {"interests": ["old"], "hidden_brands": ["B"]}
    await store.merger.merge("ann", "v", now())
    assert await store.people.get("preferences", "u:ann") == document
    changed = await store.people.put_many("preferences", {"a:v": having(hidden_brands=["C"])}, "me")
    assert changed == (1, {})
    assert (await store.people.get("preferences", "u:ann") or {})["hidden_brands"] == ["C"]
    assert await store.people.put_many("computed", {"a:v": {"stage": "new"}}, "me") == (0, {})
