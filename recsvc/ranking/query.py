"""What the sources of candidates are asked."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_store.fold_in import FoldedUser
from recsvc.customer.follows import NO_FOLLOWS, Follows
from recsvc.merchandising.placements import PRODUCTS
from recsvc.ranking.history import History
from recsvc.ranking.starts import START_WEIGHTS, Start
from recsvc.ranking.topics import Topics
from recsvc.snapshot import Snapshot

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Rows = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]


class Query:
    """What the sources are asked; what several of them need is computed once.

    Parameters
    ----------
    snapshot : Snapshot
        Catalogue and model.
    history : History
        The person's, weighted; empty for nobody.
    about : ndarray of int32
        Catalogue rows of the page's items.
    now_s : int
        Seconds since 1970.
    kinds : frozenset of str
        Item kinds that will be shown.

    Attributes
    ----------
    allowed : ndarray of bool, shape (n_rows,), or None
        What may be shown, as soon as that is known.
    start : Start or None
        What is known of the taste of somebody without a history.
    followed : Follows
        Brands and categories that the person follows.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        history: History,
        about: Rows,
        now_s: int,
        kinds: frozenset[str] = PRODUCTS,
    ) -> None:
        self.snapshot = snapshot
        self.history = history
        self.about = about
        self.now_s = now_s
        self.kinds = kinds
        self.allowed: Mask | None = None
        self.start: Start | None = None
        self.followed: Follows = NO_FOLLOWS

    @cached_property
    def known_history(self) -> tuple[I32, F32, Rows]:
        """Model rows and weights of the history items that the model knows, and their positions."""
        rows = self.snapshot.model.rows_of(self.history.rows)
        (known,) = (rows >= 0).nonzero()
        if len(known) == len(rows):
            return rows, self.history.weights, known
        return rows[known], self.history.weights[known], known

    @cached_property
    def cold_history(self) -> tuple[F32, F32, Rows]:
        """Factors and weights of the history items that are placed by content, and positions."""
        cold = self.snapshot.model.cold
        at = cold.at(self.history.rows)
        found = np.flatnonzero(at >= 0)
        return cold.factors[at[found]], self.history.weights[found], found

    @cached_property
    def folded_positions(self) -> Rows:
        """Positions in the history of what the vector was made of."""
        _, _, known = self.known_history
        if len(known) == len(self.history.rows):
            return known
        return np.concatenate((known, self.cold_history[2]))

    @cached_property
    def folded(self) -> FoldedUser | None:
        """The person's vector, or ``None`` when the model knows nothing of the history."""
        fold_in = self.snapshot.model.fold_in
        rows, weights, _ = self.known_history
        more: F32 | None = None
        if len(rows) < len(self.history.rows):
            factors, their_weights, _ = self.cold_history
            if len(factors):
                more, weights = factors, np.concatenate((weights, their_weights))
        if fold_in is None or len(weights) == 0:
            return None
        disliked = self.history.disliked
        if len(disliked) == 0:
            return fold_in.solve(rows, weights, more=more)
        unwanted = self.snapshot.model.rows_of(disliked)
        return fold_in.solve(rows, weights, unwanted[unwanted >= 0], more)

    @property
    def vector(self) -> F32 | None:
        """The person's factors, or ``None`` when nothing is known of their taste."""
        return None if self.folded is None else self.folded.vector

    @cached_property
    def topics(self) -> Topics | None:
        """What the items that will be shown are about, if they are content."""
        return None if self.kinds is PRODUCTS else self.snapshot.model.topics(self.kinds)

    @property
    def weights(self) -> F32:
        """Weights of the blend, shape (len(FEATURES),)."""
        model = self.snapshot.model
        if self.start is not None and self.topics is None:
            return START_WEIGHTS
        return model.weights if self.topics is None else model.topic_weights

    @cached_property
    def page_vector(self) -> F32 | None:
        """Mean direction of the page's items among the factors, or ``None`` if none is known."""
        _, factors = self.snapshot.model.placed(self.about)
        if len(factors) == 0:
            return None
        norms = np.linalg.norm(factors, axis=1, keepdims=True)
        mean: F32 = (factors / np.maximum(norms, 1e-9)).sum(axis=0)
        return mean if mean.any() else None
