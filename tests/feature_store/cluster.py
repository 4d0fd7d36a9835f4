"""Three real servers that form a Redis Cluster on this machine."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import redis.asyncio
from redis.exceptions import RedisError

from feature_store.embedded import server_binary

N_NODES = 3
N_SLOTS = 16_384
NODE_TIMEOUT_MS = 3_000
TOGETHER_TIMEOUT_S = 120.0


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Cluster:
    """Three primaries without replicas; a third of the slots each.

    Parameters
    ----------
    folder : Path
        For their files.
    """

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * N_NODES)
        self.ports, self._bus_ports = ports[:N_NODES], ports[N_NODES:]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports[:2])
        self.processes = [self._started(folder / str(at), at) for at in range(N_NODES)]

    def _started(self, folder: Path, at: int) -> "subprocess.Popen[bytes]":
        folder.mkdir(parents=True)
        settings = {
            "bind": "127.0.0.1",
            "port": self.ports[at],
            "cluster-port": self._bus_ports[at],
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            # The others go on when one is down.
            "cluster-require-full-coverage": "no",
            "dir": folder,
            "logfile": folder / "log",
            "save": "",
            "appendonly": "no",
        }
        arguments = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        return subprocess.Popen([server_binary(), *arguments], stdin=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        try:
            asyncio.run(self._join())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def client(self, at: int) -> Any:
        """Return a client of one node."""
        return redis.asyncio.Redis(port=self.ports[at], socket_timeout=60.0)

    async def _join(self) -> None:
        clients = [self.client(at) for at in range(N_NODES)]
        try:
            async with asyncio.timeout(TOGETHER_TIMEOUT_S):
                for at, client in enumerate(clients):
                    await _answers(client)
                    first, last = N_SLOTS * at // N_NODES, N_SLOTS * (at + 1) // N_NODES - 1
                    await client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                for port, bus_port in zip(self.ports[1:], self._bus_ports[1:], strict=True):
                    await clients[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus_port)
                for client in clients:
                    await _knows_all(client)
        finally:
            for client in clients:
                await client.aclose()

    async def empty(self) -> None:
        """Remove everything from every node."""
        for at in range(N_NODES):
            async with self.client(at) as client:
                await client.flushall()

    async def node_of(self, key: str) -> int:
        """Return which node has a key."""
        async with self.client(0) as client:
            slot = await client.execute_command("CLUSTER KEYSLOT", key)
            table = await client.execute_command("CLUSTER SLOTS")
        for first, last, (_, port, *_), *_ in table:
            if first <= slot <= last:
                return self.ports.index(port)
        raise AssertionError(f"nobody has the slot {slot}")

    async def move(self, key: str, to: int) -> None:
        """Give the slot of a key, which must be empty, to another node."""
        async with self.client(to) as client:
            slot = await client.execute_command("CLUSTER KEYSLOT", key)
            node_id = (await client.execute_command("CLUSTER MYID")).decode()
        for at in range(N_NODES):
            async with self.client(at) as client:
                await client.execute_command("CLUSTER SETSLOT", slot, "NODE", node_id)

    def pause(self, at: int) -> None:
        """Let a node hang: it takes connections and answers nothing."""
        os.kill(self.processes[at].pid, signal.SIGSTOP)

    def resume(self, at: int) -> None:
        os.kill(self.processes[at].pid, signal.SIGCONT)


async def _answers(client: Any) -> None:
    while True:
        with contextlib.suppress(RedisError, OSError):
            await client.ping()
            return
        await asyncio.sleep(0.02)


async def _knows_all(client: Any) -> None:
    while True:
        state = await client.execute_command("CLUSTER INFO")
        if state["cluster_state"] == "ok" and state["cluster_slots_ok"] == str(N_SLOTS):
            return
        await asyncio.sleep(0.05)
