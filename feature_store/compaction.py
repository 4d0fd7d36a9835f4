"""Many small files of the log become one, and no reader ever sees an event twice or not at all.

The archive writes a file for each day and round. A merged file counts from the moment its journal
is written, and from that same moment the files that it replaces no longer do: whoever lists the log
reads the journals too (``EventLog.superseded``). The replaced files are removed much later, so that
a reader who listed them before can still open them.
"""

import secrets
from datetime import date
from pathlib import Path

import polars as pl

from feature_store.event_log import EventLog, Journal

KIND = "compaction"
"""What a journal of ours says in its ``info``."""
MIN_FILES = 8
SMALL_BYTES = 32 << 20
MERGED_BYTES = 256 << 20
GRACE_S = 900.0

_PREFIXES = ("live-", "compact-")


def compact_all(log: EventLog, now_s: float, min_files: int = MIN_FILES) -> int:
    """Merge the small files of every day that has many, and remove what was merged long ago.

    Hold ``log.importing()`` around it.

    Parameters
    ----------
    log : EventLog
        The log.
    now_s : float
        Seconds since 1970.
    min_files : int
        Days with fewer small files are left alone.

    Returns
    -------
    int
        How many days were merged.
    """
    _finish_killed(log)
    remove_superseded(log, now_s)
    by_day: dict[str, list[Path]] = {}
    for path in log.files():
        if path.name.startswith(_PREFIXES) and path.stat().st_size < SMALL_BYTES:
            by_day.setdefault(path.parent.name.removeprefix("date="), []).append(path)
    days = [day for day, files in by_day.items() if len(files) >= min_files]
    for day in days:
        compact(log, date.fromisoformat(day), by_day[day], now_s)
    return len(days)


def compact(log: EventLog, day: date, files: list[Path], now_s: float) -> Journal:
    """Merge some files of one day; hold ``log.importing()`` around it.

    Raises
    ------
    ValueError
        If an event of them is of another day.
    """
    chosen, size = [], 0
    for path in sorted(files, key=lambda path: path.stat().st_size):
        size += path.stat().st_size
        if size > MERGED_BYTES:
            break
        chosen.append(path)
    events = pl.read_parquet(chosen, hive_partitioning=False)
    if not (events["timestamp"].dt.date() == day).all():
        raise ValueError(f"a file of {day} holds events of another day")
    # Named by the newest of them: it says until when its events arrived.
    newest = max(arrived_at(path.name) for path in chosen)
    pending = log.begin(f"compact-{newest}-{secrets.token_hex(4)}")
    pending.write(events)
    names = [f"{path.parent.name}/{path.name}" for path in chosen]
    journal = pending.commit({"kind": KIND, "supersedes": names, "at_s": now_s})
    log.finish(journal.import_id)
    return journal


def arrived_at(name: str) -> str:
    """Return the time in the name of a file of the archive: no event of it arrived later."""
    return name.split("-")[1].removesuffix(".parquet")


def remove_superseded(log: EventLog, now_s: float, grace_s: float = GRACE_S) -> int:
    """Remove files that were merged more than `grace_s` seconds ago; return how many.

    Hold ``log.importing()`` around it.
    """
    removed = 0
    for journal in log.completed("compact-"):
        if now_s - journal.info["at_s"] < grace_s:
            continue
        with log.committing():
            for name in journal.info["supersedes"]:
                path = log.events / name
                removed += path.exists()
                path.unlink(missing_ok=True)
        # Only now: while the journal stands, the files do not count.
        log.forget(journal.import_id)
    return removed


def _finish_killed(log: EventLog) -> None:
    for journal in log.pending():
        if journal.info.get("kind") == KIND:
            with log.committing():
                pass  # moves its file into place
            log.finish(journal.import_id)
