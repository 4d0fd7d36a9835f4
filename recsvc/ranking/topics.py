"""What content is about: a category of products, and how likely somebody is to care for it.

An article about cheese is for those who buy cheese. Of products one asks which item of a category;
of content one asks which category: how much of what somebody does falls under the content's own
category, drawn towards everybody's share by a few pseudo-purchases (Dirichlet smoothing). On made-
up articles about the categories of a year of grocery purchases this has an NDCG@6 of .37 for the
categories bought most next, where factors by content have .06 and popularity .30.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.content import columns_at
from recsvc.ranking.history import History

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

PSEUDO_PURCHASES = np.float32(2)
MAX_DEPTH = 6
"""Steps of a category path that are looked at."""
_LEAST_SHARE = np.float32(1e-6)


@dataclass(frozen=True, slots=True, eq=False)
class Topics:
    """The topics of some content.

    Parameters
    ----------
    rows : ndarray of int32, shape (m,)
        Catalogue rows of content that has a topic, ascending.
    of_row : ndarray of int32, shape (m,)
        The topic of each.
    of_code : ndarray of int32, shape (codes, w)
        Topics under which each category code falls, padded with `n`.
    share : ndarray of float32, shape (n,)
        Share of all purchases that falls under each topic.
    """

    rows: I32
    of_row: I32
    of_code: I32
    share: F32

    def likely(self, category_codes: I32, history: History) -> F32:
        """Return the log of how likely somebody's next choice falls under each topic, shape (n,).

        Parameters
        ----------
        category_codes : ndarray of int32, shape (n_rows,)
            Of the catalogue.
        history : History
            The person's; empty for nobody.
        """
        weights = np.log(history.weights + np.float32(1))
        topics = self.of_code[category_codes[history.rows]]
        n = len(self.share)
        mine = np.bincount(topics.ravel(), np.repeat(weights, topics.shape[1]), minlength=n)[:n]
        total = weights.sum() + PSEUDO_PURCHASES
        likely: F32 = np.log((mine.astype(np.float32) + PSEUDO_PURCHASES * self.share) / total)
        return likely

    def contributor(self, category_codes: I32, history: History, row: int) -> int | None:
        """Return the position of what says most in a history about the topic of a row, if any."""
        (topic,) = self.at(np.array([row]))
        under = (self.of_code[category_codes[history.rows]] == topic).any(axis=1)
        if topic < 0 or not under.any():
            return None
        return int(np.argmax(np.where(under, history.weights, 0)))

    def at(self, rows: npt.NDArray[np.integer]) -> I32:
        """Return the topic of each catalogue row; -1 for none."""
        found = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[found] == rows, self.of_row[found], np.int32(-1))


def topics_of(
    catalogue: Catalogue, rows: I32, category_codes: I32, category_share: F32
) -> Topics | None:
    """Return what content is about.

    The topic of an item is the first of its category paths under which anything else falls: one
    that a product's path begins with or holds, step by step ("Cheese" holds "Dairy > Cheese >
    Sliced").

    Parameters
    ----------
    catalogue : Catalogue
        All items.
    rows : ndarray of int32
        The content.
    category_codes : ndarray of int32, shape (n_rows,)
        The code of each row's first category path.
    category_share : ndarray of float32, shape (codes,)
        Share of all purchases that each code has.

    Returns
    -------
    Topics or None
        ``None`` if none of the content has a topic.
    """
    wanted = _paths(catalogue, rows)
    names = {path: number for number, path in enumerate(dict.fromkeys(wanted["path"]))}
    if not names:
        return None
    n_codes = len(category_share)
    of_code = _falls_under(paths_of_codes(catalogue, category_codes, n_codes), names, n_codes)
    sold = np.where(category_share > 2 * _LEAST_SHARE, category_share, 0)
    share = np.bincount(
        of_code.ravel(), np.repeat(sold, of_code.shape[1]), minlength=len(names) + 1
    )[:-1].astype(np.float32)
    topic = np.array([names[path] for path in wanted["path"]], dtype=np.int32)
    kept = wanted.with_columns(topic=pl.Series(topic)).filter(pl.Series(share[topic] > 0))
    first = kept.unique("row", keep="first", maintain_order=True).sort("row")
    if first.is_empty():
        return None
    return Topics(
        first["row"].cast(pl.Int32).to_numpy(),
        first["topic"].to_numpy(),
        of_code,
        share + _LEAST_SHARE,
    )


def _paths(catalogue: Catalogue, rows: I32) -> pl.DataFrame:
    """Return ``row`` and ``path``: every category path of some rows, in lower case."""
    found = columns_at(catalogue, rows).select("row", path="categories").explode("path")
    return found.drop_nulls().with_columns(pl.col("path").str.to_lowercase())


def paths_of_codes(catalogue: Catalogue, codes: I32, n_codes: int) -> dict[int, str]:
    """Return the path behind each category code, in lower case.

    Parameters
    ----------
    catalogue : Catalogue
        All items.
    codes : ndarray of int32, shape (n_rows,)
        Their category codes.
    n_codes : int
        How many codes there are, 0 included, which stands for no category.
    """
    row_of_code = np.full(n_codes, -1, dtype=np.int64)
    row_of_code[codes] = np.arange(len(codes))
    row_of_code[0] = -1
    used = row_of_code[row_of_code >= 0]
    first = columns_at(catalogue, used).select(
        "row", path=pl.col("categories").list.first().str.to_lowercase()
    )
    return {
        int(codes[row]): path for row, path in first.drop_nulls().iter_rows()
    }  # fmt: skip


def _falls_under(paths: dict[int, str], names: dict[str, int], n_codes: int) -> I32:
    """Return the topics of each code, shape (codes, w), padded with ``len(names)``."""
    found: dict[int, list[int]] = {}
    for code, path in paths.items():
        steps = path.split(" > ")[:MAX_DEPTH]
        parts = {
            " > ".join(steps[start:stop])
            for start in range(len(steps))
            for stop in range(start + 1, len(steps) + 1)
        }
        found[code] = sorted(names[part] for part in parts if part in names)
    width = max((len(topics) for topics in found.values()), default=0)
    table = np.full((n_codes, max(width, 1)), len(names), dtype=np.int32)
    for code, topics in found.items():
        table[code, : len(topics)] = topics
    return table
