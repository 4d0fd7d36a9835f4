"""The gate: whether a freshly trained model may serve."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from training.config import TrainConfig
from training.evaluate import Evaluation
from training.metrics import bootstrap_ci

Decision = Literal["accepted", "refused", "insufficient evidence"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate said.

    Parameters
    ----------
    decision : str
        ``accepted``, ``refused``, or ``insufficient evidence``, which lets a model pass.
    reason : str
        One sentence.
    ndcg_difference : float or None
        NDCG@k `all` of what is served minus that of popularity.
    ndcg_difference_ci95 : tuple of float or None
        Paired bootstrap interval of it.
    """

    decision: Decision
    reason: str
    ndcg_difference: float | None = None
    ndcg_difference_ci95: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether the model may serve."""
        return self.decision != "refused"

    def as_manifest(self) -> dict[str, Any]:
        """Return the decision as JSON."""
        return asdict(self)


def judge(
    evaluation: Evaluation | None, index_recall: float, n_purchases: int, config: TrainConfig
) -> Gate:
    """Decide.

    Parameters
    ----------
    evaluation : Evaluation or None
        With the rows ``served`` and ``popularity``; ``None`` when there was nothing to test on.
    index_recall : float
        recall@100 of the index that would serve.
    n_purchases : int
        Purchases in the data.
    config : TrainConfig
        Thresholds and the bootstrap's seed.

    Returns
    -------
    Gate
        Refused if the index finds too little of what exact search finds, or if what is served is
        surely worse than popularity: the upper bound of the interval of the difference is below 0.
    """
    if index_recall < config.min_index_recall:
        return Gate(
            "refused",
            f"the index finds {index_recall:.3f} of the best 100 items,"
            f" {config.min_index_recall:.2f} are needed",
        )
    if n_purchases == 0:
        return Gate("insufficient evidence", "there are no purchases yet")
    per_person = _differences(evaluation)
    n_users = len(per_person)
    if n_users == 0:
        return Gate("insufficient evidence", "there is nobody to test on")
    difference = round(float(per_person.mean()), 5)
    low, high = bootstrap_ci(per_person, config.n_bootstrap, config.seed)
    interval = (round(low, 5), round(high, 5))
    if n_users < config.min_gate_users:
        reason = f"{n_users} people to test on, {config.min_gate_users} are needed for a judgement"
        return Gate("insufficient evidence", reason, difference, interval)
    said = (
        f"NDCG@{config.k} of what is served differs from popularity's by {difference:+.4f}"
        f" ({interval[0]:+.4f} to {interval[1]:+.4f})"
    )
    if interval[1] < 0:
        return Gate("refused", f"worse than popularity: {said}", difference, interval)
    return Gate("accepted", said, difference, interval)


def _differences(evaluation: Evaluation | None) -> npt.NDArray[np.float64]:
    """Return each person's NDCG by what is served minus that by popularity."""
    if evaluation is None or ("served", "all") not in evaluation.ndcg:
        return np.zeros(0)
    return evaluation.ndcg["served", "all"] - evaluation.ndcg["popularity", "all"]
