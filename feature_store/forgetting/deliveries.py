"""Files with people in them that were written outside the data directory, and what they are told.

Nobody can erase somebody from a file that was handed out. So each is registered when it is written:
the receipt of an erasure names it, and a backup that can still be reached is told who was erased
since, so that it does not bring them back (``erasures.jsonl`` beside its manifest).
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from feature_store.change_log import ChangeLog
from feature_store.files import locked, sync_file, sync_folder, write_atomically
from feature_store.forgetting.ledger import KIND, Ledger, ledger_of, read_ledger
from feature_store.people import NAME as PEOPLE
from feature_store.schema import format_time

ERASURES = "erasures.jsonl"
"""Who was erased, by digests alone: in the data directory, and beside the manifest of a backup."""
DELIVERIES = "deliveries.jsonl"
Entry = Mapping[str, Any]
Kind = Literal["backup", "rejects", "export"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One file, or folder, outside the data directory.

    Parameters
    ----------
    path : str
        Where it was written.
    kind : {"backup", "rejects", "export"}
        What it is.
    at : str
        When it was written, RFC 3339.
    """

    path: str
    kind: Kind
    at: str


class Deliveries:
    """The register of a data directory.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.path = data_dir / DELIVERIES

    def add(self, path: Path, kind: Kind, now: datetime, about: str | None = None) -> None:
        """Register a file; one below ``imports/`` is not outside, for erasures look there.

        Parameters
        ----------
        path : Path
            Where it was written.
        kind : {"backup", "rejects", "export"}
            What it is.
        now : datetime
            What the time is.
        about : str or None
            The one user whom it is about: receipts name nobody, not in the name of a file either.
        """
        path = path.absolute()
        if about:
            path = path.with_name(path.name.replace(about, "(user)"))
        if kind == "rejects" and path.is_relative_to((self._data_dir / "imports").absolute()):
            return
        _append(self.path, [asdict(Delivery(str(path), kind, format_time(now)))])

    def all(self) -> list[Delivery]:
        """Return all of them, oldest first."""
        return [Delivery(**document) for document in _read(self.path)]

    def tell_backups(self) -> dict[str, bool]:
        """Write down beside every backup's manifest who was erased.

        Returns
        -------
        dict of str to bool
            Folder of each backup, and whether it could be reached.
        """
        folders = dict.fromkeys(one.path for one in self.all() if one.kind == "backup")
        entries = read_erasures(self._data_dir / ERASURES)
        return {folder: _tell(Path(folder), entries) for folder in folders}


def _tell(folder: Path, entries: Sequence[Entry]) -> bool:
    if not (folder / "manifest.json").is_file():
        return False
    try:
        merge_erasures(folder / ERASURES, entries)
    except OSError:
        return False
    return True


# --- who was erased -------------------------------------------------------------------------------


def add_erasures(data_dir: Path, entries: Sequence[Entry]) -> None:
    """Write down that some people were erased; it is on the disk when this returns.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    entries : sequence of mapping
        As they stand among the changes of people (``forgotten``).
    """
    _append(data_dir / ERASURES, entries)


def read_erasures(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of erasures; none if it is not there."""
    return [entry for entry in _read(path) if entry.get("kind") == KIND]


def merge_erasures(path: Path, entries: Iterable[Entry]) -> None:
    """Add what a file of erasures does not say yet."""
    known = read_erasures(path)
    missing = missing_erasures(known, entries)
    if missing:
        lines = b"".join(orjson.dumps(one) + b"\n" for one in [*known, *missing])
        write_atomically(path, lines)


def missing_erasures(known: Iterable[Entry], entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that say more than those that are known."""
    cuts, entries = ledger_of(known).cuts, list(entries)
    missing = set()
    for person, cut in ledger_of(entries).cuts.items():
        before = cuts.get(person)
        if before is None or before.later(cut) != before:
            missing.add(person)
    # Of several entries of one person all are kept: together they say what the last one says.
    return [entry for entry in entries if entry["person"] in missing]


def adopt_erasures(data_dir: Path) -> Ledger:
    """Bring what only the file of erasures knows into the change log; return who is forgotten.

    Whatever is rebuilt from the archive then knows it, too.
    """
    changes = ChangeLog(data_dir)
    known = [one.body for one in changes.read(PEOPLE) if one.body["kind"] == KIND]
    missing = missing_erasures(known, read_erasures(data_dir / ERASURES))
    if missing:
        # After all that is there: whatever the archive has of these people was written before.
        ids = [f"{entry['body']['erased_ms']}-{at}-0" for at, entry in enumerate(missing)]
        changes.write(PEOPLE, secrets.token_hex(8), ids, [dict(entry) for entry in missing])
    return read_ledger(changes)


def _append(path: Path, documents: Iterable[Entry]) -> None:
    lines = b"".join(orjson.dumps(one) + b"\n" for one in documents)
    with locked(path.with_name(f".{path.name}.lock")):
        fresh = not path.exists()
        with path.open("ab") as file:
            # A line that a kill cut off must not take this one with it.
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write(b"\n")
            file.write(lines)
        sync_file(path)
        if fresh:
            sync_folder(path.parent)


def _read(path: Path) -> list[dict[str, Any]]:
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with suppress(orjson.JSONDecodeError):
                found.append(orjson.loads(line))
    return found
