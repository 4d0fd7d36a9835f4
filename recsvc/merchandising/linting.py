"""What is probably wrong with rules: each finding names the rule, and what to do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_store.catalogue import Catalogue
from feature_store.conditions import fields_of
from feature_store.documents import SiteDocuments
from feature_store.schema import format_time
from recsvc.merchandising.placements import Placement
from recsvc.merchandising.publishing import OUT_OF_FORCE, RULE
from recsvc.merchandising.segments import segments_named
from recsvc.rules import CheckedRule, compile_rules, parse_rule
from recsvc.rules.model import EVERYWHERE, Boost, Bury, Exclude, IncludeOnly, Pin, Slot

Mask = npt.NDArray[np.bool_]
Kind = Literal[
    "expired",
    "never_matches",
    "unknown_segment",
    "unknown_placement",
    "hides_everything",
    "two_on_one_position",
    "shadowed",
    "not_showable",
]
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is probably wrong.

    Parameters
    ----------
    rule_id : str
        With which rule.
    kind : str
        What kind of thing.
    severity : str
        ``error``: the rule does nothing, or far too much; ``warning``: less than it says.
    detail : str
        What, and what to do.
    others : tuple of str
        Rules that have to do with it.
    """

    rule_id: str
    kind: Kind
    severity: Severity
    detail: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """A rule with what it speaks of in this catalogue.

    Parameters
    ----------
    checked : CheckedRule
        The rule.
    target : ndarray of bool, shape (n_rows,), or None
        What its target matches; a pin's items.
    places : frozenset of str
        The placements that it is in.
    """

    checked: CheckedRule
    target: Mask | None
    places: frozenset[str] = field(default_factory=frozenset)

    @property
    def rule_id(self) -> str:
        """Name of the rule."""
        return self.checked.rule.rule_id

    @property
    def positions(self) -> frozenset[int]:
        """Where it puts items."""
        action = self.checked.rule.action
        return frozenset(action.positions if isinstance(action, Pin | Slot) else ())

    def reaches(self, other: "Looked") -> bool:
        """Tell whether it acts wherever and whenever another one does."""
        mine, its = self.checked, other.checked
        audience = mine.when is None or (its.when is not None and mine.when.key == its.when.key)
        window = mine.window is None or mine.window == its.window
        starts = mine.rule.starts_at is None or (
            its.rule.starts_at is not None and mine.rule.starts_at <= its.rule.starts_at
        )
        ends = mine.rule.ends_at is None or (
            its.rule.ends_at is not None and its.rule.ends_at <= mine.rule.ends_at
        )
        return self.places >= other.places and audience and window and starts and ends

    def meets(self, other: "Looked") -> bool:
        """Tell whether both can act on one list, as far as placements and dates say."""
        mine, its = self.checked.rule, other.checked.rule
        apart = (mine.ends_at and its.starts_at and mine.ends_at <= its.starts_at) or (
            its.ends_at and mine.starts_at and its.ends_at <= mine.starts_at
        )
        return not apart and not self.places.isdisjoint(other.places)


def drafts_of(documents: SiteDocuments) -> list[CheckedRule]:
    """Return the rules as they were written last, but for those that shall not be in force."""
    bodies = ((one.id, one.body) for one in documents.of_kind(RULE) if one.body is not None)
    return [
        parse_rule({**body, "rule_id": rule_id})
        for rule_id, body in bodies
        if body["status"] not in OUT_OF_FORCE
    ]


def lint(
    rules: Sequence[CheckedRule],
    catalogue: Catalogue,
    placements: Mapping[str, Placement],
    segments: Iterable[str],
    now_s: int,
) -> list[Finding]:
    """Return everything that is probably wrong, by rule.

    Parameters
    ----------
    rules : sequence of CheckedRule
        The rules that are, or shall be, in force together.
    catalogue : Catalogue
        The items.
    placements : mapping of str to Placement
        Those that there are.
    segments : iterable of str
        Those that there are.
    now_s : int
        Seconds since 1970.
    """
    looked = _look(rules, catalogue, placements)
    showable = {
        name: catalogue.showable(now_s, placement.kinds) for name, placement in placements.items()
    }
    known = frozenset(segments)
    findings: list[Finding] = []
    for one in looked:
        findings += _alone(one, placements, known, showable, now_s)
    alive = [one for one in looked if not _is_over(one, now_s)]
    findings += _positions_twice(alive)
    findings += _shadows(alive)
    return sorted(findings, key=lambda one: (one.rule_id, one.kind))


def _look(
    rules: Sequence[CheckedRule], catalogue: Catalogue, placements: Mapping[str, Placement]
) -> list[Looked]:
    live = [
        one.model_copy(update={"rule": one.rule.model_copy(update={"status": "live"})})
        for one in rules
    ]
    compiled = compile_rules(live, catalogue)
    found = []
    for entry, checked in zip(compiled.book.entries, compiled.book.rules, strict=True):
        target: Mask | None = None
        if entry.target is not None:
            target = compiled.targets[entry.target].mask(catalogue.n_rows)
        elif isinstance(checked.rule.action, Pin):
            target = np.zeros(catalogue.n_rows, dtype=bool)
            rows = catalogue.rows(checked.rule.action.item_ids)
            target[rows[rows >= 0]] = True
        named = checked.rule.placements
        places = frozenset(placements if EVERYWHERE in named else named)
        found.append(Looked(checked, target, places))
    return found


def _is_over(one: Looked, now_s: int) -> bool:
    ends_at = one.checked.rule.ends_at
    return ends_at is not None and ends_at.timestamp() <= now_s


def _alone(
    one: Looked,
    placements: Mapping[str, Placement],
    segments: frozenset[str],
    showable: Mapping[str, Mask],
    now_s: int,
) -> Iterator[Finding]:
    """Find what is wrong with one rule, whatever the others say."""
    rule = one.checked.rule
    if rule.ends_at is not None and _is_over(one, now_s):
        detail = f"it ended at {format_time(rule.ends_at)}: archive it, or give it another end"
        yield Finding(one.rule_id, "expired", "warning", detail)
    for name in sorted(one.places - placements.keys()):
        detail = f"there is no placement {name!r} any more"
        yield Finding(one.rule_id, "unknown_placement", "error", detail)
    if one.checked.when is not None and "segment" in fields_of(one.checked.when):
        for _, named in segments_named(rule.when):
            for name in sorted(set(named) - segments):
                detail = f"there is no segment {name!r} any more: nobody is in it"
                yield Finding(one.rule_id, "unknown_segment", "error", detail)
    if one.target is None:
        return
    if not one.target.any():
        what = "pinned items" if isinstance(rule.action, Pin) else "items that match its target"
        detail = f"the catalogue has no {what}"
        yield Finding(one.rule_id, "never_matches", "error", detail)
        return
    yield from _in_placements(one, showable)


def _in_placements(one: Looked, showable: Mapping[str, Mask]) -> Iterator[Finding]:
    action, target = one.checked.rule.action, one.target
    assert target is not None
    for name in sorted(one.places & showable.keys()):
        may = showable[name]
        if isinstance(action, Exclude | IncludeOnly):
            left = may & (~target if isinstance(action, Exclude) else target)
            if may.any() and not left.any():
                detail = f"nothing is left to be shown in {name!r} where it acts"
                yield Finding(one.rule_id, "hides_everything", "error", detail)
        elif not (may & target).any():
            detail = f"nothing of what it speaks of may be shown in {name!r} now"
            yield Finding(one.rule_id, "not_showable", "warning", detail)


def _positions_twice(looked: Sequence[Looked]) -> Iterator[Finding]:
    placing = [one for one in looked if one.positions]
    for at, one in enumerate(placing):
        for other in placing[at + 1 :]:
            if not one.meets(other):
                continue
            both = sorted(one.positions & other.positions)
            if both:
                sure = one.reaches(other)
                detail = (
                    f"{one.rule_id!r} has position {', '.join(map(str, both))} too, and goes first"
                    f" {'always' if sure else 'whenever both act'}; the loser moves down"
                )
                yield Finding(
                    other.rule_id, "two_on_one_position", "warning", detail, (one.rule_id,)
                )


def _shadows(looked: Sequence[Looked]) -> Iterator[Finding]:
    """Find rules whose items an exclusion removes wherever they act, and repeated exclusions."""
    excluding = [one for one in looked if isinstance(one.checked.rule.action, Exclude)]
    speaking = Boost | Bury | Slot | Pin | IncludeOnly
    for one in looked:
        action = one.checked.rule.action
        if one.target is None or not one.target.any():
            continue
        for other in excluding:
            if other is one or other.target is None or not other.reaches(one):
                continue
            if (one.target & ~other.target).any():
                continue
            if isinstance(action, speaking):
                detail = f"{other.rule_id!r} excludes everything that it speaks of"
                yield Finding(one.rule_id, "shadowed", "error", detail, (other.rule_id,))
                break
            if isinstance(action, Exclude) and not (
                one.reaches(other)
                and not (other.target & ~one.target).any()
                and one.rule_id < other.rule_id
            ):
                detail = f"{other.rule_id!r} excludes all of it already"
                yield Finding(one.rule_id, "shadowed", "info", detail, (other.rule_id,))
                break
