"""Of whom nothing is stored: what they say of mail holds by every door, what they bought counts."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from feature_store import keys
from feature_store.embedded import EmbeddedServer
from feature_store.schema import format_time
from recsvc.commands.importing import FileOptions, event_options, run_import_events
from recsvc.settings import Settings
from tests.proofs.searching import Needles, search_folder, search_server
from tests.recsvc.api.service import Service, assert_problem, event, running_shop

RECALLED, OTHER = "i00051", "i00052"
LONG_AGO = "2026-01-01T10:00:00Z"
DENIED = {"consent": {"categoryPreferences": {"Personalization": False}}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, EmbeddedServer]]:
    with running_shop(tmp_path_factory.mktemp("withheld")) as both:
        yield both


@pytest.fixture(scope="module")
def backend(shop: tuple[Service, EmbeddedServer]) -> Iterator[httpx.Client]:
    with shop[0].client() as client:
        yield client


def somebody(name: str) -> str:
    return f"{name}-of-whom-nothing-is-kept-{time.monotonic_ns():020d}"


def ago(**lengths: float) -> str:
    return format_time(datetime.now(UTC) - timedelta(**lengths))


def mail_of(backend: httpx.Client, user: str) -> tuple[bool | None, list[tuple[bool, str, str]]]:
    """Return whether a user allows mail, and how that came: what, source, when."""
    said = backend.get(f"/v1/users/{user}/preferences").json()
    return said["consent"]["email_marketing"], [
        (one["allowed"], one["source"], one["at"])
        for one in said["consent_changes"]
        if one["purpose"] == "email_marketing"
    ]


def of_mail(
    user: str, kind: str = "unsubscribe", at: str = LONG_AGO, **more: Any
) -> dict[str, Any]:
    row = {"event_id": f"{user}-{kind}", "type": kind, "user_id": user, "timestamp": at}
    return row | more


def bring(shop: tuple[Service, EmbeddedServer], path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    service, server = shop
    files = FileOptions(str(path), None, "", "UTC", "EUR", None)
    options = event_options(
        files,
        default_type="purchase",
        type_given=False,
        price="unit",
        negative_quantity="refund",
        channel=None,
    )
    settings = Settings(data_dir=service.shop.data_dir, redis_url=server.url)
    run_import_events(settings, files, options, as_json=True)


def _break(shop: tuple[Service, EmbeddedServer], user: str) -> str:
    """Leave preferences that are no JSON: nobody else's refusal may be lost by them."""
    with Redis.from_url(shop[1].url) as redis:
        redis.set(keys.preferences(f"u:{user}"), b"{")
    return user


def test_a_file_ends_the_consent_to_mail_as_live_events_do(
    shop: tuple[Service, EmbeddedServer],
    backend: httpx.Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fresh, back, refuser, spam, grumbler, gone = map(
        somebody, ("fresh", "back", "refuser", "spam", "grumbler", "gone")
    )
    owner, visitor = somebody("owner"), somebody("visitor")
    path = "/v1/users/{}/preferences"
    backend.patch(path.format(back), json={"consent": {"email_marketing": True}})
    backend.patch(path.format(refuser), json={"personalization": False})
    backend.post(f"/v1/users/{owner}/merge", json={"anonymous_id": visitor}).raise_for_status()
    backend.delete(f"/v1/users/{gone}").raise_for_status()
    broken = _break(shop, somebody("broken"))
    rows = [
        of_mail(broken),
        of_mail(fresh),
        of_mail(fresh, at="2025-06-01T10:00:00Z") | {"event_id": "earlier"},
        of_mail(back),
        of_mail(refuser),
        of_mail(spam, "complaint", channel="Email"),
        of_mail(grumbler, "complaint", channel="store"),
        of_mail(gone),
        {**of_mail(visitor), "user_id": None, "anonymous_id": visitor},
    ]
    bring(shop, tmp_path / "mail.jsonl", rows)
    told = json.loads(capsys.readouterr().out)
    assert (told["mail_refusals"], told["without_consent"], told["forgotten"]) == (7, 2, 1)
    expected = {
        fresh: (False, [(False, "unsubscribe", LONG_AGO)]),
        refuser: (False, [(False, "unsubscribe", LONG_AGO)]),
        spam: (False, [(False, "complaint", LONG_AGO)]),
        owner: (False, [(False, "unsubscribe", LONG_AGO)]),
        grumbler: (None, []),
        gone: (None, []),
    }
    for _ in range(2):
        assert {user: mail_of(backend, user) for user in expected} == expected
        # Who came back later by their own word stays.
        allowed, changes = mail_of(backend, back)
        assert allowed is True
        assert [change[:2] for change in changes] == [(True, "key:all")]
        # The same file again changes nothing.
        bring(shop, tmp_path / "mail.jsonl", rows)
    history = backend.get(f"/v1/users/{fresh}/export").json()["sections"]["changes"]["entries"]
    assert [one["by"] for one in history] == ["import"]
    nothing = backend.get(f"/v1/users/{gone}/export").json()["sections"]
    assert {name for name, one in nothing.items() if one["count"]} == {"forgotten"}


def test_a_consent_from_elsewhere_keeps_its_time_and_outdoes_nothing_newer(
    backend: httpx.Client,
) -> None:
    """As a shop brings them that begins with this service, before it brings purchases."""
    user = somebody("moved")
    path = f"/v1/users/{user}/preferences"
    old = {"email_marketing": True, "profiling": True, "at": LONG_AGO, "source": "old shop"}
    for _ in range(2):
        assert backend.patch(path, json={"consent": old}).status_code == 200
        assert mail_of(backend, user) == (True, [(True, "key:all/old shop", LONG_AGO)])
    backend.post("/v1/events", json=of_mail(user, at="2026-02-01T00:00:00Z")).raise_for_status()
    after = backend.patch(path, json={"consent": old}).json()["consent"]
    assert (after["email_marketing"], after["profiling"]) == (False, True)
    backend.patch(path, json={"consent": {"profiling": False}}).raise_for_status()
    newer = old | {"profiling": True, "at": "2026-03-01T00:00:00Z"}
    after = backend.patch(path, json={"consent": newer}).json()["consent"]
    assert (after["email_marketing"], after["profiling"]) == (True, False)
    ahead = {"consent": {"profiling": True, "at": "2099-01-01T00:00:00Z"}}
    assert_problem(backend.patch(path, json=ahead), 422, "#/consent/at")


def test_mail_is_refused_by_every_live_door(backend: httpx.Client) -> None:
    marked, other, denied = map(somebody, ("marked", "other", "denied"))
    now = ago(seconds=1)
    said = [
        of_mail(marked, "complaint", now, channel="email"),
        of_mail(other, "complaint", now, channel="phone"),
    ]
    assert backend.post("/v1/events", json=said).json()["accepted"] == 2
    assert mail_of(backend, marked)[1] == [(False, "complaint", now)]
    assert mail_of(backend, other) == (None, [])
    call = {"type": "track", "messageId": somebody("m"), "timestamp": now}
    spam = {**call, "event": "Email Marked as Spam", "userId": other}
    left = {**call, "event": "Unsubscribed", "userId": denied, "context": DENIED}
    answers = [backend.post("/v1/events/segment", json=one).json() for one in (spam, left)]
    assert [(one["accepted"], one["withheld"]) for one in answers] == [(1, 0), (0, 1)]
    assert mail_of(backend, other)[1] == [(False, "complaint", now)]
    # Without the consent to a profile nothing is stored but the refusal itself.
    assert mail_of(backend, denied)[1] == [(False, "unsubscribe", now)]
    held = backend.get(f"/v1/users/{denied}/export").json()["sections"]
    assert (held["events"]["count"], held["preferences"]["count"]) == (0, 1)


def test_what_was_said_before_an_erasure_brings_nothing_back(
    shop: tuple[Service, EmbeddedServer], backend: httpx.Client
) -> None:
    user, visitor = somebody("erased"), somebody("visitor")
    before = ago(seconds=2)
    seen = {**event("x", "i00001", type="view"), "user_id": None, "anonymous_id": visitor}
    backend.post("/v1/events", json=[event(user, "i00001"), seen]).raise_for_status()
    backend.post(f"/v1/users/{user}/merge", json={"anonymous_id": visitor}).raise_for_status()
    backend.delete(f"/v1/users/{user}").raise_for_status()
    late = [
        of_mail(user, at=before),
        {**of_mail(visitor, at=before), "user_id": None, "anonymous_id": visitor},
        {**seen, "event_id": "late", "timestamp": before, "consent": {"profiling": False}},
    ]
    answer = backend.post("/v1/events", json=late).json()
    assert (answer["accepted"], answer["withheld"]) == (0, 3)
    with Redis.from_url(shop[1].url) as redis:
        assert not list(redis.scan_iter(f"p:*{user}*"))
        assert not list(redis.scan_iter(f"p:*{visitor}*"))
    # Who comes back and says it anew is somebody new.
    assert backend.post("/v1/events", json=of_mail(user, at=ago())).json()["accepted"] == 1
    assert mail_of(backend, user)[0] is False


def _buy(
    shop: tuple[Service, EmbeddedServer],
    backend: httpx.Client,
    path: Path,
    buyer: str,
    refuser: str,
) -> None:
    """Let both buy by every door; and others whose consent comes along."""
    lines = [{"item_id": RECALLED, "quantity": 3}, {"item_id": RECALLED}]
    order = {"order_id": "cnry-order", "placed_at": ago(), "lines": lines}
    segment = {
        "type": "track",
        "event": "Order Completed",
        "messageId": "cnry-message",
        "userId": somebody("cnry-denied"),
        "properties": {"order_id": "o", "products": [{"product_id": RECALLED, "quantity": 2}]},
        "context": DENIED,
    }
    bought = [
        event(buyer, RECALLED, quantity=4),
        event(refuser, RECALLED, quantity=5),
        event(refuser, "i00053", quantity=6),
        event(refuser, OTHER, type="view"),
        event(somebody("cnry-once"), RECALLED, consent={"profiling": False}),
    ]
    answer = backend.post("/v1/events", json=bought)
    assert answer.status_code == 202, answer.text
    assert answer.json()["withheld"] == 4
    stored = backend.post("/v1/orders", json={**order, "user_id": refuser}).json()
    assert (stored["accepted"], stored["withheld"]) == (0, 2)
    assert backend.post("/v1/events/segment", json=segment).json()["withheld"] == 1
    row: dict[str, Any] = {
        "item_id": RECALLED,
        "user_id": refuser,
        "timestamp": LONG_AGO,
        "type": "purchase",
    }
    more = [row | {"quantity": 7}, row | {"order_id": "cnry-2"}, row | {"item_id": OTHER}]
    bring(shop, path, more)


def test_a_recall_says_how_many_purchases_it_cannot_name(
    shop: tuple[Service, EmbeddedServer], backend: httpx.Client, tmp_path: Path
) -> None:
    buyer, refuser = somebody("buyer"), somebody("cnry-refuser")
    backend.patch(f"/v1/users/{refuser}/preferences", json={"consent": {"profiling": False}})
    body = {"item_ids": [RECALLED, OTHER], "reason": "glass splinters"}
    backend.put("/v1/recalls/missing", json=body).raise_for_status()

    def listed() -> list[dict[str, Any]]:
        answer = backend.get("/v1/recalls/missing/customers")
        return [json.loads(line) for line in answer.text.splitlines()]

    assert listed() == []
    _buy(shop, backend, tmp_path / "sales.jsonl", buyer, refuser)
    expected = [
        {"item_id": RECALLED, "withheld_purchases": 7, "withheld_quantity": 5 + 1 + 4 + 2 + 8},
        {"item_id": OTHER, "withheld_purchases": 1, "withheld_quantity": 1},
    ]
    deadline_s = time.monotonic() + 60
    with Redis.from_url(shop[1].url) as redis:
        is_archived = False
        while not is_archived:
            is_archived = not redis.xlen(keys.WITHHELD)
            found = listed()
            # What stands in the server, in the archive or in both counts once.
            assert [one.get("user_id") for one in found] == [buyer, None, None]
            assert found[1:] == expected
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
    # The counts name nobody: of those who refuse there is what they said, and nothing else.
    traces = _traces(shop, ["cnry-refuser", "cnry-once", "cnry-denied", "cnry-order", "cnry-2"])
    said = re.compile(r"(key p|value of [ng]):|(data/)?changes/people/")
    assert [one for one in traces if not said.match(one)] == []


def _traces(shop: tuple[Service, EmbeddedServer], names: list[str]) -> list[str]:
    service, server = shop
    needles = Needles(names)
    with Redis.from_url(server.url) as redis:
        places = search_server(redis, needles)
    places += search_folder(service.shop.data_dir, needles)
    return [place.where for place in places]
