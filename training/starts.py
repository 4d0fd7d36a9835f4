"""Learns where customers without a history start, from those who have one, if that helps.

Attributes are used only where they are measured to help: everybody's first basket of the last
window is ranked once by popularity alone, and once with the mean taste of other people who share
attributes (five folds; nobody is in the mean that they are judged by). Unless the NDCG is surely
better, no group is published. On the demo's demographics it is not, so that there age, income and
household change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.content import attribute_tokens, token_hash
from training import metrics
from training.dataset import Interactions
from training.fit import Fitted
from training.models.starts import fit_starts, no_starts
from training.people import states_of
from training.split import positions_of, window_start_ms
from training.workshop import Workshop

F32 = npt.NDArray[np.float32]
U32 = npt.NDArray[np.uint32]
Arrays = dict[str, npt.NDArray[Any]]

MAX_PEOPLE = 20_000
"""Folding in takes a tenth of a millisecond each; more people would not change a mean."""
FOLDS = 5
POPULAR = 2_000
"""Items among which baskets are ranked: the most popular ones."""
LEAST = np.float32(0.01)

Attributes = Mapping[str, Mapping[str, Any]]
"""The attributes of each person (``schema.person_of``) who has any."""


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """People whose attributes are known.

    Parameters
    ----------
    codes : ndarray of uint32, shape (m,)
        Person codes, ascending.
    vectors : ndarray of float32, shape (m, d)
        Their folded-in vectors.
    attributes : list of m mappings
        What is said of each.
    """

    codes: U32
    vectors: F32
    attributes: list[Mapping[str, Any]]


def learn_starts(
    shop: Workshop, fitted: Fitted, interactions: Interactions, attributes: Attributes
) -> tuple[Arrays, dict[str, Any] | None]:
    """Return the arrays ``start_*`` of an artifact, and what was measured.

    Parameters
    ----------
    shop : Workshop
        Catalogue and parameters.
    fitted : Fitted
        The model.
    interactions : Interactions
        What it was fitted on.
    attributes : mapping
        Of the people of whom a shop has said something, without those who refuse profiling.

    Returns
    -------
    arrays : dict
        Without entries where attributes do not help.
    summary : dict or None
        For the manifest; ``None`` if there was nothing to measure.
    """
    nothing = no_starts(fitted.item_factors.shape[1])
    active = interactions.frame["person"].unique().sort().to_numpy()
    if not attributes or len(active) == 0:
        return nothing, None
    names = interactions.persons.gather(active).to_list()
    described = np.flatnonzero([name in attributes for name in names])
    rng = np.random.default_rng(shop.config.seed)
    everybody, members = _some(active, rng), _some(described, rng)
    folder = shop.folder(fitted)

    def vectors(codes: U32) -> F32:
        return folder.vectors(states_of(interactions, codes, shop.catalogue_rows))

    known = Described(
        active[members], vectors(active[members]), [attributes[names[at]] for at in members]
    )
    every = vectors(everybody)
    summary = _measure(shop, fitted, interactions, known, every)
    if summary is None or not summary["used"]:
        return nothing, summary
    return fit_starts(every, known.vectors, known.attributes), summary


def _some(values: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return at most 20,000 of some values, ascending."""
    if len(values) <= MAX_PEOPLE:
        return values
    return np.sort(rng.choice(values, MAX_PEOPLE, replace=False))


def _measure(
    shop: Workshop, fitted: Fitted, interactions: Interactions, known: Described, every: F32
) -> dict[str, Any] | None:
    """Compare a start by attributes with popularity, on first baskets of the last window."""
    config = shop.config
    logs = _log_popularity(fitted)
    popular = np.argsort(-logs, kind="stable")[:POPULAR]
    factors, base = fitted.item_factors[popular], logs[popular]
    place = np.full(fitted.n_items, -1, dtype=np.int64)
    place[popular] = np.arange(len(popular))
    baskets = _first_baskets(interactions, known.codes, fitted, config.test_days)
    fold = np.random.default_rng(config.seed).integers(0, FOLDS, len(known.codes))
    found = []
    for held in range(FOLDS):
        others = np.flatnonzero(fold != held)
        arrays = fit_starts(
            every, known.vectors[others], [known.attributes[at] for at in others.tolist()]
        )
        if len(arrays["start_groups"]) == 0:
            return None
        average = _logs(factors @ arrays["start_vectors"][_every(arrays)])
        for person in np.flatnonzero(fold == held).tolist():
            group = _group_of(arrays, known.attributes[person])
            truth = baskets[person]
            if group is None or len(truth) == 0:
                continue
            scores = base + _logs(factors @ group) - average
            ranked = np.stack([_top(base, config.k), _top(scores, config.k)])
            wanted = place[truth]
            hits = np.isin(ranked, wanted[wanted >= 0])
            found.append(metrics.ndcg_at_k(hits, np.array([len(truth)] * 2)))
    if len(found) < config.min_gate_users:
        return None
    popularity, groups = np.array(found).T
    low, high = metrics.bootstrap_ci(groups - popularity, config.n_bootstrap, config.seed)
    return {
        "n_users": len(found),
        "ndcg_popularity": round(float(popularity.mean()), 5),
        "ndcg_attributes": round(float(groups.mean()), 5),
        "difference_ci95": [round(low, 5), round(high, 5)],
        "used": low > 0,
    }


def _log_popularity(fitted: Fitted) -> F32:
    """Return the log of the geometric mean of recent and overall popularity, as serving does."""
    recent, overall = fitted.arrays["popularity_recent"], fitted.arrays["popularity"]
    logs = np.log(recent + np.float32(1e-6)) + np.log(overall + np.float32(1e-6))
    return np.asarray(0.5 * logs, dtype=np.float32)


def _logs(scores: F32) -> F32:
    logs: F32 = np.log(np.maximum(scores, 0) + LEAST)
    return logs


def _top(scores: F32, k: int) -> npt.NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")[:k]


def _every(arrays: Arrays) -> int:
    return int(np.searchsorted(arrays["start_groups"], np.uint64(token_hash(""))))


def _group_of(arrays: Arrays, attributes: Mapping[str, Any]) -> F32 | None:
    """Return the mean vector of a person's groups, as serving does."""
    groups = arrays["start_groups"]
    hashes = [np.uint64(token_hash(token)) for token in attribute_tokens(attributes)]
    at = [int(np.searchsorted(groups, one)) for one in hashes if one in groups]
    return None if not at else arrays["start_vectors"][at].mean(axis=0)


def _first_baskets(
    interactions: Interactions, codes: U32, fitted: Fitted, days: float
) -> list[npt.NDArray[np.int32]]:
    """Return the model rows of each person's first basket in the last days."""
    window = interactions.since(window_start_ms(interactions, days)).purchases
    mine = window.filter(pl.col("person").is_in(pl.Series(codes, dtype=pl.UInt32).implode()))
    first = mine.group_by("person").agg(pl.col("basket").sort_by("t_ms").first())
    lines = mine.join(first, on=["person", "basket"]).select("person", "item").unique()
    return positions_of(lines, codes, fitted.items)
