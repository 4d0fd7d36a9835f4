"""Ids of users in other systems: each stands for one user, the first who names it."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from feature_store import keys
from feature_store.script_runner import ScriptRunner

_TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return owner end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

Ids = AbstractSet[tuple[str, str]]
"""Pairs of a system's name and an id there."""


async def take(scripts: ScriptRunner, claims: Mapping[str, Ids]) -> dict[str, str]:
    """Let external ids stand for users before their profiles name them.

    Killed in between, an id is taken that no profile names; taking it again is harmless. All of
    them are asked for at once: one by one, each would wait for the disk alone.

    Parameters
    ----------
    scripts : ScriptRunner
        Of the server.
    claims : mapping of str to set
        What each person (``schema.person_of``) is to have.

    Returns
    -------
    dict of str to str
        Who cannot have theirs, and why; nothing was taken for them.
    """
    wanted = [(person, one) for person, ids in claims.items() for one in sorted(ids)]
    owners: list[Any] = await _run(scripts, _TAKE, wanted)
    refused: dict[str, str] = {}
    for (person, (name, value)), owner in zip(wanted, owners, strict=True):
        if owner.decode("utf-8", "surrogatepass") != person.removeprefix("u:"):
            refused.setdefault(person, f"the {name} {value!r} is another user's")
    await release(scripts, {person: claims[person] for person in refused})
    return refused


async def release(scripts: ScriptRunner, ids: Mapping[str, Ids]) -> None:
    """Let external ids stand for nobody; those of somebody else stay."""
    await _run(scripts, _RELEASE, [(person, one) for person, its in ids.items() for one in its])


async def _run(
    scripts: ScriptRunner, script: str, pairs: list[tuple[str, tuple[str, str]]]
) -> list[int]:
    calls: list[tuple[list[str], list[bytes | str | int]]] = [
        ([keys.external_id(*one)], [person.removeprefix("u:")]) for person, one in pairs
    ]
    return await scripts.run(script, calls) if calls else []
