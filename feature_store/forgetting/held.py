"""What the server holds of one person under keys of their own, read to be forgotten."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_store import impressions, keys
from feature_store.forgetting.guards import Guard, Salts
from feature_store.links import Link, read_link
from feature_store.person_values import Value
from feature_store.state import unpack

AHEAD = b"ahead"
"""Field among the event ids of a day: the newest time, where it was in the future on arrival."""
GONE = b"x"
"""What the journal says of a visitor from the erasure of the user until it is noted."""
LINK = "link"
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Held:
    """What the server holds of one person, as it was read.

    Parameters
    ----------
    person : str
        ``schema.person_of``.
    guard : Guard
        What is forgotten already.
    names : dict of str to str
        Kind of each value that is forgotten, and its key.
    read : dict of str to bytes or None
        What these hold.
    n_ids : list of int
        How many event ids each day has.
    journal : dict of str to bytes
        Visitors who became the person, or were about to: when, ``?``, or ``x`` (`GONE`).
    newest_ms : int
        Time of the newest event, as far as it may lie in the future.
    erase : bool
        Whether everything is forgotten, or the taste alone.
    """

    person: str
    guard: Guard
    names: dict[str, str]
    read: dict[str, bytes | None]
    n_ids: list[int]
    journal: dict[str, bytes]
    newest_ms: int
    erase: bool

    @property
    def gone(self) -> list[str]:
        """Return the visitors of an erasure that may not have been noted."""
        return [visitor for visitor, joined in self.journal.items() if joined == GONE]

    @property
    def link(self) -> Link | None:
        """Which user the person, a visitor, has become."""
        return read_link(self.read[LINK])

    def values(self) -> list[Value]:
        """Return what is compared, and what is left of it."""
        kept = "" if self.erase else LINK
        return [
            Value(name, self.read[kind], (self.read[kind] or b"") if kind == kept else b"")
            for kind, name in self.names.items()
        ]

    def counts(self) -> Counter[str]:
        """Return how many of each kind there were."""
        gone = [kind for kind, value in self.read.items() if value is not None]
        counts = Counter({kind: 1 for kind in gone if self.erase or kind != LINK})
        counts["event_ids"] = sum(self.n_ids)
        if self.erase:
            counts["merges"] = len(self.journal)
        return +counts


def names_of(person: str, *, erase: bool) -> dict[str, str]:
    """Return the keys of the values that are forgotten, by kind; a reset keeps the link."""
    names = {
        LINK: keys.link(person),
        "state": keys.hot(person),
        "older_state": keys.rest(person),
        "impressions": keys.impressions(person),
        "computed": keys.document("computed", person),
    }
    if erase:
        names["profile"] = keys.document("profile", person)
        names["preferences"] = keys.preferences(person)
    return names


def days_of(person: str) -> list[str]:
    """Return the keys of event ids that may be there, those that a rebuild has brought back too."""
    today = int(time.time()) // _DAY_S
    return [keys.deduplication(person, today - age) for age in range(-1, 7)]


def newest_ms(read: Mapping[str, bytes | None]) -> int:
    """Return the newest time of the facts if it lies in the future, else less than now.

    Facts have whole seconds, impressions whole hours: of those that are not over, the events' own
    arrival says more (``ahead``).
    """
    last_s = max(int(unpack(read[kind]).last_s.max(initial=0)) for kind in ("state", "older_state"))
    newest_ms = 1000 * last_s + (999 if last_s > time.time() else 0)
    shown = impressions.unpack(read["impressions"])
    return max(newest_ms, int(shown.hours.max(initial=0)) * impressions.HOUR_S * 1000)


async def read_held(
    redis: Any, salts: Salts, person: str, floor_ms: int = 0, *, erase: bool
) -> Held:
    """Read all that is forgotten of a person.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    salts : Salts
        With which the process knows who is forgotten.
    person : str
        ``schema.person_of``.
    floor_ms : int
        Events of this time are forgotten in any case.
    erase : bool
        Whether everything is forgotten, or the taste alone.
    """
    names = names_of(person, erase=erase)
    days = days_of(person)
    while True:
        used = salts.value
        guard = Guard(salts, person)
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.FORGOTTEN_SALT)
            pipeline.mget(list(names.values()))
            for day in days:
                pipeline.hlen(day)
                pipeline.hget(day, AHEAD)
            pipeline.hgetall(keys.merges(person))
            guard.ask(pipeline)
            salt, values, *answers = await pipeline.execute()
        if salts.learn(salt, used):
            break
    found = iter(answers)
    ids = [(next(found), next(found)) for _ in days]
    journal = {
        name.decode("utf-8", "surrogatepass"): joined for name, joined in next(found).items()
    }
    guard.take(found)
    ahead = max((int(value) for _, value in ids if value), default=0)
    read = dict(zip(names, values, strict=True))
    until_ms = max(floor_ms, ahead, newest_ms(read))
    return Held(person, guard, names, read, [count for count, _ in ids], journal, until_ms, erase)
