"""Why an item stands in a list: the history item or the page item that contributed most.

Reasons are read from the computation, not guessed after it: a collaborative score is split exactly
into the contributions of the history (``FoldedUser.contributions``), a blended score into those of
its features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsvc.engine import Response
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
    "pinned": "pinned",
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
    "followed": "Because of your interests",
    "pinned": "Picked by the shop",
}
"""What each reason says in English; ``{items}`` are titles."""


_GROUP_SUMS = np.stack([group == FEATURE_GROUPS for group in range(1, len(GROUPS))]).astype(
    np.float32
)
"""Sums features to the groups after `repeat`, shape (len(GROUPS) - 1, len(FEATURES))."""


class Reason(NamedTuple):
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
    sources = sources_of(response)
    collaborative = [
        chosen.row
        for chosen, source in zip(response.chosen, sources, strict=True)
        if source == "collaborative"
    ]
    contributors = iter(_contributors(query, collaborative) if collaborative else ())
    found: list[Reason] = []
    for chosen, source in zip(response.chosen, sources, strict=True):
        if source == "collaborative":
            found.append(next(contributors))
        elif source == "repeat":
            found.append(Reason(source, "buy_again", (chosen.row,)))
        elif source in ("together", "similar"):
            found.append(_neighbour_reason(query, source, chosen.row))
        else:
            found.append(Reason(source, CODES[source]))
    return found


def sources_of(response: Response) -> list[str]:
    """Return which source each item came from; a blend names the one that lifted it most."""
    found = [chosen.candidates.source for chosen in response.chosen]
    # Mostly one stage blends; when few items may be shown, or rules keep places, more do.
    blended: dict[int, list[int]] = {}
    for at, source in enumerate(found):
        if source == "blend":
            blended.setdefault(id(response.chosen[at].candidates), []).append(at)
    for places in blended.values():
        _name_blended(response, places, found)
    return found


def _name_blended(response: Response, places: list[int], found: list[str]) -> None:
    """Fill in the sources of items at some places, all from one blend."""
    features = response.chosen[places[0]].candidates.features
    assert features is not None
    n_bought = int(np.count_nonzero(features[0]))
    new = []
    for at in places:
        if response.chosen[at].position < n_bought:
            found[at] = "repeat"
        else:
            new.append(at)
    if new:
        positions = [response.chosen[at].position for at in new]
        weights = response.snapshot.model.weights
        names = _lifted_by(features[:, positions], features[:, n_bought:], weights)
        for at, name in zip(new, names, strict=True):
            found[at] = name


def _lifted_by(shown: F32, new: F32, weights: F32) -> list[str]:
    """Name, for each shown new item, the group of features that sets it apart from the others.

    That is the group that lifts its score most above the mean of all new candidates.

    Parameters
    ----------
    shown : ndarray of float32, shape (F, n)
        Features of the shown items.
    new : ndarray of float32, shape (F, c)
        Features of all candidates that were not bought before; these stand last.
    weights : ndarray of float32, shape (F,)
        Weights of the blend.
    """
    mean = new @ np.full(new.shape[1], 1 / new.shape[1], dtype=np.float32)
    by_group = _GROUP_SUMS @ ((shown - mean[:, None]) * weights[:, None])
    return [GROUPS[group + 1] for group in np.argmax(by_group, axis=0).tolist()]


def _contributors(query: Query, rows: Sequence[int]) -> list[Reason]:
    """Name the history item that gave most to each collaborative score, or to each topic's."""
    model, history = query.snapshot.model, query.history
    positions = _by_vector(query, rows)
    if query.topics is not None:
        for row in rows:
            most = query.topics.contributor(model.category_codes, history, row)
            if most is not None:
                positions[row] = most
    found = []
    for row in rows:
        position = positions.get(row)
        if position is None:
            interested = query.start is not None and query.start.interests is not None
            found.append(Reason("collaborative", "followed" if interested else CODES["popular"]))
            continue
        code = "because_you_bought" if history.bought[position] else "because_you_viewed"
        found.append(Reason("collaborative", code, (int(history.rows[position]),)))
    return found


def _by_vector(query: Query, rows: Sequence[int]) -> dict[int, int]:
    """Return the position of the history item that gave most to the score of each row."""
    if query.folded is None:
        return {}
    placed, factors = query.snapshot.model.placed(np.array(rows))
    best = np.argmax(query.folded.contributions(factors), axis=0)
    return dict(zip(placed.tolist(), query.folded_positions[best].tolist(), strict=True))


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
