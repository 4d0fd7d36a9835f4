"""Events on their way into the store, and what they say of consents, which goes before them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from feature_store.preferences import Saying
from feature_store.schema import Event, person_of
from feature_store.state_writer import AppendResult
from feature_store.store import Store
from feature_store.withheld_counts import counts_of
from recsvc.customer.hearing import hear, sayings_of
from recsvc.settings import Settings
from recsvc.telemetry import Metrics


class Recording:
    """Records what people did.

    Parameters
    ----------
    store : Store
        Where it is kept.
    metrics : Metrics
        Where it is counted.
    settings : Settings
        How much browsers may send.
    """

    def __init__(self, store: Store, metrics: Metrics, settings: Settings) -> None:
        self._store, self._metrics = store, metrics
        self._public_per_minute = settings.public_events_per_minute

    async def trusted(
        self, events: Sequence[Event], *, withheld: Sequence[Event] = (), by: str = "events"
    ) -> AppendResult:
        """Store events that a backend sent; they are durable when this returns.

        Parameters
        ----------
        events : sequence of Event
            To be stored.
        withheld : sequence of Event
            Of these only what they say of consents is remembered, and that something was bought.
        by : str
            Who sent them, for the change log.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        OverloadedError
            If one person's events come from too many sides at once.
        """
        await self.hear(sayings_of((*events, *withheld)), by)
        return await self._append(events, withheld, "server")

    async def public(
        self, events: Sequence[Event], *, withheld: Sequence[Event] = (), by: str = "events"
    ) -> AppendResult:
        """Store events that came from a browser: of low trust, and only so many a minute.

        Takes and raises what `trusted` does.

        Raises
        ------
        RateLimitedError
            If a person's events of this minute are too many; nothing is stored or remembered.
        """
        everything = (*events, *withheld)
        people = (person_of(event.user_id, event.anonymous_id) for event in everything)
        counts = Counter(person for person in people if person is not None)
        await self._store.quota.take(dict(counts), self._public_per_minute, time.time())
        await self.hear(sayings_of(everything), by)
        return await self._append(events, withheld, "public")

    async def denied(self, events: Sequence[Event], by: str) -> None:
        """Take events that came with a refusal: what they say of mail holds, purchases count.

        Raises
        ------
        StoreUnavailableError, OverloadedError
            If that is not stored.
        """
        await self.hear(sayings_of(events), by)
        await self._count(events)

    async def hear(self, sayings: Sequence[Saying], by: str) -> None:
        """Remember what was said of consents; takes and raises what `hearing.hear` does."""
        if sayings:
            await hear(self._store, sayings, by)

    async def _count(self, refused: Sequence[Event]) -> None:
        """Count what was bought and is not stored, for recalls."""
        if refused and (bought := counts_of(refused)):
            await self._store.withheld.add(bought)

    async def _append(
        self, events: Sequence[Event], withheld: Sequence[Event], trust: str
    ) -> AppendResult:
        stored = await self._store.events.append(events, trust=trust)
        result = replace(
            stored,
            withheld=stored.withheld + len(withheld),
            refused=(*stored.refused, *withheld),
        )
        await self._count(result.refused)
        for outcome in ("accepted", "duplicates", "conflicts", "withheld"):
            self._metrics.events.labels(outcome).inc(getattr(result, outcome))
        return result
