"""Whoever is erased is gone: from every answer at once, from every file and key soon after."""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from tests.proofs.searching import Needles, search_folder, search_server
from tests.recsvc.api.browser import ORIGIN, page_of, public_key, put, secret_of
from tests.recsvc.api.service import Service, assert_problem, event, ids_of, running_shop
from tests.recsvc.signing import Backend
from tests.waiting import until

RECS = "/v1/recommendations"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, EmbeddedServer]]:
    """Two workers, and a server whose files lie in a folder that nobody else uses."""
    folder = tmp_path_factory.mktemp("erasures")
    with running_shop(folder, workers=2, decision_sample=1.0) as both:
        yield both


@pytest.fixture
def client(own: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with own[0].client() as client:
        yield client


def somebody(what: str = "canary") -> str:
    return f"{what}-{secrets.token_hex(12)}"


def visit(visitor: str, item_id: str) -> dict[str, Any]:
    seen = event(visitor, item_id, type="view", anonymous_id=visitor)
    del seen["user_id"]
    return seen


def lives(client: httpx.Client, user_id: str, visitor: str) -> None:
    """Leave traces of every kind."""
    events = [event(user_id, f"i0000{number}") for number in range(1, 5)]
    events += [visit(visitor, "i00005"), event(user_id, "i00006", type="impression")]
    events += [event("their-child", "i00007", anonymous_id=visitor)]
    assert client.post("/v1/events", json=events).status_code == 202
    assert client.get(RECS, params={"anonymous_id": visitor}).json()["personalized"]
    profile = {"attributes": {"city": f"town of {user_id}"}, "external_ids": {"crm": user_id}}
    assert client.put(f"/v1/users/{user_id}", json=profile).status_code == 200
    merge = client.post(f"/v1/users/{user_id}/merge", json={"anonymous_id": visitor})
    assert merge.status_code == 200
    choices = client.patch(f"/v1/users/{user_id}/preferences", json={"interests": [user_id]})
    assert choices.status_code in (200, 422)
    for _ in range(4):
        answer = client.get(RECS, params={"user_id": user_id})
        assert answer.json()["personalized"]


def archived(service: Service) -> int:
    return EventLog(service.shop.data_dir).count()


def wait_archived(service: Service, client: httpx.Client) -> None:
    """Wait until what was accepted so far is in the files."""
    marker = somebody("marker")
    before = archived(service)
    assert client.post("/v1/events", json=event(marker, "i00009")).status_code == 202
    until(lambda: archived(service) > before)
    time.sleep(0.2)


def finished(client: httpx.Client, erasure: str) -> dict[str, Any]:
    """Wait for an erasure, given its id or the place of its receipt."""
    place = erasure if "/" in erasure else f"/v1/erasures/{erasure}"
    receipt: dict[str, Any] = {}

    def is_done() -> bool:
        receipt.update(client.get(place).json())
        return bool(receipt["state"] == "done")

    until(is_done)
    return receipt


def assert_nowhere(service: Service, server: EmbeddedServer, *names: str) -> None:
    needles = Needles(names)
    found = search_folder(service.shop.data_dir, needles)
    found += search_folder(server.folder, needles)
    with redis.Redis.from_url(server.url) as connection:
        found += search_server(connection, needles)
    assert not found


def test_an_erased_user_is_a_stranger_at_once_and_in_no_file_soon(
    own: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    service, server = own
    user, visitor = somebody(), somebody("canary-visit")
    lives(client, user, visitor)
    wait_archived(service, client)
    needles = Needles([user, visitor])
    assert search_folder(service.shop.data_dir, needles), "else this test proves nothing"
    assert search_folder(server.folder, needles)

    answer = client.delete(f"/v1/users/{user}")
    assert answer.status_code == 202
    begun = answer.json()
    assert answer.headers["location"] == f"/v1/erasures/{begun['erasure_id']}"
    assert (begun["state"], begun["model"]) == ("erasing", "next training")
    assert begun["erased"]["profile"] == 1
    for params in ({"user_id": user}, {"anonymous_id": visitor}):
        for _ in range(6):  # whichever worker answers
            with service.client() as another:
                assert not another.get(RECS, params=params).json()["personalized"]
    assert_problem(client.get(f"/v1/users/{user}"), 404)

    receipt = finished(client, begun["erasure_id"])
    assert receipt["server_files"] == "rewritten"
    assert receipt["erased"]["archived_events"] >= 6
    assert receipt["erased"]["decisions"] >= 1
    others = EventLog(service.shop.data_dir).scan().filter(user_id="their-child").collect()
    assert others["anonymous_id"].to_list() == [None]


def test_nothing_is_left_in_any_file_or_key(
    own: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    service, server = own
    user, visitor = somebody(), somebody("canary-visit")
    lives(client, user, visitor)
    wait_archived(service, client)
    receipt = finished(client, client.delete(f"/v1/users/{user}").json()["erasure_id"])
    assert_nowhere(service, server, user, visitor)
    assert all(user not in line for line in service.log_text().splitlines())
    lines = [line for line in service.log_lines() if line["event"] == "erasures_done"]
    assert sum(line["erasures"] for line in lines) >= 1
    metrics = client.get("/metrics").text
    assert 'recsvc_erasures_total{outcome="done"}' in metrics
    until(lambda: "recsvc_erasures_pending 0.0" in client.get("/metrics").text)
    assert receipt["delivered"] == receipt["backups"] == []


def test_what_comes_late_is_dropped_and_who_comes_back_is_new(
    own: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    user, visitor = somebody(), somebody("canary-visit")
    lives(client, user, visitor)
    finished(client, client.delete(f"/v1/users/{user}").json()["erasure_id"])
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    late = [event(user, "i00001", timestamp=before), event(user, "i00002", timestamp=before)]
    assert client.post("/v1/events", json=late).status_code == 202
    assert not client.get(RECS, params={"user_id": user}).json()["personalized"]
    assert_problem(client.get(f"/v1/users/{user}"), 404)
    assert client.post("/v1/events", json=event(user, "i00003")).status_code == 202
    assert client.get(RECS, params={"user_id": user}).json()["personalized"]
    known = client.get(f"/v1/users/{user}").json()
    assert (known["n_items"], known["counts"]) == (1, {"purchase": 1})


def test_a_stranger_gets_a_receipt_too_and_asking_twice_does_no_harm(
    client: httpx.Client,
) -> None:
    user = somebody("never-here")
    receipts = [client.delete(f"/v1/users/{user}") for _ in range(3)]
    assert [one.status_code for one in receipts] == [202] * 3
    ids = {one.json()["erasure_id"] for one in receipts}
    assert len(ids) == 3
    for erasure_id in ids:
        assert finished(client, erasure_id)["erased"] == {}
    assert_problem(client.get(f"/v1/erasures/{'0' * 32}"), 404)
    assert_problem(client.get("/v1/erasures/nonsense"), 422, "#/erasure_id")


def test_customers_and_visitors_erase_themselves_and_nobody_else(
    own: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    service, server = own
    login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    page, record = public_key(service)
    put(server, login.record, record)
    user, visitor, other = somebody(), somebody("canary-visit"), somebody("canary-other")
    lives(client, user, visitor)
    token = {"Authorization": f"Bearer {login.token(user)}"}
    with page_of(service, **token) as mine:
        assert_problem(mine.delete("/v1/me", params={"user_id": other}), 422)
        assert_problem(mine.delete("/v1/me?anonymous_id=" + visitor), 422, "#/anonymous_id")
        assert_problem(mine.delete(f"/v1/users/{user}"), 403)
    with page_of(service, Authorization=f"Bearer {page}") as theirs:
        assert_problem(theirs.delete("/v1/me"), 422, "#/anonymous_id")
        assert_problem(theirs.delete("/v1/me?anonymous_id=short"), 422, "#/anonymous_id")
        assert_problem(theirs.delete("/v1/me?anonymous_id=" + visitor), 403)
        assert client.post("/v1/events", json=visit(other, "i00001")).status_code == 202
        answer = theirs.delete("/v1/me?anonymous_id=" + other)
        assert answer.status_code == 202
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert finished(theirs, answer.headers["location"])["erased"]["state"] == 1
    assert_problem(client.delete("/v1/me"), 403)
    assert client.get(RECS, params={"user_id": user}).json()["personalized"]
    with page_of(service, **token) as mine:
        answer = mine.delete("/v1/me")
        assert answer.status_code == 202
        receipt = finished(mine, answer.headers["location"])
    assert receipt["erased"]["profile"] == 1
    assert not client.get(RECS, params={"user_id": user}).json()["personalized"]


def test_paths_of_the_machine_are_for_those_who_run_it(
    own: tuple[Service, EmbeddedServer], client: httpx.Client
) -> None:
    service, server = own
    login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, login.record)
    delivered = {"path": "/somewhere/users.jsonl", "kind": "export", "at": "2026-01-01T00:00:00Z"}
    register = service.shop.data_dir / "deliveries.jsonl"
    register.write_text(json.dumps(delivered) + "\n")
    try:
        user = somebody()
        receipt = client.delete(f"/v1/users/{user}").json()
        assert receipt["delivered"] == [delivered]
        with page_of(service, Authorization=f"Bearer {login.token(user)}") as mine:
            shown = mine.get(f"/v1/me/erasures/{receipt['erasure_id']}").json()
        assert shown["delivered"] == [delivered | {"path": None}]
    finally:
        register.unlink()


@pytest.mark.slow
def test_another_worker_finishes_what_a_killed_one_began(tmp_path: Path) -> None:
    with running_shop(tmp_path, workers=2) as (service, server), service.client() as client:
        user, visitor = somebody(), somebody("canary-visit")
        lives(client, user, visitor)
        wait_archived(service, client)
        with EventLog(service.shop.data_dir).importing(60.0):
            # An import has the log: the pass has begun, and waits.
            receipt = client.delete(f"/v1/users/{user}").json()
            until(lambda: passes(service))
            leaders = passes(service)
            child, worker = leaders[0]
            os.kill(worker, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            until(lambda: any(one not in leaders for one in passes(service)))
            assert client.get(f"/v1/erasures/{receipt['erasure_id']}").json()["state"] == "erasing"
        done = finished(client, receipt["erasure_id"])
        assert done["erased"]["archived_events"] >= 6
        assert_nowhere(service, server, user, visitor)
        assert ids_of(client.get(RECS, params={"user_id": user}).json())


def passes(service: Service) -> list[tuple[int, int]]:
    """Return the processes that clear files, each with the worker that started it."""
    found = []
    workers = children(service.process.pid)
    for worker in [*workers, *(two for one in workers for two in children(one))]:
        for child in children(worker):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"feature_store.forgetting.erasing" in command:
                found.append((child, worker))
    return found


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(one) for one in text.split()]
