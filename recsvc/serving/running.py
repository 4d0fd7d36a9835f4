"""One worker in this process: uvicorn over the application, until a signal."""

import contextlib
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import threadpoolctl  # type: ignore[import-untyped]
import uvicorn

from feature_store.errors import RecsvcError
from recsvc import memory
from recsvc.app import create_app
from recsvc.serving.worker import Worker
from recsvc.settings import Settings
from recsvc.telemetry import Metrics

KEEP_ALIVE_S = 75
"""Longer than the idle time of common load balancers, so that they close connections, not we."""


class Server(uvicorn.Server):
    """A server that says when it answers, and returns from a signal instead of dying of it.

    Parameters
    ----------
    config : uvicorn.Config
        What it runs.
    on_started : callable
        Called in the event loop when requests are answered; must not block.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a signal end the loop; uvicorn's own way raises it a second time afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def run_worker(
    settings: Settings,
    secret: bytes,
    listener: socket.socket,
    *,
    on_started: Callable[[], None],
    on_server: Callable[[Server], None] = lambda _: None,
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : Settings
        With a ``redis_url``.
    secret : bytes
        The server's secret.
    listener : socket
        Bound; closed at the end.
    on_started : callable
        Called when requests are answered.
    on_server : callable
        Given the server before it runs, for whoever must stop it (``should_exit = True``).

    Raises
    ------
    ArtifactError
        If the model or the catalogue that should serve is damaged.
    """
    memory.tame()
    threadpoolctl.threadpool_limits(limits=1)
    worker = Worker(settings, secret, Metrics())
    config = uvicorn.Config(
        create_app(worker),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=settings.backlog,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )

    def started() -> None:
        memory.keep()
        memory.collect_rarely()
        on_started()

    server = Server(config, started)
    on_server(server)
    try:
        server.run(sockets=[listener])
    except SystemExit as error:
        raise RecsvcError("the worker did not start; the log says why") from error
