"""Waiting in tests: for what must come, and long enough for a machine that is slow."""

import time
from collections.abc import Callable

DEADLINE_S = 120.0


def until(true: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """Return when something is true; fail if it does not come to that."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.05)
