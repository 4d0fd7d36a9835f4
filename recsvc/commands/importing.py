"""What the imports of files have in common, and ``recsvc import events``."""

import asyncio
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from feature_store.errors import UserError
from feature_store.event_log import EventLog
from feature_store.files import make_folder
from feature_store.forgetting.deliveries import Deliveries
from feature_store.ingest.amounts import Decimals
from feature_store.ingest.events import TYPE_NAMES, EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.mapping import EVENT_FIELDS, parse_map, plain
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
from feature_store.ingest.withholding import store_withholding
from feature_store.preferences import Saying
from feature_store.schema import EventType
from feature_store.store import Store
from recsvc.commands import import_report
from recsvc.commands.output import ProgressReport, note, say, write_json
from recsvc.commands.session import server_url
from recsvc.customer.hearing import hear_many
from recsvc.settings import Settings

_REFUSALS_AT_ONCE = 20_000
_BY = "import"
"""Who changes consents, in the change log."""


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
    decimal : {"auto", "comma", "point"}
        What stands before the fraction of a price.
    """

    source: str
    form: str | None
    columns: str
    timezone: str
    currency: str | None
    rejects: Path | None
    decimal: Decimals = "auto"


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
        currency=known_currency(files.currency),
        price=price,
        decimal=files.decimal,
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
            withhold=store_withholding(url, settings.profiling),
            hear=lambda refusals: asyncio.run(_hear(url, refusals)),
            rejects_file=files.rejects,
            progress=progress,
        )
    delivered(settings, summary.rejects_file)
    report(summary, "events", as_json=as_json)


async def _hear(url: str, refusals: list[Saying]) -> None:
    """Remember who refuses mail, as live events have it remembered."""
    if not refusals:
        return
    store = await Store.open(url)
    try:
        for start in range(0, len(refusals), _REFUSALS_AT_ONCE):
            await hear_many(store, refusals[start : start + _REFUSALS_AT_ONCE], _BY)
    finally:
        await store.close()


def delivered(settings: Settings, rejects: Path | None) -> None:
    """Register a file of refused rows that erasures do not reach."""
    if rejects is not None and settings.data_dir.is_dir():
        Deliveries(settings.data_dir).add(rejects, "rejects", datetime.now(UTC))


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Keep other imports of the catalogue and the event log away.

    Raises
    ------
    ConflictError
        If one is running.
    """
    with EventLog(settings.data_dir).importing(LOCK_WAIT_S):
        yield


def rejects_file(settings: Settings, what: str) -> Path:
    """Return where refused rows go if nobody has said."""
    folder = make_folder(settings.data_dir / "imports")
    return folder / f"{new_import_id(datetime.now(UTC))}-{what}-rejects.csv"


def complete_imports(settings: Settings) -> None:
    """Complete imports that were killed after they counted, so that the states know of them."""
    log = EventLog(settings.data_dir)
    if not log.pending():
        return
    with server_url(settings) as url, ProgressReport() as progress, log.importing(LOCK_WAIT_S):
        for import_id in finish_pending(log, store_fold(url, settings.catalogue_dir), progress):
            note(f"The interrupted import {import_id} is complete now.")


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


def known_currency(code: str | None) -> str | None:
    """Return the code of a currency.

    Raises
    ------
    UserError
        If it has not the form of one.
    """
    if code is not None and not re.fullmatch("[A-Z]{3}", code):
        raise UserError(f"a currency is three capital letters like EUR, not {code!r}")
    return code


def report(summary: ImportSummary, what: str, *, as_json: bool) -> None:
    """Say what became of an import's rows."""
    if as_json:
        write_json(import_report.as_json(summary))
    else:
        import_report.show_rows(summary, what)


# --- dry runs ---------------------------------------------------------------------------------


def dry_run_events(
    settings: Settings, files: FileOptions, options: EventOptions, *, as_json: bool
) -> None:
    """Show what an import of events would read, without importing."""
    given = parse_map(files.columns, EVENT_FIELDS)
    sources = find_sources(files.source, files.form)
    looked = look(sources, given, event_mapping)
    accepted, rejects = 0, RejectLog(files.rejects)
    if looked.problem is None:
        with ProgressReport() as progress, rejects:
            batches = event_batches(sources, given, options, rejects, progress)
            accepted = sum(len(result.events) for _, result in batches)
        delivered(settings, rejects.written_to)
    finish_dry_run(looked, sources, accepted, rejects, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a dry run has seen of files before it reads them to their end.

    Parameters
    ----------
    profile : FileProfile
        Of the first one.
    problem : UserError or None
        Why they cannot be imported.
    """

    profile: FileProfile
    problem: UserError | None


Resolve = Callable[[Mapping[str, str], Sequence[str], str], dict[str, str]]


def look(sources: Sequence[Source], given: Mapping[str, str], resolved: Resolve) -> Looked:
    """Look at the columns of the first file.

    Raises
    ------
    UserError
        If it is standard input, which can be read only once.
    """
    problem: UserError | None = None
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
    return Looked(profile_file(first, mapping), problem)


def finish_dry_run(
    looked: Looked,
    sources: Sequence[Source],
    accepted: int,
    rejects: RejectLog,
    *,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Show the outcome of a dry run; `more` is added to the document of ``--json``.

    Raises
    ------
    UserError
        If the files cannot be imported.
    """
    if as_json:
        document = {
            "files": [source.name for source in sources],
            "profile": asdict(looked.profile),
            "would_accept": accepted,
            "would_reject": dict(rejects.counts.most_common()),
        }
        write_json(document | dict(more or {}))
    else:
        import_report.show_profile(looked.profile)
    if looked.problem is not None:
        raise looked.problem
    if not as_json:
        refused = ", ".join(f"{n:,} {reason}" for reason, n in rejects.counts.most_common())
        say(
            f"{len(sources):,} file(s): {accepted:,} rows would be accepted, "
            f"{rejects.total:,} rejected{f' ({refused})' if refused else ''}. "
            "Nothing was imported."
        )
