"""When rules act: from their start to their end, in the weekly windows, to the second."""

from collections.abc import Sequence
from math import inf

from feature_store.conditions import WeeklyWindow
from recsvc.rules.model import CheckedRule

_PHASES = 8


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
        self._phases: tuple[tuple[float, float, tuple[bool, ...]], ...] = ()

    def active(self, now_s: float) -> tuple[bool, ...]:
        """Return for each rule whether it acts at a time in seconds since 1970."""
        return self._phase(now_s)[2]

    def next_change_s(self, now_s: float) -> float:
        """Return the first moment after `now_s` at which something may change; ``inf`` if none.

        Nothing has to change then: weekly windows are looked at again once a day at least.
        """
        return self._phase(now_s)[1]

    def _phase(self, now_s: float) -> tuple[float, float, tuple[bool, ...]]:
        for phase in self._phases:
            if phase[0] <= now_s < phase[1]:
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
        phase = (now_s, until_s, tuple(flags))
        self._phases = (phase, *self._phases[: _PHASES - 1])
        return phase
