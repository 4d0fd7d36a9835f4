"""Every change of the site from the first on: the audit, and what anything was before."""

from collections.abc import Iterable, Sequence
from typing import Any

from feature_store.change_log import ChangeLog
from feature_store.documents import NAME, DocumentStore

Entry = dict[str, Any]
"""A change as ``documents.change_entry`` makes it."""


async def site_entries(documents: DocumentStore, log: ChangeLog) -> list[Entry]:
    """Return all changes in their order: the archived ones and those that wait.

    Parameters
    ----------
    documents : DocumentStore
        Holds what waits.
    log : ChangeLog
        Holds the rest.

    Raises
    ------
    StoreUnavailableError
        If the server does not answer.
    """
    # Waiting ones first: what moves in between is then in both, and counts once.
    waiting = await documents.waiting()
    return in_order([*(change.body for change in log.read(NAME)), *waiting])


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return changes by their numbers; where a restored server counted again, its ones count."""
    known: dict[int, Entry] = {}
    for entry in entries:
        number = entry["sequence"]
        if number in known and known[number]["hash"] != entry["hash"]:
            known = {place: one for place, one in known.items() if place < number}
        known[number] = entry
    return [known[number] for number in sorted(known)]


def revisions_of(entries: Iterable[Entry], kind: str, document_id: str) -> list[Entry]:
    """Return every revision of a document, oldest first.

    Returns
    -------
    list of dict
        ``revision``, ``body`` (``None`` where it was deleted), ``at``, ``by``, ``note``.
    """
    return [
        {
            "revision": one["revision"],
            "body": one["body"],
            "at": entry["at"],
            "by": entry["by"],
            "note": entry["note"],
        }
        for entry in entries
        for one in entry["changes"]
        if one["kind"] == kind and one["id"] == document_id
    ]


def audit_of(
    entries: Sequence[Entry], kinds: Iterable[str] | None = None, document_id: str | None = None
) -> list[dict[str, Any]]:
    """Return who changed what, when, with the document before and after; oldest first.

    Parameters
    ----------
    entries : sequence of dict
        All changes.
    kinds : iterable of str or None
        Kinds of documents that are wanted; ``None`` for all.
    document_id : str or None
        Only the changes of one document.
    """
    wanted = None if kinds is None else frozenset(kinds)
    before: dict[tuple[str, str], Any] = {}
    found = []
    for entry in entries:
        for one in entry["changes"]:
            key = (one["kind"], one["id"])
            if (wanted is None or one["kind"] in wanted) and document_id in (None, one["id"]):
                found.append(
                    {
                        "sequence": entry["sequence"],
                        "at": entry["at"],
                        "by": entry["by"],
                        "note": entry["note"],
                        "kind": one["kind"],
                        "id": one["id"],
                        "revision": one["revision"],
                        "before": before.get(key),
                        "after": one["body"],
                        "hash": entry["hash"],
                    }
                )
            before[key] = one["body"]
    return found
