"""What tests of pages share: customers, what holds for every page, and how one is written."""

import asyncio
import time
from typing import Any

import httpx

from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from tests.recsvc.api.browser import ORIGIN
from tests.recsvc.api.service import event, ids_of
from tests.recsvc.signing import Backend

RECS = "/v1/recommendations"


def somebody(what: str) -> str:
    return f"{what} of pages {time.monotonic_ns()}"


def visitor() -> str:
    return f"visitor-of-pages-{time.monotonic_ns():020d}"


def buyer(client: httpx.Client, *numbers: int) -> str:
    user = somebody("buyer")
    events = [event(user, f"i{number:05d}") for number in numbers or (3, 6, 9)]
    assert client.post("/v1/events", json=events).json()["accepted"] == len(events)
    return user


def signed_in(login: Backend, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {login.token(user)}", "Origin": ORIGIN}


def compute(server: EmbeddedServer, user: str, stage: str) -> None:
    """Say a customer's stage, as training does."""

    async def run() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        try:
            await store.people.put_many("computed", {f"u:{user}": {"stage": stage}}, "training")
        finally:
            await store.close()

    asyncio.run(run())


def filled(response: httpx.Response) -> dict[str, Any]:
    """Check what holds for every page, and return it."""
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    shown = [item_id for module in page["modules"] for item_id in ids_of(module)]
    assert len(set(shown)) == len(shown), "an item stands on the page twice"
    for module in page["modules"]:
        assert module["items"], "an empty module is left out"
        assert [item["rank"] for item in module["items"]] == list(
            range(1, len(module["items"]) + 1)
        )
        assert module["title"]
        for name in ("user_id", "model_version", "rules_version", "degraded"):
            assert module[name] == page[name]
    assert page["personalized"] == any(one["personalized"] for one in page["modules"])
    names = module_names(page)
    assert not set(names) & {*page["empty"], *page["missing"]}
    assert len(set(names)) == len(names)
    ids = [module["recommendation_id"] for module in page["modules"]]
    assert len(set(ids)) == len(ids)
    return page


def module_names(page: dict[str, Any]) -> list[str]:
    return [module["module"] for module in page["modules"]]


def body(*modules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"modules": list(modules or [{"module": "a", "placement": "home"}]), **more}
