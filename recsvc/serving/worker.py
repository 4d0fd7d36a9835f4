"""One worker process: what it holds, how it answers, and how it keeps itself fresh.

No HTTP in here: the raw dispatcher and the FastAPI routes are two doors to the same methods.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Literal

from feature_store.archiver import Archiver
from feature_store.errors import NotFoundError, StoreUnavailableError
from feature_store.event_log import EventLog
from feature_store.preferences import UNREADABLE
from feature_store.state import EMPTY_STATE
from feature_store.store import Store, UserContext
from recsvc.access.auth import Principal
from recsvc.access.key_table import POLL_S, Authenticator
from recsvc.answering import Question, Recommendation, finish
from recsvc.continued import continued
from recsvc.customer.consenting import Decided, Decision, Remembered, decide, may_profile
from recsvc.customer.hearing import remember
from recsvc.decisions import FLUSH_S, DecisionRecorder
from recsvc.explaining.words import read_library, speak
from recsvc.merchandising.audiences import SegmentCounter
from recsvc.requests import RecommendationRequest
from recsvc.serving.admission import Admission
from recsvc.serving.chores import every
from recsvc.serving.compacting import LOOK_EVERY_S, Compacting
from recsvc.serving.erasing import LOOK_EVERY_S as LOOK_FOR_ERASURES_S
from recsvc.serving.erasing import Erasing
from recsvc.serving.keeping import SnapshotKeeper
from recsvc.serving.recording import Recording
from recsvc.serving.sealing import SEAL_EVERY_S, Sealing
from recsvc.serving.warming import warm_up
from recsvc.settings import Settings
from recsvc.snapshot import SnapshotHolder
from recsvc.telemetry import Metrics, get_logger

HEARTBEAT_S = 1.0
ARCHIVE_AGAIN_S = 1.0
LISTEN_AGAIN_S = 1.0
CLOSE_TIMEOUT_S = 3.0
STORE_MISSING = "store"
PREFERENCES_MISSING = "preferences"

log = get_logger()


class Worker:
    """Everything that one process needs to answer.

    Parameters
    ----------
    settings : Settings
        With a ``redis_url``.
    secret : bytes
        The server's secret.
    metrics : Metrics
        Where it counts.

    Raises
    ------
    ArtifactError
        If the model or the catalogue that should serve is damaged.
    UserError
        If the shop's own texts cannot be used.
    """

    def __init__(self, settings: Settings, secret: bytes, metrics: Metrics) -> None:
        assert settings.redis_url is not None
        self.settings = settings
        self.metrics = metrics
        speak(read_library(settings.words_dir))
        self.holder = SnapshotHolder(settings.data_dir)
        self.store = Store(
            settings.redis_url,
            settings.store_timeout_ms / 1000,
            settings.max_waiting_events,
            settings.profiling,
        )
        self.recording = Recording(self.store, metrics, settings)
        self.keeper = SnapshotKeeper(self.store, self.holder, metrics)
        self.auth = Authenticator(secret, self.store.keys)
        self.admission = Admission(settings, metrics)
        self.segment_counter = SegmentCounter(self.store)
        self.decisions = DecisionRecorder(
            settings.data_dir / "decisions", metrics, settings.decision_sample
        )
        self._archiver = Archiver(self.store.streams, EventLog(settings.data_dir))
        self._compacting = Compacting(settings, self.store, self.holder, self._archiver.holder)
        self.reached_at_s = -inf
        # Without a lease there is nothing that could have ended.
        self.lease_until_s = -inf if settings.recall_lease_s else inf
        self._reachable: bool | None = None
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._remembered = Remembered()
        self._tasks: list[asyncio.Task[None]] = []

    # --- life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the store if it is there, and start to keep watch."""
        with contextlib.suppress(StoreUnavailableError):
            await self._look_at_store()
            await self.auth.refresh()
        self.keeper.note()
        sealing = Sealing(self.settings, self.store, self.decisions.log, self._archiver.holder)
        erasing = Erasing(
            self.settings, self.store, self._remembered, self.metrics, self._archiver.holder
        )
        await erasing.catch_up()
        self._tasks = [
            asyncio.create_task(self._every(LOOK_FOR_ERASURES_S, erasing.look)),
            asyncio.create_task(self._every(LOOK_FOR_ERASURES_S, erasing.work)),
            asyncio.create_task(self._every(HEARTBEAT_S, self._look_at_store)),
            asyncio.create_task(self._every(POLL_S, self.auth.refresh)),
            asyncio.create_task(self.admission.watch()),
            asyncio.create_task(self._every(self.settings.snapshot_poll_s, self.keeper.refresh)),
            asyncio.create_task(self._every(LISTEN_AGAIN_S, self._listen)),
            # Of all workers one has the lease; it returns only with an error.
            asyncio.create_task(self._every(ARCHIVE_AGAIN_S, self._archive)),
            asyncio.create_task(self._every(LOOK_EVERY_S, self._compacting.look)),
            asyncio.create_task(self._every(FLUSH_S, self.decisions.flush)),
            asyncio.create_task(self._every(SEAL_EVERY_S, sealing.look)),
        ]
        warm_up(self.holder.current)

    async def close(self) -> None:
        """Stop watching and close all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        await self.decisions.close()
        await self.store.workers.leave(self.worker_id)
        await self.store.close()
        self.metrics.ready_workers.set(0)
        self.metrics.flush()

    @property
    def ready(self) -> bool:
        """Whether recommendations may be answered: no recall can have been missed."""
        return time.monotonic() <= self.lease_until_s and self.keeper.obeys

    @property
    def store_state(self) -> Literal["reached", "down", "lease ended"]:
        """How it stands with the store."""
        if time.monotonic() > self.lease_until_s:
            return "lease ended"
        return "reached" if self._reachable else "down"

    # --- answering ------------------------------------------------------------------------------

    async def recommend(
        self,
        request: RecommendationRequest,
        *,
        opted_out: bool = False,
        caller: Principal | None = None,
    ) -> Recommendation:
        """Answer one request.

        Parameters
        ----------
        request : RecommendationRequest
            The question.
        opted_out : bool
            Whether the visitor's browser says ``Sec-GPC: 1``.
        caller : Principal or None
            Who asks.

        Raises
        ------
        NotFoundError
            If there is no such placement.
        InvalidRequestError
            If ``after`` is not the id of a recommendation.
        StoreUnavailableError
            If the recall lease has ended.
        """
        question = await self.question(request, opted_out=opted_out, caller=caller)
        snapshot = self.holder.current
        if request.placement not in snapshot.site.placements:
            known = ", ".join(snapshot.site.placements)
            raise NotFoundError(f"there is no placement {request.placement!r}; there are: {known}")
        found = finish(snapshot, question, self.decisions)
        self.metrics.recommended(found.placement, personalized=found.personalized)
        return found

    async def question(
        self,
        request: RecommendationRequest,
        *,
        opted_out: bool = False,
        documents: bool = False,
        caller: Principal | None = None,
    ) -> Question:
        """Read what a request must know; the snapshot is then as new as what was read.

        What it says of consents is remembered first (``hearing.remember``).

        Parameters
        ----------
        request : RecommendationRequest
            What is asked.
        opted_out : bool
            Whether the visitor's browser says ``Sec-GPC: 1``.
        documents : bool
            Whether the person's documents are needed in any case.
        caller : Principal or None
            Who asks.

        Raises
        ------
        InvalidRequestError
            If ``after`` is not the id of a recommendation.
        StoreUnavailableError
            If the recall lease has ended.
        """
        began_s = time.perf_counter()
        if time.monotonic() > self.lease_until_s:
            raise StoreUnavailableError(
                f"the store was not reached for {self.settings.recall_lease_s:g} s; without it a"
                " recall could be missed, so there are no recommendations until it answers"
            )
        then_s, shown = continued(request)
        person, named = request.person, request.external_id is not None
        degraded: list[str] = []
        readable = True
        try:
            if named:
                request = await self.identified(request)
                person = request.person
            context = await self.context(person, documents=documents)
        except StoreUnavailableError:
            if not self.keeper.obeys:
                raise  # it may be a recall that this worker has heard of, and not applied
            degraded.append(STORE_MISSING)
            self.metrics.degraded.labels(STORE_MISSING).inc()
            hidden = self._remembered.of(person)
            context = UserContext(EMPTY_STATE, hidden, 0, person=person)
            readable = False
        if readable and (opted_out or request.consent is not None):
            context, readable = await remember(
                *(self.store, context, request, caller),
                opted_out=opted_out,
                timeout_s=self.settings.store_timeout_ms / 1000,
            )
        if context.preferences is UNREADABLE or not (readable or degraded):
            degraded.append(PREFERENCES_MISSING)
            self.metrics.degraded.labels(PREFERENCES_MISSING).inc()
            context, readable = self._remembered.hiding(context, person), False
        profiled = readable and may_profile(
            context, request, self.settings.profiling, opted_out=opted_out
        )
        named = named or person is not None
        return Question(request, person, context, profiled, named, then_s, shown, degraded, began_s)

    async def identified(self, request: RecommendationRequest) -> RecommendationRequest:
        """Return a request with the user whom its external id stands for, or nobody.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer in time.
        """
        assert request.external_id is not None
        return replace(request, user_id=await self.store.user_of(*request.external_id))

    async def merge(self, user_id: str, anonymous_id: str) -> bool:
        """Join a visitor's history to a user's; it is done, for good, when this returns.

        Returns and raises what `Merger.merge` does.
        """
        return await self.store.merger.merge(user_id, anonymous_id, datetime.now(UTC))

    async def decide(self, person: str, decision: Decision, by: str) -> Decided:
        """Change what somebody chose; the next answer of every worker obeys it.

        Takes and raises what `consenting.decide` does.
        """
        decided = await decide(self.store, person, decision, by)
        for one in {person, decided.person}:
            self._remembered.note(one, decided.preferences)
        return decided

    async def context(self, person: str | None, *, documents: bool = False) -> UserContext:
        """Read a person's context and bring the catalogue up to it.

        Parameters
        ----------
        person : str or None
            Whose; ``None`` for nobody.
        documents : bool
            Whether the profile and what training computed are read in any case.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer in time.
        """
        asked_s = time.monotonic()
        documents = documents or self.holder.current.site.needs_documents
        context = await self.store.load_context(person, documents=documents)
        self._reached(asked_s)
        if self.keeper.behind(context):
            await self.keeper.catch_up(context)
            if self.holder.current.site.needs_documents and not documents:
                context = await self.store.load_context(person, documents=True)
        starts = self.holder.current.model.starts
        known = documents or context.state.n_item_facts
        if starts.has_groups and person is not None and not known:
            # Somebody new: where they start depends on what the shop says of them.
            context = await self.store.load_context(person, documents=True)
        if person is not None:
            self._remembered.note(person, context.preferences)
        return context

    # --- keeping fresh --------------------------------------------------------------------------

    def _reached(self, asked_s: float) -> None:
        """Note that the store answered a question that was asked at `asked_s`."""
        if asked_s > self.reached_at_s:
            self.reached_at_s = asked_s
            lease_s = self.settings.recall_lease_s
            self.lease_until_s = asked_s + lease_s if lease_s else inf

    async def _look_at_store(self) -> None:
        try:
            asked_s = time.monotonic()
            context = await self.context(None)
            await self.keeper.fall_back(context, asked_s)
            await self.announce()
            reachable = True
            self.metrics.catalogue_behind.set(self.keeper.behind(context))
        except StoreUnavailableError:
            reachable = await self._answers_slowly()
        if reachable and self._reachable is False:
            log.info("store_reachable")
        self._reachable = reachable
        self._measure()

    async def announce(self) -> None:
        """Say that this worker lives, and how much of the site it obeys."""
        await self.store.workers.announce(self.worker_id, self.holder.current.site.sequence)

    async def _listen(self) -> None:
        """Apply changes of the site as soon as somebody calls, and say so."""
        async for _ in self.store.workers.calls():
            await self.context(None)
            await self.announce()

    async def _answers_slowly(self) -> bool:
        """Ask once more, with patience: one late answer is not a server that is down."""
        asked_s = time.monotonic()
        try:
            await self.store.ping(timeout_s=HEARTBEAT_S)
        except StoreUnavailableError as error:
            if self._reachable is not False:
                log.warning("store_unreachable", error=str(error))
            return False
        self._reached(asked_s)
        return True

    def _measure(self) -> None:
        now_s, current = time.time(), self.holder.current
        artifact = current.model.artifact
        self.metrics.flush()
        self.metrics.ready_workers.set(float(self.ready))
        self.metrics.snapshot_age.set(max(0.0, now_s - current.built_at))
        if artifact is not None:
            created = datetime.fromisoformat(artifact.manifest["created_at"])
            self.metrics.model_age.set(max(0.0, now_s - created.timestamp()))
        self.metrics.store_contact_age.set(min(1e9, time.monotonic() - self.reached_at_s))

    async def _archive(self) -> None:
        async def count(moved: int) -> None:
            self.metrics.archived.inc(moved)

        await self._archiver.run_for_ever(count)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        await every(seconds, work, self.metrics)
