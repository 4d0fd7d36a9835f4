"""A copy of everything that is kept, and the way back from it.

A backup is a folder of plain files with a manifest that has the SHA-256 of each. It holds what a
server is rebuilt from, not the server's own files: event log, change log, catalogue, models and
secret. Beside the manifest stands who was erased, by digests: erasures that come later are added
there (``deliveries``), and a restore brings none of them back.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store.errors import ArtifactError, UserError
from feature_store.event_log import EventLog
from feature_store.files import locked, make_folder, sha256_of, sync_file, sync_folder, write_json
from feature_store.forgetting.deliveries import (
    DELIVERIES,
    ERASURES,
    Deliveries,
    merge_erasures,
    read_erasures,
)
from feature_store.forgetting.scrubbing import scrub_forgotten
from feature_store.ingest.run import LOCK_WAIT_S
from feature_store.ingest.table import Progress, silent
from feature_store.schema import format_time

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_FOLDERS = ("changes", "catalogue", "models")
_FILES = ("secret", "demo.json", DELIVERIES)


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds.

    Parameters
    ----------
    created_at : str
        When it was made.
    n_files, n_bytes : int
        How much it is.
    n_events : int
        Events in its log.
    """

    created_at: str
    n_files: int
    n_bytes: int
    n_events: int


def back_up(data_dir: Path, target: Path, now: datetime, progress: Progress = silent) -> Backup:
    """Copy a data directory; archive what the server has accepted first.

    Nothing moves while it copies: imports and the archive wait, the service goes on.

    Parameters
    ----------
    data_dir : Path
        What to copy.
    target : Path
        A folder that does not exist yet, or is empty.
    now : datetime
        What the time is.
    progress : Progress
        Is told how far it is.

    Raises
    ------
    UserError
        If `target` holds something, or cannot be written.
    ConflictError
        If an import is running.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; name a folder for a new backup")
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    log = EventLog(data_dir)
    with log.importing(LOCK_WAIT_S), locked(data_dir / "models" / ".lock"):
        # From now on whoever is erased is noted in the backup, too, once it stands in its place.
        Deliveries(data_dir).add(target, "backup", now)
        n_events = log.count()
        names = sorted(_kept(data_dir, log))
        files: dict[str, dict[str, Any]] = {}
        for done, name in enumerate(names):
            progress("copying", done, len(names))
            digest = _copy(data_dir / name, partial / name)
            files[name] = {"sha256": digest, "bytes": (partial / name).stat().st_size}
        merge_erasures(partial / ERASURES, read_erasures(data_dir / ERASURES))
    document = {
        "format_version": FORMAT_VERSION,
        "created_at": format_time(now),
        "n_events": n_events,
        "files": files,
    }
    write_json(partial / MANIFEST, document)
    for folder in {path.parent for path in partial.rglob("*")}:
        sync_folder(folder)
    with suppress(FileNotFoundError):
        target.rmdir()
    partial.rename(target)
    sync_folder(target.parent)
    # Somebody may have been erased while the folder had its other name.
    merge_erasures(target / ERASURES, read_erasures(data_dir / ERASURES))
    progress("copying", len(names), len(names))
    return _summary(document)


def check(source: Path, progress: Progress = silent) -> Backup:
    """Read every file of a backup and compare it with the manifest.

    Raises
    ------
    ArtifactError
        If it is not complete, or a file is not what it was.
    """
    return _summary(_checked(source, progress))


def restore(
    source: Path, data_dir: Path, progress: Progress = silent, erasures: Path | None = None
) -> Backup:
    """Put a backup in the place of a data directory that was lost; then rebuild the server.

    Whoever was erased since the backup was made is taken out before anything is in its place.

    Parameters
    ----------
    source : Path
        The backup.
    data_dir : Path
        A folder that holds no data yet.
    progress : Progress
        Is told how far it is.
    erasures : Path, optional
        ``erasures.jsonl`` of the data directory that was lost, if it could be saved: it knows the
        erasures that the backup was never told of.

    Raises
    ------
    ArtifactError
        If the backup is damaged; nothing was restored.
    UserError
        If `data_dir` holds data, which is never overwritten, or `erasures` cannot be read.
    """
    known = _erasures_of(source, erasures)
    document = _checked(source, progress)
    make_folder(data_dir)
    known += read_erasures(data_dir / ERASURES)
    data = ("events", *_FOLDERS, *_FILES)
    held = [name for name in data if name != DELIVERIES and _is_there(data_dir / name)]
    if held:
        raise UserError(
            f"{data_dir} holds data ({', '.join(held)}): move it away, or name another folder"
            " with --data-dir"
        )
    staging = make_folder(data_dir / ".restore")
    names = sorted(document["files"])
    for done, name in enumerate(names):
        progress("restoring", done, len(names))
        if _copy(source / name, staging / name) != document["files"][name]["sha256"]:
            raise ArtifactError(f"{source / name} changed while it was read")
    if known:
        merge_erasures(staging / ERASURES, known)
        scrub_forgotten(staging, progress)
    for folder in ("events", *_FOLDERS, *_FILES, ERASURES):
        if (staging / folder).exists():
            if (data_dir / folder).is_dir():
                shutil.rmtree(data_dir / folder)
            (staging / folder).replace(data_dir / folder)
    shutil.rmtree(staging)
    sync_folder(data_dir)
    progress("restoring", len(names), len(names))
    return _summary(document)


def _erasures_of(source: Path, erasures: Path | None) -> list[dict[str, Any]]:
    """Return who was erased, as far as the backup and a file of the lost folder know."""
    known = read_erasures(source / ERASURES)
    if erasures is None:
        return known
    more = read_erasures(erasures)
    if not more:
        raise UserError(f"{erasures} is no file of erasures: it names nobody")
    return known + more


def _kept(data_dir: Path, log: EventLog) -> Iterator[str]:
    """Name what a backup holds, relative to the data directory."""
    for path in log.files():
        yield str(path.relative_to(data_dir))
    for name in _FOLDERS:
        for folder, folders, files in os.walk(data_dir / name):
            # Half-written artifacts and locks are nobody's.
            folders[:] = [one for one in folders if not one.startswith(".")]
            for file in files:
                if not file.startswith("."):
                    yield str((Path(folder) / file).relative_to(data_dir))
    for name in _FILES:
        if (data_dir / name).is_file():
            yield name


def _copy(source: Path, target: Path) -> str:
    """Copy a file with its mode, make it durable, and return the SHA-256 of what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    sync_file(target)
    return sha256_of(target)


def _is_there(path: Path) -> bool:
    """Tell whether a path holds data; locks are none."""
    if path.is_dir():
        return any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*"))
    return path.exists()


def _checked(source: Path, progress: Progress) -> dict[str, Any]:
    try:
        document: dict[str, Any] = orjson.loads((source / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ArtifactError(f"{source} is not a whole backup: its manifest: {error}") from error
    if document.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"{source} is a backup of an unknown format")
    for done, (name, facts) in enumerate(document["files"].items()):
        progress("checking", done, len(document["files"]))
        path = source / name
        if not path.is_file() or sha256_of(path) != facts["sha256"]:
            raise ArtifactError(
                f"the backup is damaged: {path} is missing or altered; nothing was restored"
            )
    progress("checking", len(document["files"]), len(document["files"]))
    return document


def _summary(document: dict[str, Any]) -> Backup:
    files = document["files"]
    n_bytes = sum(facts["bytes"] for facts in files.values())
    return Backup(document["created_at"], len(files), n_bytes, document["n_events"])
