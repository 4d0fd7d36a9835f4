"""Whatever a client sends, the answer is its own problem document, and never a 500."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recsvc.api.service import Service, assert_problem

PATHS = [
    "/v1/recommendations",
    "/v1/events",
    "/v1/items",
    "/v1/items/{}",
    "/v1/users/{}",
    "/v1/models",
    "/v1/models/{}/promote",
    "/livez",
    "/{}",
]


@pytest.fixture(scope="module")
def reader(service: Service) -> Iterator[httpx.Client]:
    """A client that may not change which model serves, whatever it sends."""
    with service.client("recs:read") as client:
        yield client


segments = st.text(st.sampled_from("a0._-%2FfF~é/?;=&+ :{}"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["event_id", "type", "user_id", "item_id", "timestamp", "filter", "limit"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)


def test_unknown_addresses_and_methods(client: httpx.Client) -> None:
    for path in ("/", "/v1", "/v1/", "/v1/recommendations/", "/v1/items/a/b", "/v2/items"):
        document = assert_problem(client.get(path), 404)
        assert document["instance"] == path
    refused = client.delete("/v1/recommendations")
    assert_problem(refused, 405)
    assert refused.headers["allow"] == "GET, POST"
    assert client.put("/v1/events").headers["allow"] == "POST"
    assert client.put("/v1/recalls/a%2Fb/customers").headers["allow"] == "GET"
    assert_problem(client.request("TRACE", "/livez"), 405)


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=st.sampled_from(PATHS),
    segment=segments,
    query=segments,
    body=json_values,
    media_type=st.sampled_from(["application/json", "application/ld+json", "text/plain", ""]),
)
def test_no_request_is_a_500(
    reader: httpx.Client,
    method: str,
    path: str,
    segment: str,
    query: str,
    body: Any,
    media_type: str,
) -> None:
    target = path.format(segment.replace("?", "%3F")) + "?" + query
    url = reader.base_url.copy_with(
        raw_path=target.replace("é", "%C3%A9").replace(" ", "+").encode("ascii")
    )
    response = reader.request(
        method, url, content=json.dumps(body), headers={"Content-Type": media_type}
    )
    assert response.status_code < 500, response.text
    assert response.headers["x-request-id"]
    if response.status_code >= 400 and method != "HEAD":
        assert_problem(response, response.status_code)


@settings(max_examples=100, deadline=None)
@given(body=json_values)
def test_any_json_is_taken_or_refused_by_name(client: httpx.Client, body: Any) -> None:
    for path in ("/v1/events", "/v1/recommendations"):
        content = json.dumps(body)
        response = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert response.status_code in (200, 202, 400, 404, 422), response.text
        if response.status_code == 422:
            assert response.json()["errors"]


def raw(service: Service, request: bytes) -> bytes:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/items/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/items/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/recommendations?user_id=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/recommendations?user_id=\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/recommendations#x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/v1/recommendations HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: \xff\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        (
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: x\r\n\r\n"
        ),
        (
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        ),
    ],
)
def test_broken_requests_do_not_hurt(service: Service, request_bytes: bytes) -> None:
    answer = raw(service, request_bytes)
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    with service.client() as client:
        assert client.get("/livez").status_code == 200


def test_a_client_that_goes_away_is_no_error_of_ours(service: Service) -> None:
    before = len(service.log_text())
    address = urlsplit(service.url)
    head = (
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {service.shop.keys['all']}\r\nContent-Length: 1000\r\n\r\n["
    )
    for _ in range(3):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(head.encode())
    with service.client() as client:
        assert client.get("/livez").status_code == 200
    assert "request_failed" not in service.log_text()[before:]
