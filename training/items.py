"""What the catalogue says of the items of the events, for the models that learn from it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.content import columns_at, tokens_of

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ItemContent:
    """Content by item code.

    Parameters
    ----------
    tokens : DataFrame
        ``item`` (u32 code) and ``token``: what each item is made of (``feature_store.content``).
    is_product : ndarray of bool, shape (items,)
        What people buy; articles, banners and offers they look at.
    """

    tokens: pl.DataFrame
    is_product: npt.NDArray[np.bool_]

    def tokens_of(self, items: npt.NDArray[np.uint32]) -> pl.DataFrame:
        """Return ``row`` and ``token`` of some items: the row is the place among `items`.

        Parameters
        ----------
        items : ndarray of uint32, shape (n,)
            Item codes, ascending.
        """
        rows = pl.DataFrame({"item": items}).with_row_index("row")
        return self.tokens.join(rows, on="item").select("row", "token")


def read_content(catalogue: Catalogue, rows: I32) -> ItemContent:
    """Read the content of the items of the events.

    Parameters
    ----------
    catalogue : Catalogue
        With a row for each of them.
    rows : ndarray of int32, shape (items,)
        Catalogue row of each item code.
    """
    items = columns_at(catalogue, rows)
    code_of_row = np.zeros(catalogue.n_rows, dtype=np.uint32)
    code_of_row[rows] = np.arange(len(rows), dtype=np.uint32)
    tokens = tokens_of(items)
    codes = pl.Series("item", code_of_row[tokens["row"].to_numpy()])
    is_product = np.ones(len(rows), dtype=bool)
    others = items.filter(pl.col("kind") != "product")["row"].to_numpy()
    is_product[code_of_row[others]] = False
    return ItemContent(tokens.select(codes, "token"), is_product)
