"""What the system thinks of a person, in points that they can refuse one by one.

Nothing here is a second opinion: interests are the weights of the history that every list is made
from (``history.read_history``), segments are those that rules ask for, computed values are those
that conditions see. What the site never names stays out, and is counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from feature_store.content import columns_at
from feature_store.preferences import PURPOSES, Disowned, Preferences, Purpose
from feature_store.schema import EVENT_TYPE_CODES
from feature_store.state import EMPTY_STATE, UserState
from feature_store.store import UserContext
from recsvc.customer.disowned import owned
from recsvc.customer.named import Name, bits_of
from recsvc.explaining.naming import Naming
from recsvc.merchandising.segments import segments_of
from recsvc.people import document_of
from recsvc.ranking.history import History, read_history
from recsvc.snapshot import Snapshot

Kind = Literal[
    "category",
    "brand",
    "item",
    "segment",
    "computed",
    "interest",
    "followed_category",
    "followed_brand",
    "hidden_category",
    "hidden_brand",
    "hidden_item",
    "snoozed_item",
]
DISOWNED_KINDS = ("category", "brand", "item", "segment")
"""What is thought of a person, rather than said by them, and can be refused."""
SAID: dict[Kind, str] = {
    "interest": "interests",
    "followed_category": "followed_categories",
    "followed_brand": "followed_brands",
    "hidden_category": "hidden_categories",
    "hidden_brand": "hidden_brands",
    "hidden_item": "hidden_items",
}
"""What people say themselves, and the field of their preferences in which it stands."""
COMPUTED = ("rfm", "clv", "churn_risk", "next_purchase_at")
TOP = 10
BECAUSE = 3
RECENT = 20

TYPES = {code: kind.value for kind, code in EVENT_TYPE_CODES.items()}


def point_id(kind: str, name: str) -> str:
    """Return the id of a point: of letters, digits and ``_-`` whatever the name holds."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return f"{kind}-{digest}"


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that is thought, or was said.

    Parameters
    ----------
    kind, name : str
        What it is about; together they are its id.
    strength : float or None
        Share of all that the history weighs, 0 to 1; ``None`` where nothing was weighed.
    because : tuple of int
        Catalogue rows of what counts most, the strongest first.
    bought : bool
        Whether all of those were bought.
    removable : bool
        Whether the person can refuse it by itself.
    """

    kind: Kind
    name: str
    strength: float | None = None
    because: tuple[int, ...] = ()
    bought: bool = True
    removable: bool = True

    @property
    def point_id(self) -> str:
        """See :func:`point_id`."""
        return point_id(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Signal:
    """One of the newest things that somebody did."""

    type: str
    row: int
    at_s: int


class Portrait:
    """What is thought of one person.

    Parameters
    ----------
    snapshot : Snapshot
        What serves.
    context : UserContext
        What is stored, read with ``documents=True``.
    naming : Naming
        What may be named.
    profiled : bool
        Whether the person may be profiled (``consenting.may_profile``): if not, nothing of the
        history and of what was computed is looked at.
    now_s : int
        Seconds since 1970.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        context: UserContext,
        naming: Naming,
        *,
        profiled: bool,
        now_s: int,
    ) -> None:
        self.snapshot = snapshot
        self.catalogue = snapshot.catalogue
        self.context = context
        self.naming = naming
        self.profiled = profiled
        self.now_s = now_s

    @property
    def preferences(self) -> Preferences:
        """What the person decided."""
        return self.context.preferences

    @cached_property
    def state(self) -> UserState:
        """The facts that lists are made from: without what does not describe the person."""
        if not self.profiled:
            return EMPTY_STATE
        return owned(self.context.state, self.preferences, self.catalogue)

    @cached_property
    def history(self) -> History:
        """The same, weighed."""
        return read_history(self.state, self.catalogue.n_rows, self.now_s)

    @property
    def newest_at(self) -> datetime:
        """When the newest of the facts happened, by the clock of whoever reported it."""
        newest_s = max(
            int(self.state.last_s[: self.state.n_item_facts].max(initial=0)),
            int(self.state.session_s.max(initial=0)),
        )
        return datetime.fromtimestamp(newest_s, UTC)

    # --- points -------------------------------------------------------------------------------

    @cached_property
    def interests(self) -> tuple[list[Point], int]:
        """Categories and brands that the history speaks for, strongest first.

        Returns
        -------
        points : list of Point
            Those that may be named.
        n_withheld : int
            How many may not.
        """
        history = self.history
        groups: dict[tuple[Kind, str], list[int]] = {}
        for position, category, brand in self._described_positions():
            if category:
                groups.setdefault(("category", category), []).append(position)
            if brand:
                groups.setdefault(("brand", brand), []).append(position)
        total = float(history.weights.sum())
        points, withheld = [], 0
        for (kind, name), positions in groups.items():
            # Of a brand only what may be named counts, or it would tell of the rest.
            named = [at for at in positions if self.naming.may_name(int(history.rows[at]))]
            if not named or (kind == "category" and not self.naming.may_name_category(name)):
                withheld += 1
                continue
            weights = history.weights[named]
            best = [named[at] for at in np.argsort(-weights, kind="stable")[:BECAUSE].tolist()]
            points.append(
                Point(
                    kind,
                    name,
                    round(float(weights.sum()) / total, 4),
                    tuple(history.rows[best].tolist()),
                    bool(history.bought[best].all()),
                )
            )
        points.sort(key=lambda point: (-(point.strength or 0), point.kind, point.name))
        return points, withheld

    def _described_positions(self) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield the position, first category and brand of what is in the history."""
        rows = self.history.rows
        if len(rows) == 0:
            return
        frame = columns_at(self.catalogue, rows)
        categories = frame["categories"].list.first().to_list()
        positions = np.searchsorted(rows, frame["row"].to_numpy()).tolist()
        yield from zip(positions, categories, frame["brand"].to_list(), strict=True)

    @cached_property
    def segments(self) -> list[Point]:
        """The segments that rules find the person in."""
        if not self.profiled:
            return []
        found = segments_of(self.snapshot.site.segments, document_of(self.context))
        return [Point("segment", name) for name in sorted(found)]

    @cached_property
    def computed(self) -> dict[str, Any]:
        """What training computed, as far as it is not a segment."""
        if not self.profiled:
            return {}
        values = document_of(self.context)["computed"]
        return {name: values[name] for name in COMPUTED if values.get(name) is not None}

    @cached_property
    def said(self) -> tuple[list[Point], int]:
        """What the person said themselves, and how much of it may not be named."""
        asked = [
            Point(kind, name)
            for kind, field in SAID.items()
            for name in sorted(getattr(self.preferences, field))
        ]
        asked += [
            Point("snoozed_item", one.item_id)
            for one in self.preferences.snoozed
            if one.until.timestamp() > self.now_s
        ]
        points = [point for point in asked if self.may_name(point.kind, point.name)]
        return points, len(asked) - len(points)

    def may_name(self, kind: str, name: str) -> bool:
        """Tell whether a point may be spoken of."""
        if kind.endswith("category") or kind == "interest":
            return self.naming.may_name_category(name)
        if kind.endswith("item"):
            row = self.catalogue.row(name)
            return row is None or self.naming.may_name(row)
        if kind.endswith("brand") and self.naming:
            bits = bits_of(self.catalogue, Name("brand", name))
            is_of = np.unpackbits(bits, count=self.catalogue.n_rows)
            return self.naming.may_name_any(np.flatnonzero(is_of))
        return True

    def points(self) -> list[Point]:
        """Return what is shown: what was said, the top interests, segments, computed values."""
        interests, _ = self.interests
        top: list[Point] = []
        for kind in ("category", "brand"):
            top += [point for point in interests if point.kind == kind][:TOP]
        computed = [Point("computed", name, removable=False) for name in self.computed]
        return [*self.said[0], *top, *self.segments, *computed]

    @property
    def withheld(self) -> int:
        """How many points are not shown because they may not be named."""
        return self.interests[1] + self.said[1]

    def recent(self) -> tuple[list[Signal], int]:
        """Return the newest events that may be named, and how many among them may not."""
        state, found, withheld = self.state, list[Signal](), 0
        for row, kind, at_s in zip(
            state.session_rows.tolist(),
            state.session_types.tolist(),
            state.session_s.tolist(),
            strict=True,
        ):
            if len(found) == RECENT:
                break
            if row >= self.catalogue.n_rows:
                continue
            if self.naming.may_name(row):
                found.append(Signal(TYPES[kind], row, at_s))
            else:
                withheld += 1
        return found, withheld

    def removed(self) -> list[Disowned]:
        """Return what the person refused and that has not come back by what they did since."""
        shown = {(point.kind, point.name) for point in self.interests[0]}
        return [
            one
            for one in self.preferences.disowned
            if (one.kind, one.name) not in shown and self.may_name(one.kind, one.name)
        ]

    # --- by id --------------------------------------------------------------------------------

    def find(self, wanted: str) -> Point | None:
        """Return the point with an id, shown or not, refused or not; ``None`` for none."""
        candidates = [*self.points(), *self.interests[0]]
        rows = np.unique(np.concatenate((self.state.rows, self.state.session_rows)))
        for row in rows[rows < self.catalogue.n_rows].tolist():
            item_id = self.catalogue.item_id(row)
            if item_id is not None and self.naming.may_name(row):
                candidates.append(Point("item", item_id))
        candidates += [Point(one.kind, one.name) for one in self.preferences.disowned]
        return next((point for point in candidates if point.point_id == wanted), None)


def without(preferences: Preferences, point: Point, now: datetime) -> Preferences:
    """Return preferences by which a point describes the person no more.

    Parameters
    ----------
    preferences : Preferences
        As they are.
    point : Point
        One that is removable; what was said is taken back, what was thought is disowned.
    now : datetime
        What the time is: what the person does from now on counts again.
    """
    if point.kind in DISOWNED_KINDS:
        kept = put_back(preferences, point).disowned
        said = Disowned.model_validate(
            {"kind": point.kind, "name": point.name, "at": now.astimezone(UTC)}
        )
        disowned = sorted((*kept, said), key=lambda one: (one.kind, one.name))
        return preferences.model_copy(update={"disowned": tuple(disowned)})
    if point.kind == "snoozed_item":
        kept_on = tuple(one for one in preferences.snoozed if one.item_id != point.name)
        return preferences.model_copy(update={"snoozed": kept_on})
    field = SAID[point.kind]
    return preferences.model_copy(update={field: getattr(preferences, field) - {point.name}})


def put_back(preferences: Preferences, point: Point) -> Preferences:
    """Return preferences in which a point is not refused any more."""
    kept = [one for one in preferences.disowned if (one.kind, one.name) != (point.kind, point.name)]
    return preferences.model_copy(update={"disowned": tuple(kept)})


def consents(preferences: Preferences) -> dict[Purpose, dict[str, Any]]:
    """Return for each purpose what is allowed, since when, and by which word."""
    changes = {change.purpose: change for change in preferences.consent_changes}
    found: dict[Purpose, dict[str, Any]] = {}
    for purpose in PURPOSES:
        last, allowed = changes.get(purpose), getattr(preferences.consent, purpose)
        found[purpose] = {
            "allowed": allowed,
            "at": None if last is None else last.at,
            "source": None if last is None else last.source,
        }
    return found
