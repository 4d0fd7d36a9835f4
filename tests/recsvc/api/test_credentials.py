"""Every operation times every kind of credential: a table, generated from OpenAPI.

An operation says who may use it (``x-credentials``, ``x-scopes``; see ``http.secured``). One that
does not say so fails here, and so does one whose words and deeds differ.
"""

import asyncio
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest
from fastapi.routing import APIRoute

import recsvc.api
from feature_store.embedded import EmbeddedServer
from recsvc.access.auth import PUBLIC_SCOPES, SCOPES, new_key
from tests.recsvc.api.browser import ORIGIN, public_key, put, secret_of
from tests.recsvc.api.service import Service, running_shop
from tests.recsvc.signing import Backend

METHODS = {"get", "post", "put", "patch", "delete"}
KINDS = {"server", "public", "customer"}
OPEN = {"/livez", "/readyz", "/metrics", "/v1/transparency"}
"""Addresses for everybody: a new one is a decision, made here too.

How the ranking works may be read by who has no account yet; it shows nothing of anybody.
"""
HIDDEN = {"/docs"}
"""Routes that OpenAPI does not list; they show nothing of anybody."""

ALLOWED = "neither 401 nor 403"
CUSTOMER = "cred/entials"


@dataclass(frozen=True)
class Operation:
    """One line of the table."""

    method: str
    template: str
    kinds: frozenset[str]
    scopes: tuple[str, ...]
    declared: bool = True

    @property
    def path(self) -> str:
        """An address that fits the template, of something that is not there."""
        return re.sub(r"\{[^}]+\}", quote("no such thing", safe=""), self.template)

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.template}"


@dataclass
class Credentials:
    """The columns: a name for each, and the headers of a request that shows it."""

    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    by_scopes: dict[frozenset[str], str] = field(default_factory=dict)
    """A backend's key with exactly these scopes."""

    def columns(self, operation: Operation) -> dict[str, dict[str, str]]:
        """Return what the operation is asked with."""
        if not operation.scopes:
            return {**self.headers, "any backend": bearer(self.by_scopes[frozenset(SCOPES)])}
        right = {f"right scope {one}": frozenset({one}) for one in operation.scopes}
        wrong = {"all other scopes": frozenset(SCOPES).difference(operation.scopes)}
        keys = {name: self.by_scopes[scopes] for name, scopes in (right | wrong).items()}
        return {**self.headers, **{name: bearer(key) for name, key in keys.items()}}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Service, EmbeddedServer]]:
    """A service of its own: operations that are allowed do what they do."""
    with running_shop(tmp_path_factory.mktemp("credentials")) as both:
        yield both


@pytest.fixture(scope="module")
def operations(own: tuple[Service, EmbeddedServer]) -> list[Operation]:
    with own[0].client(None) as client:
        document = client.get("/openapi.json").json()
    return [
        Operation(
            method,
            template,
            frozenset(operation.get("x-credentials", ())),
            tuple(operation.get("x-scopes", ())),
            "x-credentials" in operation and "x-scopes" in operation,
        )
        for template, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


@pytest.fixture(scope="module")
def credentials(own: tuple[Service, EmbeddedServer], operations: list[Operation]) -> Credentials:
    service, server = own
    secret, now = secret_of(service), datetime.now(UTC)
    login = Backend(secret, "EdDSA", (ORIGIN,))
    revoked_login = Backend(secret, "HS256", (ORIGIN,))
    revoked, revoked_record = new_key(secret, "revoked", SCOPES, now)
    page, page_record = public_key(service)
    old_page, old_page_record = public_key(service)
    ended = {"revoked_at": now}
    records = [
        login.record,
        revoked_login.revoked(),
        page_record,
        revoked_record.model_copy(update=ended),
        old_page_record.model_copy(update=ended),
    ]
    found = Credentials()
    wanted = {frozenset(SCOPES)}
    for operation in operations:
        wanted |= {frozenset({scope}) for scope in operation.scopes}
        wanted.add(frozenset(SCOPES).difference(operation.scopes))
    for scopes in wanted:
        found.by_scopes[scopes], record = new_key(secret, "backend", scopes, now)
        records.append(record)
    put(server, *records)
    found.headers = {
        "nothing": {},
        "empty": {"Authorization": "Bearer"},
        "garbage": bearer("garbage"),
        "garbage of the right form": bearer("rk_" + "A" * 43),
        "garbage with dots": bearer("a.b.c"),
        "basic garbage": {"Authorization": "Basic %%%"},
        "another scheme": {"Authorization": "Digest x"},
        "revoked key": bearer(revoked),
        "revoked public key": bearer(old_page),
        "token of a revoked signing key": bearer(revoked_login.token(CUSTOMER)),
        "token of an unknown signing key": bearer(Backend(secret).token(CUSTOMER)),
        "expired token": bearer(login.token(CUSTOMER, lifetime_s=-1)),
        "token for too long": bearer(login.token(CUSTOMER, lifetime_s=5000)),
        "token for others": bearer(login.token(CUSTOMER, aud="shop")),
        "public key": bearer(page),
        "public key in another page": {**bearer(page), "Origin": "https://evil.example"},
        "token": bearer(login.token(CUSTOMER)),
        "token in another page": {
            **bearer(login.token(CUSTOMER)),
            "Origin": "https://evil.example",
        },
    }
    return found


NOBODY = (
    "nothing", "empty", "garbage", "garbage of the right form", "garbage with dots",
    "basic garbage", "another scheme", "revoked key", "revoked public key",
    "token of a revoked signing key", "token of an unknown signing key", "expired token",
    "token for too long", "token for others",
)  # fmt: skip
"""Whoever shows one of these is nobody: 401 everywhere."""


def expected(operation: Operation) -> dict[str, int | str]:
    """Return the line of the table for an operation."""
    public = ALLOWED if "public" in operation.kinds else 403
    if operation.scopes and not PUBLIC_SCOPES.intersection(operation.scopes):
        assert "public" not in operation.kinds, f"{operation}: no public key has its scopes"
    customer = ALLOWED if "customer" in operation.kinds else 403
    line: dict[str, int | str] = dict.fromkeys(NOBODY, 401)
    line |= {
        "public key": public,
        "public key in another page": 403,
        "token": customer,
        "token in another page": 403,
    }
    if not operation.scopes:
        return line | {"any backend": 403}
    right = {f"right scope {one}": ALLOWED for one in operation.scopes}
    return line | right | {"all other scopes": 403}


async def table(
    service: Service, operations: list[Operation], credentials: Credentials
) -> dict[tuple[str, str], int]:
    """Ask every operation with every credential."""
    gate = asyncio.Semaphore(16)
    found: dict[tuple[str, str], int] = {}
    async with httpx.AsyncClient(base_url=service.url, timeout=60, verify=False) as client:

        async def ask(operation: Operation, name: str, headers: dict[str, str]) -> None:
            body = None if operation.method in ("get", "delete") else b"{}"
            sent = {**headers, **({"Content-Type": "application/json"} if body else {})}
            # Some answers stream for as long as there is news: the head says enough.
            method, path = operation.method.upper(), operation.path
            async with gate, client.stream(method, path, headers=sent, content=body) as response:
                found[str(operation), name] = response.status_code

        async with asyncio.TaskGroup() as group:
            for operation in operations:
                for name, headers in credentials.columns(operation).items():
                    group.create_task(ask(operation, name, headers))
    return found


def test_every_operation_says_who_may_use_it(operations: list[Operation]) -> None:
    assert len(operations) > 15
    silent = [str(operation) for operation in operations if not operation.declared]
    assert not silent, f"say who may use it, by http.secured or http.unsecured: {silent}"
    for operation in operations:
        assert operation.kinds <= KINDS, operation
        assert set(operation.scopes) <= set(SCOPES), operation
        assert ("server" in operation.kinds) == bool(operation.scopes), operation
        assert operation.kinds or operation.template in OPEN, f"{operation} is open to everybody"
        if operation.template.startswith("/v1/me"):
            assert "customer" in operation.kinds, operation
            assert "server" not in operation.kinds, f"{operation}: whose would it be?"
            assert "user_id" not in operation.template, operation


def test_no_route_hides() -> None:
    for module in pkgutil.iter_modules(recsvc.api.__path__):
        router = getattr(importlib.import_module(f"recsvc.api.{module.name}"), "router", None)
        for route in getattr(router, "routes", ()):
            if isinstance(route, APIRoute) and not route.include_in_schema:
                assert route.path in HIDDEN, f"{route.path} is not in OpenAPI"


async def test_the_table(
    own: tuple[Service, EmbeddedServer],
    operations: list[Operation],
    credentials: Credentials,
) -> None:
    service = own[0]
    closed = [operation for operation in operations if operation.kinds]
    found = await table(service, closed, credentials)
    wrong = []
    for operation in closed:
        for name, status in expected(operation).items():
            was = found.pop((str(operation), name))
            right = was not in (401, 403) if status == ALLOWED else was == status
            if not right:
                wrong.append(f"{operation} with {name}: {was}, not {status}")
    assert not wrong, "\n".join(["", *wrong])
    assert not found, "every cell was expected to be something"


async def test_open_addresses_need_nothing_and_mind_nothing(
    own: tuple[Service, EmbeddedServer], operations: list[Operation], credentials: Credentials
) -> None:
    open_to_all = [operation for operation in operations if not operation.kinds]
    assert {operation.template for operation in open_to_all} == OPEN
    for (operation, name), status in (await table(own[0], open_to_all, credentials)).items():
        assert status == 200, f"{operation} with {name}"
