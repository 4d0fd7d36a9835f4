"""``recsvc import items``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.errors import RecsvcError, UserError
from feature_store.ingest.item_rows import ItemOptions
from feature_store.ingest.item_sink import StoreSink
from feature_store.ingest.items import ItemSink, ItemSummary, import_items, item_mapping
from feature_store.ingest.mapping import ITEM_FIELDS, parse_map
from feature_store.ingest.source import Source, find_item_sources
from feature_store.ingest.table import RejectLog
from recsvc.commands import import_report
from recsvc.commands.importing import (
    FileOptions,
    alone,
    finish_dry_run,
    known_currency,
    known_timezone,
    look,
    rejects_file,
    report,
)
from recsvc.commands.output import ProgressReport
from recsvc.commands.session import server_url
from recsvc.settings import Settings


class IncompleteFeedError(RecsvcError):
    """A feed broke off; what stands before the break was imported."""


class _NoCatalogue:
    """The catalogue of a data directory that does not exist yet, for a dry run."""

    def current(self) -> Catalogue:
        return Catalogue.empty()

    def publish(self, items: pl.DataFrame, absent: pl.Series) -> None:
        raise NotImplementedError("a dry run publishes nothing")


def run(settings: Settings, files: FileOptions, options: ItemOptions, *, as_json: bool) -> None:
    """Import items and say what became of them.

    Raises
    ------
    UserError
        If the import was refused.
    IncompleteFeedError
        If a feed breaks off.
    """
    given = parse_map(files.columns, ITEM_FIELDS)
    sources = find_item_sources(files.source, files.form, mapped=bool(given))
    began = time.monotonic()
    with server_url(settings) as url, ProgressReport() as progress:
        summary = import_items(
            sources,
            given,
            options,
            sink=StoreSink(url, settings.catalogue_dir),
            rejects_file=files.rejects or rejects_file(settings, "items"),
            alone=lambda: alone(settings),
            progress=progress,
        )
    summary.seconds = time.monotonic() - began
    report(summary, "items", as_json=as_json)
    _complain(summary)


def dry_run(settings: Settings, files: FileOptions, options: ItemOptions, *, as_json: bool) -> None:
    """Show what an import of items would read and change, without importing.

    Raises
    ------
    UserError
        If the import would be refused.
    """
    given = parse_map(files.columns, ITEM_FIELDS)
    sources = find_item_sources(files.source, files.form, mapped=bool(given))
    looked = look(sources, given, item_mapping)
    summary = ItemSummary()
    if looked.problem is None:
        if settings.redis_url is None and not settings.catalogue_dir.exists():
            summary = _tried(sources, given, options, _NoCatalogue(), files.rejects)
        else:
            with server_url(settings) as url:
                sink = StoreSink(url, settings.catalogue_dir)
                summary = _tried(sources, given, options, sink, files.rejects)
    rejects = RejectLog(None)
    rejects.counts.update(summary.rejected)
    changes = asdict(summary.changes)
    finish_dry_run(
        looked, sources, summary.accepted, rejects, as_json=as_json, more={"changes": changes}
    )
    if not as_json:
        import_report.show_changes(summary.changes)
    _complain(summary)


def _tried(
    sources: Sequence[Source],
    given: Mapping[str, str],
    options: ItemOptions,
    sink: ItemSink,
    rejects: Path | None,
) -> ItemSummary:
    with ProgressReport() as progress:
        return import_items(
            sources,
            given,
            options,
            sink=sink,
            dry_run=True,
            rejects_file=rejects,
            progress=progress,
        )


def _complain(summary: ItemSummary) -> None:
    if summary.changes.refused is not None:
        raise UserError(summary.changes.refused)
    if not summary.complete:
        done = "was imported" if summary.changes.applied else "would be imported"
        raise IncompleteFeedError(
            f"a feed breaks off before its end; the part that can be read {done}"
        )


def item_options(
    settings: Settings,
    files: FileOptions,
    *,
    full: bool = False,
    partial: bool = False,
    force: bool = False,
) -> ItemOptions:
    """Check the options of an import of items.

    Raises
    ------
    UserError
        If a time zone or a currency does not exist.
    """
    return ItemOptions(
        currency=known_currency(files.currency) or settings.currency,
        timezone=known_timezone(files.timezone),
        decimal=files.decimal,
        full=full,
        partial=partial,
        force=force,
    )
