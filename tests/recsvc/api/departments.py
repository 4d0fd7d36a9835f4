"""A shop with departments, and the browsers of its customers."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from feature_store.embedded import EmbeddedServer
from tests.recsvc.api.browser import ORIGIN, put, secret_of
from tests.recsvc.api.service import Service, running_shop
from tests.recsvc.shop import item_ids
from tests.recsvc.signing import Backend

DEPARTMENTS = ("Pets", "Garden", "Health")
SECRET = "Health > Intimate"
N = 60

Customer = Callable[[str], httpx.Client]


def item(number: int) -> dict[str, Any]:
    """Item `i` is of taste `i % 3` in the model, so of that department."""
    department = DEPARTMENTS[number % 3]
    below = "Intimate" if department == "Health" and number % 2 else f"Shelf {number % 2}"
    return {
        "item_id": item_ids(N)[number],
        "title": f"Thing {number}",
        "brand": f"Maker {number % 6}",
        "categories": [f"{department} > {below}"],
        "image_url": f"https://shop.example/{number}.jpg",
    }


@contextmanager
def department_shop(folder: Path, **settings: Any) -> Iterator[tuple[Service, EmbeddedServer]]:
    """Serve it with two workers."""
    given = {"workers": 2, "public_events_per_minute": 100_000, **settings}
    with running_shop(folder, **given) as (service, server):
        with service.client() as client:
            answer = client.post("/v1/items", json=[item(number) for number in range(N)])
            assert answer.json()["accepted"] == N
            client.put("/v1/privacy", json={"never_named": [SECRET]}).raise_for_status()
        yield service, server


@contextmanager
def browsers(service: Service, server: EmbeddedServer) -> Iterator[Customer]:
    """Make browsers of customers who have signed in."""
    login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, login.record)
    with ExitStack() as opened:

        def made(user_id: str) -> httpx.Client:
            headers = {"Authorization": f"Bearer {login.token(user_id)}", "Origin": ORIGIN}
            client = httpx.Client(base_url=service.url, headers=headers, verify=False, timeout=60)
            return opened.enter_context(client)

        yield made


def fresh(name: str) -> str:
    """Return a user id of which nobody has heard."""
    return f"{name}/of departments {time.monotonic_ns()}"


def user_path(user_id: str) -> str:
    return f"/v1/users/{user_id.replace('/', '%2F')}"


def everywhere(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """Ask often enough, over new connections, that both workers answer."""
    found = []
    for _ in range(6):
        with httpx.Client(
            base_url=client.base_url, headers=client.headers, verify=False, timeout=60
        ) as new:
            answer = new.get(path, params=params)
            assert answer.status_code == 200, answer.text
            found.append(answer.json())
    return found
