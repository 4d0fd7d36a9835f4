"""Items that are not available any more, because a feed of the whole catalogue lacks them."""

import polars as pl


def withdrawn(frame: pl.DataFrame, item_ids: pl.Series) -> pl.DataFrame:
    """Make some items unavailable, in every market too; all else about them stays.

    Parameters
    ----------
    frame : DataFrame
        ``item_columns.COLUMNS``.
    item_ids : Series of str
        Which items.
    """
    if item_ids.is_empty():
        return frame
    gone = frame["item_id"].is_in(item_ids.implode()).fill_null(value=False)
    frame = frame.with_columns(available=pl.col("available") & ~gone)
    if frame["markets"].filter(gone).null_count() == int(gone.sum()):
        return frame
    nowhere = pl.element().struct.with_fields(available=pl.lit(None, dtype=pl.Boolean))
    markets = pl.when(gone).then(pl.col("markets").list.eval(nowhere)).otherwise(pl.col("markets"))
    return frame.with_columns(markets.alias("markets"))
