"""``recsvc import events`` and ``recsvc import items``."""

import re
import time
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from feature_store.errors import UserError
from feature_store.event_log import EventLog
from feature_store.files import make_folder
from feature_store.ingest.events import TYPE_NAMES, EventOptions
from feature_store.ingest.fold import publish_items, store_fold
from feature_store.ingest.items import ItemOptions, import_items, item_batches, item_mapping
from feature_store.ingest.mapping import EVENT_FIELDS, ITEM_FIELDS, parse_map, plain
from feature_store.ingest.profile import FileProfile, columns_of, profile_file
from feature_store.ingest.run import (
    LOCK_WAIT_S,
    event_batches,
    event_mapping,
    finish_pending,
    import_events,
    new_import_id,
)
from feature_store.ingest.source import Source, find_sources
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.table import RejectLog
from feature_store.schema import EventType
from recsvc.commands.output import ProgressReport, note, say, stdout, table, write_json
from recsvc.commands.session import server_url
from recsvc.settings import Settings


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What both imports are told of their files.

    Parameters
    ----------
    source : str
        A file, a folder, a glob, or ``-``.
    form : str, optional
        Format; told from the ending if not given.
    columns : str
        ``field=COLUMN,...``.
    timezone : str
        What times without a zone are in.
    currency : str, optional
        What prices are in if no column says so.
    rejects : Path, optional
        Where refused rows are written.
    """

    source: str
    form: str | None
    columns: str
    timezone: str
    currency: str | None
    rejects: Path | None


def event_options(
    files: FileOptions,
    *,
    default_type: str,
    type_given: bool,
    price: Literal["unit", "line"],
    negative_quantity: Literal["refund", "reject"],
    channel: str | None,
) -> EventOptions:
    """Check the options of an import of events.

    Raises
    ------
    UserError
        If a type, a time zone or a currency does not exist.
    """
    kind = TYPE_NAMES.get(plain(default_type))
    if kind is None:
        raise UserError(
            f"there is no event type {default_type!r}; the types are "
            f"{', '.join(kind.value for kind in EventType)}"
        )
    return EventOptions(
        now=datetime.now(UTC),
        default_type=kind,
        type_given=type_given,
        timezone=known_timezone(files.timezone),
        currency=_currency(files.currency),
        price=price,
        negative_quantity=negative_quantity,
        channel=channel,
    )


def run_import_events(
    settings: Settings, files: FileOptions, options: EventOptions, *, as_json: bool
) -> None:
    """Import events and say what became of them."""
    sources = find_sources(files.source, files.form)
    given = parse_map(files.columns, EVENT_FIELDS)
    with server_url(settings) as url, ProgressReport() as progress:
        summary = import_events(
            EventLog(settings.data_dir),
            sources,
            given,
            options,
            fold=store_fold(url, settings.catalogue_dir),
            rejects_file=files.rejects,
            progress=progress,
        )
    report(summary, "events", as_json=as_json)


def run_import_items(settings: Settings, files: FileOptions, *, as_json: bool) -> None:
    """Import items and say what became of them."""
    sources = find_sources(files.source, files.form)
    given = parse_map(files.columns, ITEM_FIELDS)
    options = item_options(settings, files)
    began = time.monotonic()
    with server_url(settings) as url, ProgressReport() as progress:
        log = EventLog(settings.data_dir)
        with log.importing(LOCK_WAIT_S):
            summary = import_items(
                sources,
                given,
                options,
                publish=publish_items(url, settings.catalogue_dir),
                rejects_file=files.rejects or _rejects_file(settings),
                progress=progress,
            )
    summary.seconds = time.monotonic() - began
    report(summary, "items", as_json=as_json)


def complete_imports(settings: Settings) -> None:
    """Complete imports that were killed after they counted, so that the states know of them."""
    log = EventLog(settings.data_dir)
    if not log.pending():
        return
    with server_url(settings) as url, ProgressReport() as progress, log.importing(LOCK_WAIT_S):
        for import_id in finish_pending(log, store_fold(url, settings.catalogue_dir), progress):
            note(f"The interrupted import {import_id} is complete now.")


def item_options(settings: Settings, files: FileOptions) -> ItemOptions:
    """Check the options of an import of items.

    Raises
    ------
    UserError
        If a time zone or a currency does not exist.
    """
    currency = _currency(files.currency) or settings.currency
    return ItemOptions(currency=currency, timezone=known_timezone(files.timezone))


def _rejects_file(settings: Settings) -> Path:
    folder = make_folder(settings.data_dir / "imports")
    return folder / f"{new_import_id(datetime.now(UTC))}-items-rejects.csv"


def known_timezone(name: str) -> str:
    """Return the name of a time zone.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise UserError(
            f"there is no time zone {name!r}; it is written like Europe/Berlin or UTC"
        ) from None
    return name


def _currency(code: str | None) -> str | None:
    if code is not None and not re.fullmatch("[A-Z]{3}", code):
        raise UserError(f"a currency is three capital letters like EUR, not {code!r}")
    return code


def report(summary: ImportSummary, what: str, *, as_json: bool) -> None:
    """Say what became of an import's rows."""
    if as_json:
        write_json({**asdict(summary), "rows_per_s": round(summary.rows_per_s)})
        return
    rows = [("rows read", summary.rows_read), ("accepted", summary.accepted)]
    rows += [("duplicates", summary.duplicates)]
    rows += [("rejected", sum(summary.rejected.values()))]
    rows += [(f"  {reason.replace('_', ' ')}", n) for reason, n in summary.rejected.items()]
    for name, count in rows:
        say(f"{name:24}{count:>14,}")
    if what == "events" and summary.accepted:
        say(f"{'customers':24}{summary.people:>14,}")
        say(f"{'items':24}{summary.items:>14,}")
        say(f"{'from':24}{summary.first_at:%Y-%m-%d %H:%M:%S} UTC")
        say(f"{'to':24}{summary.last_at:%Y-%m-%d %H:%M:%S} UTC")
    say(f"{'time':24}{summary.seconds:>12.1f} s   ({summary.rows_per_s:,.0f} rows/s)")
    if summary.rejects_file is not None:
        say(f"The rejected rows and why: {summary.rejects_file}")
    if summary.rows_read == 0:
        note(f"There was nothing to import: no rows of {what}")


# --- dry runs ---------------------------------------------------------------------------------


def dry_run_events(files: FileOptions, options: EventOptions, *, as_json: bool) -> None:
    """Show what an import of events would read, without importing."""
    given = parse_map(files.columns, EVENT_FIELDS)

    def count(sources: Sequence[Source], rejects: RejectLog, progress: ProgressReport) -> int:
        batches = event_batches(sources, given, options, rejects, progress)
        return sum(len(result.events) for _, result in batches)

    _dry_run(files, given, event_mapping, count, as_json=as_json)


def dry_run_items(settings: Settings, files: FileOptions, *, as_json: bool) -> None:
    """Show what an import of items would read, without importing."""
    given = parse_map(files.columns, ITEM_FIELDS)
    options = item_options(settings, files)

    def count(sources: Sequence[Source], rejects: RejectLog, progress: ProgressReport) -> int:
        return sum(map(len, item_batches(sources, given, options, rejects, progress)))

    _dry_run(files, given, item_mapping, count, as_json=as_json)


def _dry_run(
    files: FileOptions,
    given: Mapping[str, str],
    resolved: Callable[[Mapping[str, str], Sequence[str], str], dict[str, str]],
    count: Callable[[Sequence[Source], RejectLog, ProgressReport], int],
    *,
    as_json: bool,
) -> None:
    sources = find_sources(files.source, files.form)
    problem: UserError | None = None
    mapping: dict[str, str] = {}
    first = sources[0]
    if first.path is None:
        raise UserError("--dry-run cannot look into standard input; save it to a file first")
    columns = columns_of(first)
    try:
        mapping = resolved(given, columns, first.name)
    except UserError as error:
        # The profile is what helps to mend the mapping, so it comes first.
        problem = error
        mapping = {field: column for field, column in given.items() if column in columns}
    with ProgressReport() as progress:
        profile = profile_file(first, mapping)
        accepted, rejects = 0, RejectLog(files.rejects)
        if problem is None:
            with rejects:
                accepted = count(sources, rejects, progress)
    if as_json:
        write_json(_profile_json(profile, sources, accepted, rejects))
    else:
        _show_profile(profile)
    if problem is not None:
        raise problem
    if not as_json:
        refused = ", ".join(f"{n:,} {reason}" for reason, n in rejects.counts.most_common())
        say(
            f"{len(sources):,} file(s): {accepted:,} rows would be accepted, "
            f"{rejects.total:,} rejected{f' ({refused})' if refused else ''}. "
            "Nothing was imported."
        )


def _show_profile(profile: FileProfile) -> None:
    shown = table(
        "column", "read as", "type", "nulls>", "distinct>", "least", "greatest", "examples"
    )
    for column in profile.columns:
        shown.add_row(
            column.name,
            column.field or "-",
            column.type,
            f"{column.nulls:,}",
            f"{column.distinct:,}",
            _short(column.least),
            _short(column.greatest),
            ", ".join(_short(example) for example in column.examples),
        )
    of = "the first " if profile.truncated else ""
    say(f"{profile.name}: {of}{profile.rows:,} rows")
    stdout().print(shown)


def _short(value: str | None) -> str:
    if value is None:
        return ""
    return value if len(value) <= 24 else value[:23] + "…"


def _profile_json(
    profile: FileProfile, sources: Sequence[Source], accepted: int, rejects: RejectLog
) -> dict[str, Any]:
    return {
        "files": [source.name for source in sources],
        "profile": asdict(profile),
        "would_accept": accepted,
        "would_reject": dict(rejects.counts.most_common()),
    }
