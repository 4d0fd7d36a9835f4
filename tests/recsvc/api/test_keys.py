"""Keys in a service with two workers: made and revoked while it runs."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from recsvc.access.auth import load_secret, new_key
from recsvc.access.key_table import POLL_S
from recsvc.settings import Settings
from tests.recsvc.api.service import Service, event, ids_of
from tests.waiting import until

REVOKED_WITHIN_S = 5.0


def with_store(server: EmbeddedServer, use: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        try:
            await use(store)
        finally:
            await store.close()

    asyncio.run(run())


def statuses(service: Service, key: str) -> set[int]:
    """What many fresh connections, so both workers, say to a key."""
    found = set()
    for _ in range(12):
        with service.client(None) as client:
            answer = client.get("/v1/recommendations", headers={"X-API-Key": key})
        found.add(answer.status_code)
    return found


def test_a_key_works_at_once_and_ends_everywhere_within_five_seconds(
    pair: tuple[Service, EmbeddedServer],
) -> None:
    service, server = pair
    secret = load_secret(Settings(data_dir=service.shop.data_dir))
    key, record = new_key(secret, "new", ["recs:read"], datetime.now(UTC))
    assert statuses(service, key) == {401}
    with_store(server, lambda store: store.keys.put(record))
    assert statuses(service, key) == {200}
    revoked = record.model_copy(update={"revoked_at": datetime.now(UTC)})
    with_store(server, lambda store: store.keys.put(revoked))
    assert POLL_S <= REVOKED_WITHIN_S / 2, "with time to spare"
    until(lambda: statuses(service, key) == {401})


async def test_what_one_worker_acknowledged_every_worker_knows(
    pair: tuple[Service, EmbeddedServer],
) -> None:
    service, _ = pair
    for number in range(12):
        # Each with a connection of its own: either worker may answer.
        user_id, item_id = f"user {number}", f"new item {number}"
        async with service.async_client() as writer, service.async_client() as reader:
            stored = await writer.post("/v1/events", json=event(user_id, item_id))
            assert stored.status_code == 202
            answers = await asyncio.gather(
                *(
                    reader.get(
                        "/v1/recommendations",
                        params={"placement": "buy_again", "user_id": user_id, "limit": 1},
                    )
                    for _ in range(6)
                )
            )
        assert [ids_of(answer.json()) for answer in answers] == [[item_id]] * 6


def test_metrics_of_any_worker_are_those_of_all(pair: tuple[Service, EmbeddedServer]) -> None:
    service, _ = pair

    def count() -> float:
        with service.client() as client:
            text = client.get("/metrics").text
        # No other test is answered so: what these workers were asked before is not handed over yet.
        route = 'recsvc_http_requests_total{route="/v1/recommendations",status="304"} '
        lines = [line for line in text.splitlines() if line.startswith(route)]
        assert "recsvc_ready_workers 2.0" in text
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    assert count() == 0
    for _ in range(20):
        with service.client() as client:
            client.get("/v1/recommendations", headers={"If-None-Match": "*"})
    # A worker hands over what it counted once a second.
    until(lambda: {count() for _ in range(6)} == {20})
    assert count() == 20
