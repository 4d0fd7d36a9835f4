"""When a watch trains, and that it outlives what it starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.errors import ConflictError, StoreUnavailableError
from tests.waiting import until
from training.watch import Watch, WatchConfig, training_alone

QUICK = {"look_every_s": 0.0, "again_after_failure_s": 0.0}


class Shop:
    """Counts its trainings in a file; what there is to learn from is set by the test."""

    def __init__(self, folder: Path, code: int = 0) -> None:
        self.folder = folder
        self.events = 0
        self.lines: list[str] = []
        (folder / "models").mkdir()
        program = f"import sys; open({str(folder / 'ran')!r}, 'a').write('x'); sys.exit({code})"
        self.command = [sys.executable, "-c", program]

    def watch(self, **config: float) -> Watch:
        options = WatchConfig(**{**QUICK, **config})  # type: ignore[arg-type]  # numbers
        return Watch(self.folder, self.command, lambda: self.events, options, self.lines.append)

    @property
    def trainings(self) -> int:
        ran = self.folder / "ran"
        return len(ran.read_text()) if ran.exists() else 0


def test_it_trains_when_enough_is_new_or_it_is_time(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    watch = shop.watch(every_s=3_600.0, min_events=10)
    watch.run(rounds=3)
    assert shop.trainings == 0, "there is nothing to learn from"
    shop.events = 1
    watch.run(rounds=3)
    assert shop.trainings == 1, "the first one"
    shop.events = 10
    watch.run(rounds=3)
    assert shop.trainings == 1
    shop.events = 11
    watch.run(rounds=3)
    assert shop.trainings == 2
    assert shop.lines == ["training: there was no training yet", "training: 10 events are new"]
    # Another process knows what the last one had seen.
    shop.watch(every_s=3_600.0, min_events=10).run(rounds=2)
    assert shop.trainings == 2
    shop.watch(every_s=0.001, min_events=10).run(rounds=1)
    assert shop.trainings == 3


@pytest.mark.parametrize(("code", "trainings"), [(0, 1), (3, 1), (1, 3), (-9, 3)])
def test_a_failed_training_is_tried_again(tmp_path: Path, code: int, trainings: int) -> None:
    shop = Shop(tmp_path, code)
    if code == -9:
        program = (
            f"import os; open({str(tmp_path / 'ran')!r}, 'a').write('x'); os.kill(os.getpid(), 9)"
        )
        shop.command = [sys.executable, "-c", program]
    shop.events = 5
    shop.watch(min_events=5).run(rounds=3)
    assert shop.trainings == trainings
    assert any("failed" in line for line in shop.lines) == (trainings == 3)


def test_a_server_that_is_down_does_not_end_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)

    def count() -> int:
        raise StoreUnavailableError("gone")

    Watch(tmp_path, shop.command, count, WatchConfig(**QUICK), shop.lines.append).run(rounds=2)  # type: ignore[arg-type]  # numbers
    assert shop.lines == ["cannot look for new events: gone"] * 2


def test_two_trainings_are_never_at_once(tmp_path: Path) -> None:
    busy = pytest.raises(ConflictError, match="another training")
    with training_alone(tmp_path), busy, training_alone(tmp_path):
        pass
    with training_alone(tmp_path):
        pass


def test_sigterm_ends_it_and_its_training(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from training.watch import Watch, WatchConfig
def end(number, frame):
    raise SystemExit(128 + number)
signal.signal(signal.SIGTERM, end)
code = "import os, time; open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid()))"
code += "; time.sleep(600)"
Watch(Path({str(tmp_path)!r}), [sys.executable, "-c", code], lambda: 1, WatchConfig()).run()
"""
    (tmp_path / "models").mkdir()
    watch = subprocess.Popen([sys.executable, "-c", program])
    try:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(60) == 143
    finally:
        watch.kill()
        watch.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
