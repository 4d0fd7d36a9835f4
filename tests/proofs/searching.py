"""Where in files, and on a server, one of some strings stands: as it is, or written otherwise.

It shares no code with what wrote the data. Every file is searched as it is and after undoing what
could hide a string: gzip, zstd and lz4, Parquet, ``\\u`` escapes of JSON, percent-encoding. A dump
of the server may hold strings compressed; a server of our own loads a copy of it and is searched in
its stead.
"""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq
import redis

from feature_store.embedded import server_binary

MIN_COMMON = 4
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?")
_SIMPLE = re.compile(rb"\\([\"\\/])")
_PART = 8 << 20


class Place(NamedTuple):
    """Where a string stands."""

    needle: str
    where: str


class Needles:
    """Strings that are looked for, of which there may be thousands.

    Parameters
    ----------
    strings : iterable of str
        If all begin with the same four characters or more, thousands cost no more than one.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self.strings = {text.encode("utf-8", "surrogatepass"): text for text in strings}
        known = list(self.strings)
        common = _common_prefix(known)
        self._common = common if len(known) > 1 and len(common) >= MIN_COMMON else None
        self._lengths = sorted({len(one) for one in known}, reverse=True)
        self.longest = max(map(len, known), default=1)

    def plain(self, data: bytes) -> set[str]:
        """Return those that stand in some bytes as they are."""
        if self._common is None:
            return {text for one, text in self.strings.items() if one in data}
        found, at = set(), data.find(self._common)
        while at >= 0:
            for length in self._lengths:
                text = self.strings.get(data[at : at + length])
                if text is not None:
                    found.add(text)
            at = data.find(self._common, at + 1)
        return found

    def written(self, data: bytes) -> set[str]:
        """Return those that stand in some bytes in any way of writing them."""
        found = self.plain(data)
        if b"\\" in data:
            found |= self.plain(unescaped(data))
        if b"%" in data:
            found |= self.plain(unquote_to_bytes(data))
            found |= self.plain(unquote_to_bytes(data.replace(b"+", b" ")))
        return found


def _common_prefix(known: list[bytes]) -> bytes:
    first, last = min(known, default=b""), max(known, default=b"")
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


def unescaped(data: bytes) -> bytes:
    """Undo the escapes of JSON, wherever they stand."""

    def character(match: "re.Match[bytes]") -> bytes:
        high, low = match.group(1), match.group(2)
        units = high if low is None else high + low
        text = bytes.fromhex(units.decode()).decode("utf-16-be", "surrogatepass")
        return text.encode("utf-8", "surrogatepass")

    return _SIMPLE.sub(rb"\1", _ESCAPE.sub(character, data))


def search_folder(folder: Path, needles: Needles) -> list[Place]:
    """Search the names and the contents of every file under a folder.

    Dumps of a Valkey or Redis server (``*.rdb``) are loaded by a server of our own too.
    """
    found: list[Place] = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found += (Place(text, f"name of {name}") for text in needles.written(name.encode()))
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                found += (Place(text, name) for text in search_file(path, needles))
    return found


def search_file(path: Path, needles: Needles) -> set[str]:
    """Search one file in every way that its content allows."""
    found = _search_stream(lambda: path.open("rb"), needles)
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        found |= _search_parquet(path, needles)
    elif head.startswith(b"\x1f\x8b"):
        found |= _search_stream(lambda: pa.input_stream(path, compression="gzip"), needles)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        found |= _search_stream(lambda: pa.input_stream(path, compression="zstd"), needles)
    elif head.startswith(b"\x04\x22\x4d\x18"):
        found |= _search_stream(lambda: pa.input_stream(path, compression="lz4"), needles)
    elif head.startswith((b"REDIS", b"VALKEY")):
        found |= {place.needle for place in _search_dump(path, needles)}
    return found


def _search_stream(opened: Callable[[], Any], needles: Needles) -> set[str]:
    """Search a stream; what stands on the border of two parts is whole in the next."""
    found: set[str] = set()
    # Escaped, a string may be six times as long, percent-encoded three times.
    overlap = 6 * needles.longest
    with opened() as stream:
        rest = b""
        while part := stream.read(_PART):
            data = rest + part
            found |= needles.written(data)
            rest = data[-overlap:]
    return found


def _search_parquet(path: Path, needles: Needles) -> set[str]:
    """Search every column that may hold text, and what the file says of itself."""
    found: set[str] = set()
    with pq.ParquetFile(path) as file:
        for name, value in (file.schema_arrow.metadata or {}).items():
            found |= needles.written(name + b"\n" + value)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            for column in table.columns:
                for text in _texts(column):
                    found |= needles.written(text)
    return found


def _texts(column: Any) -> Iterator[bytes]:
    """Yield the values of a column of text, of lists or of structs of it, some thousands at once.

    Numbers, times and truth hold no string.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pa.chunked_array(
            [chunk.dictionary_decode() for chunk in column.chunks], kind.value_type
        )
        kind = kind.value_type
    if pa.types.is_primitive(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind):
        return
    for at in range(0, len(column), 10_000):
        parts = []
        for value in column.slice(at, 10_000).to_pylist():
            if isinstance(value, str):
                parts.append(value.encode("utf-8", "surrogatepass"))
            elif isinstance(value, bytes):
                parts.append(value)
            elif value is not None:
                parts.append(repr(value).encode("utf-8", "surrogatepass"))
        yield b"\n".join(parts)


def _search_dump(path: Path, needles: Needles) -> list[Place]:
    """Load a dump of a server into one of our own, and search that."""
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        shutil.copyfile(path, Path(folder) / "dump.rdb")
        address = Path(folder) / "s"
        settings = ("port 0", f"unixsocket {address}", f"dir {folder}", "appendonly no", 'save ""')
        arguments = [part for one in settings for part in f"--{one}".replace('""', "").split(" ")]
        process = subprocess.Popen([server_binary(), *arguments], stdout=subprocess.DEVNULL)
        try:
            _wait_for(address, process)
            return search_server(redis.Redis(unix_socket_path=str(address)), needles)
        finally:
            process.kill()
            process.wait()


def _wait_for(address: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise AssertionError("the server does not load the dump")
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address))
            connection.sendall(b"PING\r\n")
            if connection.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.01)
    raise AssertionError("the server does not answer")


def search_server(client: Any, needles: Needles) -> list[Place]:
    """Search the name and the value of every key of a server, in all its databases.

    Parameters
    ----------
    client : redis.Redis
        A client of redis-py without decoding, for the first database.
    needles : Needles
        What is looked for.
    """
    found: list[Place] = []
    for key, value in keys_and_values(client):
        name = key.decode("utf-8", "replace")
        found += (Place(text, f"key {name}") for text in needles.written(key))
        found += (Place(text, f"value of {name}") for text in needles.written(value))
    for number, facts in client.info("keyspace").items():
        if number != "db0" and facts["keys"]:
            raise AssertionError(f"there are keys in {number}, which are not searched")
    return found


def keys_and_values(client: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key of a server with all that its value holds, whatever its type."""
    names: list[bytes] = sorted(set(client.scan_iter(count=1000)))
    for start in range(0, len(names), 500):
        few = names[start : start + 500]
        with client.pipeline(transaction=False) as pipeline:
            for name in few:
                pipeline.type(name)
            kinds = pipeline.execute()
            for name, kind in zip(few, kinds, strict=True):
                if kind != b"none":
                    _READS[kind](pipeline, name)
            values = pipeline.execute()
        present = [name for name, kind in zip(few, kinds, strict=True) if kind != b"none"]
        for name, value in zip(present, values, strict=True):
            yield name, b"\n".join(_flat(value))


_READS: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda pipeline, name: pipeline.get(name),
    b"hash": lambda pipeline, name: pipeline.hgetall(name),
    b"set": lambda pipeline, name: pipeline.smembers(name),
    b"zset": lambda pipeline, name: pipeline.zrange(name, 0, -1, withscores=True),
    b"list": lambda pipeline, name: pipeline.lrange(name, 0, -1),
    b"stream": lambda pipeline, name: pipeline.xrange(name),
}


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _flat(name)
            yield from _flat(one)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, str):
        yield value.encode()
