"""The care of the records of answers: files that are closed become Parquet, old ones go."""

import asyncio
from datetime import UTC, datetime, timedelta

from feature_store.archiver import LEASE_S
from feature_store.decision_log import DecisionLog
from feature_store.store import Store
from recsvc.settings import Settings

SEAL_EVERY_S = 60.0


class Sealing:
    """Has the closed files of all workers turned into Parquet, and old ones removed.

    Parameters
    ----------
    settings : Settings
        Says for how long records are kept.
    store : Store
        Knows who leads.
    log : DecisionLog
        The files.
    leader : str
        The worker's name as archiver: of all workers the one with that lease is it.
    """

    def __init__(self, settings: Settings, store: Store, log: DecisionLog, leader: str) -> None:
        self._settings, self._store, self._log, self._leader = settings, store, log, leader

    async def look(self) -> None:
        """Seal what is closed, if this worker leads.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        if await self._store.streams.lead(self._leader, LEASE_S):
            ledger = await self._store.forgetting.ledger()
            await asyncio.to_thread(self._log.seal, lambda person: ledger.cut_of(person).erased_ms)
            oldest = datetime.now(UTC).date() - timedelta(self._settings.decision_days)
            await asyncio.to_thread(self._log.drop_before, oldest)
