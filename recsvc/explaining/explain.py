"""Why an item stands in a list: the history item or the page item that its score owes most to.

Reasons are read from the computation, not guessed after it. What sets a blended item apart from the
other candidates names the source; and the history item that is named is the one without which the
score would fall most (``losses.py``). Where no item made it any higher, none is named; nor is one
in a category that the site never names (``naming.py``), or one that the person hides.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.signals import FEATURES
from recsvc.customer.hiding import hides_anything, is_hidden
from recsvc.engine import Response
from recsvc.explaining.losses import blend_losses, own_losses, page_losses, vector_losses
from recsvc.explaining.naming import Naming
from recsvc.ranking.features import FEATURE_GROUPS, GROUPS
from recsvc.ranking.filling import WEIGHED
from recsvc.ranking.sources import Candidates

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

_GROUP_SUMS = np.stack([group == FEATURE_GROUPS for group in range(1, len(GROUPS))]).astype(
    np.float32
)
"""Sums features to the groups after `repeat`, shape (len(GROUPS) - 1, len(FEATURES))."""


_TASTE = FEATURES.index("collaborative")


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
    quiet : bool
        Whether no more is to be said than that the item is recommended.
    """

    source: str
    code: str
    rows: tuple[int, ...] = ()
    followed: tuple[str, ...] = ()
    quiet: bool = False


_BOUGHT_BEFORE = ("repeat", "buy_again")
# Most items of most answers: a tuple's own constructor takes a third of the time.
_new = tuple.__new__

Found = dict[int, Reason]
"""Reasons by the place of what they are for."""


def reasons(response: Response, *, in_words: bool = True) -> list[Reason]:
    """Return the reason of each chosen item, in order.

    Parameters
    ----------
    response : Response
        The list.
    in_words : bool
        Whether anybody will read them. If not, what was bought before is named as its own reason
        without asking whether its purchases make its score any higher: for some items of one
        customer in fifty they do not, and asking costs a tenth of the answer.
    """
    sources, followed = _sources(response)
    chosen = response.chosen
    if not in_words and sources.count("repeat") == len(sources):
        found = [_new(Reason, (*_BOUGHT_BEFORE, (one.row,), (), False)) for one in chosen]
    else:
        found = _explained(response, sources, followed, in_words=in_words)
    if hides_anything(response.preferences):
        found = _without_hidden(response, found)
    never_named = response.snapshot.site.privacy.never_named
    if not never_named:
        return found
    return _without_unnamed(response, found, Naming(response.snapshot.catalogue, never_named))


def _explained(
    response: Response, sources: list[str], followed: set[int], *, in_words: bool
) -> list[Reason]:
    """Return the reason of each item, those of one kind together."""
    alike: dict[str, list[int]] = {}
    for at, source in enumerate(sources):
        alike.setdefault("followed" if at in followed else source, []).append(at)
    found: Found = {}
    for kind, places in alike.items():
        if kind == "followed":
            _by_follow(response, places, sources, found)
        elif kind == "repeat" and not in_words:
            chosen = response.chosen
            found.update((at, Reason(*_BOUGHT_BEFORE, (chosen[at].row,))) for at in places)
        elif (explain := _BY_KIND.get(kind)) is not None:
            explain(response, places, found)
        else:
            found.update(dict.fromkeys(places, Reason(kind, CODES[kind])))
    return [found[at] for at in range(len(sources))]


def sources_of(response: Response) -> list[str]:
    """Return which source each item came from; a blend names the one that lifted it most."""
    return _sources(response)[0]


def _sources(response: Response) -> tuple[list[str], set[int]]:
    """Return the source of each item, and the places of those that a follow brought there."""
    found = [chosen.candidates.source for chosen in response.chosen]
    followed: set[int] = set()
    # Mostly one stage has them all; when few items may be shown, or rules keep places, more do.
    for candidates, places in _by_candidates(response, range(len(found))):
        if candidates.source == "blend":
            followed.update(_name_blended(response, places, found))
        elif candidates.lifts is not None:
            followed.update(at for at in places if _risen(response, at))
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


def _name_blended(response: Response, places: Sequence[int], found: list[str]) -> list[int]:
    """Fill in the sources of items at some places, all from one blend.

    Returns
    -------
    list of int
        Those of the places at which an item stands because it is followed.
    """
    candidates = response.chosen[places[0]].candidates
    features, lifts = candidates.features, candidates.lifts
    assert features is not None
    bought = features[0].take([response.chosen[at].position for at in places]).tolist()
    new = []
    for at, was_bought in zip(places, bought, strict=True):
        if was_bought:
            found[at] = "repeat"
        else:
            new.append(at)
    if not new:
        return []
    is_new = features[0] == 0
    positions = [response.chosen[at].position for at in new]
    # What was bought stands first, unless the list was varied.
    others = is_new if candidates.is_sorted else slice(int(is_new.argmax()), None)
    shown = features.take(positions, axis=1)
    by_group = _lifted_by(shown, features[:, others], response.query.weights)
    for at, group in zip(new, by_group.argmax(axis=0).tolist(), strict=True):
        found[at] = GROUPS[group + 1]
    if lifts is None:
        return []
    most = by_group.max(axis=0)
    by_follow = lifts[positions] - lifts[others].mean()
    lifted = (lifts[positions] > 0) & (
        (by_follow > most) | _brought(response, candidates, positions)
    )
    return [at for at, is_lifted in zip(new, lifted.tolist(), strict=True) if is_lifted]


def _brought(
    response: Response, candidates: Candidates, positions: list[int]
) -> npt.NDArray[np.bool_]:
    """Tell which items of a blend would not be in the list if nothing was followed or named.

    Parameters
    ----------
    response : Response
        The list.
    candidates : Candidates
        Of the blend.
    positions : list of int
        Of some of them.
    """
    query = response.query
    features, lifts = candidates.features, candidates.lifts
    assert features is not None
    assert lifts is not None
    plain = candidates.scores - lifts
    if query.start is not None:
        # What somebody said of themselves is all in this one.
        plain = plain - features[_TASTE] * query.weights[_TASTE]
    rivals = plain if query.allowed is None else plain[query.allowed[candidates.rows]]
    n = response.skip + len(response.chosen)
    if len(rivals) <= n:
        return np.zeros(len(positions), dtype=bool)
    brought: npt.NDArray[np.bool_] = plain[positions] < np.partition(rivals, -n)[-n]
    return brought


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
    parts: F32 = _GROUP_SUMS * weights
    mean = parts @ np.add.reduce(new, axis=1) / np.float32(new.shape[1])
    lifted: F32 = parts @ shown - mean[:, None]
    return lifted


def _by_history(response: Response, places: Sequence[int], found: Found) -> None:
    """Name the history item without which each score would fall most."""
    query, history = response.query, response.query.history
    for candidates, some in _by_candidates(response, places):
        if len(history.rows) == 0:
            found.update((at, _by_start(response, at)) for at in some)
            continue
        rows = np.array([response.chosen[at].row for at in some])
        if candidates.features is None:
            losses = vector_losses(query, rows, logs=False)
        else:
            losses = blend_losses(query, rows)
        most = np.argmax(losses, axis=1)
        helps = losses[np.arange(len(most)), most] > 0
        columns = (helps, history.bought[most], history.rows[most])
        for at, named, bought, row in zip(some, *(one.tolist() for one in columns), strict=True):
            if named:
                code = "because_you_bought" if bought else "because_you_viewed"
                found[at] = Reason("collaborative", code, (row,))
            else:
                found[at] = Reason("collaborative", CODES["popular"])


def _by_start(response: Response, at: int) -> Reason:
    """Return why somebody without a history sees an item."""
    start = response.query.start
    if start is None or start.interests is None:
        return Reason("collaborative", CODES["popular"])
    return Reason("collaborative", "followed", (), start.names_of(response.chosen[at].row))


def _by_itself(response: Response, places: Sequence[int], found: Found) -> None:
    """Name what was bought before, if that makes its score any higher."""
    for candidates, some in _by_candidates(response, places):
        shown = [response.chosen[at] for at in some]
        if candidates.features is None:
            # An item is due by nothing but its own purchases.
            helps = [one.score > 0 for one in shown]
        else:
            positions = np.array([one.position for one in shown])
            features = candidates.features.take(positions, axis=1)
            losses = own_losses(response.query, candidates.rows.take(positions), features)
            helps = (losses > 0).tolist()
        for at, one, named in zip(some, shown, helps, strict=True):
            rows = (one.row,) if named else ()
            found[at] = Reason(*_BOUGHT_BEFORE, rows)


def _by_page(response: Response, places: Sequence[int], found: Found) -> None:
    """Name the page's item without which each score would fall most."""
    query = response.query
    source = response.chosen[places[0]].candidates.source
    rows = np.array([response.chosen[at].row for at in places])
    retrieved = source == "together" or any(
        one.name == source for one in response.placement.sources
    )
    losses = page_losses(query, source, rows, retrieved=retrieved)
    code = CODES[source]
    if losses.size == 0:
        found.update(dict.fromkeys(places, Reason(source, code)))
        return
    most = np.argmax(losses, axis=1)
    helps = losses[np.arange(len(rows)), most] > 0
    for at, row, named in zip(places, query.about[most].tolist(), helps.tolist(), strict=True):
        found[at] = Reason(source, code, (row,) if named else ())


def _by_follow(
    response: Response, places: Sequence[int], sources: Sequence[str], found: Found
) -> None:
    """Name the brands and categories that somebody follows."""
    for at in places:
        names = response.query.followed.names_of(response.chosen[at].row)
        found[at] = Reason(sources[at], "followed", (), names)


_BY_KIND: dict[str, Callable[[Response, Sequence[int], Found], None]] = {
    "collaborative": _by_history,
    "repeat": _by_itself,
    "together": _by_page,
    "similar": _by_page,
}


def _by_candidates(
    response: Response, places: Sequence[int]
) -> Iterator[tuple[Candidates, Sequence[int]]]:
    """Yield the candidates that some items were chosen from, with the places of those."""
    of_place = [response.chosen[at].candidates for at in places]
    if of_place and of_place.count(of_place[0]) == len(of_place):
        yield of_place[0], places
        return
    found: dict[int, tuple[Candidates, list[int]]] = {}
    for at, candidates in zip(places, of_place, strict=True):
        found.setdefault(id(candidates), (candidates, []))[1].append(at)
    yield from found.values()


def _without_hidden(response: Response, found: list[Reason]) -> list[Reason]:
    """Return reasons that name nothing that the person hides, unless the page is about it."""
    named = {row for reason in found for row in reason.rows}.difference(
        response.query.about.tolist()
    )
    rows = np.array(sorted(named), dtype=np.int64)
    catalogue, preferences = response.snapshot.catalogue, response.preferences
    gone = set(rows[is_hidden(catalogue, preferences, rows, response.asked_s)].tolist())
    if not gone:
        return found
    return [one._replace(rows=tuple(row for row in one.rows if row not in gone)) for one in found]


def _without_unnamed(response: Response, found: list[Reason], naming: Naming) -> list[Reason]:
    """Return reasons that name nothing that must not be named."""
    named = []
    for chosen, reason in zip(response.chosen, found, strict=True):
        if naming.may_name(chosen.row):
            rows = tuple(row for row in reason.rows if naming.may_name(row))
            followed = tuple(name for name in reason.followed if naming.may_name_category(name))
            named.append(reason._replace(rows=rows, followed=followed))
        else:
            named.append(reason._replace(rows=(), followed=(), quiet=True))
    return named
