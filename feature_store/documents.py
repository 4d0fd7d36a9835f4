"""What a site decides: rules, recalls, placements, segments, personas - documents with a history.

All documents of a site change under one head, ``{site}:head``, which is the number of changes and
the hash of the last one. A writer reads the head, computes, and writes everything at once if the
head is still the same; so two writers never overwrite each other, a publication of many documents
is one change, and a reader that knows the head knows whether it is behind. Each change is an entry
of a stream that the archiver moves into the change log, and carries the hash of the one before it:
whoever alters an entry afterwards breaks the chain.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import (
    ConflictError,
    OverloadedError,
    StaleRevisionError,
    StoreUnavailableError,
)
from feature_store.schema import format_time

ATTEMPTS = 20
NAME = "site"
"""Name of these changes in the change log."""
NO_HEAD = (0, "")

_WRITE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[3], '*', 'e', ARGV[3])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it stands.

    Parameters
    ----------
    kind : str
        ``rule``, ``placement``, ``segment``, ...
    id : str
        Its name among those of its kind.
    revision : int
        1 for the first; a document that is deleted and made again goes on counting.
    body : dict or None
        The content; ``None`` once it is deleted.
    updated_at : str
        RFC 3339.
    updated_by : str
        Name of the key or the person who changed it last.
    """

    kind: str
    id: str
    revision: int
    body: dict[str, Any] | None
    updated_at: str
    updated_by: str

    def as_json(self) -> bytes:
        """Return the document as the store keeps it."""
        return orjson.dumps(
            {
                "kind": self.kind,
                "id": self.id,
                "revision": self.revision,
                "body": self.body,
                "updated_at": self.updated_at,
                "updated_by": self.updated_by,
            },
            option=orjson.OPT_SORT_KEYS,
        )


@dataclass(frozen=True, slots=True)
class Write:
    """What shall become of one document.

    Parameters
    ----------
    kind, id : str
        Which.
    body : dict or None
        The new content; ``None`` deletes.
    expected_revision : int or None
        The revision that the writer has seen, 0 for "there is none"; ``None`` if it does not
        matter.
    """

    kind: str
    id: str
    body: dict[str, Any] | None
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class SiteDocuments:
    """All documents of a site at one moment.

    Parameters
    ----------
    sequence : int
        How many changes there have been.
    hash : str
        Of the last one.
    documents : mapping of (str, str) to Document
        By kind and id; deleted ones too.
    """

    sequence: int = 0
    hash: str = ""
    documents: Mapping[tuple[str, str], Document] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Document]:
        """Return the documents of a kind that exist, by id."""
        found = (
            one for one in self.documents.values() if one.kind == kind and one.body is not None
        )
        return sorted(found, key=lambda one: one.id)

    def get(self, kind: str, document_id: str) -> Document | None:
        """Return a document if it exists."""
        found = self.documents.get((kind, document_id))
        return None if found is None or found.body is None else found

    def as_json(self) -> bytes:
        """Return everything as one file."""
        return orjson.dumps(
            {
                "sequence": self.sequence,
                "hash": self.hash,
                "documents": [orjson.Fragment(one.as_json()) for one in self.documents.values()],
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> "SiteDocuments":
        """Read what `as_json` wrote."""
        whole = orjson.loads(data)
        found = (Document(**one) for one in whole["documents"])
        return cls(whole["sequence"], whole["hash"], {(one.kind, one.id): one for one in found})


Plan = Callable[[SiteDocuments], Sequence[Write]]
"""Computes what to write from what is there; called again when somebody else was faster."""


class DocumentStore:
    """Reads and changes the documents of the site.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._write = redis.register_script(_WRITE)

    async def snapshot(self) -> SiteDocuments:
        """Return all documents, as they were at one moment.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(keys.SITE_HEAD)
                pipeline.hvals(keys.SITE_DOCUMENTS)
                head, values = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the site's documents cannot be read: {error}") from error
        found = [Document(**orjson.loads(value)) for value in values]
        return SiteDocuments(*read_head(head), {(one.kind, one.id): one for one in found})

    async def write(
        self, writes: Sequence[Write], by: str, note: str = ""
    ) -> tuple[SiteDocuments, list[Document]]:
        """Write some documents, all or none.

        Returns
        -------
        site : SiteDocuments
            Everything after the change.
        documents : list of Document
            The new state of each of `writes`.

        Raises
        ------
        StaleRevisionError
            If a document has another revision than expected.
        StoreUnavailableError
            If the server does not answer.
        """
        return await self.change(lambda _: writes, by, note)

    async def change(
        self, plan: Plan, by: str, note: str = ""
    ) -> tuple[SiteDocuments, list[Document]]:
        """Write what `plan` makes of the documents that are there; all or nothing.

        Parameters
        ----------
        plan : Plan
            May raise to refuse; without writes nothing changes.
        by : str
            Who changes it.
        note : str
            Why, for the audit.

        Returns and raises what `write` does, and `OverloadedError` if others change the site faster
        than this could.
        """
        for _ in range(ATTEMPTS):
            site = await self.snapshot()
            writes = plan(site)
            if not writes:
                return site, []
            at = format_time(datetime.now(UTC))
            changed = [_next(site, write, at, by) for write in writes]
            entry = change_entry(site, changed, at, by, note)
            head = f"{entry['sequence']} {entry['hash']}"
            before = f"{site.sequence} {site.hash}" if site.sequence else ""
            arguments: list[str | bytes] = [before, head, orjson.dumps(entry)]
            for one in changed:
                arguments += (f"{one.kind}/{one.id}", one.as_json())
            try:
                wrote = await self._write(
                    keys=[keys.SITE_HEAD, keys.SITE_DOCUMENTS, keys.SITE_CHANGES], args=arguments
                )
            except (RedisError, OSError) as error:
                raise StoreUnavailableError(f"the change was not stored: {error}") from error
            if wrote:
                after = dict(site.documents) | {(one.kind, one.id): one for one in changed}
                return SiteDocuments(entry["sequence"], entry["hash"], after), changed
        raise OverloadedError("the site is changed by too many at once", 1.0)

    async def waiting(self) -> list[dict[str, Any]]:
        """Return the changes that are not yet in the archive, oldest first."""
        try:
            entries = await self._redis.xrange(keys.SITE_CHANGES)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the changes cannot be read: {error}") from error
        return [orjson.loads(fields[b"e"]) for _, fields in entries]

    async def replay(self, changes: Sequence[dict[str, Any]]) -> int:
        """Teach an emptied server the documents that the archive holds.

        Parameters
        ----------
        changes : sequence of dict
            Entries in their order.

        Returns
        -------
        int
            How many documents there are, deleted ones too.
        """
        known: dict[str, bytes] = {}
        for change in changes:
            for one in change["changes"]:
                document = Document(**one, updated_at=change["at"], updated_by=change["by"])
                known[f"{document.kind}/{document.id}"] = document.as_json()
        if changes:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(keys.SITE_DOCUMENTS, mapping=known)
                pipeline.set(keys.SITE_HEAD, f"{changes[-1]['sequence']} {changes[-1]['hash']}")
                await pipeline.execute()
        return len(known)


def read_head(value: bytes | None) -> tuple[int, str]:
    """Return number and hash of the last change."""
    if value is None:
        return NO_HEAD
    sequence, _, digest = value.partition(b" ")
    return int(sequence), digest.decode()


def _next(site: SiteDocuments, write: Write, at: str, by: str) -> Document:
    known = site.documents.get((write.kind, write.id))
    revision = known.revision if known else 0
    seen = 0 if known is None or known.body is None else revision
    if write.expected_revision is not None and write.expected_revision != seen:
        raise StaleRevisionError(
            f"the {write.kind} {write.id!r} is at revision {seen}, not {write.expected_revision}:"
            " read it again"
        )
    return Document(write.kind, write.id, revision + 1, write.body, at, by)


def change_entry(
    site: SiteDocuments, changed: Sequence[Document], at: str, by: str, note: str
) -> dict[str, Any]:
    """Return a change as stream, archive and audit have it.

    Returns
    -------
    dict
        ``sequence``, ``at``, ``by``, ``note``, ``changes`` (kind, id, revision, body of each),
        ``previous`` (hash of the change before) and ``hash`` (SHA-256 of all the others).
    """
    entry: dict[str, Any] = {
        "sequence": site.sequence + 1,
        "at": at,
        "by": by,
        "note": note,
        "changes": [
            {"kind": one.kind, "id": one.id, "revision": one.revision, "body": one.body}
            for one in changed
        ],
        "previous": site.hash,
    }
    return {**entry, "hash": entry_hash(entry)}


def entry_hash(entry: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a change without its own ``hash``."""
    content = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def verify_chain(entries: Iterable[Mapping[str, Any]]) -> int:
    """Check that no change was altered, removed or put in between.

    Parameters
    ----------
    entries : iterable of mapping
        All changes from the first on, in their order.

    Returns
    -------
    int
        How many there are.

    Raises
    ------
    ConflictError
        Naming the first change at which the chain breaks.
    """
    sequence, before = NO_HEAD
    for entry in entries:
        sequence += 1
        if entry["sequence"] != sequence or entry["previous"] != before:
            raise ConflictError(
                f"change {entry['sequence']} does not follow change {sequence - 1}:"
                " one was removed or put in between"
            )
        before = entry_hash(entry)
        if entry["hash"] != before:
            raise ConflictError(f"change {sequence} ({entry['at']}, {entry['by']}) was altered")
    return sequence
