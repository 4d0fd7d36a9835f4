"""The serving engine as evaluation and gate see it, so that what is evaluated is what is served."""

import numpy as np
import numpy.typing as npt

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.preferences import NO_PREFERENCES
from feature_store.state import UserState, hot_of
from recsvc.engine import recommend
from recsvc.ranking.features import personal_features, retrieve
from recsvc.ranking.filling import NOWHERE, Elsewhere
from recsvc.ranking.history import read_history
from recsvc.ranking.sources import Query
from recsvc.requests import RecommendationRequest
from recsvc.retrieval import JoinedModel
from recsvc.snapshot import Snapshot


class EngineRecommender:
    """Answers for states instead of requests; implements ``feature_store.artifact.Recommender``.

    Parameters
    ----------
    artifact : ModelArtifact
        The model.
    catalogue : Catalogue
        Where the rows of states point.
    """

    def __init__(self, artifact: ModelArtifact, catalogue: Catalogue) -> None:
        self.snapshot = Snapshot(catalogue, JoinedModel(artifact, catalogue))

    def candidates(
        self, state: UserState, *, now_s: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return distinct candidates of `home` and their features."""
        history = read_history(hot_of(state), self.snapshot.catalogue.n_rows, now_s)
        query = Query(self.snapshot, history, np.zeros(0, dtype=np.int32), now_s)
        others = np.unique(retrieve(self.snapshot, query.vector, query.kinds))
        rows, features = personal_features(self.snapshot, history, query.vector, others)
        return rows.astype(np.int32), np.ascontiguousarray(features.T)

    def recommend(self, state: UserState, *, k: int, now_s: int, new_only: bool) -> list[int]:
        """Return the `home` list; a page reads the `hot` part of a state, and so does this."""
        response = recommend(
            self.snapshot,
            hot_of(state),
            NO_PREFERENCES,
            RecommendationRequest(limit=k),
            now_s,
            elsewhere=Elsewhere(np.unique(state.rows).astype(np.int64)) if new_only else NOWHERE,
        )
        return [chosen.row for chosen in response.chosen]
