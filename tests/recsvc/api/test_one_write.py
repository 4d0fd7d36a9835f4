"""Answers that are written whole, over bare sockets: whatever a client does with its connection."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.recsvc.api.service import TIMEOUT_S, Service

LIST = "/v1/recommendations?limit=5"
PATHS = [LIST, "/v1/pages/home?user_id=nobody%20yet"]


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    document: Any


class Talk:
    """One connection."""

    def __init__(self, connection: socket.socket, key: str) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._key = key

    def request(self, path: str, *headers: str, version: str = "1.1") -> bytes:
        first = [f"GET {path} HTTP/{version}", "Host: test", f"Authorization: Bearer {self._key}"]
        return "\r\n".join([*first, *headers, "", ""]).encode()

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def reply(self) -> Reply:
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(": ")
            assert name not in headers
            headers[name] = value
        body = self._file.read(int(headers.get("content-length", 0)))
        return Reply(status, headers, json.loads(body) if body else None)

    def segment(self) -> bytes:
        return self._connection.recv(1 << 16)

    def is_over(self) -> bool:
        return self._file.read(1) == b""


@contextmanager
def talking(service: Service) -> Iterator[Talk]:
    url = urlsplit(service.url)
    address = (url.hostname or "", url.port or 0)
    with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
        yield Talk(connection, service.shop.keys["all"])


@pytest.mark.parametrize("path", PATHS)
def test_a_connection_carries_many_answers(service: Service, path: str) -> None:
    with talking(service) as talk:
        for number in range(3):
            talk.send(talk.request(path, f"X-Request-ID: r{number}"))
            reply = talk.reply()
            assert reply.status == 200
            assert reply.headers["x-request-id"] == f"r{number}"
            assert "date" in reply.headers
            assert "connection" not in reply.headers
            assert reply.document["model_version"]


def test_head_and_body_are_one_segment(service: Service) -> None:
    with talking(service) as talk:
        for _ in range(20):
            talk.send(talk.request(LIST))
            head, _, body = talk.segment().partition(b"\r\n\r\n")
            assert b"content-length: %d\r\n" % len(body) in head
            assert len(json.loads(body)["items"]) == 5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("header", "version"), [("Connection: close", "1.1"), ("X-A: b", "1.0")])
def test_a_connection_ends_when_the_client_wants_it(
    service: Service, path: str, header: str, version: str
) -> None:
    with talking(service) as talk:
        talk.send(talk.request(path, header, version=version))
        reply = talk.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert reply.document["model_version"]
        assert talk.is_over()


def test_requests_that_do_not_wait_are_answered_in_turn(service: Service) -> None:
    paths = [LIST, "/v1/recommendations?limit=0", *PATHS, LIST]
    with talking(service) as talk:
        asked = [talk.request(path, f"X-Request-ID: r{at}") for at, path in enumerate(paths)]
        talk.send(b"".join(asked))
        replies = [talk.reply() for _ in paths]
    assert [reply.status for reply in replies] == [200, 422, 200, 200, 200]
    assert [one.headers["x-request-id"] for one in replies] == [f"r{at}" for at in range(5)]


def test_what_the_caller_has_already_is_not_sent_again(service: Service) -> None:
    with talking(service) as talk:
        talk.send(talk.request(LIST))
        etag = talk.reply().headers["etag"]
        talk.send(talk.request(LIST, f"If-None-Match: {etag}"))
        reply = talk.reply()
        assert (reply.status, reply.document, reply.headers["etag"]) == (304, None, etag)
        assert "content-length" not in reply.headers
        talk.send(talk.request(LIST))
        assert talk.reply().status == 200


def test_a_body_that_nobody_asked_for_is_passed_over(service: Service) -> None:
    with talking(service) as talk:
        talk.send(talk.request(LIST, "Content-Length: 3") + b"abc" + talk.request(LIST))
        assert [talk.reply().status for _ in range(2)] == [200, 200]


def test_who_leaves_without_waiting_harms_nobody(service: Service) -> None:
    for _ in range(20):
        with talking(service) as talk:
            talk.send(talk.request(LIST) * 3)
    with talking(service) as talk:
        talk.send(talk.request(LIST))
        assert talk.reply().status == 200
    assert "request_failed" not in service.log_text()
