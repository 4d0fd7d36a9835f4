"""The pass that takes the people of all waiting erasures out of the files.

A pass may be killed at any moment: each step is the same again, and the jobs name their people
until all files are done. After that a job waits only for the server's own files, and names nobody.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import orjson

from feature_store.archiver import Archiver
from feature_store.child import run_child
from feature_store.decision_log import DecisionLog
from feature_store.errors import ConflictError, RecsvcError
from feature_store.event_log import EventLog
from feature_store.forgetting.deliveries import Deliveries
from feature_store.forgetting.erasures import Job
from feature_store.forgetting.scrubbing import merged_visitors, scrub
from feature_store.ingest.table import Progress, silent
from feature_store.store import Store

LOCK_WAIT_S = 15.0
SETTLE_S = 2.0
"""Answers that were under way when their person was erased are recorded by then, and every worker
has seen the job, for each looks once a second."""
ABANDONED_S = 30.0
"""Whoever asked for an erasure and has not told the server to forget by then, was killed."""
CLOSE_WAIT_S = 10.0
_LOOK_EVERY_S = 0.05


async def work(store: Store, data_dir: Path, progress: Progress = silent) -> list[str]:
    """Finish all erasures that wait.

    Parameters
    ----------
    store : Store
        Knows the jobs.
    data_dir : Path
        Folder of everything that is kept.
    progress : Progress
        Is told how far it is.

    Returns
    -------
    list of str
        Ids of the erasures that are done.

    Raises
    ------
    ConflictError
        If an import, a backup or a rebuild is at work, or a worker still writes to a file from
        before; they go on the next time.
    StoreUnavailableError
        If the server does not answer.
    OSError
        If a file cannot be read or written.
    """
    jobs = [job for job in await store.erasures.jobs() if _is_ready(job)]
    # While a rebuild is not finished the archive takes nothing.
    if not jobs or await store.streams.epoch() is None:
        return []
    waiting = [job for job in jobs if job.stage != "server_files"]
    try:
        if waiting:
            await _clear_files(store, data_dir, waiting, progress)
    except (RecsvcError, OSError) as error:
        await store.erasures.fail({job.erasure_id for job in waiting}, str(error))
        raise
    # What names people stands in the server's files until they are written anew. Those that another
    # pass clears meanwhile are not finished by this one.
    cleared = [job for job in await store.erasures.jobs() if job.stage == "server_files"]
    told = await asyncio.to_thread(Deliveries(data_dir).tell_backups)
    progress("server files", 0, 0)
    outcome = await store.erasures.rewrite_files()
    for job in cleared:
        receipt = await store.erasures.receipt(job.erasure_id) or {}
        backups = [
            one | {"told": told.get(one["path"], False)} for one in receipt.get("backups", ())
        ]
        await store.erasures.finish(job, {"server_files": outcome, "backups": backups})
    progress("server files", 1, 1)
    return [job.erasure_id for job in cleared]


def _is_ready(job: Job) -> bool:
    asked_s = datetime.fromisoformat(job.requested_at).timestamp()
    return job.stage != "server" or time.time() - asked_s > ABANDONED_S


async def _clear_files(
    store: Store, data_dir: Path, jobs: Sequence[Job], progress: Progress
) -> None:
    log = EventLog(data_dir)
    with log.importing(LOCK_WAIT_S):
        jobs = [await _forgotten(store, job, data_dir) for job in jobs]
        await _settle(max(job.at_ms for job in jobs))
        jobs = await _with_visitors(store, data_dir, jobs)
        erased_at = await _times(store, jobs)
        await store.forgetting.forget_streams(erased_at)
        await store.forgetting.forget_markers(erased_at)
        for person in erased_at:
            await store.forgetting.leave_journal(person)
        # Events of others may name an erased visitor, which only the files are searched for.
        await Archiver(store.streams, log).run_held()
        await _close_decisions(data_dir)
        counts = await asyncio.to_thread(_scrub, data_dir, erased_at, progress)
    for job in jobs:
        mine: Counter[str] = Counter()
        for (kind, person), count in counts.items():
            if person in job.people:
                mine[kind] += count
        done = replace(job.with_counts(mine), people=(), stage="server_files", error=None)
        await store.erasures.update(done)


def _scrub(
    data_dir: Path, times: Mapping[str, int], progress: Progress
) -> Counter[tuple[str, str]]:
    def erased_at(person: str) -> int:
        return times.get(person, 0)

    return scrub(data_dir, erased_at, progress)


async def _forgotten(store: Store, job: Job, data_dir: Path) -> Job:
    """Return a job of which the server has forgotten everybody."""
    return await store.erasures.erase(job, data_dir) if job.stage == "server" else job


async def _settle(at_ms: int) -> None:
    await asyncio.sleep(max(0.0, min(SETTLE_S, at_ms / 1000 + SETTLE_S - time.time())))


async def _with_visitors(store: Store, data_dir: Path, jobs: Sequence[Job]) -> list[Job]:
    """Add visitors of whom only the log still knows that they had become one of the people."""
    times = await _times(store, jobs)
    users = merged_visitors(data_dir, lambda person: times.get(person, 0))
    found = []
    for job in jobs:
        missing = [one for one, user in users.items() if user in job.people and one not in times]
        if missing:
            # Erased with their own time: what they do from now on is somebody new's.
            more = await store.erasures.erase(replace(job, people=tuple(missing)), data_dir)
            job = replace(more, people=(*job.people, *more.people))  # noqa: PLW2901
            await store.erasures.update(job)
        found.append(job)
    return found


async def _times(store: Store, jobs: Sequence[Job]) -> dict[str, int]:
    """Return when each of the people was erased, in milliseconds since 1970."""
    people = list(dict.fromkeys(person for job in jobs for person in job.people))
    guards = await store.forgetting.guards(people)
    return {one: guard.cut.erased_ms for one, guard in zip(people, guards, strict=True)}


async def _close_decisions(data_dir: Path) -> None:
    """Wait until no worker writes any more to a file that it had open.

    Raises
    ------
    ConflictError
        If one does.
    """
    log = DecisionLog(data_dir / "decisions")
    asked = log.ask_to_close()
    deadline_s = time.monotonic() + CLOSE_WAIT_S
    while asked := log.still_open(asked):
        if time.monotonic() > deadline_s:
            raise ConflictError(f"a worker still writes to decisions/live/{asked[0].name}")
        await asyncio.sleep(_LOOK_EVERY_S)


# --- in a process of its own ----------------------------------------------------------------------


async def work_apart(url: str, data_dir: Path) -> int:
    """Do what `work` does in another process, for a worker has pages to answer.

    Returns
    -------
    int
        How many erasures are done.

    Raises
    ------
    ConflictError
        If they could not be done now.
    """
    asked = {"url": url, "data_dir": str(data_dir)}
    return int(await run_child("feature_store.forgetting.erasing", asked))


async def _work(url: str, data_dir: Path) -> int:
    store = await Store.open(url)
    try:
        return len(await work(store, data_dir))
    finally:
        await store.close()


def main() -> int:
    """Read the question from standard input, and write how many erasures are done."""
    asked = orjson.loads(sys.stdin.buffer.read())
    try:
        done = asyncio.run(_work(asked["url"], Path(asked["data_dir"])))
    except (RecsvcError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(str(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
