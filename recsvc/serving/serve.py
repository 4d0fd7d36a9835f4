"""Starting the service: the port, the server, the workers; and stopping all that was started."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import UserError
from feature_store.store import Store
from recsvc import memory
from recsvc.access.auth import load_secret
from recsvc.commands.session import server_url
from recsvc.explaining.words import read_library
from recsvc.serving.pool import Pool
from recsvc.settings import Settings
from recsvc.telemetry import MULTIPROCESS_ENV, configure_logging, get_logger

log = get_logger()


def serve(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; whatever was started has ended when this returns.

    Parameters
    ----------
    settings : Settings
        Where to listen, with how many workers, and on which server.
    on_ready : callable or None
        Called once with the base URL, in a thread of its own, when requests are answered. If it
        raises, the service stops and the error is raised here.

    Raises
    ------
    UserError
        If the port is taken, the address is not this machine's, the folder cannot be written, or
        the shop's own texts cannot be used.
    StoreUnavailableError
        If the server does not answer.
    ArtifactError
        If the model or the catalogue that should serve is damaged.
    """
    memory.collect_rarely()
    configure_logging(settings.log_level)
    # A text that cannot be used is said at once, not by each worker.
    read_library(settings.words_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminated_by_signal())
        listener = stack.enter_context(_bound(settings.host, settings.port))
        secret = load_secret(settings)
        url = stack.enter_context(server_url(settings))
        host, port = listener.getsockname()[:2]
        settings = settings.model_copy(update={"redis_url": url, "port": port})
        asyncio.run(_restore_rows(settings, url))
        announcement = _Announcement(base_url(host, port), settings.workers, on_ready)
        if settings.workers == 1:
            # The parent of several workers needs neither numpy nor FAISS.
            from recsvc.serving.running import run_worker  # noqa: PLC0415

            run_worker(settings, secret, listener, on_started=announcement.make)
        else:
            stack.enter_context(_metrics_folder())
            pool = Pool(settings, secret, listener)
            pool.run(on_started=announcement.make)
        log.info("stopped")
        announcement.finish()


def base_url(host: str, port: int) -> str:
    """Return where a service that listens on an address is found from this machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Announcement:
    """Says that the service is ready, beside it: whoever hears it may ask the service."""

    def __init__(self, url: str, workers: int, tell: Callable[[str], None] | None) -> None:
        self._url = url
        self._workers = workers
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def make(self) -> None:
        """Tell; called when every worker answers."""
        log.info("serving", url=self._url, workers=self._workers, pid=os.getpid())
        if self._tell is not None:
            self._thread = threading.Thread(target=self._run, args=(self._tell,), daemon=True)
            self._thread.start()

    def _run(self, tell: Callable[[str], None]) -> None:
        try:
            tell(self._url)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = error
            os.kill(os.getpid(), signal.SIGTERM)

    def finish(self) -> None:
        """Raise what the listener raised."""
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that a service that is still starting cleans up too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Take the port before anything else is started; workers begin to listen on it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"the host {host!r} is not known; choose another with --host") from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UserError(_why_not_bound(error, host, port)) from error
        yield listener


def _why_not_bound(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is in use on {host}: stop what runs there, or choose another with --port"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; choose another with --host"
    return f"cannot listen on {host}:{port}: {error.strerror}"


@contextlib.contextmanager
def _metrics_folder() -> Iterator[None]:
    """Give the workers a fresh folder for the metrics that they share."""
    folder = tempfile.mkdtemp(prefix="recsvc-metrics-")
    before = os.environ.get(MULTIPROCESS_ENV)
    os.environ[MULTIPROCESS_ENV] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[MULTIPROCESS_ENV]
        else:
            os.environ[MULTIPROCESS_ENV] = before
        shutil.rmtree(folder, ignore_errors=True)


async def _restore_rows(settings: Settings, url: str) -> None:
    """Teach a server that was emptied which rows the catalogue's items have."""
    store = await Store.open(url)
    try:
        file = await asyncio.to_thread(CatalogueFiles(settings.catalogue_dir).load)
        if await store.catalogue.restore(file.catalogue, file.sequence):
            log.warning("rows_restored", rows=file.catalogue.n_rows)
    finally:
        await store.close()
