"""The pass that takes the people of all waiting erasures out of the files.

A pass may be killed at any moment: each step is the same again, and the jobs name their people
until all files are done. After that a job waits only for the server's own files, and names nobody.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import orjson

from feature_store.archiver import Archiver
from feature_store.child import run_child
from feature_store.decision_log import DecisionLog
from feature_store.errors import ConflictError, RecsvcError
from feature_store.event_log import EventLog
from feature_store.files import locked
from feature_store.forgetting.counting import Counting
from feature_store.forgetting.deliveries import Deliveries
from feature_store.forgetting.erasures import Job
from feature_store.forgetting.folders import Confirmations, Folder, Present
from feature_store.forgetting.ledger import Ledger, epoch_ms
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
_LOCK = "erasing.lock"


async def work(store: Store, data_dir: Path, progress: Progress = silent) -> list[str]:
    """Finish all erasures that wait, for whoever leads.

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
    folder = Folder(data_dir)
    await store.folders.announce(folder, leading=True)
    jobs = [job for job in await store.erasures.jobs() if _is_ready(job)]
    # While a rebuild is not finished the archive takes nothing.
    if not jobs or await store.streams.epoch() is None:
        return []
    said = await store.folders.confirmations()
    waiting = [
        job
        for job in jobs
        if job.stage != "server_files" and not _said(said, job, folder.folder_id)
    ]
    try:
        if waiting:
            await _clear(store, folder, waiting, progress, leading=True)
    except (RecsvcError, OSError) as error:
        await store.erasures.fail({job.erasure_id for job in waiting}, str(error))
        raise
    await _leave_files(store)
    # What names people stands in the server's files until they are written anew. Those that another
    # pass clears meanwhile are not finished by this one.
    cleared = [job for job in await store.erasures.jobs() if job.stage == "server_files"]
    if cleared:
        await _finish(store, data_dir, cleared, progress)
    return [job.erasure_id for job in cleared]


def _said(said: Confirmations, job: Job, folder_id: str) -> bool:
    one = said.get((job.erasure_id, folder_id))
    return one is not None and one.people == len(job.people)


def _missing(present: Present, said: Confirmations, job: Job) -> list[str]:
    """Return the machines of which the files are not searched yet."""
    live = [one for one in present.folders if one.is_live]
    return sorted(one.host for one in live if not _said(said, job, one.folder_id))


async def is_due(store: Store, folder: Folder) -> bool:
    """Tell whether there is anything to do for whoever leads but to wait for other machines."""
    jobs, said = await store.erasures.jobs(), await store.folders.confirmations()
    present = await store.folders.all()
    return any(
        job.stage != "files"
        or not _said(said, job, folder.folder_id)
        or not _missing(present, said, job)
        for job in jobs
    )


async def _leave_files(store: Store) -> None:
    """Let the jobs go on whose people are gone from every folder that is there."""
    present = await store.folders.all()
    said = await store.folders.confirmations()
    for job in await store.erasures.jobs():
        if job.stage != "files":
            continue
        if missing := _missing(present, said, job):
            error = f"not yet gone from the files of {', '.join(missing)}"
            await store.erasures.update(replace(job, error=error))
            continue
        for (erasure_id, folder_id), one in said.items():
            if erasure_id == job.erasure_id:
                job = job.with_counts(folder_id, one.counts)  # noqa: PLW2901
        # Of whom they are the counts need not say any more.
        counted = {"": job.erased}
        done = replace(job, counted=counted, people=(), stage="server_files", error=None)
        await store.erasures.update(done)


async def _finish(store: Store, data_dir: Path, jobs: Sequence[Job], progress: Progress) -> None:
    told = await asyncio.to_thread(Deliveries(data_dir).tell_backups)
    progress("server files", 0, 0)
    outcome = await store.erasures.rewrite_files()
    present = await store.folders.all()
    said = await store.folders.confirmations()
    for job in jobs:
        receipt = await store.erasures.receipt(job.erasure_id) or {}
        backups = [
            one | {"told": told.get(one["path"], False)} for one in receipt.get("backups", ())
        ]
        machines = [
            {
                "host": one.host,
                "state": "cleared" if (job.erasure_id, one.folder_id) in said else "away",
            }
            for one in present.folders
        ]
        await store.erasures.finish(job, {**outcome, "backups": backups, "machines": machines})
    await store.folders.drop({job.erasure_id for job in jobs})
    progress("server files", 1, 1)


async def clear_own(store: Store, data_dir: Path, progress: Progress = silent) -> int:
    """Remove erased people from a folder that is not the leading worker's.

    One folder after the other does it, when the leading one has; one that was away finds by its
    mark that it has to, whether there are jobs or not.

    Returns
    -------
    int
        How many erasures are gone from here now.

    Raises
    ------
    ConflictError, StoreUnavailableError, OSError
        As `work`.
    """
    folder = Folder(data_dir)
    # Several workers of the folder may have begun at once.
    with locked(data_dir / _LOCK):
        jobs = await waiting_here(store, folder)
        if not jobs and not await is_behind(store, folder):
            return 0
        await _clear(store, folder, jobs, progress, leading=False)
    return len(jobs)


async def waiting_here(store: Store, folder: Folder) -> list[Job]:
    """Return the jobs that a folder, which is not the leading one, has to do now."""
    present = await store.folders.all()
    if present.leading in (None, folder.folder_id):
        return []
    said = await store.folders.confirmations()
    mine = []
    for job in await store.erasures.jobs():
        # One after the other: each may find visitors of whom the others do not know.
        live = [one.folder_id for one in present.folders if one.is_live]
        order = sorted(live, key=lambda one: (one != present.leading, one))
        first = next((one for one in order if not _said(said, job, one)), None)
        if job.stage == "files" and first == folder.folder_id:
            mine.append(job)
    return mine


async def is_behind(store: Store, folder: Folder) -> bool:
    """Tell whether somebody was erased while a folder was away."""
    # In this order: of whom the ledger knows there is a job still, or it was done.
    ledger = await store.forgetting.ledger()
    waiting = {one for job in await store.erasures.jobs() for one in job.people}
    digests = {digest for person in waiting for digest in ledger.digests(person)}
    mark = folder.mark()
    return any(
        not mark.has(digest, cut.erased_ms)
        for digest, cut in ledger.cuts.items()
        if digest not in digests
    )


def _is_ready(job: Job) -> bool:
    asked_s = datetime.fromisoformat(job.requested_at).timestamp()
    return job.stage != "server" or time.time() - asked_s > ABANDONED_S


async def _clear(
    store: Store, folder: Folder, jobs: Sequence[Job], progress: Progress, *, leading: bool
) -> None:
    data_dir = folder.data_dir
    log = EventLog(data_dir)
    with log.importing(LOCK_WAIT_S):
        jobs = [await _forgotten(store, job, data_dir) for job in jobs]
        await _settle(max((job.at_ms for job in jobs), default=0))
        behind = await is_behind(store, folder)
        jobs = await _with_visitors(store, data_dir, jobs)
        erased_at = await _times(store, jobs)
        if leading:
            await store.forgetting.forget_streams(erased_at)
            await store.forgetting.forget_markers(erased_at)
            for person in erased_at:
                await store.forgetting.leave_journal(person)
            # Events of others may name an erased visitor, which only the files are searched for.
            await Archiver(store.streams, log).run_held()
        await _close_decisions(data_dir)
        ledger = await store.forgetting.ledger()
        mark = await _mark(store, ledger, jobs)
        named = dict(erased_at)
        counting = Counting(data_dir, {one: job.erasure_id for job in jobs for one in job.people})

        def by_digest(person: str) -> int:
            if person not in erased_at:
                # A keyed hash is not computed again for each file that names the person. Who has
                # another job is counted there.
                gone_ms = ledger.cut_of(person).erased_ms
                erased_at[person] = gone_ms if gone_ms <= mark else 0
            return erased_at[person]

        if behind:
            for visitor, user in merged_visitors(data_dir, by_digest).items():
                erased_at[visitor] = max(by_digest(visitor), by_digest(user))
        find = by_digest if behind else lambda person: erased_at.get(person, 0)
        await asyncio.to_thread(scrub, data_dir, find, progress, counting.will_remove)
        for job in jobs:
            counts = counting.of(job.erasure_id)
            await store.folders.confirm(job.erasure_id, folder, len(job.people), counts)
        folder.cleared(
            mark,
            {digest: gone_ms for one, gone_ms in named.items() for digest in ledger.digests(one)},
        )
        counting.close()


async def _mark(store: Store, ledger: Ledger, mine: Sequence[Job]) -> int:
    """Return up to when a pass over some jobs, and over all that were done before, has searched.

    Whoever else is being erased has a job that was stored before the ledger was read.
    """
    ids = {job.erasure_id for job in mine}
    newest_ms = max((cut.erased_ms for cut in ledger.cuts.values()), default=0)
    begun_ms = [
        epoch_ms(datetime.fromisoformat(job.requested_at)) - 1
        for job in await store.erasures.jobs()
        if job.erasure_id not in ids and job.stage != "server_files"
    ]
    return min([newest_ms, *begun_ms])


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


async def work_apart(url: str, data_dir: Path, *, leading: bool = True) -> int:
    """Do what `work` does in another process, for a worker has pages to answer.

    Parameters
    ----------
    url : str
        Of the server.
    data_dir : Path
        Folder of everything that is kept.
    leading : bool
        Whether it is the leading worker; another one does what `clear_own` does.

    Returns
    -------
    int
        How many erasures are done.

    Raises
    ------
    ConflictError
        If they could not be done now.
    """
    asked = {"url": url, "data_dir": str(data_dir), "leading": leading}
    return int(await run_child("feature_store.forgetting.erasing", asked))


async def _work(url: str, data_dir: Path, *, leading: bool) -> int:
    store = await Store.open(url)
    try:
        if not leading:
            return await clear_own(store, data_dir)
        return len(await work(store, data_dir))
    finally:
        await store.close()


def main() -> int:
    """Read the question from standard input, and write how many erasures are done."""
    asked = orjson.loads(sys.stdin.buffer.read())
    try:
        done = asyncio.run(_work(asked["url"], Path(asked["data_dir"]), leading=asked["leading"]))
    except (RecsvcError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(str(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
