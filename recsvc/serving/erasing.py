"""Erasures in a worker: it forgets who is erased, and the leading one has the files cleared."""

import contextlib
import time

from feature_store.archiver import LEASE_S
from feature_store.errors import ConflictError, StoreUnavailableError
from feature_store.forgetting.erasing import (
    SETTLE_S,
    is_behind,
    is_due,
    waiting_here,
    work_apart,
)
from feature_store.forgetting.folders import Folder
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
        self._folder = Folder(settings.data_dir)
        self._is_behind = True
        self._waiting = 0
        self._known: set[str] = set()
        self._looked_at_s = time.monotonic()

    async def catch_up(self) -> None:
        """Remove from this machine's files who was erased while it was away, before it serves.

        What cannot be done now is tried again at each look.
        """
        with contextlib.suppress(StoreUnavailableError, ConflictError):
            await self._store.folders.announce(self._folder)
            if await is_behind(self._store, self._folder):
                await self._clear(leading=False)
            self._is_behind = False

    async def look(self) -> None:
        """Forget whoever is being erased.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        await self._store.folders.announce(self._folder)
        ids = await self._store.erasures.ids()
        self._waiting = len(ids)
        self._metrics.erasures_pending.set(len(ids))
        if time.monotonic() - self._looked_at_s > _MISSED_S:
            ledger = await self._store.forgetting.ledger()
            self._remembered.forget(lambda person: ledger.cut_of(person).erased_ms)
            self._is_behind = True
        if ids - self._known:
            jobs = await self._store.erasures.jobs()
            people = {person for job in jobs for person in job.people}
            self._remembered.forget(people.__contains__)
            # Who the visitors were is not known before the server has forgotten them.
            self._known = {job.erasure_id for job in jobs if job.stage != "server"}
        self._known &= ids
        self._looked_at_s = time.monotonic()

    async def work(self) -> None:
        """Have the files cleared, by the leading worker and by one of each other folder.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        if self._is_behind:
            await self.catch_up()
        if not await self._store.erasures.ids():
            return
        leading = await self._store.streams.lead(self._leader, LEASE_S)
        due = is_due if leading else waiting_here
        if await due(self._store, self._folder):
            with contextlib.suppress(ConflictError):
                await self._clear(leading=leading)

    async def _clear(self, *, leading: bool) -> None:
        began_s = time.monotonic()
        try:
            done = await work_apart(self._store.url, self._settings.data_dir, leading=leading)
        except ConflictError as error:
            self._metrics.erasures.labels("failed").inc()
            log.warning("erasures_not_done", reason=str(error), erasures=self._waiting)
            raise
        finally:
            self._metrics.erasure_seconds.inc(time.monotonic() - began_s)
        if done and leading:
            seconds = round(time.monotonic() - began_s, 2)
            self._metrics.erasures.labels("done").inc(done)
            log.info("erasures_done", erasures=done, seconds=seconds)
