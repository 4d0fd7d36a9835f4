"""The catalogue on disk: memory-mapped files, published as a whole.

``catalogue/<version>/`` holds ``items.arrow`` (an uncompressed Arrow file, so that it can be
mapped), the prices (which Arrow files do not align), the table of id fingerprints, what is derived
from the columns, and a manifest with a SHA-256 of each; ``catalogue/current.json`` names the
version that counts.
"""

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from pyarrow import ipc

from feature_store import derived_columns
from feature_store.catalogue import Catalogue
from feature_store.errors import ArtifactError
from feature_store.files import locked, make_folder, sha256_of, sync_file, sync_folder, write_json
from feature_store.item_columns import COLUMNS, as_catalogue_frame
from feature_store.item_ids import hash_ids
from feature_store.item_words import words_of
from feature_store.mapped import MappedArray

FORMAT_VERSION = 2
KEPT_VERSIONS = 3
_ITEMS, _WORDS, _HASHES, _ROWS = "items.arrow", "words.arrow", "id_hash", "id_row"
_DECIMALS = ("price", "sale_price")
_FIRST_FORMAT = 1
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    ArtifactError,
    pa.ArrowException,
    pl.exceptions.PolarsError,
)


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
    log_start : int
        After how many entries the log begins since it was published.
    """

    version: str
    sequence: int
    catalogue: Catalogue
    log_start: int = 0


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

    @contextmanager
    def editing(self, busy: str | None = None) -> Iterator[None]:
        """Hold the catalogue: what is read from it now is what the next version replaces.

        Parameters
        ----------
        busy : str or None
            What to say when somebody else holds it; ``None`` waits.

        Raises
        ------
        ConflictError
            If somebody else holds it and `busy` was given.
        """
        with locked(self.folder / ".lock", busy):
            yield

    def load(self, *, verify: bool = True) -> CatalogueFile:
        """Open the current catalogue.

        Raises
        ------
        ArtifactError
            If its files are missing, damaged or of another format.
        """
        folder = self._current()
        if folder is None:
            return CatalogueFile("", 0, Catalogue.empty())
        try:
            return _opened(folder, verify=verify)
        except _UNREADABLE as error:
            if self._current() != folder:
                # Others were published meanwhile, and this one removed while it was read.
                return self.load(verify=verify)
            raise ArtifactError(
                f"the catalogue {folder.name} cannot be read: {error}; import the items again"
            ) from error

    def _current(self) -> Path | None:
        try:
            pointer: dict[str, Any] = orjson.loads(self._pointer.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError) as error:
            raise ArtifactError(f"{self._pointer} cannot be read: {error}") from error
        return self.folder / str(pointer["version"])

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
        with self.editing():
            return self.replace(frame, sequence, sequence)

    def replace(self, frame: pl.DataFrame, sequence: int, log_start: int) -> str:
        """Do what `publish` does, for somebody who is `editing`.

        Parameters
        ----------
        frame, sequence
            As in `publish`.
        log_start : int
            After how many entries the log will begin.
        """
        version = f"{frame.height:09d}-{secrets.token_hex(4)}"
        partial = make_folder(self.folder / f".{version}.partial")
        names = _write(partial, frame.select(list(COLUMNS)).rechunk())
        for name in names:
            sync_file(partial / name)
        manifest = {
            "format_version": FORMAT_VERSION,
            "sequence": sequence,
            "log_start": log_start,
            "files": {name: sha256_of(partial / name) for name in names},
        }
        write_json(partial / "manifest.json", manifest)
        partial.rename(self.folder / version)
        sync_folder(self.folder)
        write_json(self._pointer, {"version": version})
        self._prune(version)
        return version

    def _prune(self, current: str) -> None:
        """Remove old versions, and what killed writers left; a mapped file lives on unnamed."""
        folders = [folder for folder in self.folder.iterdir() if folder.is_dir()]
        folders.sort(key=lambda folder: folder.stat().st_mtime_ns)
        partial = [folder for folder in folders if folder.name.endswith(".partial")]
        whole = [folder for folder in folders if folder not in partial]
        for folder in partial + whole[:-KEPT_VERSIONS]:
            if folder.name != current:
                shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, frame: pl.DataFrame) -> list[str]:
    """Write all files of a version; return their names."""
    hashes, rows = hash_ids(frame["item_id"])
    np.save(folder / f"{_HASHES}.npy", hashes)
    np.save(folder / f"{_ROWS}.npy", rows)
    frame.drop(_DECIMALS).write_ipc(folder / _ITEMS, compression="uncompressed")
    words_of(frame).to_frame().write_ipc(folder / _WORDS, compression="uncompressed")
    names = [_ITEMS, _WORDS, f"{_HASHES}.npy", f"{_ROWS}.npy"]
    for name in _DECIMALS:
        names += _write_decimals(folder, frame[name])
    return names + derived_columns.save(folder, derived_columns.derive(frame), frame.height)


def _write_decimals(folder: Path, values: pl.Series) -> list[str]:
    """Write a column of decimals as numbers of 128 bits, and a bit for each that is there."""
    array = values.fill_null(0).to_arrow()
    data = array.buffers()[1]
    wide = np.zeros((len(array), 2), dtype=np.int64)
    if len(array):
        wide = np.frombuffer(data, dtype=np.int64).reshape(-1, 2)[array.offset :][: len(array)]
    present = np.packbits(values.is_not_null().to_numpy(), bitorder="little")
    np.save(folder / f"{values.name}.npy", wide)
    np.save(folder / f"{values.name}_present.npy", present)
    return [f"{values.name}.npy", f"{values.name}_present.npy"]


def _opened(folder: Path, *, verify: bool) -> CatalogueFile:
    manifest: dict[str, Any] = orjson.loads((folder / "manifest.json").read_bytes())
    version = manifest["format_version"]
    if version not in (_FIRST_FORMAT, FORMAT_VERSION):
        raise ArtifactError("it has an unknown format")
    if verify:
        _verify(folder, manifest)
    sequence = int(manifest["sequence"])
    if version == _FIRST_FORMAT:
        frame = as_catalogue_frame(_mapped(folder / _ITEMS))
        catalogue = Catalogue(frame, *hash_ids(frame["item_id"]))
        return CatalogueFile(folder.name, sequence, catalogue, sequence)
    frame = _mapped_frame(folder)
    catalogue = Catalogue(
        frame,
        MappedArray(folder / f"{_HASHES}.npy").shared(),
        MappedArray(folder / f"{_ROWS}.npy").shared(),
        derived_columns.load(folder),
        _mapped(folder / _WORDS).to_series(),
    )
    catalogue.folder = folder
    return CatalogueFile(folder.name, sequence, catalogue, int(manifest["log_start"]))


def _mapped(path: Path) -> pl.DataFrame:
    with pa.memory_map(str(path)) as source:
        frame = pl.from_arrow(ipc.open_file(source).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _mapped_frame(folder: Path) -> pl.DataFrame:
    frame = _mapped(folder / _ITEMS)
    sizes = [len(chunk) for chunk in frame["item_id"].get_chunks()]
    decimals = [_mapped_decimals(folder, name, sizes) for name in _DECIMALS]
    frame = frame.with_columns(decimals)
    if set(frame.columns) != set(COLUMNS):
        raise ValueError("it holds other columns than a catalogue")
    return frame.select(list(COLUMNS))


def _mapped_decimals(folder: Path, name: str, sizes: list[int]) -> pl.Series:
    """Map a column of decimals, in chunks of the sizes that the others have.

    A frame whose columns have other chunks would be copied to make them alike.
    """
    values = MappedArray(folder / f"{name}.npy").shared()
    present = MappedArray(folder / f"{name}_present.npy").shared()
    buffers = [pa.py_buffer(present), pa.py_buffer(values)]
    array = pa.Array.from_buffers(pa.decimal128(18, 4), len(values), buffers)
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    chunks = [array.slice(start, size) for start, size in zip(starts, sizes, strict=True)]
    column = pl.from_arrow(pa.chunked_array(chunks, array.type), rechunk=False)
    assert isinstance(column, pl.Series)
    return column.alias(name)


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise ArtifactError(f"it is damaged: {name} is missing or altered")


def merged_frame(
    catalogue: Catalogue,
    items: pl.DataFrame,
    rows: Sequence[int],
    reserved: Mapping[int, str] | None = None,
) -> pl.DataFrame:
    """Return the columns of a catalogue in which imported items are added or replaced.

    Parameters
    ----------
    catalogue : Catalogue
        What is there, overlay included.
    items : DataFrame
        Distinct items: ``item_id`` and any of ``item_columns.COLUMNS``.
    rows : sequence of int
        The row of each; a row beyond the catalogue makes it longer.
    reserved : mapping of int to str, optional
        Rows and ids of items of which nothing else may be known; what is known counts.

    Returns
    -------
    DataFrame
        ``item_columns.COLUMNS``, in row order, holes included.
    """
    present = catalogue.frame["item_id"].is_not_null().to_numpy()
    stubs = {
        row: item_id
        for row, item_id in (reserved or {}).items()
        if row >= len(present) or not present[row]
    }
    ids = pl.DataFrame({"item_id": pl.Series(list(stubs.values()), dtype=pl.String)})
    layers = [
        (ids.with_columns(listed=pl.lit(value=False)), list(stubs)),
        (pl.DataFrame(list(catalogue.overlay.values()), schema=COLUMNS), list(catalogue.overlay)),
        (items, rows),
    ]
    base = catalogue.frame
    n_rows = max(catalogue.n_rows, *(max(its_rows, default=-1) + 1 for _, its_rows in layers))
    # Where each row's columns stand among all layers, one below the other; -1 for a hole.
    places = np.full(n_rows, -1, dtype=np.int64)
    places[: base.height] = np.arange(base.height)
    frames, height = [base], base.height
    for layer, its_rows in layers:
        places[np.asarray(its_rows, dtype=np.int64)] = height + np.arange(layer.height)
        frames.append(as_catalogue_frame(layer))
        height += layer.height
    index = pl.Series(places).cast(pl.UInt32, strict=False)
    return pl.concat(frames).select(pl.all().gather(index))
