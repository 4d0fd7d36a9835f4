"""Models over real HTTP: which one serves, and changing it without a failed request."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from feature_store.registry import ModelRegistry
from tests.recsvc.api.service import Service, assert_problem, event, ids_of
from tests.recsvc.shop import write_artifact
from tests.waiting import DEADLINE_S, until

PATH = "/v1/models"


@pytest.fixture
def other(pair: tuple[Service, EmbeddedServer]) -> Service:
    return pair[0]


def served(client: httpx.Client) -> str:
    return str(client.get("/v1/recommendations").json()["model_version"])


def until_all_serve(service: Service, version: str) -> None:
    """Wait until each of many fresh connections meets that model."""

    def found() -> set[str]:
        seen = set()
        for _ in range(12):
            with service.client() as client:
                seen.add(served(client))
        return seen

    until(lambda: found() == {version})


def test_the_list_says_which_one_serves(client: httpx.Client, service: Service) -> None:
    listed = client.get(PATH).json()
    assert listed["current"] == service.shop.models[1]
    assert listed["held"] is False
    assert [(one["version"], one["serves"]) for one in listed["models"]] == sorted(
        [(service.shop.models[0], False), (service.shop.models[1], True)]
    )
    assert [entry["action"] for entry in listed["history"]] == ["publish", "publish"]


def test_models_need_their_scope(service: Service) -> None:
    with service.client("recs:read") as reader:
        assert_problem(reader.get(PATH), 403)
        assert_problem(reader.post(f"{PATH}/rollback"), 403)


def test_promote_roll_back_hold_and_resume(other: Service) -> None:
    first, second = other.shop.models
    with other.client() as client:
        promoted = client.post(f"{PATH}/{first}/promote")
        assert promoted.json() == {"current": first, "held": False}
        until_all_serve(other, first)
        assert client.post(f"{PATH}/{second}/promote").status_code == 200
        rolled = client.post(f"{PATH}/rollback")
        assert rolled.json() == {"current": first, "held": True}
        until_all_serve(other, first)
        assert client.post(f"{PATH}/resume").json() == {"current": first, "held": False}
        assert client.post(f"{PATH}/hold").json() == {"current": first, "held": True}
        assert client.get(PATH).json()["held"] is True
        assert client.post(f"{PATH}/resume").json()["held"] is False
        assert_problem(client.post(f"{PATH}/nothing/promote"), 404)
        assert_problem(client.post(f"{PATH}/..%2F..%2Fetc/promote"), 404)


async def _load(service: Service, answers: list[httpx.Response]) -> None:
    """Ask without pause on several connections, and keep every answer."""
    async with service.async_client(connections=6) as client:

        async def ask(user_id: str) -> None:
            while True:
                answers.append(await client.get("/v1/recommendations", params={"user_id": user_id}))

        await asyncio.gather(*(ask(f"load {number}") for number in range(6)))


async def test_no_request_fails_while_models_change(other: Service) -> None:
    with other.client() as client:
        for number in range(6):
            client.post("/v1/events", json=event(f"load {number}", f"i{number:05d}"))
    registry = ModelRegistry(other.shop.data_dir / "models")
    answers: list[httpx.Response] = []
    load = asyncio.create_task(_load(other, answers))
    for turn in range(8):
        version = other.shop.models[turn % 2]
        registry.promote(version, datetime.now(UTC))
        seen = len(answers)
        async with asyncio.timeout(DEADLINE_S):
            # Whichever worker the connections lead to.
            while [one.json().get("model_version") for one in answers[seen:]][-12:] != 12 * [
                version
            ]:
                await asyncio.wait([load], timeout=0.05)
                assert not load.done()
    load.cancel()
    await asyncio.wait([load])
    assert {answer.status_code for answer in answers} == {200}
    documents = [answer.json() for answer in answers]
    assert all(len(ids_of(document)) == 20 for document in documents)
    assert all(document["degraded"] == [] for document in documents)


def _damage(folder: Path, how: str) -> None:
    if how == "truncated":
        file = folder / "item_factors.npy"
        file.write_bytes(file.read_bytes()[:-10])
    elif how == "altered":
        data = bytearray((folder / "popularity.npy").read_bytes())
        data[-1] ^= 1
        (folder / "popularity.npy").write_bytes(bytes(data))
    elif how == "no index":
        (folder / "index.faiss").unlink()
    else:
        (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize("how", ["truncated", "altered", "no index", "no manifest"])
def test_a_damaged_model_never_serves(other: Service, how: str) -> None:
    models_dir = other.shop.data_dir / "models"
    registry = ModelRegistry(models_dir)
    good = other.shop.models[0]
    registry.promote(good, datetime.now(UTC))
    until_all_serve(other, good)
    bad = write_artifact(models_dir, 60, seed=9)
    _damage(bad.path, how)
    with other.client() as client:
        refused = client.post(f"{PATH}/{bad.version}/promote")
        assert_problem(refused, 409)
        # Whatever wrote the registry: the workers look for themselves.
        registry.publish(bad.version, datetime.now(UTC))
        lines = len(other.log_lines())

        def errors() -> list[str]:
            assert served(client) == good
            return [line["event"] for line in other.log_lines()[lines:] if line["level"] == "error"]

        until(lambda: len(errors()) >= 2)
        assert {*errors()} == {"snapshot_refused"}
        assert 'recsvc_snapshot_swaps_total{outcome="refused"}' in client.get("/metrics").text
        assert client.get("/readyz").status_code == 200
        registry.promote(other.shop.models[1], datetime.now(UTC))
        until_all_serve(other, other.shop.models[1])
