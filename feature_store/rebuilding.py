"""From the archive back to a server: an emptied one gets the identical state.

What it reads: the event log, the change log and the catalogue's file. Until it is finished the
server says so (``keys.REBUILDING``), and nothing is archived. It adds to people as an import does,
once each, so a rebuild that was killed goes on where it was when it is started again, and from the
very files that it began with. Who is forgotten comes back first, and what is forgotten of them does
not come back.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import redis.asyncio

from feature_store import keys
from feature_store.archiver import Archiver
from feature_store.catalogue_files import CatalogueFiles
from feature_store.change_log import Change, ChangeLog
from feature_store.change_store import CATALOGUE
from feature_store.cluster import connect
from feature_store.compaction import arrived_at
from feature_store.documents import NAME as SITE
from feature_store.errors import ConflictError, UserError
from feature_store.event_log import EVENT_LOG_SCHEMA, EventLog, scan_files
from feature_store.files import write_json
from feature_store.forgetting.erasures import NAME as RECEIPTS
from feature_store.forgetting.ledger import NO_CUT, Cut, kept_changes, ledger_of, read_ledger
from feature_store.forgetting.restoring import held_entries, replay_forgotten
from feature_store.forgetting.scrubbing import scrub_forgotten
from feature_store.ingest.run import KIND as IMPORT_KIND
from feature_store.ingest.run import LOCK_WAIT_S
from feature_store.ingest.table import Progress, silent
from feature_store.merging import ROW_TYPE, linked_digest, merged_people
from feature_store.people import NAME as PEOPLE
from feature_store.schema import person_of
from feature_store.store import Store

GROUP_ROWS = 1_000_000
DRAIN_ROUNDS = 10_000
_CHUNK = 2_000
_NOBODYS = 1_000_000_000
"""No stream has so many entries in a millisecond."""
_DAY_S = 86_400
_READ = ["user_id", "anonymous_id", "item_id", "type", "timestamp", "extra"]


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild brought back.

    Parameters
    ----------
    events : int
        Events of the log.
    items : int
        Items that have a row.
    keys : int
        API keys, revoked ones too.
    documents : int
        Rules, placements, profiles, preferences, ...: all documents of the site and of people.
    visitors : int
        Visitors who became users.
    event_ids : int
        Ids of recent events, so that one that is sent again does not count again.
    """

    events: int = 0
    items: int = 0
    keys: int = 0
    documents: int = 0
    visitors: int = 0
    event_ids: int = 0


async def rebuild(
    url: str, data_dir: Path, *, force: bool = False, progress: Progress = silent
) -> Rebuilt:
    """Bring an emptied server back to the state that the archive describes.

    Parameters
    ----------
    url : str
        Of the server.
    data_dir : Path
        With ``events/``, ``changes/`` and ``catalogue/``.
    force : bool
        Whether a server that is not empty may be emptied first: what it has accepted is archived,
        then our keys are removed, and nobody else's.
    progress : Progress
        Is told how far it is.

    Raises
    ------
    UserError
        If the server is not empty.
    ConflictError
        If a service or an import is at work.
    StoreUnavailableError
        If the server does not answer; start again, and it goes on.
    """
    store = await Store.open(url)
    client = connect(url)
    try:
        log = EventLog(data_dir)
        if force and await _started(client, log) is None:
            await client.delete(keys.REBUILDING)
            archiver = Archiver(store.streams, log)
            await archiver.drain(_stage(progress, "archiving"))
            await _drain_changes(archiver, client)
        with log.importing(LOCK_WAIT_S):
            return await _Rebuild(store, client, data_dir, progress).run(force=force)
    finally:
        await client.aclose()
        await store.close()


async def _started(client: Any, log: EventLog) -> dict[str, Any] | None:
    """Return the plan of the rebuild that this server waits for, if it is one of this log."""
    name = await client.get(keys.REBUILDING)
    path = log.imports / "rebuild.json"
    if name is None or not path.exists():
        return None
    plan: dict[str, Any] = orjson.loads(path.read_bytes())
    return plan if plan["rebuild_id"] == name.decode() else None


async def _drain_changes(archiver: Archiver, client: Any) -> None:
    """Archive the changes of people, of which each round takes some only."""
    for _ in range(DRAIN_ROUNDS):
        async with client.pipeline(transaction=False) as pipeline:
            for shard in keys.shards():
                pipeline.xlen(keys.person_changes(shard))
            if not any(await pipeline.execute()):
                return
        await archiver.run_once()
    raise ConflictError("changes of people keep coming: stop the service, and start again")


def _stage(progress: Progress, name: str) -> Any:
    return lambda done, total: progress(name, done, total)


class _Rebuild:
    """One rebuild, while the log is held."""

    def __init__(
        self, store: Store, client: "redis.asyncio.Redis", data_dir: Path, progress: Progress
    ) -> None:
        self._store = store
        # redis-py types each answer as everything that any of its clients could return.
        self._redis: Any = client
        self._log = EventLog(data_dir)
        self._changes = ChangeLog(data_dir)
        self._catalogue = CatalogueFiles(data_dir / "catalogue")
        self._progress = progress
        self._plan_path = self._log.imports / "rebuild.json"
        self._keep: Callable[[pl.LazyFrame], pl.LazyFrame]

    async def run(self, *, force: bool) -> Rebuilt:
        if await self._redis.exists(keys.ARCHIVER):
            raise ConflictError(
                "a service works with this server: stop it, wait 10 seconds, and start again"
            )
        plan = await _started(self._redis, self._log)
        if plan is None:
            await self._empty(force=force)
            plan = await self._begin()
        done = Rebuilt()
        # The server that is lost may have known of erasures that were not finished.
        scrub_forgotten(self._log.events.parent, self._progress)
        await self._store.erasures.replay(one.body for one in self._changes.read(RECEIPTS))
        people = self._changes.read(PEOPLE)
        await replay_forgotten(self._redis, (change.body for change in people))
        await self._restore_catalogue()
        done.keys = await self._restore_keys()
        done.documents = await self._restore_documents(kept_changes(people))
        files = [self._log.events / name for name in plan["files"]]
        ledger = ledger_of(change.body for change in people)
        self._keep = ledger.keeping(scan_files(files))
        done.visitors = await self._restore_links(files)
        done.events = await self._restore_states(files, plan)
        done.event_ids = await self._restore_event_ids(files)
        await self._store.imports.forget(plan["rebuild_id"])
        await self._redis.delete(keys.REBUILDING)
        self._plan_path.unlink()
        done.items = await self._redis.hlen(keys.CATALOGUE_IDS)
        return done

    async def _empty(self, *, force: bool) -> None:
        """Make sure that nothing of ours is there."""
        found: list[bytes] = []
        async for name in self._redis.scan_iter(count=_CHUNK):
            if keys.OURS.match(name) and not name.startswith(b"{archive}"):
                found.append(name)
                if not force:
                    raise UserError(
                        f"the server is not empty: it holds {name.decode(errors='replace')!r};"
                        " `recsvc rebuild --force` archives what it has accepted, removes all"
                        " keys of recsvc from it, and rebuilds"
                    )
        if await self._store.streams.length():
            raise ConflictError("the server accepts events: stop the service, and start again")
        await self._save_forgotten()
        for start in range(0, len(found), _CHUNK):
            await self._redis.unlink(*found[start : start + _CHUNK])
        await self._redis.delete(keys.EPOCH)

    async def _save_forgotten(self) -> None:
        """Write down who is forgotten, should the archive not know it: it must never be lost."""
        known = read_ledger(self._changes)
        numbers = {shard: number for number, shard in enumerate(keys.shards())}
        found: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
        for entry in await held_entries(self._redis, await self._store.forgetting.ledger()):
            body = entry["body"]
            cut = Cut(body["before_ms"], body["erased_ms"])
            before = known.cuts.get(entry["person"], NO_CUT)
            if before.later(cut) != before:
                # Where it would stand if the archive had it, and where nothing else can stand.
                place = (cut.erased_ms, _NOBODYS + len(found), numbers[body["shard"]])
                found.append((place, entry))
        if found:
            found.sort(key=lambda one: one[0])
            ids = ["-".join(map(str, place)) for place, _ in found]
            epoch = await self._store.streams.epoch()
            entries = [entry for _, entry in found]
            self._changes.write(PEOPLE, epoch or secrets.token_hex(8), ids, entries)

    async def _begin(self) -> dict[str, Any]:
        """Fix what is rebuilt from, and tell the server that it is not finished."""
        with self._log.committing():
            files = self._log.files()
        plan = {
            "rebuild_id": f"rebuild-{secrets.token_hex(8)}",
            "files": [f"{path.parent.name}/{path.name}" for path in files],
        }
        # An import that was killed before its end is in the log: what it lacked comes from there.
        for journal in self._log.pending():
            if journal.info.get("kind") == IMPORT_KIND:
                self._log.finish(journal.import_id)
        write_json(self._plan_path, plan)
        await self._redis.set(keys.REBUILDING, plan["rebuild_id"])
        return plan

    async def _restore_catalogue(self) -> None:
        file = self._catalogue.load()
        await self._store.catalogue.restore(file.catalogue, file.sequence)
        known: dict[int, dict[str, Any]] = {}
        epoch = ""
        for change in self._changes.read(CATALOGUE):
            number = change.place[0]
            if change.epoch != epoch:
                # A server that was emptied went on from there in its own way.
                epoch = change.epoch
                known = {place: body for place, body in known.items() if place < number}
            known[number] = change.body
        # The log that the server had began before its file, unless the archive lacks something.
        start = file.log_start
        if not all(number in known for number in range(start + 1, file.sequence + 1)):
            start = file.sequence
        entries: list[bytes] = []
        while (number := start + len(entries) + 1) in known:
            entries.append(known[number]["entry"].encode())
        await self._store.streams.changes.restore_catalogue(start, entries)

    async def _restore_keys(self) -> int:
        changes = self._changes.read("keys")
        await self._store.keys.replay([change.body for change in changes])
        return len(await self._store.keys.all())

    async def _restore_documents(self, people: list[Change]) -> int:
        """Bring back what the site decided, and the profiles and preferences of people."""
        site = [change.body for change in self._changes.read(SITE)]
        n_documents = await self._store.documents.replay(site)
        bodies = (change.body for change in people)
        return n_documents + await self._store.people.replay(bodies)

    async def _restore_links(self, files: list[Path]) -> int:
        """Write down again which visitors became users, and whose history they brought."""
        merges = (
            self._keep(scan_files(files))
            .filter(pl.col("type") == ROW_TYPE)
            .sort("timestamp")
            .unique("anonymous_id", keep="first")
            .select("user_id", "anonymous_id", "timestamp")
            .collect()
        )
        for part in merges.iter_slices(_CHUNK):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for user_id, anonymous_id, at in part.iter_rows():
                    user, visitor = f"u:{user_id}", f"a:{anonymous_id}"
                    pipeline.set(keys.link(visitor), f"={user}")
                    pipeline.hset(keys.merges(user), visitor, int(at.timestamp()))
                await pipeline.execute()
        return len(merges)

    async def _restore_states(self, files: list[Path], plan: dict[str, Any]) -> int:
        log = self._keep(scan_files(files))
        rows = log.filter(pl.col("type") != ROW_TYPE).select(pl.len()).collect()
        n_events = int(rows.item())
        parts = -(-n_events // GROUP_ROWS)
        done = 0
        for part in range(parts):
            mine = pl.coalesce("user_id", "anonymous_id").hash(seed=0) % parts == part
            events = merged_people(log).select(_READ).filter(mine)
            frame = events.collect(engine="streaming")

            def tell(people: int, of: int, before: int = done, size: int = len(frame)) -> None:
                self._progress("states", before + size * people // max(of, 1), n_events)

            await self._store.imports.apply(plan["rebuild_id"], frame, tell, kept=True)
            done += len(frame)
        self._progress("states", n_events, n_events)
        return n_events

    async def _restore_event_ids(self, files: list[Path]) -> int:
        """Bring back the ids of the last days' events, so that sent again they do not count."""
        oldest = datetime.now(UTC) - timedelta(seconds=keys.DEDUPLICATION_TTL_S)
        recent = [
            path
            for path in files
            if path.name.startswith(("live-", "compact-"))
            and arrived_at(path.name) >= oldest.strftime("%Y%m%dT%H%M%S%f")
        ]
        users = await self._links(self._keep(scan_files(files)))
        done = 0
        for path in recent:
            arrived = datetime.strptime(f"{arrived_at(path.name)}Z", "%Y%m%dT%H%M%S%f%z")
            day = int(arrived.timestamp()) // _DAY_S
            for part in self._keep(scan_files([path])).collect().iter_slices(_CHUNK):
                await self._remember(part, day, users)
                done += len(part)
            self._progress("event ids", done, 0)
        return done

    async def _links(self, log: pl.LazyFrame) -> dict[str, str]:
        merges = log.filter(pl.col("type") == ROW_TYPE).sort("timestamp")
        first = merges.unique("anonymous_id", keep="first").select("anonymous_id", "user_id")
        return {f"a:{anonymous}": f"u:{user}" for anonymous, user in first.collect().iter_rows()}

    async def _remember(self, events: pl.DataFrame, day: int, users: dict[str, str]) -> None:
        names: set[str] = set()
        expires_s = int(time.time()) + keys.DEDUPLICATION_TTL_S
        async with self._redis.pipeline(transaction=False) as pipeline:
            for person, digest, body in _ids(events):
                owner = users.get(person, person)
                name = keys.deduplication(owner, day)
                names.add(name)
                known = digest if owner == person else linked_digest(person, digest)
                pipeline.hset(name, known, body)
            for name in names:
                pipeline.expireat(name, expires_s)
            await pipeline.execute()


def _ids(events: pl.DataFrame) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield person, digest of the id and digest of the body, as they were when it arrived."""
    for row in events.iter_rows(named=True):
        person = person_of(row["user_id"], row["anonymous_id"])
        if person is None or row["type"] == ROW_TYPE:
            continue
        yield (
            person,
            digest_of(f"{row['trust']}:{row['event_id']}".encode()),
            digest_of(body_of(row)),
        )


def body_of(row: dict[str, Any]) -> bytes:
    """Return an event as it stood in its stream, from its row in the log."""
    extra: dict[str, Any] = orjson.loads(row["extra"]) if row["extra"] else {}
    amount = extra.pop("unit_price_amount", None)
    body = {name: row[name] for name in EVENT_LOG_SCHEMA if name not in _REWRITTEN} | extra
    at = row["timestamp"]
    spec = "milliseconds" if at.microsecond else "seconds"
    body["timestamp"] = at.isoformat(timespec=spec).replace("+00:00", "Z")
    if row["unit_price"] is not None:
        amount = amount or f"{row['unit_price']:.2f}"
        body["unit_price"] = {"amount": amount, "currency": row["currency"]}
    present = {name: value for name, value in body.items() if value is not None}
    return orjson.dumps(present, option=orjson.OPT_SORT_KEYS)


_REWRITTEN = frozenset({"timestamp", "unit_price", "currency", "extra"})


def digest_of(data: bytes) -> bytes:
    """Return what the server keeps of an id or a body; as in ``state_writer``."""
    return hashlib.blake2b(data, digest_size=8).digest()
