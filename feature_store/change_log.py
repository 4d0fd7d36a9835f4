"""The archive of what changed without being an event: keys, site, people, catalogue.

One folder for each kind, in it JSON lines in files named by the server's epoch and the first and
last place in it. Writing a file again changes nothing, and a change that stands in two files counts
once, so a writer may be killed at any moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store.files import write_atomically
from feature_store.withheld_counts import NAME as WITHHELD
from feature_store.withheld_counts import summed

MAX_FILES = 32


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Parameters
    ----------
    epoch : str
        Memory of the server in which it happened.
    place : tuple of int
        Where it stands among the changes of its kind.
    body : dict
        What changed.
    """

    epoch: str
    place: tuple[int, ...]
    body: dict[str, Any]


class ChangeLog:
    """The changes under a data directory, in ``changes/``.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "changes"

    def write(self, name: str, epoch: str, ids: list[str], bodies: list[dict[str, Any]]) -> Path:
        """Add changes of one kind; they are durable when this returns.

        Parameters
        ----------
        name : str
            The kind.
        epoch : str
            Memory of the server that they are from.
        ids : list of str
            Their places, ``12`` or ``1700000000000-0``, ascending.
        bodies : list of dict
            What changed.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        path = self.folder / name / f"{stamp}-{epoch}-{ids[0]}.jsonl"
        lines = (
            {"epoch": epoch, "id": place, **body} for place, body in zip(ids, bodies, strict=True)
        )
        write_atomically(path, _as_lines(lines))
        self._merge(name)
        return path

    def read(self, name: str) -> list[Change]:
        """Return all changes of a kind in their order, each once."""
        found: dict[tuple[str, str], Change] = {}
        for path in self.files(name):
            for line in path.read_bytes().splitlines():
                body = orjson.loads(line)
                epoch, place = body.pop("epoch"), body.pop("id")
                parts = tuple(int(part) for part in place.split("-"))
                found.setdefault((epoch, place), Change(epoch, parts, body))
        # Epochs in the order in which the archive met them, which is how files are named.
        epochs = list(dict.fromkeys(change.epoch for change in found.values()))
        return sorted(found.values(), key=lambda one: (epochs.index(one.epoch), one.place))

    def files(self, name: str) -> list[Path]:
        """List the files of a kind, oldest first."""
        return sorted((self.folder / name).glob("*.jsonl"))

    def _merge(self, name: str) -> None:
        """Make one file of many: it takes the name of the first, and repeats count once.

        A file that is larger than all after it together stays as it is, so that a line is written
        again only as often as the log doubles.
        """
        files = self.files(name)
        if len(files) <= MAX_FILES:
            return
        sizes = [path.stat().st_size for path in files]
        first = 0
        while first < len(files) - 2 and sizes[first] > sum(sizes[first + 1 :]):
            first += 1
        content = b"".join(path.read_bytes() for path in files[first:])
        # Counts need not be kept one by one.
        write_atomically(files[first], summed(content) if name == WITHHELD else content)
        for path in files[first + 1 :]:
            path.unlink()


def _as_lines(documents: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(document) + b"\n" for document in documents)
