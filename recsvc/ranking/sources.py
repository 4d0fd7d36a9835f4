"""Where candidates come from: the customer's own taste, the page, the crowd, the calendar."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from feature_store.values import value_class
from recsvc.ranking.features import by_start, by_topic, personal_features, retrieve
from recsvc.ranking.query import Query
from recsvc.ranking.ranks import one_over_rank

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

__all__ = ["SOURCES", "Candidates", "Query", "blended", "exact", "popular", "remaining"]

POPULAR_ROWS = 1_000
EXACT_ROWS = 500
EXACT_SCORED = 20_000
"""Rows that are scored exactly when retrieval found too little; of more, the most popular ones."""
LIKE_ROWS = 2_000
"""Known items that an item placed by content is compared with."""
DUE_WIDTH = 0.5
SAME_CATEGORY = 0.5
SAME_DEPARTMENT = 0.5
_CHUNK, _MOST = 1_024, 65_536
_NO_SCORES = np.zeros(0, dtype=np.float32)
_NO_ROWS = np.zeros(0, dtype=np.int32)


@value_class(frozen=True, slots=True, eq=False)
class Candidates:
    """Scored rows of one source; a row may stand in it twice, with the same score.

    Parameters
    ----------
    rows : ndarray of int, shape (c,)
        Catalogue rows.
    scores : ndarray of float32, shape (c,)
        Higher is better.
    source : str
        What an item of it is called in the answer; ``blend`` decides for each item.
    features : ndarray of float32, shape (F, c), or None
        What a blend was scored from.
    is_sorted : bool
        Whether the rows stand best first already.
    lifts : ndarray of float32, shape (c,), or None
        The log of how much each is lifted because its brand or category is followed; in `scores`.
    """

    rows: Rows
    scores: F32
    source: str
    features: F32 | None = None
    is_sorted: bool = False
    lifts: F32 | None = None

    def among(self, mask: Mask, n: int) -> Iterator[Iterator[tuple[int, int, float]]]:
        """Yield what `best` does, of the rows that a mask over the whole catalogue allows.

        A sorted list may be as long as the catalogue: it is looked at only as far as it is taken.

        Parameters
        ----------
        mask : ndarray of bool, shape (n_rows,)
            Which rows are allowed.
        n : int
            About how many will be taken.
        """
        if not self.is_sorted:
            yield from self.best(mask[self.rows], n)
            return
        start, size = 0, _CHUNK
        while start < len(self.rows):
            positions = np.flatnonzero(mask[self.rows[start : start + size]])
            if len(positions):
                yield self._of(positions + start)
            start, size = start + size, min(2 * size, _MOST)

    def best(self, may: Mask, n: int) -> Iterator[Iterator[tuple[int, int, float]]]:
        """Yield position, row and score of what may be shown, best first, in portions.

        Parameters
        ----------
        may : ndarray of bool, shape (c,)
            Which candidates are allowed.
        n : int
            About how many will be taken; more can be, at the price of a full sort.
        """
        (positions,) = may.nonzero()
        if self.is_sorted:
            for start in range(0, len(positions), _CHUNK):
                yield self._of(positions[start : start + _CHUNK])
            return
        losses = -self.scores[positions]
        done = 0
        if len(positions) > 2 * n:
            # Whatever ties with the edge is left to the full sort, which begins where this ended.
            (first,) = (losses < np.partition(losses, n)[n]).nonzero()
            yield self._of(positions[first[losses[first].argsort(kind="stable")]])
            done = len(first)
        yield self._of(positions[losses.argsort(kind="stable")[done:]])

    def _of(self, positions: npt.NDArray[np.intp]) -> Iterator[tuple[int, int, float]]:
        # In double precision: a rounded float32 has nine digits of noise in JSON.
        scores = self.scores[positions].astype(np.float64)
        # As `round(6)`, which takes a third of the time of all this to find its way there.
        scores *= 1e6
        np.rint(scores, out=scores)
        scores /= 1e6
        return zip(positions.tolist(), self.rows[positions].tolist(), scores.tolist(), strict=True)


def personal(query: Query) -> Candidates:
    """Blend what somebody buys again, what people like them buy, and what goes with it.

    For somebody without a history it is what fits what they say of themselves, or else what is
    popular, lately and in the long run.
    """
    vector, topics = query.vector, query.topics
    if topics is None and query.start is not None:
        return blended(query, np.unique(by_start(query.snapshot, query.start, query.allowed)))
    if topics is None and vector is None and len(query.history.purchases.rows) == 0:
        return _ranked(query.snapshot.model.steady, "popular")
    others = retrieve(query.snapshot, vector, query.kinds, query.allowed)
    if topics is not None:
        about = by_topic(query.snapshot, topics, query.history, query.allowed)
        others = np.unique(np.concatenate((about, others)))
    return blended(query, others)


def blended(query: Query, others: Rows) -> Candidates:
    """Score what was bought, what is followed and some other rows by the features of a person."""
    if query.followed.weighs:
        others = np.unique(np.concatenate((others, query.followed.best(query.allowed))))
    rows, features = personal_features(
        query.snapshot, query.history, query.vector, others, query.topics, query.start
    )
    return Candidates(rows, np.dot(query.weights, features), "blend", features)


def due(query: Query) -> Candidates:
    """Return what somebody may be running out of, by their own interval for each item.

    The interval is the mean time between the purchases of this person, drawn towards the item's own
    median by one pseudo-purchase. An item is due when as much time has passed; before and after
    that its score falls with the logarithm of the ratio, scaled by how likely the item is bought
    again at all and by how often this person did.
    """
    model, bought = query.snapshot.model, query.history.purchases
    if len(bought.rows) == 0:
        return popular(query)
    rows = model.rows_of(bought.rows)
    usual_s = model.lookup("repeat_interval_s", rows, 30.0 * 86_400)
    rate = model.lookup("repeat_rate", rows, 0.05)
    interval_s = (bought.span_s + usual_s) / bought.counts
    ratio = np.log(np.maximum(bought.age_s, 3_600.0) / np.maximum(interval_s, 3_600.0))
    scores = rate * np.log1p(bought.counts) * np.exp(-(ratio**2) / (2 * DUE_WIDTH**2))
    return Candidates(bought.rows, scores.astype(np.float32), "repeat")


def similar(query: Query) -> Candidates:
    """Return the nearest neighbours of the page's items among the factors, like kinds first.

    People who buy bananas buy eggs: factors alone find what goes well, not what is alike. So being
    in the same category, or in the same department, counts on top. Training has computed the
    neighbours of the items that it knew; items placed by content are compared here.
    """
    found = _neighbours(query, "similar")
    model = query.snapshot.model
    more, cosines = _near_by_content(query)
    # What is less near than the neighbours of the table is not near: there are others between.
    fresh = ~np.isin(more, found.rows) & (cosines >= found.scores.min(initial=1.0))
    fresh |= len(found.rows) == 0
    rows = np.concatenate((found.rows, more[fresh]))
    scores = np.concatenate((found.scores, cosines[fresh]))
    bonus = np.ones(len(rows), dtype=np.float32)
    for codes, weight in (
        (model.category_codes, SAME_CATEGORY),
        (model.department_codes, SAME_DEPARTMENT),
    ):
        wanted = codes[query.about]
        wanted = wanted[wanted > 0]
        bonus += weight * (codes[rows][:, None] == wanted).any(axis=1)
    return Candidates(rows, scores * bonus, "similar")


def _near_by_content(query: Query) -> tuple[Rows, F32]:
    """Return what is near the page's items and may have no entry in the table of neighbours.

    That is what a view scores exactly, items that are placed by content among it; and when the page
    is about one of those, also known ones: the most popular ones of its department.
    """
    model, vector = query.snapshot.model, query.page_vector
    if vector is None or model.n_items == 0:
        return _NO_ROWS, _NO_SCORES
    view = model.view(query.kinds)
    rows, cosines = view.rows, (view.factors @ vector) / view.norms
    if len(model.cold.rows) and (model.cold.at(query.about) >= 0).any():
        codes = model.department_codes[query.about]
        inside = np.flatnonzero(np.isin(model.department_codes, codes[codes > 0]))
        like, factors = model.placed(_most_popular(query, inside, LIKE_ROWS))
        lengths = np.maximum(np.linalg.norm(factors, axis=1), np.float32(1e-9))
        fresh = ~np.isin(like, rows)
        rows = np.concatenate((rows, like[fresh]))
        cosines = np.concatenate((cosines, ((factors @ vector) / lengths)[fresh]))
    good = np.flatnonzero(cosines > 0)
    if len(good) > EXACT_ROWS:
        good = good[np.argpartition(-cosines[good], EXACT_ROWS)[:EXACT_ROWS]]
    return rows[good], cosines[good]


def _most_popular(query: Query, rows: Rows, n: int) -> Rows:
    """Return the rows, or the most popular ones if they are more than `n`."""
    if len(rows) <= n:
        return rows
    popularity = query.snapshot.model.recent[rows]
    return rows[np.argpartition(-popularity, n)[:n]]


def together(query: Query) -> Candidates:
    """Return what is most often in one basket with the page's items."""
    return _neighbours(query, "together")


def _neighbours(query: Query, name: str) -> Candidates:
    model = query.snapshot.model
    rows = model.rows_of(query.about)
    rows = rows[rows >= 0]
    if len(rows) == 0:
        return Candidates(rows, _NO_SCORES, name)
    found = model.arrays[f"{name}_rows"][rows].ravel()
    scores = model.arrays[f"{name}_scores"][rows].ravel()
    known = (found >= 0) & (scores > 0)
    catalogue_rows = model.catalogue_rows[found[known]]
    in_catalogue = catalogue_rows >= 0
    catalogue_rows, scores = catalogue_rows[in_catalogue], scores[known][in_catalogue]
    total = query.snapshot.scratch.total
    np.add.at(total, catalogue_rows, scores)
    summed = total[catalogue_rows]
    total[catalogue_rows] = 0
    return Candidates(catalogue_rows, summed, name)


def trending(query: Query) -> Candidates:
    """Return what sells faster than it did."""
    return _ranked(query.snapshot.model.trending, "trending")


def newest(query: Query) -> Candidates:
    """Return what was published, or first bought, last."""
    return _ranked(query.snapshot.model.newest, "new")


def popular(query: Query) -> Candidates:
    """Return what everybody bought lately."""
    return _ranked(query.snapshot.model.popular[:POPULAR_ROWS], "popular")


def remaining(query: Query) -> Candidates:
    """Return the whole catalogue, most popular first: what fills a list when nothing else can."""
    model = query.snapshot.model
    return _ranked(model.by_popularity, "popular")


def _ranked(rows: Rows, source: str) -> Candidates:
    """Return rows that stand best first; the score is one over the rank."""
    return Candidates(rows, one_over_rank(len(rows)), source, is_sorted=True)


def exact(query: Query, source: str, allowed: Mask) -> Candidates:
    """Score everything that may be shown: what is asked when retrieval finds too little.

    Parameters
    ----------
    query : Query
        What is wanted.
    source : str
        The placement's source, a key of :data:`SOURCES`.
    allowed : ndarray of bool, shape (n_rows,)
        What may be shown.
    """
    model = query.snapshot.model
    nearness = {"personal": "collaborative", "due": "collaborative"}.get(source, "similar")
    if source == "personal" and query.topics is not None:
        return blended(query, by_topic(query.snapshot, query.topics, query.history, allowed))
    vector = query.vector if nearness == "collaborative" else query.page_vector
    if vector is None or source in ("trending", "new"):
        return Candidates(_NO_ROWS, _NO_SCORES, nearness)
    rows, factors = model.placed(_most_popular(query, np.flatnonzero(allowed), EXACT_SCORED))
    scores = factors @ vector
    if nearness == "similar":
        scores = scores / np.maximum(np.linalg.norm(factors, axis=1), np.float32(1e-9))
    if len(rows) > EXACT_ROWS:
        best = np.argpartition(-scores, EXACT_ROWS)[:EXACT_ROWS]
        rows, scores = rows[best], scores[best]
    if source == "personal":
        return blended(query, rows)
    return Candidates(rows, scores, nearness)


SOURCES: dict[str, Callable[[Query], Candidates]] = {
    "popular": popular,
    "personal": personal,
    "similar": similar,
    "together": together,
    "complement": together,
    "due": due,
    "trending": trending,
    "new": newest,
}
"""The first source of a placement, by name."""
