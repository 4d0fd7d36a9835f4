"""What an import says when it is done, and what a dry run shows."""

from dataclasses import asdict
from typing import Any

from feature_store.ingest.comparison import ItemChanges
from feature_store.ingest.items import ItemSummary
from feature_store.ingest.profile import FileProfile
from feature_store.ingest.summary import ImportSummary
from feature_store.ingest.users import UserSummary
from recsvc.commands.output import note, say, stdout, table

_LONGEST_SHOWN = 24


def show_rows(summary: ImportSummary, what: str) -> None:
    """Say what became of an import's rows."""
    rows = [("rows read", summary.rows_read), ("accepted", summary.accepted)]
    rows += [("duplicates", summary.duplicates)]
    if summary.forgotten:
        rows += [("of forgotten people", summary.forgotten)]
    if summary.without_consent:
        rows += [("without consent", summary.without_consent)]
    rows += [("rejected", sum(summary.rejected.values()))]
    rows += [(f"  {reason.replace('_', ' ')}", n) for reason, n in summary.rejected.items()]
    show_counts(rows)
    if summary.mail_refusals:
        show_counts([("refusals of mail", summary.mail_refusals)])
    if what == "events" and summary.accepted:
        show_counts([("customers", summary.people), ("items", summary.items)])
        say(f"{'from':24}{summary.first_at:%Y-%m-%d %H:%M:%S} UTC")
        say(f"{'to':24}{summary.last_at:%Y-%m-%d %H:%M:%S} UTC")
    if isinstance(summary, ItemSummary):
        show_changes(summary.changes)
    if isinstance(summary, UserSummary):
        show_counts([("changed", summary.changed), ("unchanged", summary.unchanged)])
        for name, kind in summary.types.items():
            say(f"  {name:22}{kind:>14}")
    say(f"{'time':24}{summary.seconds:>12.1f} s   ({summary.rows_per_s:,.0f} rows/s)")
    if left_out := summary.forgotten + summary.without_consent:
        say(
            f"{left_out:,} rows of people who did not consent, or asked to be forgotten, were left"
            " out."
        )
    if summary.rejects_file is not None:
        say(f"The rejected rows and why: {summary.rejects_file}")
    if summary.rows_read == 0:
        note(f"There was nothing to import: no rows of {what}")


def show_counts(rows: list[tuple[str, int]]) -> None:
    """Write names and numbers below each other."""
    for name, count in rows:
        say(f"{name:24}{count:>14,}")


def show_changes(changes: ItemChanges) -> None:
    """Say what an import of items changes."""
    rows = [("added", changes.added), ("updated", changes.updated)]
    rows += [(f"  {name}", n) for name, n in changes.updated_fields.items()]
    rows += [("unchanged", changes.unchanged), ("made unavailable", changes.made_unavailable)]
    if changes.full:
        rows += [("  absent from the feed", changes.absent)]
    rows += [("back in stock", changes.back_in_stock)]
    rows += [("price up", changes.price_up), ("price down", changes.price_down)]
    show_counts(rows)


def as_json(summary: ImportSummary) -> dict[str, Any]:
    """Return the document of ``--json``."""
    return {**asdict(summary), "rows_per_s": round(summary.rows_per_s)}


def show_profile(profile: FileProfile) -> None:
    """Show each column of a file, and what it is read as."""
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
    return value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…"
