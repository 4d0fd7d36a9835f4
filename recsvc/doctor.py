"""``recsvc doctor``: is everything as it must be, and if not, what to do."""

import asyncio
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from feature_store.embedded import EmbeddedServer, server_binary
from feature_store.errors import RecsvcError
from feature_store.event_log import EventLog
from feature_store.files import make_folder
from feature_store.store import Store
from recsvc.commands.output import stdout, table, write_json
from recsvc.settings import Settings
from recsvc.snapshot import SnapshotHolder

OLDEST_SERVER = (6, 2)
ENOUGH_DESCRIPTORS = 4096
ENOUGH_DISK_BYTES = 1 << 30
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    Parameters
    ----------
    check : str
        What was looked at.
    status : {"ok", "warning", "error"}
        Whether it is as it must be.
    detail : str
        What it is.
    advice : str
        What to do; empty if nothing.
    """

    check: str
    status: Literal["ok", "warning", "error"]
    detail: str
    advice: str = ""


def run(load: Callable[[], Settings], *, as_json: bool) -> int:
    """Look at everything and show what was found.

    Parameters
    ----------
    load : callable
        Reads the settings.

    Returns
    -------
    int
        Exit code: 1 if something is an error.
    """
    findings = list(examine(load))
    failed = any(finding.status == "error" for finding in findings)
    if as_json:
        write_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
        return int(failed)
    shown = table("", "check", "what", "what to do")
    for finding in findings:
        style = _STYLES[finding.status]
        shown.add_row(
            f"[{style}]{finding.status}[/]",
            finding.check,
            _plain(finding.detail),
            _plain(finding.advice),
        )
    stdout().print(shown)
    return int(failed)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def examine(load: Callable[[], Settings]) -> Iterator[Finding]:
    """Yield one finding after the other; without settings there is only one."""
    try:
        settings = load()
    except RecsvcError as error:
        yield Finding("settings", "error", str(error), "correct the setting")
        return
    yield Finding("settings", "ok", f"data in {settings.data_dir.absolute()}")
    folder = _data_dir(settings)
    yield folder
    if folder.status == "error":
        return
    yield from _server(settings)
    yield _event_log(settings)
    yield from _model(settings)
    yield from _threads(settings)
    yield _descriptors()


def _data_dir(settings: Settings) -> Finding:
    try:
        folder = make_folder(settings.data_dir)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (RecsvcError, OSError) as error:
        return Finding("data directory", "error", str(error), "set RECSVC_DATA_DIR to another")
    free = shutil.disk_usage(folder).free
    detail = f"writable, {free / 2**30:.1f} GiB free"
    if free < ENOUGH_DISK_BYTES:
        advice = "make room: a full disk stops imports, trainings and the embedded server"
        return Finding("data directory", "warning", detail, advice)
    return Finding("data directory", "ok", detail)


# --- the server ---------------------------------------------------------------------------------


def _server(settings: Settings) -> Iterator[Finding]:
    try:
        if settings.redis_url is None:
            server_binary()
            with EmbeddedServer(settings.data_dir) as server:
                facts = asyncio.run(_info(server.url))
        else:
            facts = asyncio.run(_info(settings.redis_url))
    except RecsvcError as error:
        advice = "start it, correct RECSVC_REDIS_URL, or unset it to use the embedded server"
        if settings.redis_url is None:
            advice = f"look into {settings.data_dir / 'valkey' / 'valkey.log'}"
        yield Finding("server", "error", str(error), advice)
        return
    yield _version(facts, embedded=settings.redis_url is None)
    if settings.redis_url is not None:
        yield _persistence(facts)
        yield _eviction(facts)


async def _info(url: str) -> dict[str, Any]:
    store = await Store.open(url)
    try:
        return await store.info()
    finally:
        await store.close()


def _version(facts: dict[str, Any], *, embedded: bool) -> Finding:
    # Valkey tells its own version beside that of the Redis it is compatible with.
    name = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    detail = f"{name} {version}, {'embedded' if embedded else 'external'}"
    if numbers < OLDEST_SERVER:
        return Finding("server", "error", detail, "6.2 or later is needed: upgrade it")
    return Finding("server", "ok", detail)


def _persistence(facts: dict[str, Any]) -> Finding:
    if int(facts.get("aof_enabled", 0)):
        return Finding("persistence", "ok", "append-only file")
    return Finding(
        "persistence",
        "warning",
        "no append-only file",
        "accepted events are lost when the server dies: set `appendonly yes` there",
    )


def _eviction(facts: dict[str, Any]) -> Finding:
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return Finding("eviction", "ok", policy)
    return Finding(
        "eviction",
        "warning",
        f"maxmemory-policy {policy}",
        "customers' histories vanish when memory is short: set `maxmemory-policy noeviction`",
    )


# --- log, model, machine ------------------------------------------------------------------------


def _event_log(settings: Settings) -> Finding:
    log = EventLog(settings.data_dir)
    try:
        count, pending = log.count(), log.pending()
    except (OSError, RecsvcError) as error:
        return Finding("event log", "error", str(error), "restore the file that is named")
    if pending:
        advice = "run any import, or start the service: it completes them"
        return Finding("event log", "warning", f"{len(pending)} import(s) not complete", advice)
    if not count:
        return Finding("event log", "warning", "no events", "`recsvc import events FILE`")
    return Finding("event log", "ok", f"{count:,} events")


def _model(settings: Settings) -> Iterator[Finding]:
    try:
        snapshot = SnapshotHolder(settings.data_dir).current
    except RecsvcError as error:
        advice = "`recsvc models rollback`, or import and train again"
        yield Finding("model", "error", str(error), advice)
        return
    n_items = snapshot.catalogue.n_rows
    if n_items:
        yield Finding("catalogue", "ok", f"{n_items:,} items")
    else:
        yield Finding("catalogue", "warning", "no items", "`recsvc import items FILE`")
    if snapshot.model.artifact is None:
        yield Finding(
            "model", "warning", "none yet: lists come from the catalogue", "`recsvc train`"
        )
        return
    detail = f"{snapshot.model.version}, {snapshot.model.n_items:,} items, files verified"
    yield Finding("model", "ok", detail)


def _threads(settings: Settings) -> Iterator[Finding]:
    pools = threadpool_info()
    greedy = [pool for pool in pools if pool["num_threads"] > 1]
    shown = ", ".join(
        f"{pool['internal_api']} {pool['num_threads']}"
        for pool in sorted(pools, key=lambda pool: str(pool["internal_api"]))
    )
    if greedy:
        advice = "set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 for the service"
        yield Finding("threads", "warning", shown, advice)
    else:
        yield Finding("threads", "ok", shown or "one")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if settings.workers > cores:
        detail = f"{settings.workers} workers on {cores} cores"
        yield Finding("workers", "warning", detail, f"RECSVC_WORKERS={cores} is enough")
    else:
        yield Finding("workers", "ok", f"{settings.workers} on {cores} cores")


def _descriptors() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < ENOUGH_DESCRIPTORS:
        detail = f"{soft:,} at most"
        return Finding("open files", "warning", detail, "`ulimit -n 65536` before you start it")
    return Finding("open files", "ok", "no limit" if soft < 0 else f"{soft:,} at most")
