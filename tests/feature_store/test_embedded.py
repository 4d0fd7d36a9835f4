"""The embedded server: shared, stopped by the last one out, found again after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.errors import StoreUnavailableError, UserError
from feature_store.store import Store
from tests.waiting import until


def test_the_last_one_out_stops_it(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    assert first.start() == second.start()
    assert not first.stop()
    assert second.pid() is not None
    assert second.stop()
    assert second.pid() is None


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    store = await Store.open(server.start(), read_timeout_s=5.0)
    (row,) = await store.catalogue.rows_of(["x"])
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # noqa: ASYNC222 (a killed child is gone at once)
    await store.close()
    again = EmbeddedServer(tmp_path)
    reopened = await Store.open(again.start(), read_timeout_s=5.0)
    assert await reopened.catalogue.rows_of(["y", "x"]) == [row + 1, row]
    await reopened.close()
    server.stop()
    assert again.stop()


def test_a_server_left_by_a_killed_process_is_used_again(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; "
        "from feature_store.embedded import EmbeddedServer; "
        "EmbeddedServer(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    server = EmbeddedServer(tmp_path)
    pid = server.pid()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    server.start()
    assert server.pid() == pid
    assert server.stop()
    until(lambda: server.pid() is None)


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    with EmbeddedServer(deep) as server:
        assert len(str(server.socket_path)) < 107
        assert server.pid() is not None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create the folder"):
        EmbeddedServer(tmp_path / "file")


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "valkey" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(StoreUnavailableError, match=r"did not start: .*manifest"):
        EmbeddedServer(tmp_path).start()
