"""What the conditions of a site look at, so that nothing else is read or computed for a page."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from feature_store.documents import SiteDocuments
from recsvc.merchandising.segments import segments_named

HOT_KINDS = ("live_rule", "placement")
"""Documents whose conditions recommendations evaluate."""
ASLEEP = frozenset({"draft", "paused", "archived"})
"""What a document's ``status`` says when it does nothing."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What some conditions look at, so that nothing else is read or computed.

    Parameters
    ----------
    person : bool
        Whether the profile and what training computed.
    page : bool
        Whether the items on the page.
    segments : frozenset of str
        Which segments.
    """

    person: bool = False
    page: bool = False
    segments: frozenset[str] = frozenset()

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            self.person or other.person, self.page or other.page, self.segments | other.segments
        )


NO_NEEDS = Needs()


def needs_of(documents: Iterable[object]) -> Needs:
    """Return what the conditions in some JSON documents look at, wherever they stand in them."""
    person = page = False
    segments: set[str] = set()
    for document in documents:
        for name in fields_named(document):
            root = name.partition(".")[0]
            person |= root in ("user", "segment")
            page |= root == "page"
        for _, named in segments_named(document):
            segments.update(named)
    return Needs(person, page, frozenset(segments))


def fields_named(value: object) -> Iterator[str]:
    """Yield the fields that conditions name, wherever they stand in a JSON document."""
    if isinstance(value, list):
        for one in value:
            yield from fields_named(one)
    elif isinstance(value, Mapping):
        if "op" in value and isinstance(value.get("field"), str):
            yield value["field"]
        for one in value.values():
            yield from fields_named(one)


def needs_of_pages(documents: SiteDocuments) -> Needs:
    """Return what recommendations must know for the rules and placements of a site."""
    found = (one.body or {} for kind in HOT_KINDS for one in documents.of_kind(kind))
    return needs_of(body for body in found if body.get("status") not in ASLEEP)
