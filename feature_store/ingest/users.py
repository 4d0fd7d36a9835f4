"""The import of users: attributes, loyalty and ids in other systems, out of files."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from feature_store.forgetting.ledger import epoch_ms
from feature_store.ingest.source import Source, open_table, read_batches
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.table import (
    EmptyFileError,
    Lines,
    Progress,
    Reject,
    RejectLog,
    silent,
)
from feature_store.ingest.user_rows import (
    ColumnTypes,
    UserRows,
    normalise_users,
    profiles,
    user_mapping,
)
from feature_store.people import Change, Document
from feature_store.profile import patch_profile
from feature_store.schema import person_of
from feature_store.store import Store

CHUNK = 1_000
PART_ROWS = 25_000
BY = "import"
"""Who changes the profiles, in the change log."""

Profiles = dict[str, Document | Change | None]
Refuse = Callable[[Mapping[str, str]], None]
Put = Callable[[Iterator[Profiles], Refuse], int]
"""Writes profiles by person, says of each chunk who was refused and why, returns how many changed.
"""


@dataclass(frozen=True, slots=True)
class UserOptions:
    """How a file of users is meant.

    Parameters
    ----------
    text : set of str
        Attributes that stay text, even if all of their values are numbers.
    partial : bool
        What a file does not say of a user stays as it is; else the profile is replaced as a whole.
    """

    text: frozenset[str] = frozenset()
    partial: bool = False


@dataclass(slots=True)
class UserSummary(ImportSummary):
    """The outcome of an import of users.

    Parameters
    ----------
    changed, unchanged : int
        Users whose profile is another now, or is the same.
    types : dict of str to str
        What each attribute was taken as: ``number``, ``boolean`` or ``text``.
    """

    changed: int = 0
    unchanged: int = 0
    types: dict[str, str] = field(default_factory=dict)


def import_users(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: UserOptions,
    *,
    put: Put | None,
    rejects_file: Path | None = None,
    progress: Progress = silent,
) -> UserSummary:
    """Import files of users; of several rows of one user the last one counts.

    Profiles are written some at a time: an import that is killed has written a part, and the same
    file again writes the rest.

    Parameters
    ----------
    sources : sequence of Source
        Files; an empty one among several is passed over.
    given : mapping of str to str
        Columns that the person has named (``mapping.parse_map``).
    options : UserOptions
        How the files are meant.
    put : Put or None
        Writes the profiles; ``None`` only checks the files.
    rejects_file : Path, optional
        Where refused rows are written; ``None`` only counts them.
    progress : Progress
        Is told how far it is.

    Raises
    ------
    UserError
        If a file cannot be read, or lacks a column that is needed; then nothing was imported.
    """
    types = ColumnTypes(text=options.text)
    with (
        tempfile.TemporaryDirectory(prefix="recsvc-users-") as folder,
        RejectLog(rejects_file) as rejects,
    ):
        staged = _Staged(Path(folder))
        for rows in user_batches(sources, given, types, rejects, progress):
            staged.add(rows)
        writing = _Writing(staged, types, options, rejects, progress)
        if put is None:
            changed = sum(map(len, writing.chunks()))
        else:
            changed = put(writing.chunks(), writing.refuse)
    accepted = writing.good - writing.late
    return UserSummary(
        rows_read=staged.n_rows + staged.n_rejected,
        accepted=accepted,
        duplicates=staged.n_rows - writing.distinct,
        rejected=dict(rejects.counts.most_common()),
        rejects_file=rejects.written_to,
        people=accepted,
        changed=changed if put is not None else 0,
        unchanged=accepted - changed if put is not None else 0,
        types=types.all(),
    )


def user_batches(
    sources: Sequence[Source],
    given: Mapping[str, str],
    types: ColumnTypes,
    rejects: RejectLog,
    progress: Progress = silent,
) -> Iterator[UserRows]:
    """Read the rows of some files."""
    total = sum(source.size for source in sources)
    done = 0
    for source in sources:
        try:
            with open_table(source) as table:
                mapping = user_mapping(given, table.columns, source.name)
                for batch in read_batches(source, table, sorted(set(mapping.values()))):
                    for part in batch.parts(PART_ROWS):
                        rows = normalise_users(part, mapping, types)
                        rejects.add(rows.rejects)
                        yield rows
                    done += batch.n_bytes
                    progress("reading", min(done, total), total)
        except EmptyFileError:
            if len(sources) == 1:
                raise
    progress("reading", total, total)


class _Staged:
    """Rows that have been read, in files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[tuple[Path, str]] = []
        self._ids: list[pl.Series] = []
        self._lines: list[Lines] = []
        self.n_rejected = 0

    @property
    def n_rows(self) -> int:
        return sum(map(len, self._ids))

    def add(self, rows: UserRows) -> None:
        self.n_rejected += len(rows.rejects)
        if len(rows.frame):
            path = self._folder / f"{len(self._parts)}.arrow"
            rows.frame.write_ipc(path, compression="uncompressed")
            self._parts.append((path, rows.source))
            self._ids.append(rows.frame["user_id"])
            self._lines.append(rows.lines)

    def newest(self) -> Iterator[tuple[pl.DataFrame, Lines, str]]:
        """Yield the rows of each file, without those that a later one of the user replaces."""
        if not self._ids:
            return
        ids = pl.DataFrame({"user_id": pl.concat(self._ids)}).with_row_index("at")
        last = np.zeros(len(ids), dtype=bool)
        last[ids.unique("user_id", keep="last")["at"].to_numpy()] = True
        start = 0
        for (path, source), lines in zip(self._parts, self._lines, strict=True):
            kept = last[start : start + len(lines)]
            start += len(lines)
            yield pl.read_ipc(path).filter(pl.Series(kept)), lines[kept], source


class _Writing:
    """Hands out profiles in chunks, and knows where each came from."""

    def __init__(
        self,
        staged: _Staged,
        types: ColumnTypes,
        options: UserOptions,
        rejects: RejectLog,
        progress: Progress,
    ) -> None:
        self._staged = staged
        self._types = types
        self._options = options
        self._rejects = rejects
        self._progress = progress
        self._origins: dict[str, tuple[str, int]] = {}
        self.distinct = self.good = self.late = 0

    def chunks(self) -> Iterator[Profiles]:
        total = self._staged.n_rows
        chunk: Profiles = {}
        for frame, lines, source in self._staged.newest():
            for user_id, line, outcome in profiles(frame, lines, self._types, source):
                self.distinct += 1
                if isinstance(outcome, Reject):
                    self._rejects.add([outcome])
                    continue
                self.good += 1
                person = str(person_of(user_id, None))
                self._origins[person] = (source, line)
                chunk[person] = self._patch(person, outcome) if self._options.partial else outcome
                if len(chunk) >= CHUNK:
                    yield chunk
                    chunk = {}
                    self._origins.clear()
                    self._progress("writing", self.distinct, total)
        if chunk:
            yield chunk
        self._progress("writing", total, total)

    def refuse(self, refused: Mapping[str, str], reason: str = "external_id_taken") -> None:
        """Note people whom the store did not take."""
        for person, why in refused.items():
            # One who is changed by others at the same time is asked about again.
            origin = self._origins.pop(person, None)
            if origin is None:
                continue
            source, line = origin
            self.late += 1
            self._rejects.add([Reject(source, line, reason, why)])

    def _patch(self, person: str, said: Document) -> Change:
        def change(before: Document | None) -> Document | None:
            try:
                return patch_profile(before, said).as_document()
            except (ValidationError, ValueError) as error:
                self.refuse({person: str(error).splitlines()[0]}, "too_much_together")
                return before

        return change


def put_profiles(url: str, began: datetime) -> Put:
    """Return what `import_users` calls to reach the profiles on a server.

    Parameters
    ----------
    url : str
        Of the server.
    began : datetime
        When the import began: who is erased from then on gets no profile by it.
    """

    def put(chunks: Iterator[Profiles], refuse: Refuse) -> int:
        return asyncio.run(_put(url, chunks, refuse, epoch_ms(began)))

    return put


async def _put(url: str, chunks: Iterator[Profiles], refuse: Refuse, as_of_ms: int) -> int:
    store = await Store.open(url)
    changed = 0
    try:
        for chunk in chunks:
            written = store.people.put_many("profile", chunk, BY, as_of_ms=as_of_ms)
            n_changed, refused = await written
            changed += n_changed
            refuse(refused)
    finally:
        await store.close()
    return changed
