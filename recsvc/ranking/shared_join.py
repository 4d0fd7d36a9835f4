"""A model joined to a catalogue once for all workers of a machine."""

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.mapped import shared
from recsvc.ranking.join import Join
from recsvc.retrieval import JoinedModel

FOLDER = "joins"


def joined(artifact: ModelArtifact | None, catalogue: Catalogue) -> JoinedModel:
    """Join a model to a catalogue; what is large is computed by the first worker that asks.

    It lies in ``joins/`` of the data folder, from where all workers map it. The folder may be
    removed at any time.

    Parameters
    ----------
    artifact : ModelArtifact or None
        The model.
    catalogue : Catalogue
        The items, changes over the file included.
    """
    if artifact is None or artifact.n_items == 0 or catalogue.folder is None:
        return JoinedModel(artifact, catalogue)
    base = catalogue.base
    name = f"{artifact.version}-{catalogue.folder.name}"
    folder = catalogue.folder.parent.parent / FOLDER / name
    files = shared(folder, lambda: Join(artifact, base).shareable())
    model = JoinedModel(artifact, base, files)
    return model if base is catalogue else model.with_catalogue(catalogue)
