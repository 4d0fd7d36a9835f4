"""The files of the Redis server itself: what was deleted leaves them when they are written anew."""

import asyncio
import time
from contextlib import suppress
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from feature_store.errors import StoreUnavailableError

Outcome = Literal["rewritten", "not kept", "not allowed"]
TIMEOUT_S = 600.0
_LOOK_EVERY_S = 0.05
_AFTERWARDS_S = 0.2
"""The server removes the files that it has replaced in a thread of its own."""


async def rewrite_files(redis: "Redis", timeout_s: float = TIMEOUT_S) -> Outcome:
    """Have the server write its files anew from what it holds now, and wait until it has.

    Parameters
    ----------
    redis : Redis
        A client of the server or the cluster.
    timeout_s : float
        How long to wait for it.

    Returns
    -------
    str
        ``not kept`` if it keeps none, ``not allowed`` if it does not let us.

    Raises
    ------
    StoreUnavailableError
        If a server does not answer, or does not succeed.
    """
    try:
        outcomes = {await _rewrite(node, timeout_s) for node in await _nodes(redis)}
    except (RedisError, OSError) as error:
        if _is_forbidden(error):
            return "not allowed"
        # Also when a rewrite of the server's own came in between: asked again, it succeeds.
        raise StoreUnavailableError(f"the server's files are not rewritten: {error}") from error
    return "rewritten" if "rewritten" in outcomes else "not kept"


def _is_forbidden(error: Exception) -> bool:
    """Tell whether a server that somebody else runs for us does not know, or allow, a command."""
    unknown = isinstance(error, ResponseError) and "unknown command" in str(error).lower()
    return unknown or isinstance(error, NoPermissionError)


LogOutcome = Literal["reset", "not allowed"]
_LOGS = (("SLOWLOG", "RESET"), ("ACL", "LOG", "RESET"))
_MORE_LOGS = ("large-request", "large-reply")
"""Valkey remembers these commands, too; Redis does not know them."""


async def reset_logs(redis: "Redis") -> LogOutcome:
    """Have the server forget the slow and the refused commands, whose arguments name people.

    Parameters
    ----------
    redis : Redis
        A client of the server or the cluster.

    Returns
    -------
    str
        ``not allowed`` if it does not let us: what it remembers is overwritten in time.

    Raises
    ------
    StoreUnavailableError
        If a server does not answer.
    """
    try:
        for node in await _nodes(redis):
            for command in _LOGS:
                await node.execute_command(*command)
            for kind in _MORE_LOGS:
                with suppress(ResponseError):
                    await node.execute_command("COMMANDLOG", "RESET", kind)
    except (RedisError, OSError) as error:
        if _is_forbidden(error):
            return "not allowed"
        raise StoreUnavailableError(f"the server's logs are not reset: {error}") from error
    return "reset"


async def _nodes(redis: Any) -> list[Any]:
    """Return a client for each server that holds keys."""
    if not hasattr(redis, "primaries"):
        return [redis]
    found: list[Any] = await redis.primaries()
    return found


async def _rewrite(node: Any, timeout_s: float) -> Outcome:
    deadline_s = time.monotonic() + timeout_s
    facts = await node.info("persistence")
    has_log = bool(int(facts.get("aof_enabled", 0)))
    has_dumps = bool((await node.config_get("save")).get("save"))
    if has_log:
        # One that runs already may have begun before the names were gone.
        await _until_idle(node, "aof_rewrite", deadline_s)
        await node.bgrewriteaof()
        await _until_idle(node, "aof_rewrite", deadline_s)
        await _succeeded(node, "aof_last_bgrewrite_status")
        await asyncio.sleep(_AFTERWARDS_S)
    if has_dumps:
        await _until_idle(node, "rdb_bgsave", deadline_s)
        await node.bgsave()
        await _until_idle(node, "rdb_bgsave", deadline_s)
        await _succeeded(node, "rdb_last_bgsave_status")
    return "rewritten" if has_log or has_dumps else "not kept"


async def _until_idle(node: Any, what: str, deadline_s: float) -> None:
    while True:
        facts = await node.info("persistence")
        waiting = facts.get("aof_rewrite_scheduled", 0) if what == "aof_rewrite" else 0
        # Only one child at a time: a dump that runs delays a rewrite.
        if not int(facts[f"{what}_in_progress"]) and not int(waiting):
            return
        if time.monotonic() > deadline_s:
            raise StoreUnavailableError("the server takes too long to rewrite its files")
        await asyncio.sleep(_LOOK_EVERY_S)


async def _succeeded(node: Any, status: str) -> None:
    facts = await node.info("persistence")
    if facts.get(status) != "ok":
        raise StoreUnavailableError(f"the server failed to rewrite its files: {facts.get(status)}")
