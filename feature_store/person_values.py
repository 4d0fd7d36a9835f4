"""The packed values of a person, and how facts are added to them.

Three writers do it: events as they happen, imports, and a visitor's history that joins a user's.
Each reads the values that change, adds, and writes by compare-and-set.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from feature_store import impressions, keys, state
from feature_store.facts import PersonFacts


class Value(NamedTuple):
    """A value that is to be replaced: its key, what was read, and the new one, empty for none."""

    key: str
    read: bytes | None
    new: bytes


def touched(person: str, facts: PersonFacts) -> list[str]:
    """Return the keys of the values that facts change: a page view leaves the state alone.

    Parameters
    ----------
    person : str
        To whom the facts are added.
    facts : PersonFacts
        Whosever they are.
    """
    names = []
    if len(facts.state.rows):
        names += [keys.hot(person), keys.rest(person)]
    if len(facts.impressions.rows):
        names.append(keys.impressions(person))
    return names


def added(person: str, read: Mapping[str, bytes | None], facts: PersonFacts) -> list[Value]:
    """Add facts to the values of a person.

    Parameters
    ----------
    person : str
        To whom.
    read : mapping of str to bytes or None
        The values of at least all keys that `touched` names.
    facts : PersonFacts
        What is added.
    """
    new: dict[str, bytes] = {}
    if len(facts.state.rows):
        hot, rest = keys.hot(person), keys.rest(person)
        whole = state.join(state.unpack(read[hot]), state.unpack(read[rest]))
        parts = state.split(state.add(whole, facts.state))
        new = dict(zip((hot, rest), map(state.pack, parts), strict=True))
    if len(facts.impressions.rows):
        name = keys.impressions(person)
        known = impressions.unpack(read[name])
        new[name] = impressions.pack(impressions.add(known, facts.impressions))
    return [Value(name, read[name], value) for name, value in new.items()]


def comparing(values: list[Value]) -> tuple[list[str], list[bytes | str | int]]:
    """Return keys and arguments with which a script of `scripts` compares and sets values."""
    digests = [hashlib.sha1(one.read or b"", usedforsecurity=False).hexdigest() for one in values]
    return [one.key for one in values], [len(values), *digests, *(one.new for one in values)]
