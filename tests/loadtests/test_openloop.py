"""An open loop sees what a closed loop hides."""

import time
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.client import Connection, LoadError
from loadtests.openloop import open_loop, quantile
from tests.loadtests import servers

STALL_S = 0.5


def test_a_stall_shows_in_the_open_loop_and_hides_in_a_closed_one() -> None:
    with servers.serving(servers.stalling_once(0.3, STALL_S)) as address:
        found = open_loop(address, repeat(b"x"), per_second=200, seconds=1.5, n_connections=8)
    # A third of the requests were due during the stall and waited a quarter of a second on average.
    assert len(found.sorted_s) == 300
    assert found.quantile_ms(1.0) >= 1_000 * STALL_S * 0.9
    assert found.quantile_ms(0.85) >= 100

    with servers.serving(servers.stalling_once(0.3, STALL_S)) as address:
        connection = Connection(address)
        latencies = []
        end_s = time.monotonic() + 1.5
        while time.monotonic() < end_s:
            began_s = time.monotonic()
            connection.ask(b"x")
            latencies.append(time.monotonic() - began_s)
        connection.close()
    latencies.sort()
    assert quantile(latencies, 1.0) >= STALL_S * 0.9
    assert quantile(latencies, 0.85) < 0.5 * STALL_S


def test_requests_go_out_on_schedule() -> None:
    with servers.serving(servers.at_once) as address:
        began_s = time.monotonic()
        found = open_loop(address, repeat(b"x"), per_second=100, seconds=0.5)
        took_s = time.monotonic() - began_s
    assert len(found.sorted_s) == 50
    # The last of 50 is due after 0.49 s.
    assert took_s >= 0.49
    assert found.sorted_s == sorted(found.sorted_s)
    assert found.late_s >= 0


def test_waiting_for_a_connection_counts() -> None:
    # Ten requests are due at once, one connection, 20 ms each: the last waits for all others.
    with servers.serving(servers.after(0.02)) as address:
        found = open_loop(address, repeat(b"x"), per_second=10_000, seconds=0.001, n_connections=1)
    assert len(found.sorted_s) == 10
    assert found.quantile_ms(1.0) >= 190
    assert found.quantile_ms(0.1) >= 19


def test_a_bad_reply_ends_the_measurement() -> None:
    with (
        servers.serving(servers.with_status(b"503 Unavailable")) as address,
        pytest.raises(LoadError, match="503"),
    ):
        open_loop(address, repeat(b"x"), per_second=100, seconds=0.2)


def test_known_quantiles() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert [quantile(values, share) for share in (0.0, 0.25, 0.26, 0.5, 0.99, 1.0)] == [
        *(1.0, 1.0, 2.0, 2.0, 4.0, 4.0)
    ]
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted), st.floats(0, 1))
def test_at_least_a_share_of_the_values_is_within_the_quantile(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
