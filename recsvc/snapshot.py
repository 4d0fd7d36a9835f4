"""All that an answer depends on besides the person: one immutable value, swapped by reference.

A worker answers from the snapshot that it holds. A new one is built beside it, off the event loop,
checked, and takes its place in one assignment; on any doubt the old one stays.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFile, CatalogueFiles
from feature_store.documents import SiteDocuments
from feature_store.item_changes import ItemChange
from feature_store.registry import ModelRegistry
from recsvc.memory import give_back
from recsvc.merchandising.recalls import recalled_mask
from recsvc.merchandising.site import Site, SiteFile, read_site
from recsvc.ranking.shared_join import joined
from recsvc.retrieval import JoinedModel
from recsvc.rules import NOTHING, CompiledRules, compile_rules

MANY_CHANGES = 100
"""From so many at once on it is worth the time to return the memory that they took."""


class Scratch:
    """Arrays over all rows or categories that requests borrow in turn and give back clean.

    A lookup by row is then one indexing operation instead of a search; not for two threads at once.

    Parameters
    ----------
    n_rows, n_categories : int
        Rows of the catalogue, and codes of its categories.
    """

    def __init__(self, n_rows: int, n_categories: int) -> None:
        self.marked = np.zeros(n_rows, dtype=bool)
        self.total = np.zeros(n_rows, dtype=np.float32)
        self.by_category = np.zeros(n_categories, dtype=np.float32)


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
    rules : CompiledRules
        The rules in force, over this catalogue.
    """

    catalogue: Catalogue
    model: JoinedModel
    site: Site = field(default_factory=Site)
    catalogue_version: str = ""
    catalogue_sequence: int = 0
    built_at: float = 0.0
    recalled: npt.NDArray[np.bool_] | None = None
    rules: CompiledRules = NOTHING
    local: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def scratch(self) -> Scratch:
        """The scratch arrays of the calling thread."""
        try:
            scratch: Scratch = self.local.scratch
        except AttributeError:
            n_categories = len(self.model.category_share)
            scratch = self.local.scratch = Scratch(self.catalogue.n_rows, n_categories)
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
        self._building = threading.Lock()
        self._changes: list[ItemChange] = []
        version = self.registry.current()
        if version is not None:
            self._artifact = self.registry.load(version)
        self._site_file = SiteFile(data_dir)
        known = self._site_file.load()
        self.site_known = known is not None
        self.site = read_site(known or SiteDocuments())
        model = joined(self._artifact, self._file.catalogue)
        model.warm_up()
        rules = compile_rules(self.site.rules.values(), self._file.catalogue)
        self.current = self._snapshot(self._file.catalogue, model, rules)
        give_back()

    @property
    def n_changes(self) -> int:
        """How many changes of items lie over the catalogue's file."""
        return len(self._changes)

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
        with self._building:
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
            self._swap(file, artifact)
            give_back()
            return True

    def _swap(self, file: CatalogueFile, artifact: ModelArtifact | None) -> None:
        """Build without the lock: changes go on being applied, and are taken over at the end."""
        with self._lock:
            before = self._changes_after(file)
            catalogue = self.current.catalogue
        if file is not self._file:
            catalogue = file.catalogue.after(before)
        model = joined(artifact, catalogue)
        model.warm_up()
        # All targets over a new file take a while; under the lock what came meanwhile is left.
        rules = compile_rules(self.site.rules.values(), catalogue, self.current.rules)
        with self._lock:
            changes = self._changes_after(file)
            later = changes[len(before) :]
            if later:
                catalogue = catalogue.after(later)
                model = model.with_catalogue(catalogue)
            self._file, self._artifact, self._changes = file, artifact, changes
            rules = compile_rules(self.site.rules.values(), catalogue, rules)
            self.current = self._snapshot(catalogue, model, rules)

    def _changes_after(self, file: CatalogueFile) -> list[ItemChange]:
        """Return the changes that are applied and that a file does not include."""
        included = file.sequence - self._file.sequence
        # A file from before: the catalogue was put back, and its log with it.
        return self._changes[included:] if included >= 0 else []

    def apply_changes(self, changes: list[ItemChange], sequence: int) -> None:
        """Swap in a snapshot that includes changes of the catalogue.

        Parameters
        ----------
        changes : list of ItemChange
            Result of ``RowStore.changes_since(current.catalogue_sequence)``.
        sequence : int
            ``current.catalogue_sequence + len(changes)``.
        """
        with self._lock:
            old = self.current
            # A file that was swapped in meanwhile may include some of them.
            new = changes[max(0, len(changes) - (sequence - old.catalogue_sequence)) :]
            if sequence - len(new) != old.catalogue_sequence or not new:
                return
            catalogue = old.catalogue.after(new)
            self._changes += new
            rules = old.rules.with_changes(catalogue, _rows_of(new, catalogue))
            self.current = self._snapshot(catalogue, old.model.with_catalogue(catalogue), rules)
        if len(new) >= MANY_CHANGES:
            give_back()

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
                old = self.current
                self.site = read_site(documents, self.site)
                self._site_file.save(documents)
                rules = compile_rules(self.site.rules.values(), old.catalogue, old.rules)
                self.current = self._snapshot(old.catalogue, old.model, rules)
            self.site_known = True

    def _read_stamps(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.catalogue_files.stamp(), self.registry.stamp()

    def _snapshot(self, catalogue: Catalogue, model: JoinedModel, rules: CompiledRules) -> Snapshot:
        return Snapshot(
            catalogue,
            model,
            self.site,
            catalogue_version=self._file.version,
            catalogue_sequence=self._file.sequence + len(self._changes),
            built_at=time.time(),
            recalled=recalled_mask(self.site.recalls, catalogue),
            rules=rules,
        )


def _rows_of(changes: list[ItemChange], catalogue: Catalogue) -> list[int]:
    """Return the rows that some changes have written; a row that is only reserved has no item."""
    touched = {
        row for one in changes for row in range(one.row, one.row + max(1, len(one.item_ids)))
    }
    return sorted(touched & catalogue.overlay.keys())
