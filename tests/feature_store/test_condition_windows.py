"""Weekly windows: days, midnight, and the two nights a year on which clocks are changed."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.conditions import ConditionError, WeeklyWindow, parse_window
from feature_store.conditions.windows import DAYS

BERLIN = "Europe/Berlin"


def window(**parts: Any) -> WeeklyWindow:
    return parse_window({"timezone": BERLIN, **parts}, "")


def local_s(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold).timestamp()


def test_open_from_and_not_at_the_end() -> None:
    shop = window(days=["fri", "sat"], **{"from": "10:00", "to": "18:00"})
    for moment, expected in (
        ("2026-07-03T09:59:59", False),
        ("2026-07-03T10:00:00", True),
        ("2026-07-04T17:59:59", True),
        ("2026-07-04T18:00:00", False),
        ("2026-07-05T12:00:00", False),
    ):
        assert shop.is_open(local_s(moment)) is expected


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    night = window(days=["fri"], **{"from": "22:00", "to": "04:00"})
    for moment, expected in (
        ("2026-07-03T03:00:00", False),
        ("2026-07-03T22:00:00", True),
        ("2026-07-04T03:59:59", True),
        ("2026-07-04T04:00:00", False),
        ("2026-07-04T23:00:00", False),
    ):
        assert night.is_open(local_s(moment)) is expected
    sunday = window(days=["sun"], **{"from": "22:00", "to": "04:00"})
    assert sunday.is_open(local_s("2026-07-06T01:00:00"))


def test_clocks_put_forward_leave_the_hour_out() -> None:
    lost = window(**{"from": "02:00", "to": "03:00"})
    start = local_s("2026-03-29T01:00:00")
    assert not any(lost.is_open(start + minute * 60) for minute in range(180))
    long = window(**{"from": "01:30", "to": "03:30"})
    opened = [second for second in range(3 * 3600) if long.is_open(start + second)]
    assert (opened[0], opened[-1] + 1) == (1_800, 1_800 + 3_600)


def test_clocks_put_back_have_the_hour_twice() -> None:
    twice = window(**{"from": "02:00", "to": "02:30"})
    start = local_s("2026-10-25T01:59:59")
    opened = [second for second in range(3 * 3600) if twice.is_open(start + second)]
    assert opened == [*range(1, 1_801), *range(3_601, 5_401)]
    assert twice.is_open(local_s("2026-10-25T02:10:00", fold=1))


clocks = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
windows = st.builds(
    lambda zone, days, start, end: {"timezone": zone, "days": days, "from": start, "to": end},
    st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
    clocks,
    clocks | st.just("24:00"),
).filter(lambda value: value["from"] != value["to"])
changes = st.sampled_from(
    [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
     datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC),
     datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)]
)  # fmt: skip


@given(windows, changes, st.integers(-30 * 3_600, 30 * 3_600))
def test_it_is_open_when_the_wall_clock_says_so_and_holds_as_long_as_it_says(
    value: dict[str, Any], near: datetime, seconds: int
) -> None:
    one = parse_window(value, "")
    at = near + timedelta(seconds=seconds)
    local = at.astimezone(ZoneInfo(value["timezone"]))
    shown = f"{local:%H:%M}"
    day = DAYS[local.weekday()]
    start, end = value["from"], value["to"]
    if start < end:
        expected = day in value["days"] and start <= shown < end
    else:
        before = DAYS[local.weekday() - 1]
        expected = (day in value["days"] and shown >= start) or (
            before in value["days"] and shown < end
        )
    at_s = at.timestamp()
    assert one.is_open(at_s) is expected
    answer, until_s = one.until(at_s)
    assert answer is expected
    assert at_s < until_s <= at_s + 86_400
    for part in (0.0, 0.3, 0.7, 1.0):
        assert one.is_open(at_s + part * (until_s - 1 - at_s)) is expected


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ([], ""),
        ({}, "/timezone"),
        ({"timezone": "../etc"}, "/timezone"),
        ({"timezone": 3}, "/timezone"),
        ({"timezone": "UTC", "days": "mon"}, "/days"),
        ({"timezone": "UTC", "days": [["mon"]]}, "/days/0"),
        ({"timezone": "UTC", "from": "24:00"}, "/from"),
        ({"timezone": "UTC", "from": "8:00"}, "/from"),
        ({"timezone": "UTC", "from": "08:00", "to": "08:00"}, "/to"),
        ({"timezone": "UTC", "to": 8}, "/to"),
    ],
)
def test_a_bad_window_is_refused_with_a_pointer(value: object, pointer: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_window(value, "")
    assert caught.value.pointer == pointer
