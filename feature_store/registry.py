"""Which model serves, which served before, and whether a person has said "hold"."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store.artifact import MANIFEST, ModelArtifact, read_manifest
from feature_store.errors import ArtifactError, ConflictError, NotFoundError
from feature_store.files import locked, make_folder, write_json
from feature_store.schema import format_time

HISTORY_LENGTH = 200


class ModelRegistry:
    """The models folder and the one small file that says which of them serves.

    The file is replaced in one step under a lock, so that every reader sees the old choice or the
    new, and workers notice a change by looking at the file.

    Parameters
    ----------
    models_dir : Path
        Folder that holds all models; created when missing.
    """

    def __init__(self, models_dir: Path) -> None:
        self.models_dir = make_folder(models_dir)
        self.path = models_dir / "registry.json"

    def read(self) -> dict[str, Any]:
        """Return the registry's document.

        ``current`` serves, ``before`` are those that a roll-back goes back through, ``held`` says
        whether publishing waits, and ``history`` is ``[{at, action, version}]``, newest last.
        """
        try:
            document: dict[str, Any] = orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {"current": None, "before": [], "held": False, "history": []}
        except (OSError, orjson.JSONDecodeError) as error:
            raise ArtifactError(f"{self.path} cannot be read: {error}") from error
        return document

    def stamp(self) -> tuple[int, int]:
        """Return a value that changes whenever the choice changes, at the cost of one ``stat``."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)

    def versions(self) -> list[str]:
        """Return the versions that exist whole, oldest first."""
        return sorted(
            folder.name
            for folder in self.models_dir.iterdir()
            if not folder.name.startswith(".") and (folder / MANIFEST).is_file()
        )

    def manifest(self, version: str) -> dict[str, Any]:
        """Return the manifest of one model.

        Raises
        ------
        NotFoundError
            If there is no such model.
        """
        if version not in self.versions():
            known = ", ".join(self.versions()[-3:]) or "none yet"
            raise NotFoundError(f"there is no model {version!r}; the newest are: {known}")
        return read_manifest(self.models_dir / version)

    def current(self) -> str | None:
        """Return the version that should serve, or ``None`` before the first."""
        version: str | None = self.read()["current"]
        return version

    def load(self, version: str, *, verify: bool = True) -> ModelArtifact:
        """Open a model."""
        self.manifest(version)
        return ModelArtifact(self.models_dir / version, verify=verify)

    def publish(self, version: str, now: datetime) -> None:
        """Let a freshly trained model serve.

        Raises
        ------
        ConflictError
            If publishing is on hold since a rollback.
        """
        with self._changing() as document:
            if document["held"]:
                raise ConflictError(
                    f"publishing is on hold: {version} was trained but does not serve;"
                    " `recsvc models resume`, then `recsvc models promote` it"
                )
            self._choose(document, version, "publish", now)

    def promote(self, version: str, now: datetime) -> None:
        """Let a model serve because a person says so; a damaged one is refused."""
        self.load(version)
        with self._changing() as document:
            self._choose(document, version, "promote", now)

    def rollback(self, now: datetime) -> str:
        """Let the model serve that served before, and hold automatic publishing.

        Returns
        -------
        str
            The version that serves now.

        Raises
        ------
        NotFoundError
            If no earlier model is left.
        """
        with self._changing() as document:
            existing = set(self.versions())
            before = [version for version in document["before"] if version in existing]
            if not before:
                raise NotFoundError("there is no earlier model to roll back to")
            self.load(before[-1])
            document["before"] = before[:-1]
            document["held"] = True
            document["current"] = before[-1]
            self._note(document, "rollback", before[-1], now)
            return str(before[-1])

    def set_hold(self, held: bool, now: datetime) -> None:
        """Stop or resume automatic publishing."""
        with self._changing() as document:
            document["held"] = held
            self._note(document, "hold" if held else "resume", document["current"], now)

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` models and the one that serves."""
        with locked(self.models_dir / ".lock"):
            current = self.read()["current"]
            old = [version for version in self.versions()[:-keep] if version != current]
            for version in old:
                shutil.rmtree(self.models_dir / version, ignore_errors=True)
            return old

    def _choose(self, document: dict[str, Any], version: str, action: str, now: datetime) -> None:
        if document["current"] not in (None, version):
            document["before"] = [*document["before"], document["current"]][-HISTORY_LENGTH:]
        document["current"] = version
        self._note(document, action, version, now)

    def _note(
        self, document: dict[str, Any], action: str, version: str | None, now: datetime
    ) -> None:
        entry = {"at": format_time(now), "action": action, "version": version}
        document["history"] = [*document["history"], entry][-HISTORY_LENGTH:]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        with locked(self.models_dir / ".lock"):
            document = self.read()
            yield document
            write_json(self.path, document)
