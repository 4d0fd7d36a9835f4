"""Weekly windows: days and hours as the clock on the wall of a place shows them.

A window is open when that clock shows one of its days and a time from ``from`` up to, not
including, ``to``. So when clocks are put forward the hour that is left out opens nothing, and when
they are put back the hour that comes twice is open twice. A window that goes past midnight belongs
to the day on which it begins.
"""

from dataclasses import dataclass
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from feature_store.conditions.tree import ConditionError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class WeeklyWindow:
    """Days of the week and a part of the day, in a time zone.

    Parameters
    ----------
    timezone : str
        Name in the IANA database, such as ``Europe/Berlin``.
    days : frozenset of int
        On which days it begins; Monday is 0.
    from_s, to_s : int
        Seconds of the wall clock since midnight; `to_s` is exclusive and up to 86,400. With
        ``to_s <= from_s`` it goes past midnight.
    """

    timezone: str
    days: frozenset[int]
    from_s: int
    to_s: int

    def is_open(self, at_s: float) -> bool:
        """Tell whether the window is open at a time in seconds since 1970."""
        return self._open_at(*_wall(at_s, ZoneInfo(self.timezone)))

    def until(self, at_s: float) -> tuple[bool, float]:
        """Return whether it is open, and up to which second (exclusive) that holds for sure.

        It may hold for longer: the second is the next one at which something could change, at most
        a day away.
        """
        zone = ZoneInfo(self.timezone)
        second = int(at_s // 1)  # edges lie on whole seconds
        weekday, wall_s = _wall(second, zone)
        edges = (self.from_s, self.to_s, _DAY_S)
        ahead = min(edge - int(wall_s) for edge in edges if edge > wall_s)
        return self._open_at(weekday, wall_s), _shift_s(second, second + ahead, zone)

    def _open_at(self, weekday: int, wall_s: float) -> bool:
        if self.from_s < self.to_s:
            return weekday in self.days and self.from_s <= wall_s < self.to_s
        if wall_s >= self.from_s:
            return weekday in self.days
        return wall_s < self.to_s and (weekday - 1) % 7 in self.days


def _wall(at_s: float, zone: ZoneInfo) -> tuple[int, float]:
    """Return the weekday and the seconds since midnight that a clock shows."""
    local = datetime.fromtimestamp(at_s, zone)
    return local.weekday(), (
        local.hour * 3_600 + local.minute * 60 + local.second + local.microsecond / 1e6
    )


def _shift_s(since_s: int, upto_s: int, zone: ZoneInfo) -> int:
    """Return the first second in (since, upto] with another offset from UTC, or `upto_s`."""

    def offset(at_s: int) -> object:
        return datetime.fromtimestamp(at_s, zone).utcoffset()

    before = offset(since_s)
    if offset(upto_s) == before:
        return upto_s
    low, high = since_s, upto_s
    while high - low > 1:
        middle = (low + high) // 2
        if offset(middle) == before:
            low = middle
        else:
            high = middle
    return high


def parse_window(value: object, pointer: str) -> WeeklyWindow:
    """Check a weekly window as JSON has it.

    Parameters
    ----------
    value : object
        ``{"timezone", "days"?, "from"?, "to"?}``: days as ``mon`` to ``sun`` (all when left out),
        times as ``HH:MM`` or ``HH:MM:SS`` (the whole day when left out; ``to`` may be ``24:00``).
    pointer : str
        Where it stands.

    Raises
    ------
    ConditionError
        Naming the part that is wrong.
    """
    if not isinstance(value, dict):
        raise ConditionError(pointer, 'must be {"timezone", "days", "from", "to"}')
    unknown = set(value) - {"timezone", "days", "from", "to"}
    if unknown:
        raise ConditionError(f"{pointer}/{escape(min(unknown))}", "is not a part of a window")
    timezone = _check_zone(value.get("timezone"), f"{pointer}/timezone")
    days = _check_days(value.get("days"), f"{pointer}/days")
    from_s = _check_clock(value.get("from", "00:00"), f"{pointer}/from")
    to_s = _check_clock(value.get("to", "24:00"), f"{pointer}/to")
    if from_s == _DAY_S:
        raise ConditionError(f"{pointer}/from", "must be before 24:00")
    if from_s == to_s:
        raise ConditionError(f"{pointer}/to", "is the same as 'from'; leave both out for all day")
    return WeeklyWindow(timezone, days, from_s, to_s)


def escape(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _check_zone(value: object, pointer: str) -> str:
    if isinstance(value, str) and value:
        try:
            return ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise ConditionError(pointer, "must be a time zone such as 'Europe/Berlin'")


def _check_days(value: object, pointer: str) -> frozenset[int]:
    if value is None:
        return frozenset(range(7))
    if not isinstance(value, list) or not value:
        raise ConditionError(pointer, "must be a list that is not empty")
    for at, day in enumerate(value):
        if day not in DAYS:
            raise ConditionError(f"{pointer}/{at}", f"must be one of {', '.join(DAYS)}")
    return frozenset(DAYS.index(day) for day in value)


def _check_clock(value: Any, pointer: str) -> int:
    if value == "24:00":
        return _DAY_S
    try:
        if not isinstance(value, str) or len(value) not in (5, 8):
            raise ValueError
        moment = time.fromisoformat(value)
    except ValueError:
        raise ConditionError(pointer, "must be a time of the day such as '18:30'") from None
    return moment.hour * 3_600 + moment.minute * 60 + moment.second
