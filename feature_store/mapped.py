"""Arrays in files that several processes share, and copies of them that cost what they change."""

import mmap
import os
import secrets
import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from feature_store.files import locked, make_folder, sha256_of, sync_file, write_json

Array = npt.NDArray[Any]
KEPT_FOLDERS = 4
_MANIFEST = "manifest.json"


class MappedArray:
    """A one- or two-dimensional array in a ``.npy`` file.

    The file is held open: it can be mapped again after somebody has removed its name.

    Parameters
    ----------
    path : Path
        Written by ``numpy.save``.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it is cut or holds something else.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"{path} has an unknown version of its format")
            self.shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(file)
            self._offset = file.tell()
        if fortran or self.dtype.hasobject:
            raise ValueError(f"{path} does not hold a plain array")
        if path.stat().st_size < self._offset + self._n_bytes():
            raise ValueError(f"{path} is cut")
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def _n_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def shared(self) -> Array:
        """Return the array, read-only; its memory is the same in every process."""
        return self._view(mmap.ACCESS_READ)

    def own(self) -> Array:
        """Return a writable copy; only the pages that are written to take memory of their own."""
        return self._view(mmap.ACCESS_COPY)

    def _view(self, access: int) -> Array:
        if self._n_bytes() == 0:
            return np.zeros(self.shape, dtype=self.dtype)
        memory = mmap.mmap(self._descriptor, 0, access=access)
        count = int(np.prod(self.shape, dtype=np.int64))
        return np.frombuffer(memory, self.dtype, count, self._offset).reshape(self.shape)


def shared(folder: Path, compute: Callable[[], Mapping[str, Array]]) -> dict[str, MappedArray]:
    """Return arrays that one process computes and all of them map.

    Parameters
    ----------
    folder : Path
        Names what is computed, beside others of its kind; the oldest of those are removed. It is
        made again if it is missing or damaged: nothing is lost with it.
    compute : callable
        Called in the first process that asks; the others wait for it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    known = _mapped(folder)
    if known is not None:
        return known
    with locked(make_folder(folder.parent) / ".lock"):
        known = _mapped(folder)
        if known is None:
            shutil.rmtree(folder, ignore_errors=True)
            _write(folder, compute())
            _prune(folder)
            known = _mapped(folder)
    if known is None:
        raise OSError(f"{folder} cannot be read again")
    return known


def _write(folder: Path, arrays: Mapping[str, Array]) -> None:
    partial = make_folder(folder.with_name(f".{secrets.token_hex(4)}.partial"))
    for name, array in arrays.items():
        np.save(partial / f"{name}.npy", array)
        # A page that is not yet on the disk counts as memory of whoever maps it.
        sync_file(partial / f"{name}.npy")
    digests = {name: sha256_of(partial / f"{name}.npy") for name in arrays}
    write_json(partial / _MANIFEST, digests)
    partial.rename(folder)


def _mapped(folder: Path) -> dict[str, MappedArray] | None:
    try:
        digests: dict[str, str] = orjson.loads((folder / _MANIFEST).read_bytes())
        if any(sha256_of(folder / f"{name}.npy") != said for name, said in digests.items()):
            return None
        return {name: MappedArray(folder / f"{name}.npy") for name in digests}
    except (OSError, ValueError):
        return None


def _prune(newest: Path) -> None:
    """Remove what killed writers left, and the oldest; a mapped file lives on unnamed."""
    folders = [one for one in newest.parent.iterdir() if one.is_dir() and one != newest]
    folders.sort(key=lambda one: one.stat().st_mtime_ns, reverse=True)
    for at, folder in enumerate(folders):
        if at >= KEPT_FOLDERS - 1 or folder.name.endswith(".partial"):
            shutil.rmtree(folder, ignore_errors=True)
