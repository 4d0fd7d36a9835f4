"""Items that the model does not know, placed among its factors by their content.

A new item has no events to learn from, but a category, a brand, words: their sum is its place
(``training/models/content.py`` learns it). So it can be recommended, and similar ones found, from
the moment it is in the catalogue until the next training knows it better.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.content import columns_at, summed, tokens_of
from feature_store.signals import DAY_S

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_PRODUCTS = 2_000
"""Products placed by content, the newest: each answer scores all of them."""
MAX_OTHERS = 10_000
"""Banners, articles and offers placed by content."""
NEW_S = 30 * DAY_S
"""A product is new for so long before the model's newest event."""
_NEVER_S = 2**40


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a model can have heard of.

    Parameters
    ----------
    n_rows : int
        Rows of the catalogue when it was trained: what came later has greater ones.
    newest_s : int
        Time of its newest event, in seconds since 1970.
    """

    n_rows: int
    newest_s: int


def knowledge_of(artifact: ModelArtifact | None) -> Knowledge:
    """Return what a model can have heard of; to no model everything is new."""
    if artifact is None:
        return Knowledge(0, 0)
    train: Mapping[str, Any] = artifact.manifest.get("train") or {}
    newest = train.get("last_event_at")
    newest_s = int(datetime.fromisoformat(newest).timestamp()) if newest else _NEVER_S
    return Knowledge(int(train.get("catalogue_rows", _NEVER_S)), newest_s)


def arrival_s(catalogue: Catalogue, known: Knowledge, rows: I64 | None = None) -> I64:
    """Return when each row was published, or else that it came after training; 0 for neither.

    Parameters
    ----------
    catalogue : Catalogue
        All items.
    known : Knowledge
        Of the model.
    rows : ndarray of int64, optional
        Catalogue rows that are asked for; all of them if not given.

    Returns
    -------
    ndarray of int64, shape (n_rows,) or that of `rows`
        Seconds since 1970. Rows that came after training without saying when they were published
        count as published right after the model's newest event.
    """
    listed = catalogue.mask("listed", pl.col("listed"))
    after_s = min(known.newest_s, _NEVER_S) + 1
    if rows is not None:
        said_s = catalogue.published_s[rows]
        late = (rows >= known.n_rows) & listed[rows] & (said_s == 0)
        return np.where(late, after_s, said_s)
    since_s = catalogue.published_s.astype(np.int64)
    first = min(known.n_rows, catalogue.n_rows)
    rest = since_s[first:]
    rest[listed[first:] & (rest == 0)] = after_s
    return since_s


@dataclass(frozen=True, slots=True, eq=False)
class ColdItems:
    """Items with factors by content.

    Parameters
    ----------
    rows : ndarray of int32, shape (m,)
        Catalogue rows, ascending.
    factors : ndarray of float32, shape (m, d)
        Where they stand among the model's items.
    popularity : ndarray of float32, shape (m,)
        Log of the recent popularity that items like them have.
    overlay : mapping
        The catalogue's changes that this was computed from.
    """

    rows: I32
    factors: F32
    popularity: F32
    overlay: Mapping[int, dict[str, Any]] = field(default_factory=dict)

    def at(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        """Return the position of each catalogue row among these items; -1 for another one."""
        if len(self.rows) == 0:
            return np.full(len(rows), -1, dtype=np.intp)
        found = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[found] == rows, found, -1)


def no_cold_items(n_factors: int = 0) -> ColdItems:
    """Return the cold items of a model that knows everything, or nothing of content."""
    none = np.zeros(0, dtype=np.float32)
    empty = np.zeros((0, n_factors), dtype=np.float32)
    return ColdItems(np.zeros(0, dtype=np.int32), empty, none)


def place(
    arrays: Mapping[str, npt.NDArray[Any]],
    known: Knowledge,
    catalogue: Catalogue,
    model_rows: I32,
    before: ColdItems | None = None,
) -> ColdItems:
    """Place what the model does not know.

    New products are: those that came to the catalogue after training, and those published since
    30 days before the model's newest event. An old product that nobody ever bought is not new, and
    stays unknown. Other kinds are placed whatever their age.

    Parameters
    ----------
    arrays : mapping
        Of the artifact.
    known : Knowledge
        What the model can have heard of.
    catalogue : Catalogue
        All items.
    model_rows : ndarray of int32, shape (n_rows,)
        The model row of each catalogue row, or -1.
    before : ColdItems, optional
        Those of this model with an earlier state of the same catalogue: what did not change since
        is taken from there.
    """
    if len(arrays["content_tokens"]) == 0:
        return no_cold_items(arrays["content_factors"].shape[1])
    return place_rows(arrays, catalogue, _chosen(known, catalogue, model_rows), before)


def place_rows(
    arrays: Mapping[str, npt.NDArray[Any]],
    catalogue: Catalogue,
    rows: I32,
    before: ColdItems | None = None,
) -> ColdItems:
    """Place these catalogue rows, ascending; those without a known token are left out."""
    n_factors = arrays["content_factors"].shape[1]
    old = before or no_cold_items(n_factors)
    at = old.at(rows)
    same = np.array(
        [
            place >= 0 and catalogue.overlay.get(row) is old.overlay.get(row)
            for row, place in zip(rows.tolist(), at.tolist(), strict=True)
        ],
        dtype=bool,
    )
    fresh = rows[~same]
    sums = np.zeros((0, n_factors + 1), dtype=np.float32)
    if len(fresh):
        values = np.column_stack([arrays["content_factors"], arrays["content_popularity"]])
        tokens = tokens_of(columns_at(catalogue, fresh))
        sums, n_known = summed(tokens, fresh.tolist(), arrays["content_tokens"], values)
        sums, fresh = sums[n_known > 0], fresh[n_known > 0]
    kept = at[same]
    every = np.concatenate((rows[same], fresh))
    order = np.argsort(every)
    return ColdItems(
        every[order],
        np.ascontiguousarray(np.concatenate((old.factors[kept], sums[:, :-1]))[order]),
        np.concatenate((old.popularity[kept], sums[:, -1]))[order],
        catalogue.overlay,
    )


def _chosen(known: Knowledge, catalogue: Catalogue, model_rows: I32) -> I32:
    """Return the rows to be placed, ascending."""
    listed = catalogue.mask("listed", pl.col("listed"))
    unknown = np.flatnonzero(listed & (model_rows < 0))
    since_s = catalogue.published_s[unknown].astype(np.int64)
    # An old item that the shop begins to sell is new to the model whatever its date says.
    late = unknown >= known.n_rows
    since_s[late] = np.maximum(since_s[late], min(known.newest_s, _NEVER_S) + 1)
    is_product = catalogue.mask("kind:product", pl.col("kind") == "product")[unknown]
    kept = [
        unknown[_newest(np.flatnonzero(wanted), since_s, limit)]
        for wanted, limit in (
            (is_product & (since_s > known.newest_s - NEW_S), MAX_PRODUCTS),
            (~is_product, MAX_OTHERS),
        )
    ]
    return np.sort(np.concatenate(kept)).astype(np.int32)


def _newest(places: npt.NDArray[np.intp], since_s: I64, limit: int) -> npt.NDArray[np.intp]:
    """Return those of some places that are newest; among equals the later ones."""
    if len(places) <= limit:
        return places
    return places[np.lexsort((places, since_s[places]))[-limit:]]
