"""One document of a person: how it is read, and the call of the script that replaces it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from feature_store import keys
from feature_store.forgetting.guards import Guard, Salts
from feature_store.person_values import Value, comparing
from feature_store.schema import format_time

Kind = Literal["profile", "preferences", "computed"]
KINDS: tuple[Kind, ...] = ("profile", "preferences", "computed")
Document = dict[str, Any]


async def read_held(
    redis: Any, salts: Salts, kind: Kind, people: Sequence[str]
) -> list[tuple[bytes | None, bytes | None, Guard]]:
    """Return the document, the link, and what is forgotten of some people."""
    while True:
        used = salts.value
        guards = [Guard(salts, person) for person in people]
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.FORGOTTEN_SALT)
            for person, guard in zip(people, guards, strict=True):
                pipeline.mget(keys.document(kind, person), keys.link(person))
                guard.ask(pipeline)
            salt, *answers = await pipeline.execute()
        if salts.learn(salt, used):
            break
    found = iter(answers)
    read = []
    for guard in guards:
        value, link = next(found)
        guard.take(found)
        read.append((value, link, guard))
    return read


def person_change(kind: Kind, person: str, body: Document | None, by: str) -> bytes:
    """Return a change as stream and archive have it."""
    at = format_time(datetime.now(UTC))
    return orjson.dumps({"kind": kind, "person": person, "at": at, "by": by, "body": body})


def put_call(
    kind: Kind,
    person: str,
    value: bytes | None,
    after: Document | None,
    by: str,
    guard: Guard,
    as_of_ms: int | None = None,
    *,
    visitor: str = "",
) -> tuple[list[str], list[bytes | str | int]]:
    """Return keys and arguments of ``scripts.PUT_DOCUMENT``."""
    shard = keys.shard_of(person)
    new = b"" if after is None else packed(after)
    names, arguments = comparing([Value(keys.document(kind, person), value, new)])
    names += [guard.key, keys.link(person), keys.people(shard), keys.person_changes(shard)]
    names += [keys.document(one, person) for one in KINDS if one != kind]
    names.append(keys.merges(person))
    change = b"" if kind == "computed" else person_change(kind, person, after, by)
    arguments += [*guard.arguments(), person, change, b"" if as_of_ms is None else as_of_ms]
    arguments.append(visitor)
    return names, arguments


def packed(body: Document) -> bytes:
    """Return a document as the store keeps it, the same for the same content."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
