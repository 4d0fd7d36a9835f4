"""When rules act: from their start to their end, in the weekly windows, to the second."""

from collections.abc import Sequence
from itertools import count
from math import inf
from typing import NamedTuple

from feature_store.conditions import WeeklyWindow
from recsvc.rules.model import CheckedRule

_PHASES = 8


class Phase(NamedTuple):
    """A time in which the same rules act.

    Parameters
    ----------
    since_s, until_s : float
        Seconds since 1970; `until_s` is exclusive.
    acts : tuple of bool
        For each rule, whether it acts.
    serial : int
        Name of the phase among those of its clock.
    """

    since_s: float
    until_s: float
    acts: tuple[bool, ...]
    serial: int


class Clock:
    """Which of many rules act at a time.

    The answer is kept until the next moment at which a rule can start or end, so a request asks for
    two comparisons. Times may be asked in any order: a preview looks ahead.

    Parameters
    ----------
    rules : sequence of CheckedRule
        The rules, in the order of the flags.
    """

    def __init__(self, rules: Sequence[CheckedRule]) -> None:
        self._rules = [
            (
                -inf if rule.rule.starts_at is None else rule.rule.starts_at.timestamp(),
                inf if rule.rule.ends_at is None else rule.rule.ends_at.timestamp(),
                rule.window,
            )
            for rule in rules
        ]
        self._phases: tuple[Phase, ...] = ()
        self._serials = count()

    def active(self, now_s: float) -> tuple[bool, ...]:
        """Return for each rule whether it acts at a time in seconds since 1970."""
        return self.phase(now_s).acts

    def next_change_s(self, now_s: float) -> float:
        """Return the first moment after `now_s` at which something may change; ``inf`` if none.

        Nothing has to change then: weekly windows are looked at again once a day at least.
        """
        return self.phase(now_s).until_s

    def phase(self, now_s: float) -> Phase:
        """Return the phase in which a time lies."""
        for phase in self._phases:
            if phase.since_s <= now_s < phase.until_s:
                return phase
        windows: dict[WeeklyWindow, tuple[bool, float]] = {}
        flags, until_s = [], inf
        for start_s, end_s, window in self._rules:
            acts = start_s <= now_s < end_s
            if now_s < start_s:
                until_s = min(until_s, start_s)
            elif acts:
                until_s = min(until_s, end_s)
                if window is not None:
                    if window not in windows:
                        windows[window] = window.until(now_s)
                    acts, holds_s = windows[window]
                    until_s = min(until_s, holds_s)
            flags.append(acts)
        phase = Phase(now_s, until_s, tuple(flags), next(self._serials))
        self._phases = (phase, *self._phases[: _PHASES - 1])
        return phase
