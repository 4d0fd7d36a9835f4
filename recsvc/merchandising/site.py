"""What the site decided, ready to be applied: one immutable value in every snapshot.

It is made from the site's documents (``feature_store.documents``) when they change, off the event
loop. A copy of the documents lies on the worker's disk, so that a worker that starts while the
store is down still knows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from feature_store.documents import SiteDocuments
from feature_store.errors import ArtifactError
from feature_store.files import write_atomically
from recsvc.checks import InvalidRequestError
from recsvc.merchandising.needs import NO_NEEDS, Needs, needs_of_pages
from recsvc.merchandising.page_documents import BUILT_IN as BUILT_IN_PAGES
from recsvc.merchandising.page_documents import Page, read_pages
from recsvc.merchandising.placement_documents import read_placements
from recsvc.merchandising.placements import BUILT_IN, Placement
from recsvc.merchandising.publishing import live_rules, publication
from recsvc.merchandising.recalls import Recall, recalls_of
from recsvc.merchandising.segments import BUILT_IN as BUILT_IN_SEGMENTS
from recsvc.merchandising.segments import Segment, read_segments
from recsvc.privacy import NO_PRIVACY, Privacy, read_privacy
from recsvc.rules import CheckedRule, parse_rule
from recsvc.telemetry import get_logger

FILE = "site.json"

log = get_logger()


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that marketers and operators have set.

    Parameters
    ----------
    documents : SiteDocuments
        As they were written.
    placements : mapping of str to Placement
        The slots: the built-in ones, and what was made of them.
    recalls : tuple of Recall
        What must be gone from everything.
    segments : mapping of str to Segment
        Named conditions over people: those that every shop has, and the site's own.
    needs : Needs
        What recommendations must know of a person and a page, because conditions look at it.
    rules : mapping of str to CheckedRule
        The rules in force.
    rules_version : int
        Number of the last publication of rules; 0 while there was none.
    privacy : Privacy
        What must never be named.
    pages : mapping of str to Page
        The pages: the built-in ones, and what was made of them.
    """

    documents: SiteDocuments = field(default_factory=SiteDocuments)
    placements: Mapping[str, Placement] = field(default_factory=lambda: BUILT_IN)
    recalls: tuple[Recall, ...] = ()
    segments: Mapping[str, Segment] = field(default_factory=lambda: BUILT_IN_SEGMENTS)
    needs: Needs = NO_NEEDS
    rules: Mapping[str, CheckedRule] = field(default_factory=dict)
    rules_version: int = 0
    privacy: Privacy = NO_PRIVACY
    pages: Mapping[str, Page] = field(default_factory=lambda: BUILT_IN_PAGES)

    @property
    def sequence(self) -> int:
        """How many changes of the site are included."""
        return self.documents.sequence

    @property
    def needs_documents(self) -> bool:
        """Whether recommendations need a person's profile and computed values."""
        return self.needs.person


def read_site(documents: SiteDocuments, before: Site | None = None) -> Site:
    """Return the site that its documents describe.

    Parameters
    ----------
    documents : SiteDocuments
        All of them; each was checked when it was written.
    before : Site or None
        The one that this takes the place of: rules that are still the same are taken from it.
    """
    return Site(
        documents,
        read_placements(documents),
        recalls=tuple(recalls_of(documents)),
        segments=read_segments(documents),
        needs=needs_of_pages(documents),
        rules=_read_rules(documents, before),
        rules_version=publication(documents)[0],
        privacy=read_privacy(documents),
        pages=read_pages(documents),
    )


def _read_rules(documents: SiteDocuments, before: Site | None) -> dict[str, CheckedRule]:
    known = before.rules if before else {}
    found = {}
    for rule_id, revision, body in live_rules(documents):
        same = known.get(rule_id)
        if same is None or same.rule.revision != revision:
            whole = {**body, "rule_id": rule_id, "revision": revision, "status": "live"}
            try:
                same = parse_rule(whole)
            except InvalidRequestError as error:
                # Written by another version. The others, and recalls, must not wait for it.
                log.error("rule_unreadable", rule_id=rule_id, error=str(error))
                continue
        found[rule_id] = same
    return found


class SiteFile:
    """The copy of the site's documents on the worker's disk.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE

    def load(self) -> SiteDocuments | None:
        """Return the documents that were written last.

        Returns
        -------
        SiteDocuments or None
            ``None`` if this disk has never known any.

        Raises
        ------
        ArtifactError
            If the file is damaged.
        """
        try:
            return SiteDocuments.from_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self.path} cannot be read: {error}; remove it, and it is written again as soon"
                " as the store answers"
            ) from error

    def save(self, documents: SiteDocuments) -> None:
        """Write the documents; of several workers the last one wins, which is harmless.

        The store is the authority: the file counts only while it does not answer.
        """
        write_atomically(self.path, documents.as_json())
