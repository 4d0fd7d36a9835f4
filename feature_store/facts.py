"""Which facts an event leaves behind, said once for a single event and once for a log of them."""

from collections.abc import Sequence

import polars as pl

from feature_store.schema import DISLIKE_UPTO, EVENT_TYPE_CODES, LIKE_FROM, EventType


def fact_codes(columns: Sequence[str]) -> pl.Expr:
    """Return ``Event.fact_code`` over the log's columns ``type`` and, if it is there, ``extra``."""
    names = {kind.value: code for kind, code in EVENT_TYPE_CODES.items()}
    code = pl.col("type").replace_strict(names, return_dtype=pl.UInt8).alias("type")
    if "extra" not in columns:
        return code
    value = pl.when(pl.col("type") == EventType.RATING.value).then(
        pl.col("extra").str.json_path_match("$.value").cast(pl.Float64, strict=False)
    )
    like, dislike = (EVENT_TYPE_CODES[kind] for kind in (EventType.LIKE, EventType.DISLIKE))
    return (
        pl.when(value >= LIKE_FROM)
        .then(pl.lit(like, pl.UInt8))
        .when(value <= DISLIKE_UPTO)
        .then(pl.lit(dislike, pl.UInt8))
        .otherwise(code)
        .alias("type")
    )
