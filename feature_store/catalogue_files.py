"""The catalogue on disk: one memory-mapped file an epoch, published as a whole.

``catalogue/<version>/`` holds ``items.arrow`` (an uncompressed Arrow file, so that it can be
mapped), the sorted id hashes, and a manifest with a SHA-256 of each; ``catalogue/current.json``
names the version that counts.
"""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from pyarrow import ipc

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.errors import ArtifactError
from feature_store.files import locked, make_folder, sha256_of, sync_file, sync_folder, write_json
from feature_store.item_columns import COLUMNS, as_catalogue_frame

FORMAT_VERSION = 1
KEPT_VERSIONS = 3
_FILES = ("items.arrow", "id_hash.npy", "id_row.npy")


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """A published catalogue.

    Parameters
    ----------
    version : str
        Name of its folder; empty for the catalogue of a new shop.
    sequence : int
        How many entries of the change log (``keys.CATALOGUE_LOG``) it includes.
    catalogue : Catalogue
        The items.
    """

    version: str
    sequence: int
    catalogue: Catalogue


class CatalogueFiles:
    """Reads and publishes catalogues below one folder.

    Parameters
    ----------
    folder : Path
        ``<data dir>/catalogue``; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._pointer = folder / "current.json"

    def stamp(self) -> tuple[int, int]:
        """Return a value that changes whenever another catalogue is published."""
        try:
            status = self._pointer.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)

    def load(self, *, verify: bool = True) -> CatalogueFile:
        """Open the current catalogue.

        Raises
        ------
        ArtifactError
            If its files are missing, damaged or of another format.
        """
        try:
            pointer: dict[str, Any] = orjson.loads(self._pointer.read_bytes())
        except FileNotFoundError:
            return CatalogueFile("", 0, Catalogue.empty())
        except (OSError, orjson.JSONDecodeError) as error:
            raise ArtifactError(f"{self._pointer} cannot be read: {error}") from error
        folder = self.folder / str(pointer["version"])
        try:
            manifest: dict[str, Any] = orjson.loads((folder / "manifest.json").read_bytes())
            if manifest["format_version"] != FORMAT_VERSION:
                raise ArtifactError(f"the catalogue {folder.name} has an unknown format")
            if verify:
                _verify(folder, manifest)
            frame = _mapped_frame(folder / "items.arrow")
            hashes = np.load(folder / "id_hash.npy", mmap_mode="r", allow_pickle=False)
            rows = np.load(folder / "id_row.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(
                f"the catalogue {folder.name} cannot be read: {error}; import the items again"
            ) from error
        return CatalogueFile(folder.name, manifest["sequence"], Catalogue(frame, hashes, rows))

    def publish(self, frame: pl.DataFrame, sequence: int) -> str:
        """Write a catalogue and let it count.

        Parameters
        ----------
        frame : DataFrame
            ``item_columns.COLUMNS`` in row order.
        sequence : int
            How many entries of the change log the frame includes.

        Returns
        -------
        str
            The version.
        """
        with locked(self.folder / ".lock"):
            return self._publish(frame, sequence)

    def _publish(self, frame: pl.DataFrame, sequence: int) -> str:
        version = f"{frame.height:09d}-{secrets.token_hex(4)}"
        partial = make_folder(self.folder / f".{version}.partial")
        hashes, rows = hash_ids(frame["item_id"].to_list())
        frame.rechunk().write_ipc(partial / "items.arrow", compression="uncompressed")
        np.save(partial / "id_hash.npy", hashes)
        np.save(partial / "id_row.npy", rows)
        for name in _FILES:
            sync_file(partial / name)
        files = {name: sha256_of(partial / name) for name in _FILES}
        manifest = {"format_version": FORMAT_VERSION, "sequence": sequence, "files": files}
        write_json(partial / "manifest.json", manifest)
        partial.rename(self.folder / version)
        sync_folder(self.folder)
        write_json(self._pointer, {"version": version})
        self._prune(version)
        return version

    def _prune(self, current: str) -> None:
        """Remove old versions; a process that still maps one keeps its pages until it lets go."""
        folders = [folder for folder in self.folder.iterdir() if folder.is_dir()]
        folders.sort(key=lambda folder: folder.stat().st_mtime_ns)
        for folder in folders[:-KEPT_VERSIONS]:
            if folder.name != current:
                shutil.rmtree(folder, ignore_errors=True)


def _mapped_frame(path: Path) -> pl.DataFrame:
    with pa.memory_map(str(path)) as source:
        frame = pl.from_arrow(ipc.open_file(source).read_all())
    if not isinstance(frame, pl.DataFrame) or list(frame.columns) != list(COLUMNS):
        raise ArtifactError(f"{path} holds other columns than a catalogue")
    return frame


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    for name in _FILES:
        if not (folder / name).is_file() or sha256_of(folder / name) != manifest["files"][name]:
            raise ArtifactError(
                f"the catalogue {folder.name} is damaged: {name} is missing or altered;"
                " import the items again"
            )


def merged_frame(catalogue: Catalogue, items: pl.DataFrame, rows: list[int]) -> pl.DataFrame:
    """Return the columns of a catalogue in which imported items are added or replaced.

    Parameters
    ----------
    catalogue : Catalogue
        What is there, overlay included.
    items : DataFrame
        Distinct items: ``item_id`` and any of ``item_columns.COLUMNS``.
    rows : list of int
        The row of each; a row beyond the catalogue makes it longer.

    Returns
    -------
    DataFrame
        ``item_columns.COLUMNS``, in row order, holes included.
    """
    layers = [catalogue.frame.with_row_index("row")]
    if catalogue.overlay:
        overlay = pl.DataFrame(list(catalogue.overlay.values()), schema=COLUMNS)
        layers.append(overlay.with_columns(row=pl.Series(list(catalogue.overlay), dtype=pl.UInt32)))
    layers.append(as_catalogue_frame(items).with_columns(row=pl.Series(rows, dtype=pl.UInt32)))
    order = ["row", *COLUMNS]
    newest = pl.concat([layer.select(order) for layer in layers]).unique("row", keep="last")
    n_rows = max(catalogue.n_rows, max(rows, default=-1) + 1)
    every_row = pl.DataFrame({"row": pl.Series(range(n_rows), dtype=pl.UInt32)})
    return every_row.join(newest, on="row", how="left").sort("row").select(list(COLUMNS))
