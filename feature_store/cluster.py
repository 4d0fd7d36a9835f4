"""The client for a Redis Cluster: the commands of one server, each sent to the node that has it.

Single commands, and finding out which node has what, are redis-py's own. Its pipelines on a cluster
do not do: they refuse ``MGET`` and scripts, and start a thread for each command of a transaction.
So a pipeline here is one ordinary pipeline for each node, all at once. Everything that must happen
together carries one tag (`keys`), so a transaction touches one node.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    CrossSlotTransactionError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)

from feature_store import keys

SCHEMES = ("redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379
REDIRECTIONS = 5
LOOK_AGAIN_S = 1.0
"""After a node did not answer, so often it is found out whether another has taken its place."""
CONNECT_TIMEOUT_S = 2.0
TIMEOUT_S = 10.0

Address = tuple[str, int]
_Command = tuple[tuple[Any, ...], dict[str, Any]]
_Placed = tuple[int, _Command]

_REDIRECTIONS = (MovedError, AskError, TryAgainError)


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """Where a cluster is.

    Parameters
    ----------
    addresses : tuple of (str, int)
        Host and port of some nodes; they name the others.
    username, password : str or None
        The same for every node.
    tls : bool
        Whether the connections are encrypted.
    """

    addresses: tuple[Address, ...]
    username: str | None
    password: str | None
    tls: bool


def is_cluster(url: str) -> bool:
    """Tell whether a URL is that of a cluster."""
    return url.partition("://")[0] in SCHEMES


def parse_cluster_url(url: str) -> ClusterUrl:
    """Read ``redis+cluster://[user:password@]host:port,host:port,...``.

    Raises
    ------
    ValueError
        Saying how it is written.
    """
    scheme, _, rest = url.partition("://")
    account, at, hosts = rest.rpartition("@")
    user, _, password = account.partition(":")
    addresses = []
    for one in hosts.removesuffix("/").split(","):
        host, colon, port = one.rpartition(":")
        if not colon:
            host, port = one, str(DEFAULT_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if not host or "/" in one or not (port.isascii() and port.isdigit()):
            raise ValueError(
                "a URL of some nodes, as in redis+cluster://10.0.0.1:6379,10.0.0.2:6379; a cluster"
                " has no numbered databases"
            )
        addresses.append((host, int(port)))
    return ClusterUrl(
        tuple(addresses),
        unquote(user) or None if at else None,
        unquote(password) or None if at else None,
        scheme == "rediss+cluster",
    )


def connect(url: str) -> "redis.asyncio.Redis":
    """Return a client for a server or a cluster; it connects when it is first used."""
    if is_cluster(url):
        # The same commands by duck type; redis-py gives the two clients no common class.
        client: Any = ClusterClient(parse_cluster_url(url))
        return client  # type: ignore[no-any-return]
    return redis.asyncio.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        health_check_interval=30,
    )


class _Nodes(RedisCluster):
    """redis-py's client, whose errors of its own are no ``RedisError``."""

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().execute_command(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(f"the cluster does not answer: {error}") from error


class ClusterClient:
    """A client that can do on a cluster what ours does on one server.

    What is not defined here is a command, and redis-py's client of a cluster sends it.

    Parameters
    ----------
    url : ClusterUrl
        Where the cluster is.
    """

    def __init__(self, url: ClusterUrl) -> None:
        self._settings: dict[str, Any] = {
            "username": url.username,
            "password": url.password,
            "ssl": url.tls,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": TIMEOUT_S,
            "health_check_interval": 30,
        }
        self._cluster = _Nodes(
            startup_nodes=[ClusterNode(host, port) for host, port in url.addresses],
            # The other nodes go on when one is down.
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 2),
            **self._settings,
        )
        self._clients: dict[str, redis.asyncio.Redis] = {}
        self._stale = True
        self._looked_at_s = -LOOK_AGAIN_S

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def pipeline(self, transaction: bool = True) -> "_ClusterPipeline":
        """Return a pipeline; with `transaction` all of its keys must carry one tag."""
        return _ClusterPipeline(self, transaction=transaction)

    def register_script(self, script: str) -> AsyncScript:
        """Return a script that loads itself where it is missing."""
        client: Any = self
        return AsyncScript(client, script)

    async def ping(self) -> bool:
        """Return when the nodes answer that every page needs: the catalogue's and the site's.

        A worker renews its lease by this, so any other node's answer would not do.
        """
        for key in (keys.CATALOGUE_SEQUENCE, keys.SITE_HEAD):
            await self._cluster.execute_command("EXISTS", key)
        return True

    async def script_load(self, script: Any) -> Any:
        """Load a script into every node that answers; there must be one."""
        await self._look_around()
        outcomes = await asyncio.gather(
            *(self._client(node).script_load(script) for node in self._cluster.get_primaries()),
            return_exceptions=True,
        )
        loaded = [one for one in outcomes if not isinstance(one, BaseException)]
        if not loaded:
            raise RedisConnectionError(f"no node of the cluster takes a script: {outcomes}")
        return loaded[0]

    async def primaries(self) -> "list[redis.asyncio.Redis]":
        """Return a client for each node that holds keys."""
        await self._look_around()
        return [self._client(node) for node in self._cluster.get_primaries()]

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()
        await self._cluster.aclose()

    async def _look_around(self, *, moved: bool = False) -> None:
        """Find out which node has what, if it moved, or if a node did not answer a while ago."""
        now_s = time.monotonic()
        if not moved and (not self._stale or now_s - self._looked_at_s < LOOK_AGAIN_S):
            return
        self._stale, self._looked_at_s = False, now_s
        try:
            _ = await self._cluster.initialize()
            await self._cluster.nodes_manager.initialize()
        except RedisClusterException as error:
            self._stale = True
            raise RedisConnectionError(f"the cluster does not answer: {error}") from error

    async def run(
        self, commands: Sequence[_Command], *, transaction: bool, raise_on_error: bool
    ) -> list[Any]:
        """Run the commands of a pipeline, following what moves; results in their order."""
        results: list[Any] = [None] * len(commands)
        todo: list[_Placed] = list(enumerate(commands))
        for attempt in range(REDIRECTIONS):
            await self._look_around(moved=attempt > 0)
            groups = self._by_node(todo)
            if transaction and len(groups) > 1:
                raise CrossSlotTransactionError("the keys of a transaction must carry one tag")
            outcomes = await asyncio.gather(
                *(self._on_node(name, group, transaction) for name, group in groups.items())
            )
            for group, outcome in zip(groups.values(), outcomes, strict=True):
                for (place, _), result in zip(group, outcome, strict=True):
                    results[place] = result
            todo = [one for one in todo if isinstance(results[one[0]], _REDIRECTIONS)]
            if not todo:
                break
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results

    def _by_node(self, commands: Sequence[_Placed]) -> dict[str, list[_Placed]]:
        groups: dict[str, list[_Placed]] = {}
        found = [first_key(arguments) for _, (arguments, _) in commands]
        # What has no key, as TIME, is asked where the first key is.
        anywhere = next((key for key in found if key is not None), keys.SITE_HEAD)
        for one, key in zip(commands, found, strict=True):
            slot = slot_of(anywhere if key is None else key)
            try:
                node = self._cluster.nodes_manager.get_node_from_slot(slot)
            except RedisClusterException as error:
                self._stale = True
                raise RedisConnectionError(f"no node has the slot {slot}: {error}") from error
            groups.setdefault(node.name, []).append(one)
            _ = self._client(node)
        return groups

    async def _on_node(self, name: str, group: list[_Placed], transaction: bool) -> list[Any]:
        """Run commands on one node; when it does not answer, each has that error for a result."""
        pipeline: Any = self._clients[name].pipeline(transaction=transaction)
        pipeline.command_stack = [command for _, command in group]
        try:
            outcome: list[Any] = await pipeline.execute(raise_on_error=False)
        except _REDIRECTIONS as error:
            return [error] * len(group)
        except (RedisError, OSError) as error:
            # Another node may have taken its place by the next time.
            self._stale = True
            return [error] * len(group)
        return outcome

    def _client(self, node: ClusterNode) -> "redis.asyncio.Redis":
        client = self._clients.get(node.name)
        if client is None:
            client = redis.asyncio.Redis(
                host=node.host, port=int(node.port), retry=Retry(NoBackoff(), 1), **self._settings
            )
            self._clients[node.name] = client
        return client


class _ClusterPipeline(Pipeline):
    """Collects commands as any pipeline does; what runs them is the cluster's client."""

    def __init__(self, cluster: ClusterClient, *, transaction: bool) -> None:
        nowhere: Any = None
        super().__init__(nowhere, {}, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands: Any = self.command_stack
        self.command_stack = []
        if not commands:
            return []
        return await self._cluster.run(
            commands, transaction=self.is_transaction, raise_on_error=raise_on_error
        )


def first_key(arguments: Sequence[Any]) -> str | bytes | None:
    """Return the first key of one of the commands that we use; ``None`` if it has none."""
    if len(arguments) == 1:
        return None
    key: str | bytes = arguments[3] if arguments[0] == "EVALSHA" else arguments[1]
    return key


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key, 0 to 16,383."""
    return key_slot(key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass"))
