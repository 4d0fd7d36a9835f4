"""Counts of what a pass removes from files that a kill in the middle does not make too low.

What will be removed from a file is written down before it is, under the file's name; a pass that
begins again reads it. What it finds again in the same file was not removed yet, or has come since:
of each kind the larger number counts.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

_NAME = "erasing.jsonl"


class Counting:
    """The counts of one pass over a data directory, and of those before that were killed.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept; hold ``EventLog.importing()``.
    erasure_of : mapping of str to str
        The erasure of each person: what is written down names nobody.
    """

    def __init__(self, data_dir: Path, erasure_of: Mapping[str, str]) -> None:
        self._path = data_dir / "imports" / _NAME
        self._erasure_of = erasure_of
        self._found: dict[str, dict[str, dict[str, int]]] = {}
        with suppress(FileNotFoundError):
            for line in self._path.read_bytes().splitlines():
                with suppress(orjson.JSONDecodeError):  # cut off, and so nothing was removed
                    document = orjson.loads(line)
                    self._note(document["step"], document["counts"])

    def will_remove(self, step: str, counts: Mapping[tuple[str, str], int]) -> None:
        """Write down what is about to be removed; call it before.

        Parameters
        ----------
        step : str
            Where from: the same name for the same file.
        counts : mapping of (str, str) to int
            How many of each kind of each person.
        """
        mine: dict[str, dict[str, int]] = {}
        for (kind, person), count in counts.items():
            if erasure_id := self._erasure_of.get(person):
                kinds = mine.setdefault(erasure_id, {})
                kinds[kind] = kinds.get(kind, 0) + count
        if mine:
            self._note(step, mine)
            line = orjson.dumps({"step": step, "counts": mine})
            with self._path.open("ab") as file:
                # The rest of a line that a kill cut off must not take this one with it.
                file.write(b"\n" + line + b"\n")

    def _note(self, step: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        known = self._found.setdefault(step, {})
        for erasure_id, kinds in counts.items():
            largest = known.setdefault(erasure_id, {})
            for kind, count in kinds.items():
                largest[kind] = max(count, largest.get(kind, 0))

    def of(self, erasure_id: str) -> Counter[str]:
        """Return what was removed for an erasure, by kind."""
        total: Counter[str] = Counter()
        for counts in self._found.values():
            total.update(counts.get(erasure_id, {}))
        return total

    def close(self) -> None:
        """Forget the counts: they are noted elsewhere."""
        self._path.unlink(missing_ok=True)
