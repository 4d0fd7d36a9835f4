"""The model artifact: all that training hands to serving, and its only definition.

A folder ``models/<version>/`` with ``manifest.json``, one ``.npy`` file per array, ``items.arrow``
with the item ids in model-row order, and ``index.faiss``. Arrays, Arrow and JSON only: no pickle,
and nobody's name or vector. The manifest holds a SHA-256 of every file; a folder appears under its
final name in one rename, so what is there is whole.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa
from pyarrow import ipc

from feature_store.catalogue import Catalogue
from feature_store.errors import ArtifactError
from feature_store.files import make_folder, sha256_of, sync_file, sync_folder, write_json
from feature_store.schema import format_time
from feature_store.state import UserState

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ITEMS = "items.arrow"
INDEX = "index.faiss"

ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "item_factors": ("float32", ("n", "d")),
    "gram": ("float32", ("d", "d")),
    "popularity": ("float32", ("n",)),
    "popularity_recent": ("float32", ("n",)),
    "trending": ("float32", ("n",)),
    "together_rows": ("int32", ("n", "k")),
    "together_scores": ("float32", ("n", "k")),
    "similar_rows": ("int32", ("n", "s")),
    "similar_scores": ("float32", ("n", "s")),
    "repeat_rate": ("float32", ("n",)),
    "repeat_interval_s": ("float32", ("n",)),
    "first_seen_s": ("uint32", ("n",)),
    "content_tokens": ("uint64", ("v",)),
    "content_factors": ("float32", ("v", "d")),
    "content_popularity": ("float32", ("v",)),
    "start_groups": ("uint64", ("g",)),
    "start_vectors": ("float32", ("g", "d")),
}
"""Every array of an artifact: dtype and dimensions (``n`` items, ``d`` factors, ``v`` tokens of
content, ``g`` groups of people)."""

OPTIONAL = frozenset(
    {"content_tokens", "content_factors", "content_popularity", "start_groups", "start_vectors"}
)
"""Arrays that an artifact may lack: it was made before there were any, and they count as empty."""


class Recommender(Protocol):
    """The serving engine, as evaluation and gate are given it by the command line."""

    def candidates(
        self, state: UserState, *, now_s: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return catalogue rows, shape (c,), and their blend features, shape (c, F)."""

    def recommend(self, state: UserState, *, k: int, now_s: int, new_only: bool) -> list[int]:
        """Return catalogue rows of the `home` list, best first.

        `new_only` leaves out everything in the history.
        """


class ModelArtifact:
    """A published model, read-only and memory-mapped.

    Parameters
    ----------
    path : Path
        Folder of the artifact.
    verify : bool
        Whether to compare every file with its SHA-256 in the manifest.

    Raises
    ------
    ArtifactError
        If a file is missing, truncated, altered, or of a format that this program does not read.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        self.manifest = read_manifest(path)
        if verify:
            self._verify()
        try:
            self.arrays: dict[str, npt.NDArray[Any]] = {
                name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ARRAYS
                if name not in OPTIONAL or f"{name}.npy" in self.manifest["files"]
            }
            self.arrays |= _empty(OPTIONAL - set(self.arrays), self.arrays)
            with pa.memory_map(str(path / ITEMS)) as source:
                ids = ipc.open_file(source).read_all().column("item_id")
                # Chunks that are combined are copied, and this one is as large as the catalogue.
                one = ids.num_chunks == 1
                self.item_ids: pa.Array = ids.chunk(0) if one else ids.combine_chunks()
        except (OSError, ValueError, pa.ArrowInvalid, KeyError) as error:
            raise ArtifactError(f"the model {path.name} cannot be read: {error}") from error
        _check_shapes(self.version, self.arrays, len(self.item_ids))

    @property
    def version(self) -> str:
        """Name of the model, unique and sortable by time."""
        return str(self.manifest["version"])

    @property
    def n_items(self) -> int:
        """How many items the model knows."""
        return len(self.item_ids)

    @property
    def index_path(self) -> Path:
        """The FAISS index over ``item_factors``."""
        return self.path / INDEX

    def _verify(self) -> None:
        for name, said in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                raise ArtifactError(f"the model {self.path.name} lacks its file {name}")
            if file.stat().st_size != said["bytes"] or sha256_of(file) != said["sha256"]:
                raise ArtifactError(
                    f"the model {self.path.name} is damaged: {name} is not what its manifest says;"
                    " train again, or `recsvc models rollback`"
                )


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of an artifact's folder.

    Raises
    ------
    ArtifactError
        If there is none or it is of another format.
    """
    try:
        manifest: dict[str, Any] = orjson.loads((path / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ArtifactError(f"the model {path.name} has no readable manifest: {error}") from error
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"the model {path.name} has format {manifest.get('format_version')}; this program reads"
            f" format {FORMAT_VERSION}: train again"
        )
    return manifest


def _empty(
    names: Iterable[str], arrays: dict[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Return arrays without entries, as wide as the others say."""
    sizes = {"d": arrays["item_factors"].shape[1]}
    return {
        name: np.zeros([sizes.get(dimension, 0) for dimension in shape], dtype=dtype)
        for name in names
        for dtype, shape in [ARRAYS[name]]
    }


def _check_shapes(version: str, arrays: dict[str, npt.NDArray[Any]], n_items: int) -> None:
    sizes = {"n": n_items}
    for name, (dtype, dimensions) in ARRAYS.items():
        array = arrays[name]
        expected = tuple(
            sizes.setdefault(dimension, size)
            for dimension, size in zip(dimensions, array.shape, strict=False)
        )
        if array.dtype != dtype or array.shape != expected or array.ndim != len(dimensions):
            raise ArtifactError(
                f"the model {version} is malformed: {name} is {array.dtype}{array.shape},"
                f" expected {dtype}{expected}"
            )


class ArtifactWriter:
    """Collects a model in a hidden folder and lets it appear at once.

    Leaving the context without :meth:`publish` removes what was written.

    Parameters
    ----------
    models_dir : Path
        Folder that holds all models.
    now : datetime
        When the model was made; begins its version.
    """

    def __init__(self, models_dir: Path, now: datetime) -> None:
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.version = f"{stamp}-{secrets.token_hex(3)}"
        self.manifest: dict[str, Any] = {"created_at": format_time(now)}
        self._models_dir = make_folder(models_dir)
        self.path = make_folder(models_dir / f".{self.version}.{os.getpid()}.partial")
        self._n_items = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def array(self, name: str, values: npt.NDArray[Any]) -> None:
        """Write one of :data:`ARRAYS`; it is cast to its declared dtype."""
        np.save(self.path / f"{name}.npy", np.ascontiguousarray(values, dtype=ARRAYS[name][0]))

    def item_ids(self, item_ids: Sequence[str]) -> None:
        """Write the ids of the items, in the order of the model's rows."""
        self._n_items = len(item_ids)
        # By polars: `pyarrow.array` imports pandas where it is installed, which takes a second.
        frame = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        with ipc.new_file(str(self.path / ITEMS), table.schema) as sink:
            sink.write_table(table)

    def index(self, write: Callable[[str], object]) -> None:
        """Let `write` put the FAISS index at the path that it is given."""
        write(str(self.path / INDEX))

    def publish(self) -> ModelArtifact:
        """Check, seal and show the artifact under its final name; it is not yet what serves.

        Returns
        -------
        ModelArtifact
            The artifact, loaded and verified.

        Raises
        ------
        ArtifactError
            If an array is missing or of a wrong shape.
        """
        files = sorted(file for file in self.path.iterdir() if file.name != MANIFEST)
        needed = {ITEMS, *(f"{name}.npy" for name in ARRAYS if name not in OPTIONAL)}
        missing = needed - {file.name for file in files}
        if missing:
            raise ArtifactError(f"the model {self.version} lacks {', '.join(sorted(missing))}")
        for file in files:
            sync_file(file)
        document = {
            **self.manifest,
            "format_version": FORMAT_VERSION,
            "version": self.version,
            "n_items": self._n_items,
            "files": {
                file.name: {"sha256": sha256_of(file), "bytes": file.stat().st_size}
                for file in files
            },
        }
        write_json(self.path / MANIFEST, document)
        ModelArtifact(self.path)
        final = self._models_dir / self.version
        self.path.rename(final)
        sync_folder(self._models_dir)
        return ModelArtifact(final, verify=False)


RecommenderFactory = Callable[[ModelArtifact, Catalogue], Recommender]
"""Makes the serving engine for a model and a catalogue."""


def remove_partial(models_dir: Path) -> int:
    """Remove what trainings that were killed left behind; return how many.

    What belongs to a process that is still alive is left alone.
    """
    removed = 0
    for partial in models_dir.glob(".*.partial"):
        pid = int(partial.name.split(".")[-2])
        if _is_alive(pid):
            continue
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        removed += 1
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
