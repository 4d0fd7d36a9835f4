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
from recsvc.filling import WEIGHED
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
    followed : tuple of str
        Brands and categories that the reason names: what the person follows, or is interested in.
    """

    source: str
    code: str
    rows: tuple[int, ...] = ()
    followed: tuple[str, ...] = ()


def reasons(response: Response) -> list[Reason]:
    """Return the reason of each chosen item, in order."""
    query = response.query
    sources, followed = _sources(response)
    collaborative = [
        chosen.row
        for at, (chosen, source) in enumerate(zip(response.chosen, sources, strict=True))
        if source == "collaborative" and at not in followed
    ]
    contributors = iter(_contributors(query, collaborative) if collaborative else ())
    found: list[Reason] = []
    for at, (chosen, source) in enumerate(zip(response.chosen, sources, strict=True)):
        if at in followed:
            names = query.followed.names_of(chosen.row)
            found.append(Reason(source, "followed", (), names))
        elif source == "collaborative":
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
    return _sources(response)[0]


def _sources(response: Response) -> tuple[list[str], set[int]]:
    """Return the source of each item, and the places of those that a follow brought there."""
    found = [chosen.candidates.source for chosen in response.chosen]
    followed: set[int] = set()
    # Mostly one stage blends; when few items may be shown, or rules keep places, more do.
    blended: dict[int, list[int]] = {}
    for at, source in enumerate(found):
        if source == "blend":
            blended.setdefault(id(response.chosen[at].candidates), []).append(at)
        elif response.chosen[at].candidates.lifts is not None and _risen(response, at):
            followed.add(at)
    for places in blended.values():
        followed.update(_name_blended(response, places, found))
    return found, followed


def _risen(response: Response, at: int) -> bool:
    """Tell whether an item would not be in the list if its ranking knew of no follow."""
    chosen, allowed = response.chosen[at], response.query.allowed
    candidates, n = chosen.candidates, response.skip + len(response.chosen)
    lifts = candidates.lifts
    if lifts is None or allowed is None or lifts[chosen.position] <= 0:
        return False
    places = np.flatnonzero(allowed[candidates.rows])[:WEIGHED]
    plain = candidates.scores[places] * np.exp(-lifts[places])
    own = candidates.scores[chosen.position] * np.exp(-lifts[chosen.position])
    return bool(np.count_nonzero(plain > own) >= n)


def _name_blended(response: Response, places: list[int], found: list[str]) -> list[int]:
    """Fill in the sources of items at some places, all from one blend.

    Returns
    -------
    list of int
        Those of the places at which an item stands because it is followed.
    """
    candidates = response.chosen[places[0]].candidates
    features, lifts = candidates.features, candidates.lifts
    assert features is not None
    is_new = features[0] == 0
    new = []
    for at in places:
        if is_new[response.chosen[at].position]:
            new.append(at)
        else:
            found[at] = "repeat"
    if not new:
        return []
    positions = [response.chosen[at].position for at in new]
    # What was bought stands first, unless the list was varied.
    others = is_new if candidates.is_sorted else slice(int(np.argmax(is_new)), None)
    by_group = _lifted_by(features[:, positions], features[:, others], response.query.weights)
    for at, group in zip(new, np.argmax(by_group, axis=0).tolist(), strict=True):
        found[at] = GROUPS[group + 1]
    if lifts is None:
        return []
    most = by_group.max(axis=0)
    by_follow = lifts[positions] - lifts[others].mean()
    lifted = (lifts[positions] > 0) & (by_follow > most)
    return [at for at, is_lifted in zip(new, lifted.tolist(), strict=True) if is_lifted]


def _lifted_by(shown: F32, new: F32, weights: F32) -> F32:
    """Return how much each group of features lifts shown new items above the others.

    The group that lifts an item's score most above the mean of all new candidates is what sets it
    apart.

    Parameters
    ----------
    shown : ndarray of float32, shape (F, n)
        Features of the shown items.
    new : ndarray of float32, shape (F, c)
        Features of all candidates that were not bought before.
    weights : ndarray of float32, shape (F,)
        Weights of the blend.

    Returns
    -------
    ndarray of float32, shape (len(GROUPS) - 1, n)
        Of the groups after `repeat`.
    """
    mean = new @ np.full(new.shape[1], 1 / new.shape[1], dtype=np.float32)
    lifted: F32 = _GROUP_SUMS @ ((shown - mean[:, None]) * weights[:, None])
    return lifted


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
            if query.start is not None and query.start.interests is not None:
                found.append(Reason("collaborative", "followed", (), query.start.names_of(row)))
            else:
                found.append(Reason("collaborative", CODES["popular"]))
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
