"""The life of a rule: draft, publish, pause, revert, roll back - as changes of the site.

Three kinds of documents:

=====================  =========================================================================
``rule`` RULE_ID       what its author wrote last; nothing shows it before it is published
``live_rule`` RULE_ID  what is in force: ``{revision, rule}``, the rule as of one revision
``publication`` rules  ``{version, rules: {RULE_ID: revision}}``: the number of the last
                       publication, and what it put in force
=====================  =========================================================================

Each function here plans the writes for one step from the documents that are there; `DocumentStore`
writes them all at once, so what is in force is always one publication, never a mixture.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from feature_store.documents import Document, SiteDocuments, Write
from feature_store.errors import ConflictError, NotFoundError
from feature_store.site_history import Entry, revisions_of

RULE = "rule"
LIVE_RULE = "live_rule"
PUBLICATION = ("publication", "rules")
"""Kind and id of the document that counts the publications of rules."""
OUT_OF_FORCE = frozenset({"paused", "archived"})

Body = dict[str, Any]


def publication(site: SiteDocuments) -> tuple[int, dict[str, int]]:
    """Return the number of the last publication, and the revision of each rule in force."""
    found = site.get(*PUBLICATION)
    if found is None or found.body is None:
        return 0, {}
    return found.body["version"], dict(found.body["rules"])


def live_rules(site: SiteDocuments) -> list[tuple[str, int, Body]]:
    """Return id, revision and content of every rule in force, by id."""
    return [
        (one.id, one.body["revision"], one.body["rule"])
        for one in site.of_kind(LIVE_RULE)
        if one.body is not None
    ]


def rule_of(site: SiteDocuments, rule_id: str) -> Document:
    """Return a rule as its author wrote it last.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    found = site.get(RULE, rule_id)
    if found is None:
        raise NotFoundError(f"there is no rule {rule_id!r}")
    return found


def status_of(site: SiteDocuments, rule: Document) -> str:
    """Return ``live``, ``draft``, ``paused`` or ``archived``.

    A rule that was edited since it was published is ``live``: the published revision is in force.
    """
    assert rule.body is not None
    if rule.id in publication(site)[1]:
        return "live"
    return str(rule.body["status"])


def deleting(site: SiteDocuments, rule_id: str, expected_revision: int | None) -> list[Write]:
    """Plan the deletion of a rule that is not in force.

    Raises
    ------
    ConflictError
        If it is in force.
    """
    rule_of(site, rule_id)
    if rule_id in publication(site)[1]:
        raise ConflictError(
            f"the rule {rule_id!r} is live: set its status to paused or archived, and publish"
        )
    return [Write(RULE, rule_id, None, expected_revision)]


def publishing(site: SiteDocuments, rule_ids: Sequence[str]) -> list[Write]:
    """Plan a publication: each rule comes into force as it was written last.

    One whose status is ``paused`` or ``archived`` goes out of force.

    Raises
    ------
    NotFoundError
        If a rule does not exist.
    """
    version, rules = publication(site)
    writes = []
    for rule_id in dict.fromkeys(rule_ids):
        rule = rule_of(site, rule_id)
        assert rule.body is not None
        if rule.body["status"] in OUT_OF_FORCE:
            if rules.pop(rule_id, None) is not None:
                writes.append(Write(LIVE_RULE, rule_id, None))
        elif rules.get(rule_id) != rule.revision:
            rules[rule_id] = rule.revision
            body = {"revision": rule.revision, "rule": rule.body}
            writes.append(Write(LIVE_RULE, rule_id, body))
    return [*writes, _next_publication(version, rules)]


def reverting(
    site: SiteDocuments, entries: Iterable[Entry], rule_id: str, revision: int
) -> list[Write]:
    """Plan that a rule is again what it was; if it is in force, that comes into force at once.

    Parameters
    ----------
    site : SiteDocuments
        What is there.
    entries : iterable of dict
        All changes of the site.
    rule_id : str
        The rule; it may have been deleted since.
    revision : int
        The revision to go back to.

    Raises
    ------
    NotFoundError
        If the rule never had that revision, or was deleted by it.
    """
    body = _body_at(entries, rule_id, revision)
    known = site.documents.get((RULE, rule_id))
    next_revision = (known.revision if known else 0) + 1
    writes = [Write(RULE, rule_id, body)]
    version, rules = publication(site)
    if rule_id in rules:
        rules[rule_id] = next_revision
        writes.append(Write(LIVE_RULE, rule_id, {"revision": next_revision, "rule": body}))
        writes.append(_next_publication(version, rules))
    return writes


def rolling_back(site: SiteDocuments, entries: Sequence[Entry], rules_version: int) -> list[Write]:
    """Plan that exactly what a publication had put in force is in force again.

    What authors have written since stays as drafts; recalls are no rules and stay as they are.

    Raises
    ------
    NotFoundError
        If there was no such publication.
    """
    version, rules = publication(site)
    wanted = _rules_at(entries, rules_version)
    if wanted is None:
        raise NotFoundError(f"there is no rules version {rules_version}; the last one is {version}")
    writes = [Write(LIVE_RULE, rule_id, None) for rule_id in rules if rule_id not in wanted]
    for rule_id, revision in wanted.items():
        if rules.get(rule_id) != revision:
            body = _body_at(entries, rule_id, revision)
            writes.append(Write(LIVE_RULE, rule_id, {"revision": revision, "rule": body}))
    return [*writes, _next_publication(version, wanted)]


def _next_publication(version: int, rules: Mapping[str, int]) -> Write:
    return Write(*PUBLICATION, {"version": version + 1, "rules": dict(sorted(rules.items()))})


def _rules_at(entries: Iterable[Entry], rules_version: int) -> dict[str, int] | None:
    if rules_version == 0:
        return {}
    for one in revisions_of(entries, *PUBLICATION):
        if one["body"] is not None and one["body"]["version"] == rules_version:
            return dict(one["body"]["rules"])
    return None


def _body_at(entries: Iterable[Entry], rule_id: str, revision: int) -> Body:
    for one in revisions_of(entries, RULE, rule_id):
        if one["revision"] == revision and one["body"] is not None:
            body: Body = one["body"]
            return body
    raise NotFoundError(f"there is no revision {revision} of the rule {rule_id!r}")
