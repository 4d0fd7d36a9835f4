"""How a worker's snapshot stays fresh: published files, and what changed since."""

import asyncio
import gc
import time
from math import inf

from feature_store.documents import Document, Plan, SiteDocuments
from feature_store.errors import RecsvcError, StoreUnavailableError
from feature_store.store import Store, UserContext
from recsvc.snapshot import SnapshotHolder
from recsvc.telemetry import Metrics, get_logger

CATCH_UP_TIMEOUT_S = 2.0

log = get_logger()


class SnapshotKeeper:
    """Brings the snapshot up to what the store has acknowledged.

    Parameters
    ----------
    store : Store
        Where changes come from.
    holder : SnapshotHolder
        Has the snapshot.
    metrics : Metrics
        Where it counts.
    """

    def __init__(self, store: Store, holder: SnapshotHolder, metrics: Metrics) -> None:
        self._store = store
        self._holder = holder
        self._metrics = metrics
        self._catching_up: asyncio.Task[None] | None = None
        self._site_applied_s = -inf
        self._site_needed = 0

    @property
    def model_version(self) -> str:
        """The model that this worker serves."""
        return self._holder.current.model.version

    @property
    def obeys(self) -> bool:
        """Whether the snapshot includes every change of the site that this worker has heard of.

        A worker that does not may show what is recalled, so it must not answer; nor may one that
        has neither reached the store nor found the site's documents on its disk.
        """
        return self._holder.site_known and self._holder.current.site.sequence >= self._site_needed

    def behind(self, context: UserContext) -> int:
        """Return how many changes a context knows of that the snapshot does not include."""
        current = self._holder.current
        self._site_needed = max(self._site_needed, context.site_sequence)
        if not self._holder.site_known:
            return 1
        return max(0, context.catalogue_sequence - current.catalogue_sequence) + max(
            0, context.site_sequence - current.site.sequence
        )

    async def catch_up(self, context: UserContext) -> None:
        """Apply what changed until a context was read; all who wait share the work.

        Raises
        ------
        StoreUnavailableError
            If the changes cannot be had in time.
        """
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                for _ in range(3):
                    if not self.behind(context):
                        return
                    if self._catching_up is None or self._catching_up.done():
                        self._catching_up = asyncio.create_task(self._apply(context))
                    await asyncio.shield(self._catching_up)
        except TimeoutError as error:
            raise StoreUnavailableError("what changed did not come in time") from error

    async def _apply(self, context: UserContext) -> None:
        if context.catalogue_sequence > self._holder.current.catalogue_sequence:
            await self._apply_items()
        site = self._holder.current.site
        if context.site_sequence > site.sequence or not self._holder.site_known:
            await self._apply_site()
        self.note()

    async def _apply_site(self, *, back: bool = False) -> None:
        before = self._holder.current.site.sequence
        documents = await self._store.documents.snapshot()
        await asyncio.to_thread(self._holder.apply_site, documents, back=back)
        self._site_applied_s = time.monotonic()
        if documents.sequence != before:
            log.info("site_changed", sequence=documents.sequence)

    async def fall_back(self, context: UserContext, asked_s: float) -> None:
        """Serve an older site if that is what the store has: it was emptied, or is a backup.

        Parameters
        ----------
        context : UserContext
            Read after `asked_s`.
        asked_s : float
            ``time.monotonic()`` before the store was asked.
        """
        older = context.site_sequence < self._holder.current.site.sequence
        if older and asked_s > self._site_applied_s:
            log.warning("site_went_back", sequence=context.site_sequence)
            self._site_needed = context.site_sequence
            await self._apply_site(back=True)

    async def _apply_items(self) -> None:
        known = self._holder.current.catalogue_sequence
        changes = await self._store.catalogue.changes_since(known)
        if changes is None:
            await self.refresh()
        elif changes:
            # In a thread: building takes longer than an answer may wait.
            await asyncio.to_thread(self._holder.apply_changes, changes, known + len(changes))

    async def change(
        self, plan: Plan, by: str, note: str = ""
    ) -> tuple[SiteDocuments, list[Document]]:
        """Change the site; every worker obeys it in the next answer, this one already.

        Parameters, returns and raises as `DocumentStore.change`.
        """
        site, documents = await self._store.documents.change(plan, by, note)
        if documents:
            await self._store.workers.call()
            await asyncio.to_thread(self._holder.apply_site, site)
        return site, documents

    async def refresh(self) -> None:
        """Serve another model or catalogue file if one was published; on any doubt keep the old."""
        try:
            swapped = await asyncio.to_thread(self._holder.refresh)
        except (RecsvcError, OSError) as error:
            self._metrics.swaps.labels("refused").inc()
            log.error("snapshot_refused", error=str(error), serving=self.model_version)
            return
        if swapped:
            self._metrics.swaps.labels("swapped").inc()
            gc.freeze()
            self.note()
            log.info(
                "snapshot_swapped",
                model=self.model_version,
                catalogue=self._holder.current.catalogue_version,
                rows=self._holder.current.catalogue.n_rows,
            )

    def note(self) -> None:
        """Tell the metrics what serves."""
        self._metrics.serves(self.model_version)
        self._metrics.catalogue_rows.set(self._holder.current.catalogue.n_rows)
