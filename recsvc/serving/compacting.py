"""When much lies over the catalogue's file, one worker has it folded into a new one."""

from feature_store.archiver import LEASE_S
from feature_store.catalogue_compaction import compact_apart
from feature_store.errors import ConflictError
from feature_store.store import Store
from recsvc.settings import Settings
from recsvc.snapshot import SnapshotHolder
from recsvc.telemetry import get_logger

LOOK_EVERY_S = 2.0

log = get_logger()


class Compacting:
    """Watches how much lies over the file.

    Parameters
    ----------
    settings : Settings
        Says how much may.
    store : Store
        Has the log.
    holder : SnapshotHolder
        Knows how much it is.
    leader : str
        The worker's name as archiver: of all workers the one with that lease is it.
    """

    def __init__(
        self, settings: Settings, store: Store, holder: SnapshotHolder, leader: str
    ) -> None:
        self._settings = settings
        self._store = store
        self._holder = holder
        self._leader = leader

    async def look(self) -> None:
        """Have a new file made if there is enough for one; the workers load it when it is there.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer.
        """
        least = self._settings.max_item_changes
        n_changes = self._holder.n_changes
        if n_changes < least or not await self._store.streams.lead(self._leader, LEASE_S):
            return
        try:
            version = await compact_apart(self._store.url, self._settings.data_dir, least)
        except ConflictError as error:
            log.info("catalogue_not_compacted", reason=str(error), changes=n_changes)
            return
        if version is not None:
            log.info("catalogue_compacted", catalogue=version, changes=n_changes)
