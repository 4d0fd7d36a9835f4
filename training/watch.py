"""Training again and again: when enough is new, or when enough time has gone.

Each training is a process of its own, so that its memory goes back, and a training that is killed
takes nothing with it. This file decides when; it neither trains nor knows how.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from feature_store.errors import RecsvcError
from feature_store.files import locked, make_folder, write_json

LOOK_EVERY_S = 30.0
AGAIN_AFTER_FAILURE_S = 300.0
REFUSED_BY_THE_GATE = 3
STOP_TIMEOUT_S = 20.0


def tell(line: str) -> None:
    """Write a line with the time to stderr."""
    sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")
    sys.stderr.flush()


@contextmanager
def training_alone(data_dir: Path) -> Iterator[None]:
    """Hold the right to train on a data directory, which one process has at a time.

    Raises
    ------
    ConflictError
        If another has it.
    """
    busy = f"another training on {data_dir} is running; wait until it has finished"
    with locked(make_folder(data_dir / "models") / ".training.lock", busy):
        yield


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """When to train.

    Parameters
    ----------
    every_s : float
        At the latest after so many seconds.
    min_events : int
        Earlier when so many events are new.
    look_every_s : float
        How often to look.
    again_after_failure_s : float
        How long to wait after a training that failed.
    """

    every_s: float = 86_400.0
    min_events: int = 100_000
    look_every_s: float = LOOK_EVERY_S
    again_after_failure_s: float = AGAIN_AFTER_FAILURE_S


class Watch:
    """Trains whenever it is time.

    Parameters
    ----------
    data_dir : Path
        What the last training had seen is kept in ``models/.watch.json``.
    command : sequence of str
        Trains once; exit code 0, or 3 if the gate refused.
    count_events : callable
        Returns how many events there are to learn from.
    config : WatchConfig
        When.
    say : callable
        Told one line about everything that happens.
    """

    def __init__(
        self,
        data_dir: Path,
        command: Sequence[str],
        count_events: Callable[[], int],
        config: WatchConfig,
        say: Callable[[str], None] = tell,
    ) -> None:
        self._path = data_dir / "models" / ".watch.json"
        self._command = list(command)
        self._count = count_events
        self._config = config
        self._say = say

    def run(self, rounds: int | None = None) -> None:
        """Look, and train when it is time, for ever or for so many looks.

        An interrupt (``SystemExit``, ``KeyboardInterrupt``) ends the training that runs, and is
        raised.
        """
        not_before_s = 0.0
        while rounds is None or rounds > 0:
            rounds = None if rounds is None else rounds - 1
            if time.time() >= not_before_s and not self._look():
                not_before_s = time.time() + self._config.again_after_failure_s
            if rounds != 0:
                time.sleep(self._config.look_every_s)

    def _look(self) -> bool:
        """Train if it is time; return ``False`` after a failure."""
        try:
            n_events = self._count()
        except (RecsvcError, OSError) as error:
            self._say(f"cannot look for new events: {error}")
            return False
        at_s, known = self._last()
        new, now_s = n_events - known, time.time()
        reason = None
        if n_events == 0:
            reason = None
        elif new >= self._config.min_events:
            reason = f"{new:,} events are new"
        elif now_s - at_s >= self._config.every_s:
            reason = "it is time" if at_s else "there was no training yet"
        if reason is None:
            return True
        self._say(f"training: {reason}")
        code = self._train()
        if code not in (0, REFUSED_BY_THE_GATE):
            self._say(
                f"the training failed (exit code {code}); again in"
                f" {self._config.again_after_failure_s:g} s"
            )
            return False
        write_json(self._path, {"at_s": now_s, "n_events": n_events})
        return True

    def _last(self) -> tuple[float, int]:
        try:
            document = orjson.loads(self._path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return 0.0, 0
        return document["at_s"], document["n_events"]

    def _train(self) -> int:
        child = subprocess.Popen(self._command)
        try:
            return child.wait()
        except BaseException:
            # Asked to stop: the training leaves no half model behind, whatever happens to it.
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            raise
