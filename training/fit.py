"""All models fitted on the same interactions, as the arrays of an artifact."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.artifact import ArtifactWriter
from feature_store.signals import FEATURES
from training.config import TrainConfig
from training.dataset import Interactions, model_items, taste_facts, weight_matrix
from training.index import BuiltIndex
from training.models.als import fit_item_factors, regularization_of
from training.models.popularity import fit_popularity
from training.models.repeat import fit_repeat
from training.models.similar import fit_similar
from training.models.together import fit_together
from training.progress import Progress, part, silent


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fitted model, before it has an index.

    Parameters
    ----------
    items : ndarray of uint32, shape (n,)
        Item code of each model row, ascending: rows are in the order of item ids.
    item_ids : list of str
        Their ids.
    arrays : dict
        ``artifact.ARRAYS``.
    now_s : int
        The moment from which ages were counted.
    config : dict
        For the manifest: the parameters as they were used.
    """

    items: npt.NDArray[np.uint32]
    item_ids: list[str]
    arrays: dict[str, npt.NDArray[Any]]
    now_s: int
    config: dict[str, Any]

    @property
    def n_items(self) -> int:
        """How many items the model knows."""
        return len(self.items)

    @property
    def item_factors(self) -> npt.NDArray[np.float32]:
        """Item factors, float32, shape (n, d)."""
        return self.arrays["item_factors"]

    def write(self, writer: ArtifactWriter, index: BuiltIndex, weights: list[float]) -> None:
        """Put everything that an artifact needs into a writer.

        Parameters
        ----------
        writer : ArtifactWriter
            Where to.
        index : BuiltIndex
            Over the item factors.
        weights : list of float
            Of the blend of `home`, as ``signals.FEATURES``.
        """
        for name, values in self.arrays.items():
            writer.array(name, values)
        writer.item_ids(self.item_ids)
        writer.index(index.save)
        writer.manifest["config"] = self.config
        writer.manifest["index"] = index.manifest
        writer.manifest["blend"] = {"features": list(FEATURES), "weights": {"home": weights}}


def fit(
    interactions: Interactions,
    config: TrainConfig,
    now_ms: int,
    *,
    neighbours: bool,
    stage: str = "fit",
    progress: Progress = silent,
) -> Fitted:
    """Fit every model.

    Parameters
    ----------
    interactions : Interactions
        All that may be learned from.
    config : TrainConfig
        Parameters.
    now_ms : int
        The moment from which ages are counted.
    neighbours : bool
        Whether to compute ``together_*`` and ``similar_*``, which take longest and which the blend
        does not need; without them they have no columns.
    stage : str
        Name under which progress is told.
    progress : callable
        Told the share that is done.
    """
    items = model_items(interactions)
    bought = _purchases(interactions, items)
    # Factors take half of the time, neighbours the other half.
    factors_end = 0.45 if neighbours else 1.0
    arrays, regularization = _fit_factors(
        interactions, items, config, now_ms, part(progress, stage, 0.0, factors_end)
    )
    popularity = fit_popularity(
        bought["row"].to_numpy(),
        bought["t_ms"].to_numpy() // 1_000,
        n_items=len(items),
        now_s=now_ms // 1_000,
        half_life_days=config.popularity_half_life_days,
        recent_half_life_days=config.recent_half_life_days,
    )
    repeat = fit_repeat(bought, len(items), config.repeat_prior)
    arrays |= {
        "popularity": popularity.overall,
        "popularity_recent": popularity.recent,
        "trending": popularity.trending,
        "repeat_rate": repeat.rate,
        "repeat_interval_s": repeat.interval_s,
        "first_seen_s": _first_seen_s(interactions, items),
    }
    arrays |= _fit_neighbours(
        bought, arrays, config, enabled=neighbours, stage=stage, progress=progress
    )
    document = config.as_manifest() | {
        "regularization": regularization,
        "repeat_rate_prior": repeat.prior_rate,
        "repeat_interval_prior_s": repeat.prior_interval_s,
    }
    progress(stage, 1.0)
    item_ids: list[str] = interactions.item_ids.gather(items).to_list()
    return Fitted(items, item_ids, arrays, now_ms // 1_000, document)


def _fit_factors(
    interactions: Interactions,
    items: npt.NDArray[np.uint32],
    config: TrainConfig,
    now_ms: int,
    report: Any,
) -> tuple[dict[str, npt.NDArray[Any]], float]:
    weights = weight_matrix(taste_facts(interactions, now_ms), items)
    regularization = config.regularization or regularization_of(weights, config.n_factors)
    factors = fit_item_factors(
        weights,
        n_factors=config.n_factors,
        n_iterations=config.n_iterations,
        regularization=regularization,
        alpha=config.alpha,
        seed=config.seed,
        n_threads=config.threads,
        report=report,
    )
    return {"item_factors": factors, "gram": factors.T @ factors}, regularization


def _purchases(interactions: Interactions, items: npt.NDArray[np.uint32]) -> pl.DataFrame:
    """Return purchases with model rows; in a shop that has none yet, whatever people did."""
    bought = interactions.purchases
    if bought.height == 0:
        known = pl.Series(items, dtype=pl.UInt32)
        bought = interactions.frame.filter(pl.col("item").is_in(known.implode()))
    rows = np.searchsorted(items, bought["item"].to_numpy()).astype(np.int32)
    return bought.select("person", "t_ms", "basket", pl.Series("row", rows))


def _first_seen_s(
    interactions: Interactions, items: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    first = interactions.frame.group_by("item").agg(pl.col("t_ms").min()).sort("item")
    at = np.searchsorted(first["item"].to_numpy(), items)
    seconds: npt.NDArray[np.uint32] = (first["t_ms"].to_numpy()[at] // 1_000).astype(np.uint32)
    return seconds


def _fit_neighbours(
    bought: pl.DataFrame,
    arrays: dict[str, npt.NDArray[Any]],
    config: TrainConfig,
    *,
    enabled: bool,
    stage: str,
    progress: Progress,
) -> dict[str, npt.NDArray[Any]]:
    rows = bought["row"].to_numpy()
    factors = arrays["item_factors"]
    together_rows, together_scores = fit_together(
        bought["basket"].to_numpy(),
        rows,
        n_items=len(factors),
        k=config.together_k if enabled else 0,
        shrinkage=config.together_shrinkage,
        report=part(progress, stage, 0.45, 0.65),
    )
    buyers = bought.select("person", "row").unique()["row"].to_numpy()
    similar_rows, similar_scores = fit_similar(
        factors,
        np.bincount(buyers, minlength=len(factors)),
        k=config.similar_k if enabled else 0,
        n_threads=config.threads,
        report=part(progress, stage, 0.65, 1.0),
    )
    return {
        "together_rows": together_rows,
        "together_scores": together_scores,
        "similar_rows": similar_rows,
        "similar_scores": similar_scores,
    }
