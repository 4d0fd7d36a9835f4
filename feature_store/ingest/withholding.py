"""Asking the server what an import must leave out."""

import asyncio

import polars as pl

from feature_store.facts import person_column
from feature_store.ingest.withheld import Withheld, Withhold
from feature_store.preferences import ProfilingDefault
from feature_store.store import Store
from feature_store.withheld_counts import counts_in


def store_withholding(url: str, profiling: ProfilingDefault) -> Withhold:
    """Return what `import_events` asks before it writes the log.

    Parameters
    ----------
    url : str
        Of the Redis server.
    profiling : {"opt_out", "opt_in"}
        What holds for who was never asked.
    """

    def withhold(events: pl.DataFrame) -> Withheld:
        return asyncio.run(_withhold(url, profiling, events))

    return withhold


async def _withhold(url: str, profiling: ProfilingDefault, events: pl.DataFrame) -> Withheld:
    store = await Store.open(url, profiling=profiling)
    try:
        remembered = (await store.forgetting.ledger()).kept(events)
        person = remembered.select(person_column()).to_series()
        refusing = await store.refusing(person.drop_nulls().unique().to_list())
        kept = remembered
        if refusing:
            is_kept = ~person.is_in(list(refusing))
            kept = remembered.filter(is_kept)
            await store.withheld.add(counts_in(remembered.filter(~is_kept)))
    finally:
        await store.close()
    return Withheld(kept, len(events) - len(remembered), len(remembered) - len(kept))
