"""The data directories of a site, and which of them an erasure has been cleared from.

All workers may share one, or each machine may have its own: with records of answers, and whatever
of the archive was written there. A worker says once a second that its folder is there. An erasure
is not done before every folder that is there has confirmed that its files were searched; a folder
that is away does it when it is back, because it knows up to when it was cleared (``mark``).
"""

import os
import secrets
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import StoreUnavailableError
from feature_store.files import write_atomically

LIVE_S = 30.0
"""A folder of which nobody has spoken for so long is away."""
FORGET_AFTER_S = 30 * 86_400
_NAME = "folder.id"
_MARK = "erased.mark"
_LEADING = "leading"

_ANNOUNCE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], now_ms .. ' ' .. ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'leading', ARGV[1]) end
return now_ms
"""
"""Keys: folders. Arguments: the folder, its machine, and 1 if its worker leads, else ''."""


class Folder:
    """One data directory.

    Parameters
    ----------
    data_dir : Path
        Folder of everything that is kept.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.host = socket.gethostname()
        self.folder_id = self._identify()

    def _identify(self) -> str:
        """Return a name that is the same for all who share the folder, and no copy's."""
        path = self.data_dir / _NAME
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            partial = path.with_name(f".{_NAME}.{secrets.token_hex(4)}.partial")
            partial.write_text(secrets.token_hex(8))
            try:
                os.link(partial, path)
            except FileExistsError:
                pass  # another process was first
            finally:
                partial.unlink()
        return f"{path.read_text()}-{path.stat().st_ino:x}"

    def mark(self) -> "Mark":
        """Return who is gone from here."""
        try:
            document = orjson.loads((self.data_dir / _MARK).read_bytes())
        except FileNotFoundError:
            return Mark()
        # A copy of a folder has the mark of the other one.
        return Mark(**document["mark"]) if document["folder_id"] == self.folder_id else Mark()

    def cleared(self, until_ms: int, more: Mapping[str, int]) -> None:
        """Note that everybody who was erased until a time is gone from here, and some more.

        Parameters
        ----------
        until_ms : int
            In milliseconds since 1970.
        more : mapping of str to int
            When these were erased, by their digests.
        """
        mark = self.mark()
        until_ms = max(until_ms, mark.until_ms)
        later = {**mark.more, **more}
        later = {digest: at_ms for digest, at_ms in later.items() if at_ms > until_ms}
        if (until_ms, later) != (mark.until_ms, mark.more):
            document = {"folder_id": self.folder_id, "mark": asdict(Mark(until_ms, later))}
            write_atomically(self.data_dir / _MARK, orjson.dumps(document))


@dataclass(frozen=True, slots=True)
class Mark:
    """Who is gone from a folder: all who were erased until a time, and some who were later."""

    until_ms: int = 0
    more: dict[str, int] = field(default_factory=dict)

    def has(self, digest: str, erased_ms: int) -> bool:
        """Tell whether what was erased of somebody is gone."""
        return erased_ms <= self.until_ms or erased_ms <= self.more.get(digest, 0)


@dataclass(frozen=True, slots=True)
class Presence:
    """A folder as a worker spoke of it last."""

    folder_id: str
    host: str
    age_s: float

    @property
    def is_live(self) -> bool:
        """Whether somebody works with it."""
        return self.age_s < LIVE_S


@dataclass(frozen=True, slots=True)
class Present:
    """All folders of the site, and which of them is the leading worker's."""

    folders: tuple[Presence, ...]
    leading: str | None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """That the people of an erasure are gone from a folder.

    Parameters
    ----------
    people : int
        How many people the erasure had then; one that has more must be searched again.
    counts : dict of str to int
        What was removed, by kind.
    """

    people: int
    counts: dict[str, int]


Confirmations = dict[tuple[str, str], Confirmation]
"""What was confirmed, by erasure and folder."""


class Folders:
    """Knows the folders of the site.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._announce = redis.register_script(_ANNOUNCE)

    async def announce(self, folder: Folder, *, leading: bool = False) -> None:
        """Say that somebody works with a folder.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            arguments = [folder.folder_id, folder.host, "1" if leading else ""]
            await self._announce(keys=[keys.ERASURE_FOLDERS], args=arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the folder is not announced: {error}") from error

    async def all(self) -> Present:
        """Return the folders of which somebody has spoken within thirty days."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(keys.ERASURE_FOLDERS)
                pipeline.time()
                found, (seconds, micros) = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the folders cannot be read: {error}") from error
        leading = found.pop(_LEADING.encode(), None)
        present = []
        for name, value in found.items():
            at_ms, _, host = value.decode().partition(" ")
            age_s = seconds + micros / 1e6 - int(at_ms) / 1000
            if age_s < FORGET_AFTER_S:
                present.append(Presence(name.decode(), host, age_s))
        present.sort(key=lambda one: one.folder_id)
        return Present(tuple(present), None if leading is None else leading.decode())

    async def confirm(
        self, erasure_id: str, folder: Folder, people: int, counts: Mapping[str, int]
    ) -> None:
        """Say that the people of an erasure are gone from a folder."""
        value = orjson.dumps({"people": people, "counts": dict(counts)})
        name = f"{erasure_id} {folder.folder_id}"
        try:
            await self._redis.hset(keys.ERASURE_CLEARED, name, value)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasure is not noted: {error}") from error

    async def confirmations(self) -> Confirmations:
        """Return what was confirmed, by erasure and folder."""
        try:
            found = await self._redis.hgetall(keys.ERASURE_CLEARED)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasures cannot be read: {error}") from error
        said = {}
        for name, value in found.items():
            erasure_id, _, folder_id = name.decode().partition(" ")
            said[erasure_id, folder_id] = Confirmation(**orjson.loads(value))
        return said

    async def drop(self, erasure_ids: Collection[str]) -> None:
        """Forget the confirmations of erasures that are done."""
        said = await self.confirmations()
        names = [f"{one} {folder}" for one, folder in said if one in erasure_ids]
        if names:
            await self._redis.hdel(keys.ERASURE_CLEARED, *names)
