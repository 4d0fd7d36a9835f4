"""The evaluation: every source and what is served, on the same people by the same measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.artifact import Recommender
from feature_store.schema import format_time
from feature_store.state import UserState
from training import metrics, sources
from training.config import TrainConfig
from training.fit import Fitted
from training.people import Folder
from training.progress import Progress, silent
from training.split import Split

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
Rank = Callable[[bool], I32]
"""Returns everybody's list; the argument is `new_only`."""

TEMPORAL_SUBSETS = {"all": False, "new": True}
"""Each subset of truths, and whether the history is masked for it."""


@dataclass(slots=True)
class Evaluation:
    """The outcome.

    Parameters
    ----------
    document : dict
        ``{protocol, k, rows, ...}`` as in the contract.
    ndcg : dict
        NDCG of each person by (model, subset), for paired comparisons: people in the same order.
    """

    document: dict[str, Any]
    ndcg: dict[tuple[str, str], F64] = field(default_factory=dict)

    def row(self, model: str, subset: str) -> dict[str, Any] | None:
        """Return one row of the table, or ``None`` when it is not there."""
        for row in self.document["rows"]:
            if row["model"] == model and row["subset"] == subset:
                found: dict[str, Any] = row
                return found
        return None

    @property
    def n_users(self) -> int:
        """People with a truth in ``all``."""
        row = self.row("popularity", "all")
        return row["n_users"] if row else 0


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is evaluated.

    Parameters
    ----------
    split : Split
        People, candidates and truths.
    fitted : Fitted
        A model that knows the train part only.
    states : list of UserState
        Whole states of the split's people at the start of the window.
    catalogue_rows : ndarray of int32, shape (items,)
        Catalogue row of each item code.
    n_rows : int
        Rows of the catalogue.
    recommender : Recommender or None
        The serving engine with that model; without one there is no row ``served``.
    """

    split: Split
    fitted: Fitted
    states: list[UserState]
    catalogue_rows: I32
    n_rows: int
    recommender: Recommender | None

    def positions(self) -> I32:
        """Return the candidate position of each catalogue row; -1 for what is no candidate."""
        result = np.full(self.n_rows, -1, dtype=np.int32)
        rows = self.catalogue_rows[self.split.candidates]
        result[rows] = np.arange(len(rows), dtype=np.int32)
        return result


def evaluate(
    subject: Subject,
    config: TrainConfig,
    progress: Progress = silent,
    *,
    protocol: dict[str, Any] | None = None,
    subsets: Mapping[str, bool] = TEMPORAL_SUBSETS,
) -> Evaluation:
    """Measure every source and what is served.

    Parameters
    ----------
    subject : Subject
        What, and on whom.
    config : TrainConfig
        `k`, the bootstrap and its seed.
    progress : callable
        Told the share of stage ``evaluate`` that is done.
    protocol : dict, optional
        What the document says about the split; that it is temporal, and from when, by default.
    subsets : mapping of str to bool
        Subsets of truths, and whether the history is masked for each.
    """
    split = subject.split
    protocol = protocol or {
        "protocol": "temporal",
        "test_days": config.test_days,
        "test_start": format_time(datetime.fromtimestamp(split.start_ms / 1_000, UTC)),
    }
    head = {**protocol, "k": config.k, "n_candidates": len(split.candidates)}
    result = Evaluation({**head, "rows": []})
    rankers = _rankers(subject, config.k)
    for done, (model, rank) in enumerate(rankers.items(), start=1):
        for subset, new_only in subsets.items():
            add_row(result, model, subset, rank(new_only), split, config)
        progress("evaluate", done / len(rankers))
    return result


def add_row(
    result: Evaluation, model: str, subset: str, lists: I32, split: Split, config: TrainConfig
) -> None:
    """Measure everybody's lists and add a row to the table.

    Parameters
    ----------
    result : Evaluation
        Where to.
    model, subset : str
        Names of the row.
    lists : ndarray of int32, shape (u, k)
        Candidate positions.
    split : Split
        People without a truth in this subset are left out.
    config : TrainConfig
        The bootstrap and its seed.
    """
    every = split.truths if subset == "all" else split.new_truths()
    kept = [user for user, truth in enumerate(every) if len(truth)]
    truths = [every[user] for user in kept]
    lists = lists[kept]
    n_truth = np.array([len(truth) for truth in truths], dtype=np.int64)
    hits = metrics.hits_of(lists, truths, len(split.candidates))
    ndcg = metrics.ndcg_at_k(hits, n_truth)
    low, high = metrics.bootstrap_ci(ndcg, config.n_bootstrap, config.seed)
    # What nobody had bought is as surprising as what one had.
    share = np.maximum(split.buyers, 1) / max(split.n_train_people, 1)
    result.ndcg[model, subset] = ndcg
    result.document["rows"].append(
        {
            "model": model,
            "subset": subset,
            "recall": _mean(metrics.recall_at_k(hits, n_truth)),
            "ndcg": _mean(ndcg),
            "ndcg_ci95": [round(low, 5), round(high, 5)],
            "hit_rate": _mean(metrics.hit_rate_at_k(hits)),
            "coverage": round(metrics.coverage(lists, len(split.candidates)), 5),
            "novelty": round(metrics.novelty(lists, share), 3),
            "n_users": len(kept),
        }
    )


def _mean(values: F64) -> float:
    return round(float(values.mean()), 5) if len(values) else 0.0


def _rankers(subject: Subject, k: int) -> dict[str, Rank]:
    """Return the sources by the name of their row."""
    split, states, arrays = subject.split, subject.states, subject.fitted.arrays
    positions = subject.positions()
    rows = _model_rows(subject.fitted, split)
    folder = Folder(subject.fitted, subject.catalogue_rows, subject.n_rows)
    vectors = folder.vectors(states)
    factors = _padded(arrays["item_factors"], 0)[rows]
    # Model rows of neighbours become candidate positions; what is no candidate becomes -1.
    position_of_row = np.full(subject.fitted.n_items + 1, -1, dtype=np.int32)
    position_of_row[rows] = np.arange(len(rows), dtype=np.int32)
    position_of_row[-1] = -1
    near = _padded(arrays["together_rows"], -1)[rows]
    baskets = position_of_row[near], _padded(arrays["together_scores"], 0)[rows]

    def popularity(name: str) -> Rank:
        scores = _padded(arrays[name], 0)[rows]
        return lambda new_only: sources.by_score(scores, split, k, new_only=new_only)

    rankers: dict[str, Rank] = {
        "popularity": popularity("popularity"),
        "popularity_recent": popularity("popularity_recent"),
        "repeat": lambda new_only: sources.by_own_history(
            states, positions, split, k, new_only=new_only
        ),
        "together": lambda new_only: sources.by_baskets(
            states, positions, baskets, split, k, new_only=new_only
        ),
        "als": lambda new_only: sources.by_vectors(vectors, factors, split, k, new_only=new_only),
    }
    recommender = subject.recommender
    if recommender is not None:
        rankers["served"] = lambda new_only: sources.by_engine(
            recommender, states, positions, split, k, new_only=new_only
        )
    return rankers


def _model_rows(fitted: Fitted, split: Split) -> I32:
    """Return the model row of each candidate; -1 for one that the model does not know."""
    rows = np.searchsorted(fitted.items, split.candidates).astype(np.int32)
    known = np.append(fitted.items, np.uint32(0))[rows] == split.candidates
    known &= rows < fitted.n_items
    return np.where(known, rows, np.int32(-1))


def _padded(values: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
    """Append what an unknown item has: where -1 points."""
    return np.concatenate((values, np.full_like(values, fill, shape=(1, *values.shape[1:]))))
