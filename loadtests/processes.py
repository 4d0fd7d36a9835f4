"""Servers under test: start, pin to a core, read their processor time, stop. Linux only."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from loadtests.client import Address, LoadError

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pin(pid: int, cores: set[int]) -> None:
    """Keep a process, with all its threads, on some cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and all its threads, user and system, in seconds."""
    # The name, in parentheses, may hold spaces: the fields after it count from the last one.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def name_of(pid: int) -> str:
    """Return the name of a process's program, at most 15 characters."""
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


def family(
    pid: int, *, without: Sequence[str] = (), only: Sequence[str] | None = None
) -> list[int]:
    """Return a process and all its descendants.

    Parameters
    ----------
    pid : int
        The process.
    without : sequence of str
        Names of programs that are left out, with all that they started.
    only : sequence of str or None
        If given, only programs with these names.
    """
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        name = name_of(one)
        if name in without:
            continue
        if only is None or name in only:
            found.append(one)
        waiting += children.get(one, [])
    return found


class Server:
    """A server process on one core.

    Parameters
    ----------
    command : sequence of str
        What to run.
    address : Address
        Where it will listen.
    core : int
        The core that it is kept on, with everything that it starts.
    log : file
        Where its output goes.
    without : sequence of str
        Programs that it starts but whose processor time does not count.
    """

    def __init__(
        self,
        command: Sequence[str],
        address: Address,
        core: int,
        log: IO[bytes],
        without: Sequence[str] = (),
    ) -> None:
        self.address = address
        self._log = log
        self._without = without
        self._pids: list[int] = []
        # The child inherits the core of this thread; nothing runs between fork and exec.
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        finally:
            os.sched_setaffinity(0, cores)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Return when it accepts connections.

        Raises
        ------
        LoadError
            If it ends instead, or takes too long.
        """
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.address.connect().close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise LoadError(f"a server did not start: {self._last_words()}") from None
                time.sleep(0.05)
            else:
                self._pids = family(self.pid, without=self._without)
                return

    def _last_words(self) -> str:
        """Return the last line of its log."""
        lines = Path(self._log.name).read_text(encoding="utf-8", errors="replace").splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} ({self._log.name})"

    def cpu_s(self) -> float:
        """Return its processor time so far, workers included, in seconds."""
        return sum(map(cpu_s, self._pids))

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def floor_server(kind: str, core: int, log: IO[bytes]) -> Server:
    """Start one of ``floors.py``."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("floors.py")), kind]
    return Server([*command, "--port", str(port)], Address("127.0.0.1", port), core, log)
