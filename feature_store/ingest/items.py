"""The import of items: read, compared with the catalogue, and published as one, or not at all.

The memory that reading takes does not grow with the files: items wait on disk until the last row
has been read, for of several rows of one item the last one counts.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.ingest.amounts import DecimalMark
from feature_store.ingest.comparison import (
    MOST_GONE_SHARE,
    Comparison,
    ItemChanges,
    completed,
)
from feature_store.ingest.item_rows import ItemOptions, NormalisedItems, normalise_items
from feature_store.ingest.mapping import ITEM_FIELDS, require, resolve
from feature_store.ingest.merchant import BROKEN_FEED
from feature_store.ingest.source import Source, open_table, read_batches
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.table import Batch, EmptyFileError, Progress, RejectLog, silent
from feature_store.item_columns import COLUMNS

PART_ROWS = 25_000
_UNREADABLE = ("broken_line", "wrong_encoding")
_KEPT = ("markets",)
"""Stays as it is where a file has no column for it: few formats have a way to say it."""


class ItemSink(Protocol):
    """The catalogue that an import compares with and writes to."""

    def current(self) -> Catalogue:
        """Return the catalogue as it is now, changes of a moment ago included."""

    def publish(self, items: pl.DataFrame, absent: pl.Series) -> None:
        """Add distinct items (``item_columns.COLUMNS``) or replace them, all at once.

        Items whose ids are in `absent` become unavailable, and else stay as they are by then.
        """


@dataclass(slots=True)
class ItemSummary(ImportSummary):
    """The outcome of an import of items.

    Parameters
    ----------
    changes : ItemChanges
        What it changed.
    complete : bool
        Whether every file was read to its end; one that breaks off was read until there.
    """

    changes: ItemChanges = field(default_factory=ItemChanges)
    complete: bool = True


def import_items(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: ItemOptions,
    *,
    sink: ItemSink,
    dry_run: bool = False,
    rejects_file: Path | None = None,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    progress: Progress = silent,
) -> ItemSummary:
    """Import files of items; of several rows of one item the last one counts.

    An item that is there is replaced as a whole (`_KEPT` excepted), one that does not change is
    not written. Others may change items meanwhile: the file has the last word against a change
    that is older than the comparison, a newer one lies over what is imported.

    Parameters
    ----------
    sources : sequence of Source
        Files; an empty one among several is passed over.
    given : mapping of str to str
        Columns that the person has named (``mapping.parse_map``).
    options : ItemOptions
        How the files are meant.
    sink : ItemSink
        Gets all changed items at once.
    dry_run : bool
        Only tell what would change.
    rejects_file : Path, optional
        Where refused rows are written; ``None`` only counts them.
    alone : callable
        Keeps other imports away from the comparison on; reading, which may take minutes, is none
        of theirs.
    progress : Progress
        Is told how far it is.

    Returns
    -------
    ItemSummary
        If ``changes.refused`` says why, nothing was changed.

    Raises
    ------
    UserError
        If a file cannot be read, or lacks a column that is needed; then nothing was imported.
    """
    # Not within the data directory: an import of events clears up there, and reading holds no lock.
    with tempfile.TemporaryDirectory(prefix="recsvc-items-") as folder:
        with RejectLog(rejects_file) as rejects:
            staged = _Staged(Path(folder), partial=options.partial)
            for result in item_batches(sources, given, options, rejects, progress):
                staged.add(result)
        with alone():
            found = _compared(staged, sink.current(), options, progress)
            changes = found.changes
            broken = rejects.counts[BROKEN_FEED]
            changes.refused = _refusal(changes, n_broken=broken, force=options.force)
            if not (dry_run or changes.refused):
                if n_changed := sum(map(len, found.changed)) + len(found.absent):
                    progress("writing", 0, n_changed)
                    sink.publish(
                        pl.concat([pl.DataFrame(schema=COLUMNS), *found.changed]), found.absent
                    )
                    progress("writing", n_changed, n_changed)
                changes.applied = True
    n_rows = len(staged)
    return ItemSummary(
        rows_read=n_rows + rejects.total - broken,
        accepted=found.n_items,
        duplicates=n_rows - found.n_items,
        rejected=dict(rejects.counts.most_common()),
        rejects_file=rejects.written_to,
        items=found.n_items,
        changes=changes,
        complete=not broken,
    )


class _Staged:
    """Items that have been read, in files."""

    def __init__(self, folder: Path, *, partial: bool) -> None:
        self.folder = folder
        self.ids: list[pl.Series] = []
        self.refused_ids: list[pl.Series] = []
        self._may_stay = list(COLUMNS) if partial else [name for name in _KEPT if name in COLUMNS]
        self._files: list[tuple[Path, list[str]]] = []

    def __len__(self) -> int:
        return sum(map(len, self.ids))

    def add(self, result: NormalisedItems) -> None:
        self.refused_ids.append(result.refused_ids)
        if len(result.items):
            self.ids.append(result.items["item_id"])
            path = self.keep(completed(result.items), f"read-{len(self._files)}")
            kept = [name for name in self._may_stay if name not in result.items.columns]
            self._files.append((path, kept))

    def keep(self, items: pl.DataFrame, name: str) -> Path:
        path = self.folder / f"{name}.arrow"
        items.write_ipc(path, compression="uncompressed")
        return path

    def newest(self) -> Iterator[tuple[pl.DataFrame, list[str]]]:
        """Yield the items, without rows that a later one replaces, and what stays of old ones."""
        if not self.ids:
            return
        ids = pl.DataFrame({"item_id": pl.concat(self.ids)}).with_row_index("at")
        last = np.zeros(len(ids), dtype=bool)
        last[ids.unique("item_id", keep="last")["at"].to_numpy()] = True
        start = 0
        for (path, kept), part in zip(self._files, self.ids, strict=True):
            rows = last[start : start + len(part)]
            start += len(part)
            items = pl.read_ipc(path)
            yield items if rows.all() else items.filter(pl.Series(rows)), kept


@dataclass(frozen=True, slots=True)
class _Compared:
    """The items to write, in mapped files, which others to withdraw, and how many were read."""

    changed: list[pl.DataFrame]
    absent: pl.Series
    changes: ItemChanges
    n_items: int


def _compared(
    staged: _Staged, catalogue: Catalogue, options: ItemOptions, progress: Progress
) -> _Compared:
    comparison = Comparison(catalogue)
    changed: list[pl.DataFrame] = []
    done = n_items = 0
    for items, kept in staged.newest():
        n_items += len(items)
        different = comparison.changed(items, kept, merge=options.partial)
        if len(different):
            changed.append(pl.read_ipc(staged.keep(different, f"changed-{len(changed)}")))
        done += len(items)
        progress("comparing", done, len(staged))
    progress("comparing", len(staged), len(staged))
    absent = pl.Series("item_id", [], dtype=pl.String)
    if options.full:
        absent = comparison.absent([*staged.ids, *staged.refused_ids])
    return _Compared(changed, absent, comparison.finish(full=options.full), n_items)


def _refusal(changes: ItemChanges, *, n_broken: int, force: bool) -> str | None:
    if not changes.full:
        return None
    if n_broken:
        return (
            "a feed breaks off before its end, so it is not the whole catalogue: nothing was "
            "changed; without --full the part that can be read is imported"
        )
    if force or changes.gone_share <= MOST_GONE_SHARE:
        return None
    more = ", ..." if changes.made_unavailable > len(changes.gone) else ""
    return (
        f"{changes.made_unavailable:,} of {changes.available_before:,} available items "
        f"({changes.gone_share * 100:.0f} %) would not be available any more: "
        f"{', '.join(changes.gone)}{more}; nothing was changed; for more than "
        f"{MOST_GONE_SHARE * 100:.0f} % say --force"
    )


def item_mapping(given: Mapping[str, str], columns: Sequence[str], source: str) -> dict[str, str]:
    """Decide which column each field of an item is read from.

    Raises
    ------
    UserError
        If the id has none.
    """
    mapping = resolve(given, columns, ITEM_FIELDS, source)
    require(mapping, "item_id", columns, source)
    return mapping


def item_batches(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: ItemOptions,
    rejects: RejectLog,
    progress: Progress = silent,
) -> Iterator[NormalisedItems]:
    """Read the items of some files; one that breaks off leaves a reject `BROKEN_FEED`."""
    total = sum(source.size for source in sources)
    done = 0
    for source in sources:
        mark = DecimalMark(options.decimal)
        last: Batch | None = None
        try:
            with open_table(source) as table:
                mapping = item_mapping(given, table.columns, source.name)
                for batch in read_batches(source, table, sorted(set(mapping.values()))):
                    for part in batch.parts(PART_ROWS):
                        result = normalise_items(part, mapping, options, mark)
                        rejects.add(result.rejects)
                        yield result
                    done += batch.n_bytes
                    progress("reading", min(done, total), total)
                    last = batch
        except EmptyFileError:
            if len(sources) == 1:
                raise
        if last is not None and _is_cut_off(last):
            rejects.counts[BROKEN_FEED] += 1
    progress("reading", total, total)


def _is_cut_off(last: Batch) -> bool:
    """Tell whether the last line of a file cannot be read, as when a transfer broke off."""
    if not last.rejects or last.rejects[-1].reason not in _UNREADABLE:
        return False
    return len(last.lines) == 0 or last.rejects[-1].line > int(last.lines[-1])
