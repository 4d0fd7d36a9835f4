"""All models fitted on the same interactions, as the arrays of an artifact."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.artifact import ArtifactWriter
from feature_store.schema import PURCHASE_CODE
from feature_store.signals import FEATURES, WEIGHT_BY_CODE
from training.config import TrainConfig
from training.dataset import Interactions, model_items, taste_facts, weight_matrix
from training.index import BuiltIndex
from training.items import ItemContent
from training.models.als import fit_item_factors, regularization_of
from training.models.content import fit_content, no_content
from training.models.popularity import fit_popularity
from training.models.repeat import fit_repeat
from training.models.similar import fit_similar
from training.models.starts import no_starts
from training.models.together import fit_together
from training.progress import Progress, Report, part, silent

F32 = npt.NDArray[np.float32]


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
    def item_factors(self) -> F32:
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
    content: ItemContent | None = None,
    together: bool = True,
    similar: bool = True,
    newcomers: bool = True,
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
    content : ItemContent, optional
        What the catalogue says of the items; without it all of them are products of which nothing
        else is known.
    newcomers : bool
        Whether to compute ``content_*``, by which items without events are placed.
    together, similar : bool
        Whether to compute ``together_*`` and ``similar_*``, which take long and which a trial of
        `home` does not need; without them they have no columns.
    stage : str
        Name under which progress is told.
    progress : callable
        Told the share that is done.
    """
    items = model_items(interactions)
    bought = _purchases(interactions, items)
    arrays, regularization = _fit_factors(
        interactions, items, config, now_ms, part(progress, stage, 0.0, 0.3)
    )
    statistics, priors = _fit_statistics(interactions, bought, items, config, now_ms, content)
    arrays |= statistics
    learned, ridges = _fit_content(
        content if newcomers else None, arrays, bought, items, config.seed
    )
    arrays |= learned
    # Filled in where people's attributes are known (``training.starts``).
    arrays |= no_starts(arrays["item_factors"].shape[1])
    arrays |= _fit_together(
        bought,
        len(items),
        config,
        config.together_k if together else 0,
        part(progress, stage, 0.4, 0.6),
    )
    arrays |= _fit_similar(
        bought,
        arrays["item_factors"],
        config,
        config.similar_k if similar else 0,
        part(progress, stage, 0.6, 1.0),
    )
    document = config.as_manifest() | {"regularization": regularization} | priors | ridges
    progress(stage, 1.0)
    item_ids: list[str] = interactions.item_ids.gather(items).to_list()
    return Fitted(items, item_ids, arrays, now_ms // 1_000, document)


def _fit_factors(
    interactions: Interactions,
    items: npt.NDArray[np.uint32],
    config: TrainConfig,
    now_ms: int,
    report: Report,
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


def _fit_statistics(
    interactions: Interactions,
    bought: pl.DataFrame,
    items: npt.NDArray[np.uint32],
    config: TrainConfig,
    now_ms: int,
    content: ItemContent | None,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, float]]:
    """Return the arrays that are counted rather than learned, and what unknown items have."""
    counted = _popular_by(interactions, bought, items, content)
    popularity = fit_popularity(
        counted["row"].to_numpy(),
        counted["t_ms"].to_numpy() // 1_000,
        weights=counted["weight"].to_numpy(),
        n_items=len(items),
        now_s=now_ms // 1_000,
        half_life_days=config.popularity_half_life_days,
        recent_half_life_days=config.recent_half_life_days,
    )
    repeat = fit_repeat(bought, len(items), config.repeat_prior)
    arrays = {
        "popularity": popularity.overall,
        "popularity_recent": popularity.recent,
        "trending": popularity.trending,
        "repeat_rate": repeat.rate,
        "repeat_interval_s": repeat.interval_s,
        "first_seen_s": _first_seen_s(interactions, items),
    }
    return arrays, {
        "repeat_rate_prior": repeat.prior_rate,
        "repeat_interval_prior_s": repeat.prior_interval_s,
    }


def _purchases(interactions: Interactions, items: npt.NDArray[np.uint32]) -> pl.DataFrame:
    """Return purchases with model rows; in a shop that has none yet, whatever people did."""
    bought = interactions.purchases
    if bought.height == 0:
        known = pl.Series(items, dtype=pl.UInt32)
        bought = interactions.frame.filter(pl.col("item").is_in(known.implode()))
    rows = np.searchsorted(items, bought["item"].to_numpy()).astype(np.int32)
    return bought.select("person", "t_ms", "basket", pl.Series("row", rows))


def _popular_by(
    interactions: Interactions,
    bought: pl.DataFrame,
    items: npt.NDArray[np.uint32],
    content: ItemContent | None,
) -> pl.DataFrame:
    """Return what makes items popular: purchases, and looks at what cannot be bought.

    Returns
    -------
    DataFrame
        ``row``, ``t_ms`` and ``weight`` (f32).
    """
    counted = bought.select("row", "t_ms", weight=pl.lit(1.0, pl.Float32))
    if content is None or content.is_product.all() or interactions.purchases.is_empty():
        return counted
    looked = interactions.frame.filter(
        ~pl.Series(content.is_product[interactions.frame["item"].to_numpy()])
        & pl.col("item").is_in(pl.Series(items, dtype=pl.UInt32).implode())
        & (pl.col("type") != PURCHASE_CODE)
    )
    rows = np.searchsorted(items, looked["item"].to_numpy()).astype(np.int32)
    weights = WEIGHT_BY_CODE[looked["type"].to_numpy()]
    return pl.concat(
        [counted, looked.select(pl.Series("row", rows), "t_ms", pl.Series("weight", weights))]
    )


def _fit_content(
    content: ItemContent | None,
    arrays: dict[str, npt.NDArray[Any]],
    bought: pl.DataFrame,
    items: npt.NDArray[np.uint32],
    seed: int,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return what tokens say of items, and how strongly that was shrunk."""
    factors = arrays["item_factors"]
    if content is None:
        return no_content(factors.shape[1]).arrays(), {}
    learned = fit_content(
        content.tokens_of(items),
        factors,
        arrays["popularity_recent"],
        _buyers(bought, len(items)),
        seed=seed,
    )
    return learned.arrays(), {"content_ridges": list(learned.ridges)}


def _buyers(bought: pl.DataFrame, n_items: int) -> npt.NDArray[np.intp]:
    """Return how many people bought each item."""
    rows = bought.select("person", "row").unique()["row"].to_numpy()
    return np.bincount(rows, minlength=n_items)


def _first_seen_s(
    interactions: Interactions, items: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    first = interactions.frame.group_by("item").agg(pl.col("t_ms").min()).sort("item")
    at = np.searchsorted(first["item"].to_numpy(), items)
    seconds: npt.NDArray[np.uint32] = (first["t_ms"].to_numpy()[at] // 1_000).astype(np.uint32)
    return seconds


def _fit_together(
    bought: pl.DataFrame, n_items: int, config: TrainConfig, k: int, report: Report
) -> dict[str, npt.NDArray[Any]]:
    rows, scores = fit_together(
        bought["basket"].to_numpy(),
        bought["row"].to_numpy(),
        bought["person"].to_numpy(),
        n_items=n_items,
        k=k,
        shrinkage=config.together_shrinkage,
        report=report,
    )
    return {"together_rows": rows, "together_scores": scores}


def _fit_similar(
    bought: pl.DataFrame, factors: F32, config: TrainConfig, k: int, report: Report
) -> dict[str, npt.NDArray[Any]]:
    rows, scores = fit_similar(
        factors,
        _buyers(bought, len(factors)),
        k=k,
        n_threads=config.threads,
        report=report,
    )
    return {"similar_rows": rows, "similar_scores": scores}
