"""What the server holds of one person under keys of their own, read to be forgotten."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from feature_store import impressions, keys
from feature_store.forgetting.guards import Guard
from feature_store.state import unpack

AHEAD = b"ahead"
"""Field among the event ids of a day: the newest time, where it was in the future on arrival."""
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
    journal : list of str
        Visitors who became the person, or were about to.
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
    journal: list[str]
    newest_ms: int
    erase: bool

    def counts(self) -> Counter[str]:
        """Return how many of each kind there were."""
        counts = Counter({kind: 1 for kind, value in self.read.items() if value is not None})
        counts["event_ids"] = sum(self.n_ids)
        if self.erase:
            counts["merges"] = len(self.journal)
        return +counts


def names_of(person: str, *, erase: bool) -> dict[str, str]:
    """Return the keys of the values that are forgotten, by kind."""
    names = {
        "state": keys.hot(person),
        "older_state": keys.rest(person),
        "impressions": keys.impressions(person),
        "computed": keys.document("computed", person),
    }
    if erase:
        names["profile"] = keys.document("profile", person)
        names["preferences"] = keys.preferences(person)
        names["link"] = keys.link(person)
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
