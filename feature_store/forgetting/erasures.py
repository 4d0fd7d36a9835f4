"""Erasures as jobs: what is asked for, what is left to do, and the receipts.

Whoever asks removes everything from the server at once, and stores the job. What is in files goes
in one pass for all jobs that wait (``erasing``). A job names people until the files are done; a
receipt names nobody, and is for ever.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import ConflictError, StoreUnavailableError
from feature_store.forgetting.deliveries import Deliveries, add_erasures
from feature_store.forgetting.server import Forgetting, forgotten_entry
from feature_store.forgetting.server_files import reset_logs, rewrite_files
from feature_store.schema import format_time

NAME = "forgotten"
"""Name of the receipts in the change log."""
Stage = Literal["server", "files", "server_files"]
"""What of a job is to be done next."""
NEXT_TRAINING = "next training"

_UPDATE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
_NOTE = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
else
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return 1
"""
"""Keys: receipts, their stream, jobs. Arguments: the erasure's id, the receipt, the change that
says so, and the job ('' if there is none any more)."""


@dataclass(frozen=True, slots=True)
class Job:
    """An erasure that is not finished.

    Parameters
    ----------
    erasure_id : str
        Its name: 128 random bits.
    requested_at : str
        When it was asked for, RFC 3339.
    by : str
        Who asked for it.
    people : tuple of str
        Who is erased (``schema.person_of``); nobody once the files are done.
    at_ms : int
        When the server forgot them, in milliseconds since 1970.
    counted : dict of str to dict of str to int
        What was removed, by kind, of each person on the server, and from each folder.
    stage : str
        What is to be done next.
    error : str or None
        Why the last try did not succeed.
    """

    erasure_id: str
    requested_at: str
    by: str
    people: tuple[str, ...]
    at_ms: int = 0
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    stage: Stage = "server"
    error: str | None = None

    @property
    def erased(self) -> dict[str, int]:
        """What was removed, by kind."""
        total: Counter[str] = Counter()
        for counts in self.counted.values():
            total.update(counts)
        return dict(total)

    def with_counts(self, where: str, counts: Mapping[str, int]) -> "Job":
        """Return the job with what is about to be removed somewhere.

        Whoever was killed in the middle begins again, and finds less: the larger number counts.
        """
        known = self.counted.get(where, {})
        largest = {one: max(known.get(one, 0), counts.get(one, 0)) for one in {*known, *counts}}
        return replace(self, counted={**self.counted, where: largest})


Receipt = dict[str, Any]


class Erasures:
    """Knows which erasures there are.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    forgetting : Forgetting
        Removes people from the server.
    """

    def __init__(self, redis: "Redis", forgetting: Forgetting) -> None:
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = redis
        self._forgetting = forgetting
        self._update = redis.register_script(_UPDATE)
        self._note = redis.register_script(_NOTE)

    async def request(self, person: str, by: str, data_dir: Path) -> Receipt:
        """Erase somebody: from the server now, from all files soon.

        Parameters
        ----------
        person : str
            Who (``schema.person_of``); whether there is such a person makes no difference.
        by : str
            Who asks for it.
        data_dir : Path
            Folder of everything that is kept.

        Returns
        -------
        dict
            The receipt, as it is now. The person is gone from the server, and whatever happens to
            the server will not be brought back by a rebuild.

        Raises
        ------
        ConflictError
            If it is a visitor who has signed in: only the user as a whole can be erased.
        StoreUnavailableError, OverloadedError
            If the server did not forget everything; if a job was stored, it goes on by itself.
        """
        now = datetime.now(UTC)
        job = Job(secrets.token_hex(16), format_time(now), by, (person,))
        receipt = await asyncio.to_thread(_begun, job, data_dir)
        await self._write(receipt, job)
        try:
            job = await self.erase(job, data_dir)
        except ConflictError as error:
            # Only now: who asked as a visitor has just signed in.
            await self.finish(job, {"error": str(error)})
            raise
        receipt["erased"] = job.erased
        return receipt

    async def erase(self, job: Job, data_dir: Path) -> Job:
        """Do the first part of a job: make the server forget; return the job as it is then."""
        people: dict[str, None] = {}
        asked = job.people

        async def count(one: str, counts: Mapping[str, int]) -> None:
            nonlocal job
            counted = job.with_counts(one, counts)
            if counted != job:
                job = counted
                await self.update(job)

        for person in asked:
            erased = await self._forgetting.erase(person, job.by, note=True, will_remove=count)
            people |= dict.fromkeys(erased.people)
            job = replace(job, at_ms=max(job.at_ms, erased.at_ms))
        job = replace(job, people=tuple(people), stage="files")
        entries = await self.entries(job)
        try:
            await asyncio.to_thread(add_erasures, data_dir, entries)
        except OSError as error:
            raise StoreUnavailableError(f"the erasure is not written down: {error}") from error
        await self.update(job)
        for person in asked:
            await self._forgetting.leave_journal(person)
        return job

    async def entries(self, job: Job) -> list[dict[str, Any]]:
        """Return what is written down of the people of a job: digests."""
        guards = await self._forgetting.guards(job.people)
        salt = self._forgetting.salts.all[0]
        return [
            forgotten_entry(guard.digests[0], guard.cut, salt, keys.shard_of(person), job.by)
            for person, guard in zip(job.people, guards, strict=True)
        ]

    async def ids(self) -> set[str]:
        """Return the names of the erasures that are not finished.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            return {one.decode() for one in await self._redis.hkeys(keys.ERASURE_JOBS)}
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasures cannot be read: {error}") from error

    async def jobs(self) -> list[Job]:
        """Return the erasures that are not finished, oldest first.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            found = await self._redis.hvals(keys.ERASURE_JOBS)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasures cannot be read: {error}") from error
        jobs = [_job(value) for value in found]
        return sorted(jobs, key=lambda job: (job.requested_at, job.erasure_id))

    async def fail(self, erasure_ids: Collection[str], error: str) -> None:
        """Note why some jobs are not done."""
        for job in await self.jobs():
            if job.erasure_id in erasure_ids:
                await self.update(replace(job, error=error))

    async def update(self, job: Job) -> None:
        """Store how far a job is, unless it is finished."""
        try:
            await self._update(keys=[keys.ERASURE_JOBS], args=[job.erasure_id, _packed(job)])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasure is not noted: {error}") from error

    async def finish(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """Store the receipt of a job that is done; the job is gone with the same step.

        Parameters
        ----------
        job : Job
            It names nobody any more.
        outcome : mapping
            More fields of the receipt.
        """
        receipt = await self._receipt(job.erasure_id)
        if receipt is not None:
            done = {"state": "done", "finished_at": format_time(datetime.now(UTC))}
            await self._write(receipt | {"erased": job.erased} | done | dict(outcome), None)

    async def receipt(self, erasure_id: str) -> Receipt | None:
        """Return the receipt of an erasure; ``None`` if there is no such erasure.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        try:
            receipt = await self._receipt(erasure_id)
            if receipt is None or receipt["state"] == "done":
                return receipt
            value = await self._redis.hget(keys.ERASURE_JOBS, erasure_id)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasure cannot be read: {error}") from error
        if value is None:  # it has just been finished
            return await self._receipt(erasure_id)
        job = _job(value)
        return receipt | {"erased": job.erased, "error": job.error}

    async def _receipt(self, erasure_id: str) -> Receipt | None:
        value = await self._redis.hget(keys.ERASURE_RECEIPTS, erasure_id)
        return None if value is None else orjson.loads(value)

    async def _write(self, receipt: Receipt, job: Job | None) -> None:
        value = orjson.dumps(receipt, option=orjson.OPT_SORT_KEYS)
        change = orjson.dumps({"receipt": receipt}, option=orjson.OPT_SORT_KEYS)
        names = [keys.ERASURE_RECEIPTS, keys.FORGOTTEN_CHANGES, keys.ERASURE_JOBS]
        packed = b"" if job is None else _packed(job)
        try:
            await self._note(keys=names, args=[receipt["erasure_id"], value, change, packed])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the erasure is not noted: {error}") from error

    async def rewrite_files(self) -> dict[str, str]:
        """Have the server write its files anew, and forget the commands that it remembers.

        Returns
        -------
        dict of str to str
            ``server_files`` and ``server_logs`` of a receipt.
        """
        return {
            "server_files": await rewrite_files(self._redis),
            "server_logs": await reset_logs(self._redis),
        }

    async def replay(self, changes: Iterable[Mapping[str, Any]]) -> int:
        """Teach an emptied server the receipts; return how many.

        Call it when the files of the data directory were scrubbed: what was asked for and not
        finished is done then, by other means.
        """
        newest = {change["receipt"]["erasure_id"]: change["receipt"] for change in changes}
        unfinished = [receipt for receipt in newest.values() if receipt["state"] != "done"]
        for erasure_id, receipt in newest.items():
            value = orjson.dumps(receipt, option=orjson.OPT_SORT_KEYS)
            await self._redis.hset(keys.ERASURE_RECEIPTS, erasure_id, value)
        # A server that was emptied, and not lost, still has the names in its files.
        outcome = await self.rewrite_files() if unfinished else {}
        for receipt in unfinished:
            done = {"state": "done", "finished_at": format_time(datetime.now(UTC))}
            await self._write(receipt | done | outcome, None)
        return len(newest)


def _begun(job: Job, data_dir: Path) -> Receipt:
    """Return the receipt of a job that has just been asked for."""
    delivered = Deliveries(data_dir).all()
    return {
        "erasure_id": job.erasure_id,
        "state": "erasing",
        "requested_at": job.requested_at,
        "finished_at": None,
        "erased": {},
        "model": NEXT_TRAINING,
        "delivered": [asdict(one) for one in delivered if one.kind != "backup"],
        "backups": [asdict(one) | {"told": False} for one in delivered if one.kind == "backup"],
        "server_files": None,
        "server_logs": None,
        "machines": [],
        "error": None,
    }


def _packed(job: Job) -> bytes:
    return orjson.dumps(asdict(job), option=orjson.OPT_SORT_KEYS)


def _job(value: bytes) -> Job:
    document = orjson.loads(value)
    return Job(**{**document, "people": tuple(document["people"])})
