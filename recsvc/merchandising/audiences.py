"""How many users belong to each segment, and which ones: found by looking at everybody."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from feature_store.preferences import profiling_allowed
from feature_store.store import Store
from recsvc.merchandising.segments import Segment, SegmentBody, SegmentIndex, segments_of
from recsvc.people import SLICE, document_of, scan_users

LIVE_UPTO_S = 0.25
"""A count that takes no longer is made anew for every question."""
SHARE = 10
"""A count that takes longer holds for so many times as long as it took."""

WAIT_S = 5.0
"""A question waits no longer for a count."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many users there are.

    Parameters
    ----------
    as_of : datetime
        When counting began.
    n_users : int
        All users that are known by more than events.
    members : mapping of str to int
        Users in each segment.
    """

    as_of: datetime
    n_users: int
    members: Mapping[str, int]


class SegmentCounter:
    """Counts the members of all segments in one pass, and remembers it as long as it was work.

    Parameters
    ----------
    store : Store
        Where the users are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._known: Counts | None = None
        self._of: Mapping[str, SegmentBody] = {}
        self._tasks: set[asyncio.Task[Counts]] = set()
        self._began_s = 0.0
        self._took_s = 0.0

    async def counts(
        self, segments: Mapping[str, Segment], wait_s: float = WAIT_S
    ) -> Counts | None:
        """Return the members of each segment, as of now or, with very many users, of a while ago.

        Parameters
        ----------
        segments : mapping of str to Segment
            Those of the site.
        wait_s : float
            Counting that takes longer goes on in the background.

        Returns
        -------
        Counts or None
            ``None`` while these segments are being counted for the first time.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        """
        task = asyncio.create_task(self._counted(segments, time.monotonic()))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.wait_for(asyncio.shield(task), wait_s)
        except TimeoutError:
            return self._known if self._of == _bodies(segments) else None

    def _forget(self, task: "asyncio.Task[Counts]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it; nobody else needs to know

    async def _counted(self, segments: Mapping[str, Segment], asked_s: float) -> Counts:
        bodies = _bodies(segments)
        async with self._lock:
            # Whoever waited takes the count that began after the question.
            fresh = self._began_s >= asked_s or (
                self._took_s > LIVE_UPTO_S and asked_s < self._began_s + SHARE * self._took_s
            )
            if self._known is None or self._of != bodies or not fresh:
                began_s = time.monotonic()
                self._known = await count_members(self._store, segments)
                self._of = bodies
                self._began_s, self._took_s = began_s, time.monotonic() - began_s
            return self._known


def _bodies(segments: Mapping[str, Segment]) -> dict[str, SegmentBody]:
    return {name: segment.body for name, segment in segments.items()}


async def count_members(store: Store, segments: Mapping[str, Segment]) -> Counts:
    """Look at every user once and count the members of every segment.

    The event loop is free after every few users.
    """
    as_of = datetime.now(UTC)
    members = dict.fromkeys(segments, 0)
    n_users = 0
    index = SegmentIndex(segments)
    fields = frozenset().union(*(segment.fields for segment in segments.values()))
    async for users in scan_users(store, fields):
        n_users += len(users)
        for _, user in users:
            for name in index.segments_of(user):
                members[name] += 1
    return Counts(as_of, n_users, members)


async def members_of(store: Store, segment: Segment) -> AsyncIterator[list[str]]:
    """Yield the user ids of a segment's members, some at a time.

    A user who changes meanwhile may be found as before or as after.
    """
    only = {segment.segment_id: segment}
    async for users in scan_users(store, segment.fields):
        found = [user_id for user_id, user in users if segments_of(only, user)]
        if found:
            yield found


async def segments_now(
    store: Store, segments: Mapping[str, Segment], people: Sequence[str]
) -> dict[str, list[str]]:
    """Return who of some people is in which segment; visitors are in none.

    Parameters
    ----------
    store : Store
        Where the people are.
    segments : mapping of str to Segment
        Those of the site.
    people : sequence of str
        ``schema.person_of``.

    Returns
    -------
    dict of str to list of str
        The people in each segment, of those that have any.
    """
    users = [person for person in people if person.startswith("u:")]
    found: dict[str, list[str]] = {}
    index = SegmentIndex(segments)
    for start in range(0, len(users), SLICE):
        part = users[start : start + SLICE]
        contexts = await asyncio.gather(
            *(store.load_context(person, documents=True) for person in part)
        )
        for person, context in zip(part, contexts, strict=True):
            if not profiling_allowed(context.preferences, store.profiling):
                continue
            for name in index.segments_of(document_of(context)):
                found.setdefault(name, []).append(person)
    return found
