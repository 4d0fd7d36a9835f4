"""What is left of erased people beside their own keys: marks that name them, entries of streams."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from feature_store import external_ids, keys
from feature_store.forgetting.ledger import KIND, Cut, epoch_ms
from feature_store.links import ROW_TYPE, Link, read_link
from feature_store.script_runner import ScriptRunner

_CHUNK = 2_000
HasLeft = Callable[[str, Link, str], Awaitable[bool]]


async def forget_markers(
    redis: Any, scripts: ScriptRunner, people: Collection[str], has_left: HasLeft
) -> int:
    """Remove people from what only a look at every key finds, in one pass over the server.

    These are the markers of imports, external ids that were taken for a profile which then was not
    written, and links of visitors whose sign-in was killed while the user was erased.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    scripts : ScriptRunner
        Of the same server.
    people : collection of str
        Who is erased.
    has_left : callable
        ``Forgetting.has_left``.

    Returns
    -------
    int
        How many marks are gone.
    """
    gone = 0
    by_shard: dict[bytes, list[str]] = {}
    for person in people:
        by_shard.setdefault(keys.shard_of(person).encode(), []).append(person)
    users = {one.removeprefix("u:").encode("utf-8", "surrogatepass") for one in people}
    taken: list[bytes] = []
    linked: list[bytes] = []
    async for name in redis.scan_iter(count=5_000):
        if name[:3] == b"i:{":
            if mine := by_shard.get(name[2:7]):
                gone += await redis.srem(name, *mine)
        elif name[:3] == b"x:{":
            taken.append(name)
        elif name[:3] == b"l:{":
            linked.append(name)
    async for name, owner in _values(redis, taken):
        if owner in users:
            gone += await _release(redis, scripts, name, owner)
    async for name, value in _values(redis, linked):
        link = read_link(value)
        if link is not None and link.person in people:
            gone += await has_left(name[8:].decode("utf-8", "surrogatepass"), link, KIND)
    return gone


async def _values(redis: Any, names: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes | None]]:
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        async with redis.pipeline(transaction=False) as pipeline:
            for name in chunk:
                pipeline.get(name)
            values = await pipeline.execute()
        for one in zip(chunk, values, strict=True):
            yield one


async def _release(redis: Any, scripts: ScriptRunner, name: bytes, owner: bytes) -> bool:
    """Release an external id unless the profile of its user names it."""
    person = "u:" + owner.decode("utf-8", "surrogatepass")
    system, _, value = name[8:].decode("utf-8", "surrogatepass").partition("=")
    profile = orjson.loads(await redis.get(keys.document("profile", person)) or b"{}")
    if (profile.get("external_ids") or {}).get(system) == value:
        return False
    await external_ids.release(scripts, {person: {(system, value)}})
    return True


async def forget_streams(redis: Any, cuts: Mapping[str, Cut], digests: Mapping[str, str]) -> int:
    """Remove from the streams what people did and decided before they were erased.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    cuts : mapping of str to Cut
        What is forgotten of whom.
    digests : mapping of str to str
        By what they are known in entries that say so.

    Returns
    -------
    int
        How many entries are gone.
    """

    def is_past(entry_id: bytes, body: dict[str, Any]) -> bool:
        return _is_past(entry_id, body, cuts)

    gone = 0
    for shard in keys.shards():
        gone += await _trim(redis, keys.events(shard), is_past)
    for shard in {keys.shard_of(one) for one in cuts}:
        gone += await _trim_changes(redis, keys.person_changes(shard), cuts, digests)
    return gone


async def _trim(redis: Any, stream: str, is_past: Callable[[bytes, dict[str, Any]], bool]) -> int:
    gone = 0
    async for entries in _entries(redis, stream):
        past = [entry_id for entry_id, body in entries if is_past(entry_id, body)]
        if past:
            gone += await redis.xdel(stream, *past)
    return gone


async def _trim_changes(
    redis: Any, stream: str, cuts: Mapping[str, Cut], digests: Mapping[str, str]
) -> int:
    """Remove the documents that stand before the erasure of their person."""
    waiting: dict[str, list[bytes]] = {}
    past: list[bytes] = []
    async for entries in _entries(redis, stream):
        for entry_id, body in entries:
            person = body["person"]
            if body["kind"] != KIND:
                if person in cuts:
                    waiting.setdefault(person, []).append(entry_id)
                continue
            whose = digests.get(person)
            if whose is not None and body["body"]["erased_ms"] == cuts[whose].erased_ms > 0:
                past += waiting.pop(whose, [])
    for start in range(0, len(past), _CHUNK):
        await redis.xdel(stream, *past[start : start + _CHUNK])
    return len(past)


async def _entries(redis: Any, stream: str) -> AsyncIterator[list[tuple[bytes, dict[str, Any]]]]:
    after = "-"
    while page := await redis.xrange(stream, min=after, count=_CHUNK):
        yield [(entry_id, orjson.loads(fields[b"e"])) for entry_id, fields in page]
        after = f"({page[-1][0].decode()}"


def _is_past(entry_id: bytes, body: Mapping[str, Any], cuts: Mapping[str, Cut]) -> bool:
    """Tell whether an entry of a stream of events is of somebody who was erased after it."""
    user, visitor = body.get("user_id"), body.get("anonymous_id")
    people = [f"u:{user}"] if user is not None else [f"a:{visitor}"]
    if body["type"] == ROW_TYPE:
        people = [f"u:{user}", f"a:{visitor}"]
    arrived_ms = int(entry_id.partition(b"-")[0])
    at_ms = epoch_ms(datetime.fromisoformat(body["timestamp"]))
    return any(min(arrived_ms, at_ms) < cuts[one].erased_ms for one in people if one in cuts)
