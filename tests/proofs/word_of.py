"""What somebody said and did, and what follows from it, in plain Python.

Written from the contract alone: nothing here asks the program.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

N_ITEMS, N_BRANDS, N_PATHS = 90, 4, 5
ITEMS = [f"i{number:05d}" for number in range(N_ITEMS)]
BRANDS = [f"Brand {number}" for number in range(N_BRANDS)]
PATHS = ["Food", *(f"Food > F{number}" for number in range(N_PATHS))]
OF_HISTORY = frozenset({"because_you_bought", "because_you_viewed", "buy_again", "followed"})
PURPOSES = ("profiling", "email_marketing", "analytics")


def number_of(item_id: str) -> int | None:
    """Return the number of an item of the shop; ``None`` for one of its oddly named ones."""
    return int(item_id[1:]) if item_id in _KNOWN else None


_KNOWN = frozenset(ITEMS)


def brand_of(item_id: str) -> str | None:
    """Return the brand of an item."""
    number = number_of(item_id)
    return None if number is None else f"Brand {number % N_BRANDS}"


def path_of(item_id: str) -> str | None:
    """Return the category of an item, if it has one."""
    number = number_of(item_id)
    return None if number is None or number % 7 == 0 else f"Food > F{number % N_PATHS}"


def named_in(
    items: Iterable[dict[str, Any]], about: Sequence[str]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each item of a list, with every id it names: its own, and those of its reason.

    What the page is `about` may be named: it is there already.
    """
    for item in items:
        for named in (item["item_id"], *item["reason"]["item_ids"]):
            if named == item["item_id"] or named not in about:
                yield item, named


@dataclass
class Word:
    """Somebody's word.

    ``snoozed`` is until when, in seconds since 1970 and as it was written; ``last_source`` what
    said the last of each consent; ``kept`` how many of their events of each type count.
    """

    name: str
    is_user: bool
    opt_in: bool = False
    hidden_items: set[str] = field(default_factory=set)
    hidden_brands: set[str] = field(default_factory=set)
    hidden_categories: set[str] = field(default_factory=set)
    snoozed: dict[str, tuple[float, str]] = field(default_factory=dict)
    followed_brands: set[str] = field(default_factory=set)
    followed_categories: set[str] = field(default_factory=set)
    interests: set[str] = field(default_factory=set)
    personalization: bool = True
    consent: dict[str, bool | None] = field(default_factory=lambda: dict.fromkeys(PURPOSES))
    last_source: dict[str, str] = field(default_factory=dict)
    frequency_days: int | None = None
    kept: Counter[str] = field(default_factory=Counter)
    frozen: dict[str, Any] | None = None
    """What the server held when they refused; it may not change until they agree."""

    @property
    def who(self) -> dict[str, str]:
        """How a request names them."""
        return {"user_id" if self.is_user else "anonymous_id": self.name}

    @property
    def person(self) -> str:
        """How keys name them."""
        return f"{'u' if self.is_user else 'a'}:{self.name}"

    @property
    def allows(self) -> bool:
        """Whether a profile may be used and kept; who was never asked: as the site says."""
        said = self.consent["profiling"]
        return self.personalization and (not self.opt_in if said is None else said)

    @property
    def has_history(self) -> bool:
        """Whether anything about items is kept of them."""
        return self.kept.total() > 0

    def why_hidden(self, item_id: str, at_s: float) -> str | None:
        """Say why an item must not be shown to them, or ``None`` if it may be."""
        if item_id in self.hidden_items:
            return "hidden"
        if self.snoozed.get(item_id, (0.0, ""))[0] > at_s:
            return "snoozed"
        if brand_of(item_id) in self.hidden_brands:
            return "of a hidden brand"
        path = path_of(item_id)
        if path is not None and (
            path in self.hidden_categories or "Food" in self.hidden_categories
        ):
            return "of a hidden category"
        return None

    def says(self, purpose: str, allowed: bool | None, source: str) -> None:
        """Note a consent."""
        if self.consent[purpose] is not allowed:
            self.consent[purpose] = allowed
            self.last_source[purpose] = source

    def hide_ends_following(self) -> None:
        """What is hidden is not followed."""
        self.followed_brands -= self.hidden_brands
        self.followed_categories = {
            one
            for one in self.followed_categories
            if one not in self.hidden_categories and "Food" not in self.hidden_categories
        }

    def joined_by(self, other: "Word") -> None:
        """Become one with a visitor, who is nobody any more: the stricter of both holds."""
        for name in ("hidden_items", "hidden_brands", "hidden_categories", "interests"):
            getattr(self, name).update(getattr(other, name))
        for name in ("followed_brands", "followed_categories"):
            getattr(self, name).update(getattr(other, name))
        for item_id, until in other.snoozed.items():
            self.snoozed[item_id] = max(until, self.snoozed.get(item_id, (0.0, "")))
        self.hide_ends_following()
        self.personalization = self.personalization and other.personalization
        for purpose in PURPOSES:
            said = {self.consent[purpose], other.consent[purpose]}
            both = False if False in said else True if True in said else None
            if both is not self.consent[purpose]:
                self.last_source[purpose] = "merge"
            else:
                self.last_source.pop(purpose, None)
            self.consent[purpose] = both
        frequencies = [one for one in (self.frequency_days, other.frequency_days) if one]
        self.frequency_days = max(frequencies, default=None)
        self.kept += other.kept

    def wrong_in(self, document: dict[str, Any], read_s: float) -> list[str]:
        """Say what of their preferences, as read at some time, is not what they said."""
        expected: dict[str, Any] = {
            name: sorted(getattr(self, name))
            for name in (
                *("hidden_items", "hidden_brands", "hidden_categories"),
                *("followed_brands", "followed_categories", "interests"),
            )
        }
        expected["personalization"], expected["consent"] = self.personalization, self.consent
        wrong = [name for name, value in expected.items() if document[name] != value]
        if document["email"]["frequency_days"] != self.frequency_days:
            wrong.append("email")
        snoozed = {one["item_id"]: one["until"] for one in document["snoozed"]}
        now_s = time.time()
        for item_id, (until_s, until) in self.snoozed.items():
            found = snoozed.pop(item_id, None)
            # One that ends while it is read may be there or not.
            if (until_s > now_s and found != until) or (until_s <= read_s and found is not None):
                wrong.append("snoozed")
        if snoozed:
            wrong.append("snoozed")
        for purpose, source in self.last_source.items():
            changes = [one for one in document["consent_changes"] if one["purpose"] == purpose]
            last = changes[-1] if changes else {}
            if (last.get("allowed"), last.get("source")) != (self.consent[purpose], source):
                wrong.append(f"consent_changes of {purpose}")
        if document["profiling"]["allowed"] != self.allows:
            wrong.append("profiling")
        return wrong
