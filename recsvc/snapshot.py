"""All that an answer depends on besides the person: one immutable value, swapped by reference.

A worker answers from the snapshot that it holds. A new one is built beside it, off the event loop,
checked, and takes its place in one assignment; on any doubt the old one stays.
"""

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFile, CatalogueFiles
from feature_store.documents import SiteDocuments
from feature_store.registry import ModelRegistry
from recsvc.recalls import recalled_mask
from recsvc.retrieval import JoinedModel
from recsvc.site import Site, SiteFile, read_site


class Scratch:
    """Arrays over all rows that one request after the other borrows and gives back clean.

    A lookup by row is then one indexing operation instead of a search; not for two threads at once.

    Parameters
    ----------
    n_rows : int
        Rows of the catalogue.
    """

    def __init__(self, n_rows: int) -> None:
        self.marked = np.zeros(n_rows, dtype=bool)
        self.total = np.zeros(n_rows, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one answer is made from.

    Parameters
    ----------
    catalogue : Catalogue
        All items.
    model : JoinedModel
        The model, joined to this catalogue.
    site : Site
        What marketers and operators have set.
    catalogue_version : str
        Which catalogue file lies below.
    catalogue_sequence : int
        How many changes of the catalogue are included.
    built_at : float
        When it was built, in seconds since 1970.
    recalled : ndarray of bool, shape (n_rows,), or None
        What is in no answer, by the site's recalls and this catalogue.
    """

    catalogue: Catalogue
    model: JoinedModel
    site: Site = field(default_factory=Site)
    catalogue_version: str = ""
    catalogue_sequence: int = 0
    built_at: float = 0.0
    recalled: npt.NDArray[np.bool_] | None = None
    local: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def scratch(self) -> Scratch:
        """The scratch arrays of the calling thread."""
        try:
            scratch: Scratch = self.local.scratch
        except AttributeError:
            scratch = self.local.scratch = Scratch(self.catalogue.n_rows)
        return scratch


class SnapshotHolder:
    """The snapshot that a worker serves, and how it gets the next one.

    Parameters
    ----------
    data_dir : Path
        Where catalogue and models live.
    """

    def __init__(self, data_dir: Path) -> None:
        self.catalogue_files = CatalogueFiles(data_dir / "catalogue")
        self.registry = ModelRegistry(data_dir / "models")
        self._file = self.catalogue_files.load()
        self._artifact: ModelArtifact | None = None
        self._stamps = self._read_stamps()
        self._lock = threading.Lock()
        version = self.registry.current()
        if version is not None:
            self._artifact = self.registry.load(version)
        self._site_file = SiteFile(data_dir)
        known = self._site_file.load()
        self.site_known = known is not None
        self.site = read_site(known or SiteDocuments())
        self.current = self._build(self._file, self._artifact, self._file.catalogue)

    def refresh(self) -> bool:
        """Build and swap a new snapshot if another model or catalogue file was published.

        Runs in a thread; answers go on from the old snapshot meanwhile.

        Returns
        -------
        bool
            Whether a new one serves.

        Raises
        ------
        ArtifactError
            If what was published is damaged; the old snapshot goes on serving, and the same files
            are not tried again.
        """
        with self._lock:
            stamps = self._read_stamps()
            if stamps == self._stamps:
                return False
            self._stamps = stamps
            file, artifact = self._file, self._artifact
            loaded = self.catalogue_files.load()
            if loaded.version != file.version:
                file = loaded
            version = self.registry.current()
            if version is not None and version != self.current.model.version:
                artifact = self.registry.load(version)
            if file is self._file and artifact is self._artifact:
                return False
            # Changes that lie over the old file are asked for again: the next read sees that the
            # new snapshot is behind.
            catalogue = file.catalogue if file is not self._file else self.current.catalogue
            snapshot = self._build(file, artifact, catalogue)
            self._file, self._artifact = file, artifact
            self.current = snapshot
            return True

    def apply_changes(self, changes: list[tuple[int, dict[str, Any]]], sequence: int) -> None:
        """Swap in a snapshot that includes changes of the catalogue.

        Parameters
        ----------
        changes : list of (int, dict)
            Result of ``RowStore.changes_since(current.catalogue_sequence)``.
        sequence : int
            ``current.catalogue_sequence + len(changes)``.
        """
        with self._lock:
            old = self.current
            if sequence <= old.catalogue_sequence:
                return
            catalogue = old.catalogue.with_changes(changes)
            self.current = Snapshot(
                catalogue,
                old.model.with_catalogue(catalogue),
                old.site,
                old.catalogue_version,
                sequence,
                time.time(),
                recalled_mask(old.site.recalls, catalogue),
            )

    def apply_site(self, documents: SiteDocuments, *, back: bool = False) -> None:
        """Swap in a snapshot that obeys other documents of the site, and keep them on disk.

        Parameters
        ----------
        documents : SiteDocuments
            All of them; those that are older than what is obeyed are passed over.
        back : bool
            Whether older ones count as well: the store was emptied or restored.
        """
        with self._lock:
            if documents.sequence < self.site.sequence and not back:
                return
            if not self.site_known or documents != self.site.documents:
                self.site = read_site(documents)
                self._site_file.save(documents)
                recalled = recalled_mask(self.site.recalls, self.current.catalogue)
                self.current = replace(
                    self.current, site=self.site, recalled=recalled, built_at=time.time()
                )
            self.site_known = True

    def _read_stamps(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.catalogue_files.stamp(), self.registry.stamp()

    def _build(
        self, file: CatalogueFile, artifact: ModelArtifact | None, catalogue: Catalogue
    ) -> Snapshot:
        same_file = catalogue is not file.catalogue
        sequence = self.current.catalogue_sequence if same_file else file.sequence
        model = JoinedModel(artifact, catalogue)
        model.warm_up()
        return Snapshot(
            catalogue,
            model,
            self.site,
            catalogue_version=file.version,
            catalogue_sequence=sequence,
            built_at=time.time(),
            recalled=recalled_mask(self.site.recalls, catalogue),
        )
