"""What each customer likes: categories, brands, and dear or cheap things."""

import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.item_columns import COLUMNS
from training.customers.purchases import Purchases

TOP = 5
"""Categories and brands that are named."""
CATEGORY_LEVELS = 2
"""Levels of a category's path that are told apart: "Grocery > Cheese" is a taste, a leaf of a deep
tree is a product."""
BANDS = ("low", "middle", "high")
LOW_BELOW, HIGH_ABOVE = 0.45, 0.55
"""Mean place within the prices of a category, 0 to 1, at which a band ends and begins."""
MIN_ITEMS_WITH_PRICE = 5
MIN_LINES = 5
_PRIOR_LINES = 2.0


def tastes_of(purchases: Purchases, catalogue: Catalogue) -> pl.DataFrame:
    """Return what each customer likes.

    Parameters
    ----------
    purchases : Purchases
        What was bought.
    catalogue : Catalogue
        Brands and categories; items that it does not know count for neither.

    Returns
    -------
    DataFrame
        One row a customer, sorted by ``person``: ``categories`` and ``brands`` (list of str, at
        most 5, the most bought first), ``category_shares`` and ``brand_shares`` (list of f64: the
        share of all of the customer's purchases, old ones counting less), ``price_band`` (str or
        null).
    """
    items = _items(purchases, catalogue)
    totals = purchases.tastes.group_by("person").agg(pl.col("weight").sum().alias("total"))
    result = totals.select("person").sort("person")
    for name, shares, column in (
        ("categories", "category_shares", "categories"),
        ("brands", "brand_shares", "brand"),
    ):
        top = _top(purchases.tastes, items.select("item", column), totals)
        top = top.rename({"names": name, "shares": shares})
        result = result.join(top, on="person", how="left", maintain_order="left")
    bands = _bands(purchases, items)
    result = result.join(bands, on="person", how="left", maintain_order="left")
    return result.with_columns(
        pl.col(name).fill_null([]) for name in result.columns if result[name].dtype == pl.List
    )


def _items(purchases: Purchases, catalogue: Catalogue) -> pl.DataFrame:
    """Return of what was bought ``item``, ``brand``, ``categories`` (cut) and ``leaf``."""
    wanted = pl.DataFrame({"item_id": purchases.item_ids}).with_row_index("item")
    columns = ["item_id", "brand", "categories"]
    known = [catalogue.frame.select(columns).with_row_index("row")]
    if catalogue.overlay:
        changed = pl.DataFrame(list(catalogue.overlay.values()), schema=COLUMNS)
        rows = pl.Series("row", list(catalogue.overlay), dtype=pl.UInt32)
        known.append(changed.select(rows, *columns))
    # The overlay's rows come last, and they are the newer ones.
    every = pl.concat(known).unique("item_id", keep="last")
    cut = pl.element().str.split(" > ").list.head(CATEGORY_LEVELS).list.join(" > ")
    return (
        wanted.join(every, on="item_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("categories").list.first().alias("leaf"),
            pl.col("categories").list.eval(cut).list.unique(maintain_order=True),
        )
        .select("item", "brand", "categories", "leaf")
    )


def _top(tastes: pl.DataFrame, labels: pl.DataFrame, totals: pl.DataFrame) -> pl.DataFrame:
    """Return the labels with the largest shares of each person's purchases.

    Returns
    -------
    DataFrame
        ``person``, ``names``, ``shares``.
    """
    column = labels.columns[1]
    if labels[column].dtype == pl.List:
        # An item of several categories is divided among them.
        parts = (1.0 / pl.col(column).list.len()).alias("part")
        labels = labels.filter(pl.col(column).list.len() > 0).with_columns(parts).explode(column)
    else:
        labels = labels.with_columns(part=pl.lit(1.0))
    labels = labels.drop_nulls(column)
    names = labels[column].unique().sort()
    coded = labels.join(
        pl.DataFrame({column: names}).with_row_index("label"), on=column, maintain_order="left"
    ).select("item", "label", pl.col("part").cast(pl.Float32))
    return (
        tastes.lazy()
        .select("person", "item", "weight")
        .join(coded.lazy(), on="item")
        .group_by("person", "label")
        .agg((pl.col("weight") * pl.col("part")).sum().alias("share"))
        .join(totals.lazy(), on="person")
        # Rounded before they are ordered: sums in another order shall not order names anew.
        .with_columns((pl.col("share") / pl.col("total")).cast(pl.Float64).round(3))
        .sort(["person", "share", "label"], descending=[False, True, False])
        .group_by("person", maintain_order=True)
        .head(TOP)
        # A share of nothing is no taste.
        .filter(pl.col("share") > 0)
        .join(
            pl.LazyFrame({"name": names}).with_row_index("label"),
            on="label",
            maintain_order="left",
        )
        .group_by("person", maintain_order=True)
        .agg(pl.col("name").alias("names"), pl.col("share").alias("shares"))
        .collect()
    )


def _bands(purchases: Purchases, items: pl.DataFrame) -> pl.DataFrame:
    """Return ``person`` and ``price_band``, of those with enough purchases to tell.

    An item's place is the share of purchases in its category (the first one, whole path) that went
    to cheaper items, half of those at the same price counted; so the places of a category have the
    mean 1/2, however dear it is. A customer's place is the mean over what they bought, old
    purchases counting less, with two lines at 1/2 added.
    """
    bought = purchases.tastes.group_by("item").agg(pl.col("lines").sum())
    priced = (
        bought.join(purchases.prices, on="item")
        .join(items.select("item", "leaf"), on="item")
        .drop_nulls("leaf")
        .filter(pl.len().over("leaf") >= MIN_ITEMS_WITH_PRICE)
        .sort("leaf", "price", "item")
    )
    lines = pl.col("lines").cast(pl.Float64)
    placed = (
        priced.with_columns(lines.cum_sum().over("leaf").alias("upto"))
        # Items at one price share the middle of what they span together.
        .with_columns(
            pl.col("upto").max().over("leaf", "price"),
            lines.sum().over("leaf", "price").alias("same"),
            lines.sum().over("leaf").alias("all"),
        )
        .select("item", place=(pl.col("upto") - pl.col("same") / 2.0) / pl.col("all"))
    )
    weight = pl.col("weight").cast(pl.Float64)
    per_person = (
        purchases.tastes.lazy()
        .join(placed.lazy(), on="item")
        .group_by("person")
        .agg(
            (weight * (pl.col("place") - 0.5)).sum().alias("off"),
            weight.sum().alias("weight"),
            pl.col("lines").sum(),
        )
        .filter((pl.col("lines") >= MIN_LINES) & (pl.col("weight") > 0))
        .collect()
    )
    # The prior weighs two lines of the customer's own mean weight: old histories fade alike.
    prior = _PRIOR_LINES / pl.col("lines")
    mean = 0.5 + pl.col("off") / (pl.col("weight") * (1.0 + prior))
    band = (
        pl.when(mean < LOW_BELOW)
        .then(pl.lit(BANDS[0]))
        .when(mean > HIGH_ABOVE)
        .then(pl.lit(BANDS[2]))
        .otherwise(pl.lit(BANDS[1]))
    )
    return per_person.select("person", band.alias("price_band"))
