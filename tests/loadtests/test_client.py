"""The load generator counts what is there, and says so when a reply is not what it should be."""

import time
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.client import Connection, LoadError, closed_loop, get_request, reply_length
from tests.loadtests import servers


def test_the_rate_of_a_known_server_is_found() -> None:
    with servers.serving(servers.after(0.01)) as address:
        request = get_request("/", address)
        found = closed_loop(address, repeat(request), seconds=0.6, n_connections=4)
    # One reply takes at least 10 ms; a busy machine only makes it slower.
    assert 1 <= found.n_replies <= 61
    assert found.per_second <= 100.5
    assert found.bytes_per_reply == len(servers.REPLY)
    assert found.client_cpu_s < 0.5 * found.seconds


def test_replies_may_come_in_pieces() -> None:
    with servers.serving(servers.in_pieces) as address:
        connection = Connection(address)
        try:
            assert connection.ask(get_request("/", address)) == servers.BODY
        finally:
            connection.close()
        found = closed_loop(address, repeat(b"x"), seconds=0.2, n_connections=2)
    assert found.n_replies > 0
    assert found.bytes_per_reply == len(servers.REPLY)


@pytest.mark.parametrize("line", [b"500 Internal Server Error", b"401 Unauthorized", b"204 None"])
def test_another_status_ends_the_measurement(line: bytes) -> None:
    with (
        servers.serving(servers.with_status(line)) as address,
        pytest.raises(LoadError, match=line.decode()),
    ):
        closed_loop(address, repeat(b"x"), seconds=1.0, n_connections=2)


def test_a_closed_connection_ends_the_measurement() -> None:
    with (
        servers.serving(lambda connection: connection.shutdown(2)) as address,
        pytest.raises(LoadError, match="closed a connection"),
    ):
        closed_loop(address, repeat(b"x"), seconds=1.0, n_connections=2)


def test_the_key_and_the_target_are_in_the_request() -> None:
    with servers.serving(servers.at_once) as address:
        request = get_request("/v1/a%2Fb?c=d", address, "secret")
    assert request.startswith(b"GET /v1/a%2Fb?c=d HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer secret\r\n" in request
    assert request.endswith(b"\r\n\r\n")


@given(
    st.binary(max_size=50),
    st.sampled_from([b"content-length", b"Content-Length", b"CONTENT-LENGTH"]),
    st.integers(min_value=0, max_value=200),
)
def test_the_length_of_a_reply_is_found_once_its_head_is_there(
    body: bytes, name: bytes, cut: int
) -> None:
    head = b"HTTP/1.1 200 OK\r\nserver: x\r\n" + name + b": %d\r\n\r\n" % len(body)
    seen = (head + body)[:cut]
    expected = len(head) + len(body) if cut >= len(head) else None
    assert reply_length(seen) == expected


def test_a_reply_without_a_length_is_refused() -> None:
    with pytest.raises(LoadError, match="content-length"):
        reply_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_the_measurement_ends_in_time() -> None:
    with servers.serving(servers.at_once) as address:
        began_s = time.monotonic()
        closed_loop(address, repeat(b"x"), seconds=0.2, n_connections=2)
    assert 0.2 <= time.monotonic() - began_s < 60
