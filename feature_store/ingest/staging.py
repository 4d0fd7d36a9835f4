"""Between reading and the log: rows wait in scratch files, then lose their duplicates by day."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from feature_store.event_log import EVENT_KEY, EventLog, PendingImport, scan_files
from feature_store.ingest.events import Normalised
from feature_store.ingest.table import Progress
from feature_store.ingest.withheld import Withhold

SPILL_ROWS = 500_000
GROUP_ROWS = 1_500_000
"""How many rows are held in memory at a time, about."""

KEY = list(EVENT_KEY)


@dataclass(slots=True)
class Staged:
    """Normalised rows on their way into the log.

    Parameters
    ----------
    scratch : Path
        Folder for the files in which they wait.
    rows, explicit_ids : int
        How many there are, and how many of them came with an id.
    days : Counter of date
        How many fall on each day (UTC).
    files : list of Path
        Each sorted by time; besides the log's columns they hold ``digest``, ``file`` (the place of
        the file that a row is from) and ``order`` (of reading).
    waiting : list of DataFrame
        What is not in a file yet.
    """

    scratch: Path
    rows: int = 0
    explicit_ids: int = 0
    days: Counter[date] = field(default_factory=Counter)
    files: list[Path] = field(default_factory=list)
    waiting: list[pl.DataFrame] = field(default_factory=list)

    def add(self, place: int, events: pl.DataFrame) -> None:
        """Take the events of the file at `place`."""
        marked = events.drop("line").with_columns(
            pl.lit(place, pl.UInt32).alias("file"),
            pl.int_range(self.rows, self.rows + len(events), dtype=pl.Int64, eager=True).alias(
                "order"
            ),
        )
        self.rows += len(events)
        self.explicit_ids += len(events) - events["event_id"].null_count()
        days = events.group_by(pl.col("timestamp").dt.date()).len()
        self.days.update(dict(days.iter_rows()))
        self.waiting.append(marked)
        if sum(map(len, self.waiting)) >= SPILL_ROWS:
            self.spill()

    def spill(self) -> None:
        """Write what waits to a file."""
        path = self.scratch / f"{len(self.files):05d}.parquet"
        # Sorted by time, so that a day is found by the row groups' statistics.
        rows = pl.concat(self.waiting).sort("timestamp")
        rows.write_parquet(path, compression="lz4", row_group_size=50_000)
        self.files.append(path)
        self.waiting = []

    def scan(self) -> pl.LazyFrame:
        """Read all files lazily."""
        return pl.scan_parquet(self.files, glob=False, hive_partitioning=False)


def stage(pending: PendingImport, batches: Iterator[tuple[int, Normalised]]) -> Staged:
    """Put normalised rows aside, a bounded number of them in memory."""
    staged = Staged(pending.scratch)
    for place, result in batches:
        if len(result.events):
            staged.add(place, result.events)
    if staged.waiting:
        staged.spill()
    return staged


class Settled(NamedTuple):
    """What became of staged rows; the others were duplicates.

    Parameters
    ----------
    written : int
        Events that are new.
    forgotten, without_consent : int
        Rows that were left out (``withheld.Withheld``).
    """

    written: int
    forgotten: int
    without_consent: int


def settle(
    log: EventLog, pending: PendingImport, staged: Staged, withhold: Withhold, progress: Progress
) -> Settled:
    """Give ids, leave out duplicates and what may not be kept, write the log's files."""
    again = _explicit_duplicates(log, staged)
    written = forgotten = without_consent = done = 0
    progress("writing", 0, staged.rows)
    for first, last in _groups(staged.days):
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
        rows = staged.scan().filter(pl.col("timestamp").is_between(start, end, closed="left"))
        events = _with_ids(rows.collect().sort("order"))
        read = len(events)
        if len(again):
            events = events.filter(~pl.col("order").is_in(again))
        events = events.unique(KEY, keep="first", maintain_order=True)
        known = _known(log.files(first, last))
        events = events.join(known, on=KEY, how="anti", nulls_equal=True)
        events, n_forgotten, n_refused = withhold(events)
        forgotten += n_forgotten
        without_consent += n_refused
        if len(events):
            pending.write(events)
        written += len(events)
        done += read
        progress("writing", done, staged.rows)
    return Settled(written, forgotten, without_consent)


def _groups(days: Mapping[date, int]) -> Iterator[tuple[date, date]]:
    """Divide days into runs of about `GROUP_ROWS` rows; yield the first and last day of each."""
    run: list[date] = []
    rows = 0
    for day in sorted(days):
        if run and rows + days[day] > GROUP_ROWS:
            yield run[0], run[-1]
            run, rows = [], 0
        run.append(day)
        rows += days[day]
    if run:
        yield run[0], run[-1]


def _with_ids(events: pl.DataFrame) -> pl.DataFrame:
    """Give every event without an id its content's hash, and its ordinal among equal lines."""
    equal = ["file", "digest"]
    nth = pl.int_range(pl.len()).over(equal)
    repeated = events.filter(pl.col("digest").is_not_null()).select(equal).is_duplicated().any()
    made = pl.col("digest")
    if repeated:
        made = pl.when(nth > 0).then(pl.format("{}-{}", "digest", nth)).otherwise("digest")
    return events.with_columns(pl.coalesce("event_id", made).alias("event_id"))


def _known(files: Sequence[Path]) -> pl.DataFrame:
    return scan_files(files).filter(pl.col("trust") == "server").select(KEY).collect()


def _explicit_duplicates(log: EventLog, staged: Staged) -> pl.Series:
    """Find rows whose own id the same person has before, at whatever time: the first one counts.

    Returns
    -------
    Series of i64
        Their ``order``.
    """
    found = [pl.Series("order", [], dtype=pl.Int64)]
    n_parts = -(-staged.explicit_ids // GROUP_ROWS)
    for part in range(n_parts):
        mine = pl.col("event_id").is_not_null() & (
            pl.col("event_id").hash(seed=0) % n_parts == part
        )
        rows = staged.scan().filter(mine).select(*KEY, "order").collect().sort("order")
        first = rows.unique(KEY, keep="first", maintain_order=True)
        found.append(rows.join(first, on="order", how="anti")["order"])
        logged = scan_files(log.files()).filter(pl.col("trust") == "server").select(KEY)
        known = logged.join(first.lazy(), on=KEY, how="semi", nulls_equal=True)
        seen = known.collect(engine="streaming")
        found.append(first.join(seen, on=KEY, how="semi", nulls_equal=True)["order"])
    return pl.concat(found)
