"""Running commands in tests: in this process, or in one of their own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer
from recsvc.cli import app
from recsvc.commands import exits

ROOT = Path(__file__).parents[2]
HEADER = "user_id,item_id,timestamp\n"
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def recsvc(
    *arguments: str | Path, data: Path, stdin: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "recsvc.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "RECSVC_DATA_DIR": str(data), **environment},
        timeout=250,
        check=False,
    )


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Run a command in this process, where everything is imported already."""
    before = signal.getsignal(signal.SIGTERM)

    def run(
        *arguments: str | Path, data: Path = tmp_path / "data", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setenv("RECSVC_DATA_DIR", str(data))
            patch.setattr(sys, "argv", ["recsvc", *map(str, arguments)])
            capfd.readouterr()
            code = exits.run(app)
            out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Keep the embedded server up between commands: each of them would start and stop it."""
    with EmbeddedServer(tmp_path / "data", fsync="everysec") as server:
        yield server


def is_one_clear_line(done: "subprocess.CompletedProcess[str]", code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("recsvc: ")]
    assert len(said) == 1, done.stderr
    assert re.search(message, said[0]), said[0]
