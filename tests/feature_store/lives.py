"""People who leave something of every kind on a server, and a look for what is left of them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from feature_store.schema import Event, EventType, ItemId
from feature_store.store import Store


def now() -> datetime:
    return datetime.now(UTC)


def did(number: int, *, user: str | None = None, visitor: str | None = None, **said: Any) -> Event:
    """Return an event that names its person in its id, too, of a millisecond of its own.

    What an erasure finds in its very millisecond is gone with it.
    """
    time.sleep(0.001)
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
