"""Segments: named conditions over a person, compiled once for a site and evaluated on demand."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from feature_store.conditions import (
    PEOPLE,
    USER_FIELDS,
    Condition,
    ConditionError,
    Predicate,
    Scope,
    compile_predicate,
    fields_of,
    parse_condition,
    split_equalities,
)
from feature_store.conditions.analysis import Values
from feature_store.conditions.tree import Kind
from feature_store.documents import SiteDocuments
from feature_store.schema import Frozen

KIND = "segment"
MAX_SEGMENTS = 500
DISOWNED = "disowned_segments"
"""Where a person's document has the segments of which they say that they are no member."""


class SegmentBody(Frozen):
    """Who belongs to a segment."""

    name: Annotated[str, Field(min_length=1, max_length=200, examples=["Gold in Berlin"])]
    description: Annotated[str, Field(max_length=2000)] = ""
    when: Annotated[
        dict[str, Any],
        Field(
            description="a condition over user.*",
            examples=[{"field": "user.loyalty.tier", "op": "eq", "value": "gold"}],
        ),
    ]
    allow_sensitive: Annotated[
        bool,
        Field(description="whether it may use attributes that the site calls sensitive"),
    ] = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment, ready to be evaluated.

    Parameters
    ----------
    segment_id : str
        Its name in conditions.
    body : SegmentBody
        As it was written.
    holds : Predicate
        Whether the person of a scope belongs to it.
    fields : frozenset of str
        What its condition speaks of.
    required : mapping of str to frozenset
        Values of which a field must have one for the condition to hold (``split_equalities``).
    built_in : bool
        Whether every shop has it; such a one cannot be changed.
    """

    segment_id: str
    body: SegmentBody
    holds: Predicate
    fields: frozenset[str] = frozenset()
    required: Mapping[str, Values] = field(default_factory=dict)
    built_in: bool = False


def parse_segment_condition(
    body: SegmentBody, sensitive: frozenset[str] = frozenset()
) -> Condition:
    """Check the condition of a segment.

    Parameters
    ----------
    body : SegmentBody
        The segment.
    sensitive : frozenset of str
        Fields that need the flag (``Settings.sensitive_fields``).

    Raises
    ------
    ConditionError
        If it speaks of anything but the person, of another segment, or of a sensitive field
        without the flag.
    """
    for pointer, _ in segments_named(body.when):
        said = "a segment cannot refer to segments; write their conditions with all, any and not"
        raise ConditionError(pointer, said)
    vocabulary = replace(PEOPLE, sensitive=sensitive, allow_sensitive=body.allow_sensitive)
    return parse_condition(body.when, vocabulary)


def segments_named(value: object, pointer: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield where a document speaks of segments, and of which.

    Parameters
    ----------
    value : object
        Any JSON document: conditions are found wherever they stand in it.
    pointer : str
        Where it stands itself.
    """
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from segments_named(one, f"{pointer}/{at}")
    elif isinstance(value, Mapping):
        if value.get("field") == "segment":
            named = value.get("value")
            yield pointer, [str(one) for one in (named if isinstance(named, list) else [named])]
        for name, one in value.items():
            if isinstance(one, Mapping | list):
                escaped = str(name).replace("~", "~0").replace("/", "~1")
                yield from segments_named(one, f"{pointer}/{escaped}")


def read_segments(documents: SiteDocuments) -> dict[str, Segment]:
    """Return the segments of a site by name: those that every shop has, and its own."""
    found = dict(BUILT_IN)
    for document in documents.of_kind(KIND):
        found[document.id] = _compiled(document.id, SegmentBody.model_validate(document.body))
    return found


def segments_of(
    segments: Mapping[str, Segment], user: Mapping[str, Any], names: Iterable[str] | None = None
) -> frozenset[str]:
    """Return the names of the segments that a person belongs to.

    Parameters
    ----------
    segments : mapping of str to Segment
        Those of the site.
    user : mapping
        The person as conditions see them (``people.person_document``).
    names : iterable of str or None
        Which ones somebody asks for; ``None`` for all. Unknown ones have no members.
    """
    scope = Scope(user=user)
    asked = segments if names is None else [name for name in names if name in segments]
    return frozenset(name for name in asked if segments[name].holds(scope)).difference(
        user.get(DISOWNED, ())
    )


class SegmentIndex:
    """Finds all segments of a person without trying each: by a value that a segment asks for.

    Parameters
    ----------
    segments : mapping of str to Segment
        Those of the site.
    """

    def __init__(self, segments: Mapping[str, Segment]) -> None:
        self._others: list[Segment] = []
        self._by_value: dict[tuple[str, ...], dict[Any, list[Segment]]] = {}
        for segment in segments.values():
            usable = [name for name in segment.required if _is_plain(name)]
            if not usable:
                self._others.append(segment)
                continue
            name = min(usable, key=lambda one: (len(segment.required[one]), one))
            table = self._by_value.setdefault(_path(name), {})
            for value in segment.required[name]:
                table.setdefault(value, []).append(segment)

    def segments_of(self, user: Mapping[str, Any]) -> frozenset[str]:
        """Return what :func:`segments_of` returns for all segments."""
        scope = Scope(user=user)
        tried = list(self._others)
        for path, table in self._by_value.items():
            found: Any = user
            for part in path:
                found = None if found is None else found.get(part)
            for value in found if isinstance(found, list) else (found,):
                if isinstance(value, str | bool | int | float):
                    tried += table.get(value, ())
        return frozenset(
            segment.segment_id for segment in tried if segment.holds(scope)
        ).difference(user.get(DISOWNED, ()))


def _is_plain(name: str) -> bool:
    """Tell whether a field's values stand in the document as conditions compare them."""
    kind = USER_FIELDS.get(name)
    return name.startswith(_ATTRIBUTES) if kind is None else kind is Kind.TEXT


_ATTRIBUTES = "user.attributes."


def _path(name: str) -> tuple[str, ...]:
    if name.startswith(_ATTRIBUTES):
        return "attributes", name.removeprefix(_ATTRIBUTES)
    return tuple(name.split(".")[1:])


def _compiled(segment_id: str, body: SegmentBody, *, built_in: bool = False) -> Segment:
    try:
        condition = parse_segment_condition(body)
    except ConditionError:
        # Written by a version that knew other fields: nobody is in it until it is written again.
        return Segment(segment_id, body, lambda _: False, built_in=built_in)
    return Segment(
        segment_id,
        body,
        compile_predicate(condition),
        fields_of(condition),
        split_equalities(condition),
        built_in,
    )


def _equal(segment_id: str, name: str, description: str, of: str, value: str) -> Segment:
    when = {"field": of, "op": "eq", "value": value}
    body = SegmentBody(name=name, description=description, when=when)
    return _compiled(segment_id, body, built_in=True)


_STAGE = "user.computed.stage"
_GROUP = "user.computed.rfm.group"
_BUILT_IN = (
    _equal("stage_new", "New customers", "Few purchases, or only recent ones", _STAGE, "new"),
    _equal("stage_active", "Active customers", "They buy as they used to", _STAGE, "active"),
    _equal(
        "stage_at_risk",
        "Customers at risk",
        "Silent for several of their own intervals",
        _STAGE,
        "at_risk",
    ),
    _equal("stage_lapsed", "Lapsed customers", "Silent for very long", _STAGE, "lapsed"),
    *(
        _equal(f"rfm_{value}", f"RFM: {name}", said, _GROUP, value)
        for value, name, said in (
            ("champions", "champions", "They bought lately and buy often"),
            ("loyal", "loyal", "They buy often"),
            ("potential_loyalist", "potential loyalists", "They bought lately, and again"),
            ("new", "new", "They bought lately, once"),
            ("promising", "promising", "They bought not long ago, once"),
            ("need_attention", "need attention", "Middling in recency and frequency"),
            ("about_to_sleep", "about to sleep", "They bought some time ago, seldom"),
            ("at_risk", "at risk", "They bought often, but long ago"),
            ("cant_lose", "can't lose them", "They bought most often, but long ago"),
            ("hibernating", "hibernating", "They bought seldom, and long ago"),
        )
    ),
)
BUILT_IN: dict[str, Segment] = {segment.segment_id: segment for segment in _BUILT_IN}
"""The segments that every shop has from the start: stages of life, and RFM groups."""
