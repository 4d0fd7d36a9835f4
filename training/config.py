"""How a model is trained: every number that somebody may want to change, with its reason."""

import os
from dataclasses import asdict, dataclass
from typing import Any

from feature_store.errors import UserError
from feature_store.preferences import ProfilingDefault

MAX_LIMIT = 100


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Parameters of one training run.

    Parameters
    ----------
    n_factors : int
        Dimensions of an item's factors. On a year of grocery purchases (two windows, two seeds)
        64 serve no better than 48 (NDCG@20 .3667, of new items .0497, both times), and an answer
        takes a tenth longer to compute; 32 lose a fortieth of what is new.
    n_iterations : int
        Rounds of alternating least squares.
    regularization : float or None
        Ridge term of the factors; ``None`` chooses it by the size of the data
        (``models.als.regularization_of``).
    alpha : float
        How much one unit of taste weight adds to the confidence of an interaction.
    popularity_half_life_days, recent_half_life_days : float
        How fast a purchase fades for the two popularities. Two weeks follow the season; half a year
        says what is normal, so that their ratio is growth.
    together_k, similar_k : int
        Neighbours kept for each item.
    together_shrinkage : float
        Baskets without the pair that are added to each item's count: a pair that was bought once
        together and never apart is no evidence.
    repeat_prior : float
        Customers of average behaviour that are added to each item's for its repeat rate.
    test_days : float
        Length of the test window, and of the window before it from which the blend is learned.
    k : int
        Length of the evaluated lists, at most 100.
    new_share : float
        Share of the blend's objective that is about items which a customer has not bought yet.
    min_blend_users : int
        With fewer customers to learn from, the blend keeps its default weights.
    min_gate_users : int
        With fewer test customers the gate has insufficient evidence and lets the model pass.
    min_index_recall : float
        Least recall@100 of an index against exact search.
    exact_below : int
        With fewer items the index is flat: searching all of them is as fast.
    n_bootstrap : int
        Resamples of the confidence intervals.
    keep_models : int
        How many models stay on disk; older ones are removed after publishing.
    profiling : {"opt_out", "opt_in"}
        Whether events of people who were never asked may be learned from.
    seed : int
        Of everything random.
    n_threads : int
        Of the arithmetic; 0 for all cores that this process may use.
    """

    n_factors: int = 48
    n_iterations: int = 10
    regularization: float | None = None
    alpha: float = 1.0
    popularity_half_life_days: float = 180.0
    recent_half_life_days: float = 14.0
    together_k: int = 50
    similar_k: int = 50
    together_shrinkage: float = 10.0
    repeat_prior: float = 10.0
    test_days: float = 28.0
    k: int = 20
    new_share: float = 0.3
    min_blend_users: int = 50
    min_gate_users: int = 100
    min_index_recall: float = 0.95
    exact_below: int = 20_000
    n_bootstrap: int = 1_000
    keep_models: int = 10
    profiling: ProfilingDefault = "opt_out"
    seed: int = 20_170_101
    n_threads: int = 0

    def __post_init__(self) -> None:
        positive = ("n_factors", "n_iterations", "k", "n_bootstrap", "keep_models")
        for name in positive:
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.k > MAX_LIMIT:
            raise UserError(f"k must be at most {MAX_LIMIT}, as many as one answer holds")
        for name in ("alpha", "test_days", "popularity_half_life_days", "recent_half_life_days"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.regularization is not None and not self.regularization > 0:
            raise UserError(f"regularization must be above 0, not {self.regularization}")

    @property
    def threads(self) -> int:
        """Threads to use."""
        if self.n_threads:
            return self.n_threads
        # Inside a container fewer cores may be ours than the machine has; macOS cannot say.
        allowed = getattr(os, "sched_getaffinity", None)
        return len(allowed(0)) if allowed else os.cpu_count() or 1

    def as_manifest(self) -> dict[str, Any]:
        """Return the parameters as JSON, without what depends on the machine."""
        document = asdict(self)
        del document["n_threads"]
        return document
