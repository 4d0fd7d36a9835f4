"""Who bought something: read from the log, and from what is not yet in it.

Of people who may not be profiled nothing is stored, so they are not among them. How many purchases
that leaves out is counted by item, and said at the end.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from feature_store.archiver import as_log_frame
from feature_store.event_log import EventLog, scan_files
from feature_store.merging import merged_people
from feature_store.schema import EventType, format_time
from feature_store.withheld_counts import Count


def buyers_of(
    data_dir: Path, waiting: Sequence[bytes], item_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Return who bought any of some items.

    Parameters
    ----------
    data_dir : Path
        With the event log.
    waiting : sequence of bytes
        Events, as JSON, that may not be in the log yet.
    item_ids : sequence of str
        The items.

    Returns
    -------
    list of dict
        ``user_id`` or ``anonymous_id``, ``item_id``, ``quantity``, ``first_at``, ``last_at``,
        ``order_ids``; by person and item. A purchase that was refunded is among them: the product
        may still be with the customer.
    """
    live = as_log_frame([orjson.loads(body) for body in waiting]).lazy()
    events = EventLog(data_dir)
    with events.reading():
        log = pl.concat([scan_files(events.files()), live], how="vertical_relaxed")
        wanted = pl.col("type") == EventType.PURCHASE.value
        purchases = (
            merged_people(log)
            .filter(wanted & pl.col("item_id").is_in(list(item_ids)))
            # What waits may have reached the log in between.
            .unique(["user_id", "anonymous_id", "event_id", "trust"])
            .with_columns(
                anonymous_id=pl.when(pl.col("user_id").is_null()).then(pl.col("anonymous_id"))
            )
            .group_by("user_id", "anonymous_id", "item_id")
            .agg(
                pl.col("quantity").fill_null(1).sum(),
                pl.col("timestamp").min().alias("first_at"),
                pl.col("timestamp").max().alias("last_at"),
                pl.col("order_id").drop_nulls().unique().sort().alias("order_ids"),
            )
            .sort("user_id", "anonymous_id", "item_id", nulls_last=True)
            .collect(engine="streaming")
        )
    return [
        {
            **{name: value for name, value in row.items() if value is not None},
            "first_at": format_time(row["first_at"]),
            "last_at": format_time(row["last_at"]),
        }
        for row in purchases.iter_rows(named=True)
    ]


def left_out(counts: Mapping[str, Count], item_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return what `buyers_of` leaves out, by item.

    Parameters
    ----------
    counts : mapping of str to Count
        What was bought and not stored.
    item_ids : sequence of str
        The items.

    Returns
    -------
    list of dict
        ``item_id``, ``withheld_purchases``, ``withheld_quantity``.
    """
    return [
        {
            "item_id": item_id,
            "withheld_purchases": counts[item_id].purchases,
            "withheld_quantity": counts[item_id].pieces,
        }
        for item_id in item_ids
        if item_id in counts
    ]
