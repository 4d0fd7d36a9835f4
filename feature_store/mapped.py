"""Arrays in files that several processes share, and copies of them that cost what they change."""

import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
