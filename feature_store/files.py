"""Writing files so that a crash at any moment leaves the old content or the new, never a part."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_store.errors import ConflictError, UserError


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` in one step that survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_atomically(path, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> Path:
    """Create a folder with its parents.

    Raises
    ------
    UserError
        If it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder {path}: {error.strerror}; choose another with --data-dir"
            " or RECSVC_DATA_DIR"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"the folder {path} cannot be written; choose another with --data-dir")
    return path


@contextmanager
def locked(path: Path, busy: str | None = None, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock that the kernel frees when the process dies.

    Parameters
    ----------
    path : Path
        The lock file; created when it does not exist, never removed.
    busy : str or None
        What to say at once when another process holds it; ``None`` waits for it.
    shared : bool
        Whether others who share it may hold it at the same time.

    Raises
    ------
    ConflictError
        If it is held and `busy` was given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(file, kind | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise ConflictError(busy) from error
        yield
