"""Which fields conditions may speak of in one place, and of what type they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from feature_store.conditions.tree import Kind

_EQUAL = frozenset({"eq", "ne", "in", "not_in"})
_ORDER = frozenset({"lt", "lte", "gt", "gte", "between"})
_EXISTS = frozenset({"exists"})

OPERATORS: dict[Kind, frozenset[str]] = {
    Kind.TEXT: _EQUAL | _EXISTS,
    Kind.NUMBER: _EQUAL | _ORDER | _EXISTS,
    Kind.BOOLEAN: frozenset({"eq", "ne", "exists"}),
    Kind.TIME: _EQUAL | _ORDER | _EXISTS,
    Kind.PATHS: frozenset({"contains", "under", "in", "not_in", "exists"}),
    Kind.TEXTS: _EQUAL | _EXISTS | {"contains"},
    Kind.ANY: _EQUAL | _ORDER | _EXISTS | {"contains"},
    Kind.CONTEXT: _EQUAL | _ORDER | _EXISTS | {"contains"},
    Kind.SEGMENT: _EQUAL,
    Kind.MOMENT: _ORDER | {"in", "not_in"},
}
"""The operators that make sense on each kind of field."""

_ITEM = {
    "item_id": Kind.TEXT,
    "kind": Kind.TEXT,
    "title": Kind.TEXT,
    "brand": Kind.TEXT,
    "group_id": Kind.TEXT,
    "categories": Kind.PATHS,
    "price": Kind.NUMBER,
    "sale_price": Kind.NUMBER,
    "available": Kind.BOOLEAN,
    "published_at": Kind.TIME,
    "expires_at": Kind.TIME,
}
ITEM_FIELDS: dict[str, Kind] = {f"item.{name}": kind for name, kind in _ITEM.items()}
"""Fields of the candidate, besides ``item.attributes.*``."""
PAGE_FIELDS: dict[str, Kind] = {f"page.{name}": kind for name, kind in _ITEM.items()}
"""Fields of the product or the cart on the page, besides ``page.attributes.*``."""

_SCORE_FACTS = {"score": Kind.NUMBER, "at": Kind.TIME, "count": Kind.NUMBER, "mean": Kind.NUMBER}
USER_FIELDS: dict[str, Kind] = {
    "user.loyalty.program": Kind.TEXT,
    "user.loyalty.tier": Kind.TEXT,
    "user.loyalty.points": Kind.NUMBER,
    "user.computed.stage": Kind.TEXT,
    "user.computed.churn_risk": Kind.NUMBER,
    "user.computed.clv": Kind.NUMBER,
    "user.computed.next_purchase_at": Kind.TIME,
    "user.computed.purchase_interval_days": Kind.NUMBER,
    "user.computed.rfm.recency_days": Kind.NUMBER,
    "user.computed.rfm.frequency": Kind.NUMBER,
    "user.computed.rfm.monetary": Kind.NUMBER,
    "user.computed.rfm.r": Kind.NUMBER,
    "user.computed.rfm.f": Kind.NUMBER,
    "user.computed.rfm.m": Kind.NUMBER,
    "user.computed.rfm.group": Kind.TEXT,
    "user.computed.tastes.categories": Kind.PATHS,
    "user.computed.tastes.brands": Kind.TEXTS,
    "user.computed.tastes.price_band": Kind.TEXT,
    **{
        f"user.feedback.{instrument}.{fact}": kind
        for instrument in ("nps", "csat", "ces")
        for fact, kind in _SCORE_FACTS.items()
    },
    "user.feedback.complaints.count": Kind.NUMBER,
    "user.feedback.complaints.at": Kind.TIME,
    "user.feedback.ratings.count": Kind.NUMBER,
    "user.feedback.ratings.mean": Kind.NUMBER,
    "user.feedback.ratings.at": Kind.TIME,
    "user.consent.profiling": Kind.BOOLEAN,
    "user.consent.email_marketing": Kind.BOOLEAN,
    "user.consent.analytics": Kind.BOOLEAN,
}
"""Fields of the person, besides ``user.attributes.*``."""

_TABLES = {"item": ITEM_FIELDS, "page": PAGE_FIELDS, "user": USER_FIELDS}
_KINDS: dict[type, Kind] = {
    str: Kind.TEXT,
    float: Kind.NUMBER,
    int: Kind.NUMBER,
    bool: Kind.BOOLEAN,
    datetime: Kind.TIME,
    list: Kind.TEXTS,
    object: Kind.ANY,
}


@dataclass(frozen=True)
class Vocabulary:
    """The fields that a condition may name.

    Parameters
    ----------
    roots : frozenset of str
        Of ``item page user segment context now``.
    item_attributes, user_attributes : mapping of str to type, or None
        Known attributes (of items, which are those of ``page`` too, and of people) by name without
        prefix, and their type: ``str float int bool datetime list object``, a list being one of
        texts. ``None``: any name, any value.
    segments : frozenset of str or None
        Known segments; ``None``: any name.
    sensitive : frozenset of str
        Whole names of fields, such as ``user.attributes.health``, that need `allow_sensitive`.
    allow_sensitive : bool
        Whether the condition may use them: its author has said so.
    """

    roots: frozenset[str] = frozenset({"item"})
    item_attributes: Mapping[str, type] | None = None
    user_attributes: Mapping[str, type] | None = None
    segments: frozenset[str] | None = None
    sensitive: frozenset[str] = field(default_factory=frozenset)
    allow_sensitive: bool = False

    def with_roots(self, *roots: str) -> Self:
        """Return the same vocabulary for conditions over other roots."""
        return replace(self, roots=frozenset(roots))

    def with_sensitive(self, *, allowed: bool) -> Self:
        """Return the same vocabulary for an author who asks for sensitive fields, or does not."""
        return replace(self, allow_sensitive=allowed)

    def kind_of(self, name: str) -> Kind:
        """Return what the values of a field are.

        Raises
        ------
        LookupError
            If there is no such field; the message says which there are.
        """
        root, _, rest = name.partition(".")
        if root not in self.roots:
            raise LookupError(f"unknown field {name!r}; known: {', '.join(self._known())}")
        if root == "segment" and not rest:
            return Kind.SEGMENT
        if root == "now" and not rest:
            return Kind.MOMENT
        if root == "context" and rest:
            return Kind.CONTEXT
        if rest.startswith("attributes.") and root in _TABLES:
            return self._attribute_kind(root, rest.removeprefix("attributes."))
        kind = _TABLES.get(root, {}).get(name)
        if kind is None:
            raise LookupError(f"unknown field {name!r}; known: {', '.join(self._known())}")
        return kind

    def _attribute_kind(self, root: str, name: str) -> Kind:
        known = self.user_attributes if root == "user" else self.item_attributes
        if not name:
            raise LookupError("the name of an attribute is missing")
        if known is None:
            return Kind.ANY
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise LookupError(f"unknown attribute {name!r}; known: {names}")
        return _KINDS[known[name]]

    def _known(self) -> list[str]:
        names: list[str] = []
        for root, table in _TABLES.items():
            if root in self.roots:
                names += [*sorted(table), f"{root}.attributes.*"]
        names += [root for root in ("segment", "now") if root in self.roots]
        return names + (["context.*"] if "context" in self.roots else [])


ITEM = Vocabulary()
"""Conditions over the candidate: filters and the targets of rules and offers."""
AUDIENCE = Vocabulary(frozenset({"page", "user", "segment", "context", "now"}))
"""Conditions over everything but the candidate: when a rule acts."""
PEOPLE = Vocabulary(frozenset({"user"}))
"""Conditions over a person alone: segments."""
