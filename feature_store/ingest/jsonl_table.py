"""Files with one JSON object a line."""

from collections.abc import Iterator, Sequence, Set
from typing import Any, BinaryIO

import numpy as np
import orjson

from feature_store.errors import UserError
from feature_store.ingest.table import Batch, EmptyFileError, Reject, text_frame

CHUNK_BYTES = 8 << 20
_DEEPEST = 4


class JsonlTable:
    """A JSON-lines file; an object within the object is reached as ``outer.inner``.

    The columns are the keys that occur in the first 8 MiB.

    Parameters
    ----------
    file : binary file
        Read once, front to back.
    name : str
        What messages call it.
    whole : set of str
        Objects of these names stay whole, as JSON with the types that their values have.
    chunk_bytes : int
        How much is read at a time.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        whole: Set[str] = frozenset({"attributes"}),
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.name = name
        self._whole = whole
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._first = file.readlines(chunk_bytes)
        if not any(line.strip() for line in self._first):
            raise EmptyFileError(f"{name} is empty")
        found: dict[str, None] = {}
        for line in self._first:
            row, _ = _read(line, self._whole)
            found.update(dict.fromkeys(row or ()))
        if not found:
            raise UserError(f"{name} holds no JSON object in a line of its own; see --format")
        self.columns = list(found)

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read all rows as text: numbers as written, lists as JSON, a missing key as null."""
        line = 1
        lines = self._first
        while lines:
            yield self._batch(lines, line, wanted)
            line += len(lines)
            lines = self._file.readlines(self._chunk_bytes)

    def _batch(self, lines: list[bytes], first_line: int, wanted: Sequence[str]) -> Batch:
        columns: dict[str, list[str | None]] = {name: [] for name in wanted}
        numbers: list[int] = []
        rejects: list[Reject] = []
        for number, line in enumerate(lines, start=first_line):
            if not line.strip():
                continue
            row, error = _read(line, self._whole)
            if row is None:
                reason = "wrong_encoding" if error.startswith("not UTF-8") else "broken_line"
                rejects.append(Reject(self.name, number, reason, error))
                continue
            numbers.append(number)
            for name, values in columns.items():
                values.append(row.get(name))
        n_bytes = sum(map(len, lines))
        return Batch(
            self.name, text_frame(columns), np.array(numbers, dtype=np.int64), rejects, n_bytes
        )


def _read(line: bytes, whole: Set[str]) -> tuple[dict[str, str | None] | None, str]:
    """Return the flat object of a line, or ``None`` and why there is none."""
    try:
        value = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError:
            return None, f"not UTF-8: {line[:60]!r}"
        return None, f"not JSON: {error}"
    if not isinstance(value, dict):
        return None, "not a JSON object"
    flat: dict[str, str | None] = {}
    _flatten("", value, flat, _DEEPEST, whole)
    return flat, ""


def _flatten(
    prefix: str, value: dict[str, Any], flat: dict[str, str | None], depth: int, whole: Set[str]
) -> None:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner and depth > 1 and prefix + key not in whole:
            _flatten(f"{prefix}{key}.", inner, flat, depth - 1, whole)
        elif isinstance(inner, str):
            flat[prefix + key] = inner or None
        elif inner is None:
            flat[prefix + key] = None
        else:
            # 12 -> "12", 1.5 -> "1.5", true -> "true", lists stay JSON.
            flat[prefix + key] = orjson.dumps(inner).decode()
