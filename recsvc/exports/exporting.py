"""All that is held of one person as one readable document, written as it is read.

The server is read first, then the files: what is archived in between is found in both, and shown
once. The parts of a document come in small batches, so that neither a long history nor a large log
needs much memory, and pages go on being answered.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store.archiver import as_log_frame
from feature_store.catalogue import Catalogue
from feature_store.change_log import ChangeLog
from feature_store.event_log import EventLog
from feature_store.feedback import read_feedback
from feature_store.forgetting.deliveries import Deliveries
from feature_store.holdings.files import (
    change_rows,
    decision_records,
    log_rows,
    merged_visitors,
    reject_files,
    reject_rows,
)
from feature_store.holdings.server import OnServer, Wanted
from feature_store.schema import format_time
from feature_store.store import Store
from recsvc.customer.disowned import disowned_in
from recsvc.decisions import decision_of
from recsvc.exports.sections import SECTIONS
from recsvc.exports.values import (
    change_of,
    event_key,
    facts_of,
    feedback_of,
    log_row,
    merge_of,
    session_of,
    shown_of,
    sliced,
    time_of,
    title_of,
)
from recsvc.merchandising.segments import Segment, segments_of
from recsvc.people import may_profile_by, person_document

Row = dict[str, Any]
Part = tuple[str, list[Row]]
"""Name of a section, and some of its entries; a section may come in several parts, one after the
other, and comes at least once."""

_SHOPS_OWN = ("rules", "removed", "candidates", "answer")
"""What a decision's record says of the shop rather than of the person."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an export is read from.

    Parameters
    ----------
    store : Store
        The server.
    data_dir : Path
        The files.
    catalogue : Catalogue
        Knows titles.
    segments : mapping of str to Segment
        Those of the site.
    """

    store: Store
    data_dir: Path
    catalogue: Catalogue
    segments: Mapping[str, Segment]


class PersonExport:
    """What is held of one person; made by `open_export`, which reads the server.

    Parameters
    ----------
    sources : Sources
        Where the rest is.
    wanted : Wanted
        Who.
    held : list of OnServer
        What the server holds: of the user first, then of each visitor who became the user.
    events, changes : list of dict
        What waits in the streams.
    forgotten : list of dict
        What was erased before, and erasures under way.
    whole : bool
        Whether records of answers are shown with what they say of the shop: its rules, and what it
        did not show.
    """

    def __init__(
        self,
        sources: Sources,
        wanted: Wanted,
        held: list[OnServer],
        events: list[Row],
        changes: list[Row],
        forgotten: list[Row],
        *,
        whole: bool,
    ) -> None:
        self.wanted, self.made_at = wanted, datetime.now(UTC)
        self._sources, self._held, self._whole = sources, held, whole
        self._events, self._changes, self._forgotten = events, changes, forgotten

    @property
    def head(self) -> Row:
        """Who it is of, and when it was made."""
        user_id, visitors = self.wanted.user_id, sorted(self.wanted.visitors)
        whose: Row = {"user_id": user_id, "anonymous_id": None}
        if user_id is None:
            whose["anonymous_id"] = visitors[0]
        return {"format": "recsvc-export-1", **whose, "made_at": format_time(self.made_at)}

    async def parts(self) -> AsyncIterator[Part]:
        """Yield all sections in their order, each at least once.

        Raises
        ------
        StoreUnavailableError
            If the server stops answering.
        """
        for section in SECTIONS:
            yield section.name, []
            async for batch in self._entries(section.name):
                yield section.name, batch

    async def _entries(self, name: str) -> AsyncIterator[list[Row]]:
        if name == "events":
            async for batch in self._all_events():
                yield batch
        elif name == "changes":
            async for batch in self._all_changes():
                yield batch
        elif name == "decisions":
            folder = self._sources.data_dir / "decisions"
            async for records in in_thread(decision_records(folder, self.wanted)):
                for few in sliced(iter(records)):
                    yield [self._decision(one) for one in few]
                    await asyncio.sleep(0)
        elif name == "rejects":
            paths = reject_files(self._sources.data_dir)
            async for batch in in_thread(reject_rows(paths, self._ids())):
                yield batch
        else:
            of_server: Mapping[str, Iterator[Row]] = {
                "profile": self._documents("profile"),
                "external_ids": self._external_ids(),
                "preferences": self._documents("preferences"),
                "computed": self._documents("computed"),
                "segments": self._segments(),
                "facts": self._each(facts_of),
                "session": self._each(session_of),
                "feedback": self._each(feedback_of),
                "impressions": self._each(shown_of),
                "merges": self._merges(),
                "technical": self._technical(),
                "forgotten": iter(self._forgotten),
                "delivered": self._delivered(),
            }
            for few in sliced(of_server.get(name, iter(()))):
                yield few
                await asyncio.sleep(0)

    def _ids(self) -> list[str]:
        """Return everything that the person is called."""
        ids = [self.wanted.user_id] if self.wanted.user_id is not None else []
        known = [value for one in self._held for _, value in one.external_ids]
        return [*ids, *sorted(self.wanted.visitors), *known]

    def _under(self, one: OnServer) -> Row:
        """Say of a visitor whose history is not the user's yet that it is the visitor's."""
        if one is self._held[0]:
            return {}
        return {"anonymous_id": one.person.removeprefix("a:")}

    # --- from the server ----------------------------------------------------------------------

    def _documents(self, kind: Any) -> Iterator[Row]:
        for one in self._held:
            if (document := one.documents[kind]) is not None:
                yield {**document, **self._under(one)}

    def _external_ids(self) -> Iterator[Row]:
        for one in self._held:
            profile = one.documents["profile"] or {}
            for system, value in one.external_ids:
                named = (profile.get("external_ids") or {}).get(system) == value
                yield {"system": system, "id": value, "in_the_profile": named}

    def _segments(self) -> Iterator[Row]:
        one = self._held[0]
        default = self._sources.store.profiling
        if self.wanted.user_id is None or not may_profile_by(one.documents["preferences"], default):
            return
        user = person_document(
            one.documents["profile"] or {},
            one.documents["computed"] or {},
            read_feedback(one.state),
            (one.documents["preferences"] or {}).get("consent") or {},
            disowned_in(one.documents["preferences"]),
        )
        for name in sorted(segments_of(self._sources.segments, user)):
            body = self._sources.segments[name].body
            yield {"segment_id": name, "name": body.name, "description": body.description}

    def _each(self, rows_of: Any) -> Iterator[Row]:
        for one in self._held:
            for row in rows_of(one, self._sources.catalogue):
                yield {**row, **self._under(one)}

    def _merges(self) -> Iterator[Row]:
        seen = set()
        for one in self._held:
            for visitor, at_s in one.visitors.items():
                seen.add(visitor)
                yield merge_of(visitor, one.person, at_s or None, complete=at_s > 0)
        for one in self._held:
            if one.link is not None and one.person not in seen:
                began_s = None if one.sealed_ms is None else one.sealed_ms // 1000
                yield merge_of(one.person, one.link, began_s, complete=began_s is None)

    def _technical(self) -> Iterator[Row]:
        for one in self._held:
            of = one.person.partition(":")[2]
            for day, count in one.event_ids.items():
                at = time_of(day * 86_400)[:10]
                yield {"kind": "remembered event ids", "of": of, "name": at, "count": count}
            for minute, count in one.quota.items():
                at = time_of(minute * 60)
                yield {"kind": "events of a browser", "of": of, "name": at, "count": count}
            for import_id in one.imports:
                yield {"kind": "import added", "of": of, "name": import_id, "count": 1}
            if one.indexed:
                yield {"kind": "in the index of people", "of": of, "name": "", "count": 1}
            if one.link is not None:
                yield {"kind": "link to the user", "of": of, "name": one.link[2:], "count": 1}
        example, user_id = self._sources.data_dir / "demo.json", self.wanted.user_id
        if example.exists() and user_id in orjson.loads(example.read_bytes())["user_ids"]:
            row = {"kind": "example of the demo", "of": user_id, "name": example.name, "count": 1}
            yield row

    def _delivered(self) -> Iterator[Row]:
        for one in Deliveries(self._sources.data_dir).all():
            # Where files lie on the shop's machines is no browser's business.
            yield asdict(one) if self._whole else {**asdict(one), "path": None}

    # --- from the files -----------------------------------------------------------------------

    async def _all_events(self) -> AsyncIterator[list[Row]]:
        """Yield the rows of the log, then what waits and did not get there meanwhile."""
        waiting = {event_key(one): one for one in self._events}
        log = EventLog(self._sources.data_dir)
        async for batch in in_thread(log_rows(log, self.wanted)):
            for few in sliced(iter(batch)):
                for row in few:
                    waiting.pop(event_key(row), None)
                yield [self._event(row, "event log") for row in few]
                await asyncio.sleep(0)
        for few in sliced(iter(waiting.values())):
            rows = as_log_frame(few).to_dicts()
            yield [self._event(row, "stream") for row in rows]
            await asyncio.sleep(0)

    def _event(self, row: Row, where: str) -> Row:
        return {**log_row(row, self._sources.catalogue), "stored_in": where}

    async def _all_changes(self) -> AsyncIterator[list[Row]]:
        waiting = {orjson.dumps(one): one for one in self._changes}
        changes = ChangeLog(self._sources.data_dir)
        async for batch in in_thread(change_rows(changes, self.wanted)):
            for few in sliced(iter(batch)):
                for row in few:
                    waiting.pop(orjson.dumps(row), None)
                yield [change_of(row) for row in few]
                await asyncio.sleep(0)
        if waiting:
            yield [change_of(row) for row in waiting.values()]

    def _decision(self, record: Row) -> Row:
        at = {"at": time_of(record["at"] / 1000)}
        catalogue = self._sources.catalogue
        decision = {**at, **decision_of(record, catalogue)}
        decision["items"] = [
            title_of(catalogue, item["item_id"]) | item for item in decision["items"]
        ]
        if self._whole:
            return {**decision, "answer": record["answer"]}
        shown = [
            {name: value for name, value in item.items() if name != "rules"}
            for item in decision["items"]
        ]
        kept = {name: one for name, one in decision.items() if name not in _SHOPS_OWN}
        return {**kept, "items": shown}


async def open_export(sources: Sources, person: str, *, whole: bool = True) -> PersonExport:
    """Read what the server holds of a person, and return what writes the document.

    Parameters
    ----------
    sources : Sources
        Where it is.
    person : str
        ``schema.person_of``; a visitor who became a user is only what is left under the visitor's
        own name, so ask for the user.
    whole : bool
        See `PersonExport`.

    Raises
    ------
    StoreUnavailableError
        If the server does not answer.
    """
    reader, log = sources.store.holdings, EventLog(sources.data_dir)
    kind, _, name = person.partition(":")
    user_id, visitors = (name, set[str]()) if kind == "u" else (None, {name})
    import_ids = await asyncio.to_thread(_import_ids, log)
    if user_id is not None:
        visitors |= await asyncio.to_thread(merged_visitors, log, user_id)
        own = await reader.read(person, import_ids)
        visitors |= {visitor.removeprefix("a:") for visitor in own.visitors}
    waiting = await reader.waiting_events(user_id, visitors)
    wanted = Wanted.of(user_id, waiting.visitors)
    changes = await reader.waiting_changes(wanted.people)
    named = set(_external_ids(changes))
    async for batch in in_thread(change_rows(ChangeLog(sources.data_dir), wanted)):
        named.update(_external_ids(batch))
    held = [await reader.read(one, import_ids, named) for one in wanted.people]
    forgotten = await _forgotten(sources.store, wanted.people)
    return PersonExport(sources, wanted, held, waiting.events, changes, forgotten, whole=whole)


async def _forgotten(store: Store, people: Sequence[str]) -> list[Row]:
    """Return what is forgotten of some people, and erasures of them that are under way."""
    found: list[Row] = []
    for person, guard in zip(people, await store.forgetting.guards(people), strict=True):
        before_ms, erased_ms = guard.cut
        if before_ms or erased_ms:
            found.append(
                {
                    "of": person.partition(":")[2],
                    "events_before": time_of(before_ms / 1000),
                    "documents_before": time_of(erased_ms / 1000) if erased_ms else None,
                }
            )
    for job in await store.erasures.jobs():
        if mine := sorted(set(people).intersection(job.people)):
            of = ", ".join(person.partition(":")[2] for person in mine)
            found.append({"of": of, "under_way_since": job.requested_at})
    return found


async def in_thread(batches: Iterator[list[Row]]) -> AsyncIterator[list[Row]]:
    """Yield what an iterator yields that reads files, each step in a thread."""
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        yield batch


def _import_ids(log: EventLog) -> list[str]:
    """Return the imports of which the server may still have markers: all that left a trace."""
    if not log.imports.is_dir():
        return []
    found = [path.name for path in log.imports.iterdir() if path.is_dir()]
    plan = log.imports / "rebuild.json"
    if plan.exists():
        found.append(orjson.loads(plan.read_bytes())["rebuild_id"])
    return sorted(found)


def _external_ids(changes: list[Row]) -> Iterator[tuple[str, str]]:
    for change in changes:
        if change["kind"] == "profile":
            yield from ((change["body"] or {}).get("external_ids") or {}).items()
