"""What the service asks of Redis, as whole use cases.

One object for a process: :class:`Store` reads the context of a request in batches; its parts write
events (`events`) and imports (`imports`), count purchases that may not be stored (`withheld`), join
visitors to users (`merger`), count what the public sends (`quota`), give rows to items
(`catalogue`), keep the documents of the site (`documents`) and of people (`people`), API keys
(`keys`) and which workers there are (`workers`), show what is held of somebody (`holdings`), and
hand accepted events to the archive (`streams`).
"""

import asyncio
from collections.abc import Collection
from typing import Any, Self

from redis.exceptions import RedisError

from feature_store import keys
from feature_store.cluster import connect
from feature_store.cluster_reader import reader_of
from feature_store.consents import refusing
from feature_store.documents import DocumentStore, read_head
from feature_store.errors import StoreUnavailableError
from feature_store.forgetting.erasures import Erasures
from feature_store.forgetting.folders import Folders
from feature_store.forgetting.server import Forgetting
from feature_store.holdings.server import HoldingsReader
from feature_store.import_writer import ImportWriter
from feature_store.impressions import NO_IMPRESSIONS, Impressions
from feature_store.impressions import unpack as unpack_impressions
from feature_store.key_store import KeyStore
from feature_store.merging import Merger, read_link
from feature_store.people import PeopleStore
from feature_store.preferences import (
    NO_PREFERENCES,
    Preferences,
    ProfilingDefault,
    read_preferences,
)
from feature_store.quota import Quota
from feature_store.row_store import RowStore
from feature_store.state import EMPTY_STATE, UserState, join, unpack
from feature_store.state_writer import StateWriter
from feature_store.stream_store import MAX_WAITING_EVENTS, StreamRoom, StreamStore
from feature_store.values import value_class
from feature_store.withheld_purchases import WithheldPurchases
from feature_store.workers import WorkerStore

_SEQUENCES = (keys.CATALOGUE_SEQUENCE, keys.SITE_HEAD)


@value_class(frozen=True, slots=True)
class UserContext:
    """What one request needs to know, read in one round trip.

    Parameters
    ----------
    state : UserState
        The `hot` part of the person's state.
    preferences : Preferences
        What the person decided.
    catalogue_sequence : int
        How many changes the catalogue has had; a worker that applied fewer is behind.
    site_sequence : int
        The same of the site's documents.
    profile, computed : bytes or None
        JSON of what is known of the person; only if it was asked for.
    impressions : Impressions
        What the person was shown.
    person : str or None
        Whose all this is: a visitor who has signed in is the user.
    """

    state: UserState
    preferences: Preferences
    catalogue_sequence: int
    site_sequence: int = 0
    profile: bytes | None = None
    computed: bytes | None = None
    impressions: Impressions = NO_IMPRESSIONS
    person: str | None = None


class Store:
    """The feature store of one process.

    Parameters
    ----------
    url : str
        ``redis://host:port/db``, ``rediss://...``, ``unix://path`` or
        ``redis+cluster://host:port,host:port``.
    read_timeout_s : float
        After this long a read of a context counts as failed.
    max_waiting_events : int
        Accepted events that may wait for the archiver; beyond that new ones are refused.
    profiling : {"opt_out", "opt_in"}
        Whether events of people who were never asked may be kept.
    """

    def __init__(
        self,
        url: str,
        read_timeout_s: float = 0.05,
        max_waiting_events: int = MAX_WAITING_EVENTS,
        profiling: ProfilingDefault = "opt_out",
    ) -> None:
        self.url = url
        self.profiling = profiling
        self._redis = connect(url)
        self._reader = reader_of(url, read_timeout_s)
        self._read: tuple[bytes | None, bytes | None] = (None, None)
        self._meant = (0, 0)
        self.catalogue = RowStore(self._redis)
        self.forgetting = Forgetting(self._redis)
        self.erasures = Erasures(self._redis, self.forgetting)
        self.folders = Folders(self._redis)
        self.merger = Merger(self._redis, self.forgetting)
        self.streams = StreamStore(self._redis)
        room = StreamRoom(self.streams, max_waiting_events)
        self.events = StateWriter(
            self._redis, self.catalogue, self.merger, room, self.forgetting.salts, profiling
        )
        self.imports = ImportWriter(self._redis, self.catalogue, self.merger, self.forgetting)
        self.withheld = WithheldPurchases(self._redis)
        self.quota = Quota(self._redis)
        self.keys = KeyStore(self._redis)
        self.documents = DocumentStore(self._redis)
        self.people = PeopleStore(self._redis, self.merger.follow, self.forgetting.salts)
        self.workers = WorkerStore(self._redis)
        self.holdings = HoldingsReader(self._redis)

    @classmethod
    async def open(
        cls, url: str, read_timeout_s: float = 0.05, profiling: ProfilingDefault = "opt_out"
    ) -> Self:
        """Connect and wait for the first answer.

        Raises
        ------
        StoreUnavailableError
            If nobody answers at `url`.
        """
        store = cls(url, read_timeout_s, profiling=profiling)
        try:
            await store.ping()
        except StoreUnavailableError:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close all connections."""
        await self._reader.close()
        await self._redis.aclose()

    async def ping(self, timeout_s: float = 5.0) -> None:
        """Return when the server answers.

        Raises
        ------
        StoreUnavailableError
            If it does not.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"no answer from {_shown(self.url)}: {error}") from error

    async def load_context(self, person: str | None, *, documents: bool = False) -> UserContext:
        """Read what a request needs; reads of concurrent requests share a round trip.

        Parameters
        ----------
        person : str or None
            ``schema.person_of``; ``None`` for nobody. A visitor who has signed in is the user.
        documents : bool
            Whether the profile and what training computed are needed too.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer within the read timeout.
        """
        if person is None:
            sequences = self._sequences(*await self._reader.get((), _SEQUENCES))
            return UserContext(EMPTY_STATE, NO_PREFERENCES, *sequences)
        names = [*keys.read_by_pages(person)]
        if documents:
            names += (keys.document("profile", person), keys.document("computed", person))
        if person.startswith("a:"):
            names.append(keys.link(person))
        sequence, head, hot, preferences, shown, *more = await self._reader.get(names, _SEQUENCES)
        if person.startswith("a:") and (signed_in := read_link(more.pop())) is not None:
            return await self.load_context(signed_in.person, documents=documents)
        profile, computed = more if documents else (None, None)
        catalogue_sequence, site_sequence = self._sequences(sequence, head)
        return UserContext(
            unpack(hot) if hot else EMPTY_STATE,
            read_preferences(preferences),
            catalogue_sequence,
            site_sequence,
            profile,
            computed,
            unpack_impressions(shown) if shown else NO_IMPRESSIONS,
            person,
        )

    def _sequences(self, catalogue: bytes | None, head: bytes | None) -> tuple[int, int]:
        """Return how many changes catalogue and site have had; mostly as many as a moment ago."""
        if (catalogue, head) != self._read:
            self._read = (catalogue, head)
            self._meant = (int(catalogue or 0), read_head(head)[0])
        return self._meant

    async def load_impressions(self, person: str) -> Impressions:
        """Read what a person was shown."""
        (shown,) = await self._reader.get((keys.impressions(person),))
        return unpack_impressions(shown)

    async def user_of(self, name: str, value: str) -> str | None:
        """Return the user whom an id of another system stands for, in time for a page.

        Raises
        ------
        StoreUnavailableError
            If the server does not answer within the read timeout.
        """
        (found,) = await self._reader.get((keys.external_id(name, value),))
        return None if found is None else found.decode("utf-8", "surrogatepass")

    async def refusing(self, people: Collection[str]) -> set[str]:
        """Return who of some people may not be profiled (``consents.refusing``)."""
        return await refusing(self._redis, people, self.profiling)

    async def uncounted(self, people: Collection[str]) -> set[str]:
        """Return who of some people may not be counted in reports (``consents.refusing``)."""
        return await refusing(self._redis, people, self.profiling, "analytics")

    async def load_state(self, person: str) -> UserState:
        """Read the whole state of a person, `rest` included."""
        hot, rest = await self._reader.get((keys.hot(person), keys.rest(person)))
        return join(unpack(hot), unpack(rest))

    async def info(self) -> dict[str, Any]:
        """Return what the server says of itself: version, persistence, memory policy."""
        try:
            facts: dict[str, Any] = await self._redis.info()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"no answer from {_shown(self.url)}: {error}") from error
        return facts


def _shown(url: str) -> str:
    """Return a URL without its password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
