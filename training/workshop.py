"""What every step of a run needs, and a serving engine on loan."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.artifact import ArtifactWriter, Recommender, RecommenderFactory
from feature_store.catalogue import Catalogue
from feature_store.files import make_folder
from training.config import TrainConfig
from training.dataset import Interactions
from training.evaluate import Subject
from training.fit import Fitted
from training.index import BuiltIndex, build_index
from training.items import ItemContent
from training.people import Folder, states_of
from training.progress import Progress
from training.split import Split

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

INDEX_QUERIES = 500
QUERY_HISTORIES = (1, 2, 5, 256)


@dataclass(frozen=True, slots=True, eq=False)
class Workshop:
    """What every step of a run needs.

    Parameters
    ----------
    config : TrainConfig
        Parameters.
    catalogue : Catalogue
        With a row for every item of the events.
    catalogue_rows : ndarray of int32, shape (items,)
        Catalogue row of each item code.
    make_recommender : RecommenderFactory
        Makes the serving engine.
    models_dir : Path
        Trial models are written beside the real ones, hidden, and removed.
    progress : callable
        Told stage and share.
    content : ItemContent or None
        What the catalogue says of the items; ``None`` where there are ids only.
    """

    config: TrainConfig
    catalogue: Catalogue
    catalogue_rows: I32
    make_recommender: RecommenderFactory
    models_dir: Path
    progress: Progress
    content: ItemContent | None = None

    @contextmanager
    def serving(
        self, fitted: Fitted, index: BuiltIndex, weights: list[float]
    ) -> Iterator[Recommender]:
        """Lend the serving engine with a model that is on disk only so long."""
        name = f".trial-{secrets.token_hex(3)}.{os.getpid()}.partial"
        folder = make_folder(self.models_dir / name)
        try:
            with ArtifactWriter(folder, datetime.fromtimestamp(fitted.now_s, UTC)) as writer:
                fitted.write(writer, index, weights)
                artifact = writer.publish()
            yield self.make_recommender(artifact, self.catalogue)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def index_of(self, fitted: Fitted, known: Interactions, *, exact: bool = False) -> BuiltIndex:
        """Build the index, judged by people's vectors, of short histories too."""
        queries = self._queries(fitted, known)
        return build_index(
            fitted.item_factors,
            queries,
            exact_below=len(fitted.items) + 1 if exact else self.config.exact_below,
            min_recall=self.config.min_index_recall,
            n_threads=self.config.threads,
        )

    def _queries(self, fitted: Fitted, known: Interactions) -> F32:
        persons = known.frame["person"].unique().sort().to_numpy()
        if len(persons) > INDEX_QUERIES:
            rng = np.random.default_rng(self.config.seed)
            persons = np.sort(rng.choice(persons, INDEX_QUERIES, replace=False))
        states = states_of(known, persons, self.catalogue_rows)
        newest = [QUERY_HISTORIES[at % len(QUERY_HISTORIES)] for at in range(len(states))]
        return self.folder(fitted).vectors(states, newest)

    def folder(self, fitted: Fitted) -> Folder:
        """Return what folds people into a model."""
        return Folder(fitted, self.catalogue_rows, self.catalogue.n_rows)

    def subject(self, split: Split, fitted: Fitted, recommender: Recommender | None) -> Subject:
        """Return a split with the states of its people."""
        states = states_of(split.train, split.persons, self.catalogue_rows)
        return Subject(
            split, fitted, states, self.catalogue_rows, self.catalogue.n_rows, recommender
        )
