"""Made-up shops for tests of training: purchases with tastes, staples and habits."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog
from training.dataset import Interactions, read_interactions

DAY_MS = 86_400_000
END_MS = 1_700_000_000_000
NOW = datetime(2024, 1, 1, tzinfo=UTC)

Line = tuple[str, str, float]
"""Who bought what, how many days before `END_MS`."""


def as_events(lines: list[Line], kind: str = "purchase") -> pl.DataFrame:
    """Return purchases as the event log keeps them; one basket a person and day."""
    people, items, days = zip(*lines, strict=True) if lines else ((), (), ())
    frame = pl.DataFrame(
        {
            "event_id": [str(number) for number in range(len(lines))],
            "user_id": list(people),
            "item_id": list(items),
            "t_ms": [END_MS - round(day * DAY_MS) for day in days],
        },
        schema={
            "event_id": pl.String,
            "user_id": pl.String,
            "item_id": pl.String,
            "t_ms": pl.Int64,
        },
    ).with_columns(
        timestamp=pl.from_epoch("t_ms", time_unit="ms").dt.replace_time_zone("UTC"),
        type=pl.lit(kind),
        trust=pl.lit("server"),
    )
    return frame.select(
        pl.col(name) if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in EVENT_LOG_SCHEMA.items()
    ).cast(dict(EVENT_LOG_SCHEMA.items()))


def interactions_of(lines: list[Line], kind: str = "purchase") -> Interactions:
    return read_interactions(as_events(lines, kind).lazy())


def habits(n_people: int = 160, n_items: int = 120, days: int = 120, seed: int = 0) -> list[Line]:
    """Return purchases of a small grocery.

    Everybody has one of four tastes, a few staples that come back every week or two, and tries new
    things, mostly of their taste.
    """
    rng = np.random.default_rng(seed)
    appeal = 1.0 / (1.0 + np.arange(n_items // 4))
    lines: list[Line] = []
    for person in range(n_people):
        taste = person % 4
        mine = taste + 4 * rng.choice(n_items // 4, 5, replace=False, p=appeal / appeal.sum())
        gaps = rng.choice([7.0, 10.0, 14.0], len(mine))
        for visit in np.sort(rng.uniform(0, days, days // 5)):
            due = [item for item, gap in zip(mine, gaps, strict=True) if visit % gap < 3.5]
            other = taste if rng.random() < 0.8 else int(rng.integers(4))
            tried = other + 4 * rng.choice(n_items // 4, p=appeal / appeal.sum())
            lines += [(f"p{person:03d}", f"i{item:03d}", float(visit)) for item in (*due, tried)]
    return [*lines, ("p000", "i000", 0.0)]


def fill_log(data_dir: Path, lines: list[Line]) -> None:
    """Put purchases into the event log of a data directory."""
    log = EventLog(data_dir)
    with log.importing():
        pending = log.begin("made-up")
        pending.write(as_events(lines))
        pending.commit({})
        log.finish("made-up")


def bare_catalogue(interactions: Interactions) -> Catalogue:
    return Catalogue.from_item_ids(interactions.item_ids.to_list())
