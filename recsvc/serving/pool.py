"""Several worker processes behind one port: started, watched, replaced, stopped."""

import contextlib
import multiprocessing
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import TYPE_CHECKING

from prometheus_client.multiprocess import mark_process_dead

from feature_store.errors import RecsvcError
from recsvc import memory
from recsvc.settings import Settings
from recsvc.telemetry import configure_logging, get_logger

if TYPE_CHECKING:
    from recsvc.serving.running import Server

LOOK_S = 0.2
RESTART_AFTER_S = 1.0
RESTART_AFTER_MOST_S = 30.0
HEALTHY_AFTER_S = 60.0

# A fresh interpreter: threads, sockets and the event loop of the parent do not survive a fork.
_spawn = multiprocessing.get_context("spawn")

log = get_logger()


@dataclass(slots=True)
class _Member:
    """One place in the pool, and the process that has it now."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    started_s: float = field(default_factory=time.monotonic)


class Pool:
    """The worker processes of one service.

    A worker that dies is replaced, each time after a longer wait; the others go on meanwhile. One
    that cannot start in the first place ends the service with its error.

    Parameters
    ----------
    settings : Settings
        With a ``redis_url``; ``workers`` says how many.
    secret : bytes
        The server's secret.
    listener : socket
        Bound; shared by all.
    """

    def __init__(self, settings: Settings, secret: bytes, listener: socket.socket) -> None:
        self._settings = settings
        self._secret = secret
        self._listener = listener
        self._members: dict[int, _Member] = {}
        self._again_s: dict[int, float] = {}
        self._wait_s = dict.fromkeys(range(settings.workers), RESTART_AFTER_S)
        self._complete = False
        self._stopping = False

    def run(self, *, on_started: Callable[[], None]) -> None:
        """Keep the workers running until SIGTERM or SIGINT.

        Parameters
        ----------
        on_started : callable
            Called once, when all of them answer.

        Raises
        ------
        RecsvcError
            If one of them cannot start.
        """
        with self._stopped_by_signal():
            try:
                for place in range(self._settings.workers):
                    self._start(place)
                while not self._stopping:
                    self._look()
                    everyone = len(self._members) == self._settings.workers
                    if not self._complete and everyone and self._all_ready():
                        self._complete = True
                        on_started()
            finally:
                self._stop()

    def _all_ready(self) -> bool:
        return all(member.ready for member in self._members.values())

    def _start(self, place: int) -> None:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(
            target=_work,
            args=(self._settings, self._secret, self._listener, theirs),
            name=f"recsvc-worker-{place}",
        )
        process.start()
        # Only the worker holds this end now, so that its death closes it.
        theirs.close()
        self._members[place] = _Member(process, ours)

    def _look(self) -> None:
        """Wait a moment for news of the workers."""
        waiting = [member.connection for member in self._members.values() if not member.ready]
        ends = [member.process.sentinel for member in self._members.values()]
        wait([*waiting, *ends], timeout=LOOK_S)
        for place, member in list(self._members.items()):
            if not member.ready and member.connection.poll():
                self._hear(member)
            if not member.process.is_alive():
                self._bury(place, member)
        now_s = time.monotonic()
        for place, again_s in list(self._again_s.items()):
            if now_s >= again_s and not self._stopping:
                del self._again_s[place]
                self._start(place)

    def _hear(self, member: _Member) -> None:
        with contextlib.suppress(EOFError):
            error = member.connection.recv()
            if error is None:
                member.ready = True
                log.info("worker_ready", worker_pid=member.process.pid)
            elif self._complete:
                log.error("worker_failed", worker_pid=member.process.pid, error=error)
            else:
                raise RecsvcError(error)

    def _bury(self, place: int, member: _Member) -> None:
        del self._members[place]
        member.connection.close()
        assert member.process.pid is not None
        mark_process_dead(member.process.pid)  # type: ignore[no-untyped-call]
        if self._stopping:
            return
        code = member.process.exitcode
        if not self._complete:
            raise RecsvcError(f"a worker ended with code {code} before it answered")
        if time.monotonic() - member.started_s > HEALTHY_AFTER_S:
            self._wait_s[place] = RESTART_AFTER_S
        wait_s = self._wait_s[place]
        self._wait_s[place] = min(2 * wait_s, RESTART_AFTER_MOST_S)
        self._again_s[place] = time.monotonic() + wait_s
        log.error("worker_died", worker_pid=member.process.pid, code=code, again_in_s=wait_s)

    def _stop(self) -> None:
        """Ask every worker to finish, and end those that do not."""
        self._stopping = True
        for member in self._members.values():
            member.process.terminate()
        deadline_s = time.monotonic() + self._settings.shutdown_timeout_s + 5.0
        for member in self._members.values():
            member.process.join(max(0.0, deadline_s - time.monotonic()))
            if member.process.is_alive():
                log.error("worker_killed", worker_pid=member.process.pid)
                member.process.kill()
                member.process.join()
            member.connection.close()
        self._members.clear()

    @contextlib.contextmanager
    def _stopped_by_signal(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _work(
    settings: Settings, secret: bytes, listener: socket.socket, connection: Connection
) -> None:
    """Be one worker; say when ready, or why not."""
    memory.collect_rarely()
    configure_logging(settings.log_level)
    # Here, in the new process: the parent needs neither numpy nor FAISS.
    from recsvc.serving.running import run_worker  # noqa: PLC0415

    def watch(server: "Server") -> None:
        def until_orphaned() -> None:
            with contextlib.suppress(EOFError, OSError):
                connection.recv()
            server.should_exit = True

        threading.Thread(target=until_orphaned, daemon=True).start()

    try:
        run_worker(
            settings,
            secret,
            listener,
            on_started=lambda: connection.send(None),
            on_server=watch,
        )
    except RecsvcError as error:
        with contextlib.suppress(OSError):
            connection.send(str(error))
        sys.exit(1)
