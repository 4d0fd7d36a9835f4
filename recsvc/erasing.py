"""Erasures in a worker: it forgets who is erased, and the leading one has the files cleared."""

import time

from feature_store.archiver import LEASE_S
from feature_store.errors import ConflictError
from feature_store.forgetting.erasing import SETTLE_S, work_apart
from feature_store.store import Store
from recsvc.customer.consenting import Remembered
from recsvc.settings import Settings
from recsvc.telemetry import Metrics, get_logger

LOOK_EVERY_S = 1.0
_MISSED_S = SETTLE_S - 0.5
"""Between two looks so far apart an erasure may have begun and ended."""

log = get_logger()


class Erasing:
    """Watches for erasures.

    Parameters
    ----------
    settings : Settings
        Where the files are.
    store : Store
        Has the jobs.
    remembered : Remembered
        What this worker remembers of people.
    metrics : Metrics
        Where it counts.
    leader : str
        The worker's name as archiver: of all workers the one with that lease clears the files.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        remembered: Remembered,
        metrics: Metrics,
        leader: str,
    ) -> None:
        self._settings = settings
        self._store = store
        self._remembered = remembered
        self._metrics = metrics
        self._leader = leader
        self._known: set[str] = set()
        self._looked_at_s = time.monotonic()

    async def look(self) -> None:
        """Forget whoever is being erased.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        ids = await self._store.erasures.ids()
        self._metrics.erasures_pending.set(len(ids))
        if time.monotonic() - self._looked_at_s > _MISSED_S:
            ledger = await self._store.forgetting.ledger()
            self._remembered.forget(lambda person: ledger.cut_of(person).erased_ms)
        if ids - self._known:
            jobs = await self._store.erasures.jobs()
            people = {person for job in jobs for person in job.people}
            self._remembered.forget(people.__contains__)
            # Who the visitors were is not known before the server has forgotten them.
            self._known = {job.erasure_id for job in jobs if job.stage != "server"}
        self._known &= ids
        self._looked_at_s = time.monotonic()

    async def work(self) -> None:
        """Have the files cleared, if there is something to do and this worker leads.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        waiting = await self._store.erasures.ids()
        if not waiting or not await self._store.streams.lead(self._leader, LEASE_S):
            return
        began_s = time.monotonic()
        try:
            done = await work_apart(self._store.url, self._settings.data_dir)
        except ConflictError as error:
            self._metrics.erasures.labels("failed").inc()
            log.warning("erasures_not_done", reason=str(error), erasures=len(waiting))
            return
        finally:
            self._metrics.erasure_seconds.inc(time.monotonic() - began_s)
        if done:
            seconds = round(time.monotonic() - began_s, 2)
            self._metrics.erasures.labels("done").inc(done)
            log.info("erasures_done", erasures=done, seconds=seconds)
