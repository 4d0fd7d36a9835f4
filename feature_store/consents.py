"""Who of many people may not be profiled: for imports and trainings."""

from collections.abc import Collection, Iterator
from typing import Any, Literal

from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import StoreUnavailableError
from feature_store.links import read_link
from feature_store.preferences import ProfilingDefault, profiling_allowed, read_preferences

CHUNK = 500
_AT_ONCE = 20


async def refusing(
    redis: Any,
    people: Collection[str],
    default: ProfilingDefault,
    purpose: Literal["profiling", "analytics"] = "profiling",
) -> set[str]:
    """Return who of some people may not be profiled.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    people : collection of str
        Whom to ask about (``schema.person_of``); of a visitor who has signed in, what the user
        said counts.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    purpose : {"profiling", "analytics"}
        With the second one also who refuses to be counted.

    Raises
    ------
    StoreUnavailableError
        If the server does not answer.
    """

    def refuses(value: bytes | None) -> bool:
        said = read_preferences(value)
        is_counted = purpose == "profiling" or said.consent.analytics is not False
        return not (is_counted and profiling_allowed(said, default))

    found: set[str] = set()
    users: dict[str, list[str]] = {}
    try:
        async for person, preferences, link in _read(redis, people):
            signed_in = read_link(link)
            if signed_in is not None:
                users.setdefault(signed_in.person, []).append(person)
            elif refuses(preferences):
                found.add(person)
        async for user, preferences, _ in _read(redis, users):
            if refuses(preferences):
                found.update(users[user])
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(f"preferences cannot be read: {error}") from error
    return found


async def _read(redis: Any, people: Collection[str]) -> Any:
    """Yield each person with preferences and link: one MGET for many of a shard."""
    chunks = list(_chunks(people))
    for start in range(0, len(chunks), _AT_ONCE):
        some = chunks[start : start + _AT_ONCE]
        async with redis.pipeline(transaction=False) as pipeline:
            for chunk in some:
                names = [keys.preferences(person) for person in chunk]
                pipeline.mget(names + [keys.link(person) for person in chunk])
            answers = await pipeline.execute()
        for chunk, values in zip(some, answers, strict=True):
            for at, person in enumerate(chunk):
                yield person, values[at], values[len(chunk) + at]


def _chunks(people: Collection[str]) -> Iterator[list[str]]:
    by_shard: dict[str, list[str]] = {}
    for person in people:
        by_shard.setdefault(keys.shard_of(person), []).append(person)
    for mine in by_shard.values():
        for start in range(0, len(mine), CHUNK):
            yield mine[start : start + CHUNK]
