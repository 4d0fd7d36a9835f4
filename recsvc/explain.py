"""Why an item stands in a list: the history item or the page item that contributed most.

Reasons are read from the computation, not guessed after it: a collaborative score is split exactly
into the contributions of the history (``FoldedUser.contributions``), a blended score into those of
its features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsvc.engine import Chosen, Response
from recsvc.features import FEATURE_GROUPS, GROUPS
from recsvc.sources import Query

F32 = npt.NDArray[np.float32]

CODES = {
    "repeat": "buy_again",
    "collaborative": "because_you_bought",
    "together": "bought_together",
    "similar": "similar_to",
    "trending": "trending",
    "popular": "popular",
    "new": "new_arrival",
}
"""The reason code of each source."""

TEXTS = {
    "because_you_bought": "Because you bought {items}",
    "because_you_viewed": "Because you looked at {items}",
    "buy_again": "You bought this before",
    "bought_together": "Often bought together with {items}",
    "similar_to": "Similar to {items}",
    "trending": "Trending now",
    "popular": "Popular right now",
    "new_arrival": "New",
}
"""What each reason says in English; ``{items}`` are titles."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one item was chosen.

    Parameters
    ----------
    source : str
        Which source the item came from.
    code : str
        The reason's code in the answer.
    rows : tuple of int
        Catalogue rows of the items that the reason names.
    """

    source: str
    code: str
    rows: tuple[int, ...] = ()


def reasons(response: Response) -> list[Reason]:
    """Return the reason of each chosen item, in order."""
    query = response.query
    sources = [source_of(response, chosen) for chosen in response.chosen]
    found: list[Reason] = [Reason(source, CODES[source]) for source in sources]
    collaborative = [at for at, source in enumerate(sources) if source == "collaborative"]
    if collaborative:
        rows = [response.chosen[at].row for at in collaborative]
        for at, reason in zip(collaborative, _contributors(query, rows), strict=True):
            found[at] = reason
    for at, source in enumerate(sources):
        row = response.chosen[at].row
        if source == "repeat":
            found[at] = Reason(source, "buy_again", (row,))
        elif source in ("together", "similar"):
            found[at] = _neighbour_reason(query, source, row)
    return found


def source_of(response: Response, chosen: Chosen) -> str:
    """Return which source an item came from; a blend names the one that lifted it most."""
    candidates = chosen.candidates
    if candidates.source != "blend" or candidates.features is None:
        return candidates.source
    features = candidates.features
    if features[chosen.position, 0] > 0:
        return "repeat"
    weights = response.snapshot.model.weights
    # Against the mean of the list's candidates: what sets this one apart, not what all share.
    lift = (features[chosen.position] - features.mean(axis=0)) * weights
    by_group = np.bincount(FEATURE_GROUPS, weights=lift, minlength=len(GROUPS))
    by_group[0] = -np.inf
    return GROUPS[int(np.argmax(by_group))]


def _contributors(query: Query, rows: Sequence[int]) -> list[Reason]:
    """Name the history item that gave most to each collaborative score."""
    model, folded = query.snapshot.model, query.folded
    if folded is None:
        return [Reason("collaborative", CODES["popular"]) for _ in rows]
    model_rows = model.rows_of(np.array(rows))
    # Only items that the model knows have a collaborative score, so no row is -1 here.
    best = np.argmax(folded.contributions(model.arrays["item_factors"][model_rows]), axis=0)
    _, _, positions = query.known_history
    history = query.history
    found = []
    for position in positions[best].tolist():
        code = "because_you_bought" if history.bought[position] else "because_you_viewed"
        found.append(Reason("collaborative", code, (int(history.rows[position]),)))
    return found


def _neighbour_reason(query: Query, source: str, row: int) -> Reason:
    """Name the page item, or else the history item, whose neighbour the item is."""
    model = query.snapshot.model
    near = query.about if len(query.about) else query.history.rows
    if source == "similar" or not model.n_items:
        return Reason(source, CODES[source], tuple(query.about[:1].tolist()))
    model_rows = model.rows_of(near)
    known = np.flatnonzero(model_rows >= 0)
    (wanted,) = model.rows_of(np.array([row]))
    hits = model.arrays["together_rows"][model_rows[known]] == wanted
    scores = (hits * model.arrays["together_scores"][model_rows[known]]).max(axis=1)
    if len(scores) == 0 or scores.max() <= 0:
        return Reason(source, CODES[source], tuple(query.about[:1].tolist()))
    best = known[int(np.argmax(scores))]
    return Reason(source, CODES[source], (int(near[best]),))
