"""All that is held of one person is in the export: compared with every key and every row."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow.parquet as pq
import pytest
import redis

from feature_store import keys
from feature_store.embedded import EmbeddedServer
from feature_store.holdings.server import SECTIONS_OF
from feature_store.ingest.users import UserOptions
from feature_store.store import Store
from recsvc.api.foreign import GA4_EXAMPLE, RETAIL_EXAMPLE, SEGMENT_EXAMPLE
from recsvc.commands import exporting, importing_users
from recsvc.commands.importing import FileOptions, event_options, run_import_events
from recsvc.exports.sections import BY_NAME
from recsvc.settings import Settings
from tests.proofs.searching import Needles, search_folder, search_server
from tests.recsvc.api.browser import ORIGIN, public_key, put, secret_of
from tests.recsvc.api.service import Service, assert_problem, event, running_shop
from tests.recsvc.signing import Backend
from tests.waiting import until

USER = 'cnry-user/é "1" 日'
VISITORS = ("cnry-visitor-0123456789-0001", "cnry-visitor-0123456789-0002")
SUBSCRIBER = "cnry-subscriber-77"
OTHER = "cnry-other-person-1"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TECHNICAL = {"index", "event_ids", "quota", "imports"}


class Known:
    """A shop that holds everything of one person that it can hold."""

    def __init__(self, service: Service, server: EmbeddedServer) -> None:
        self.service, self.server = service, server
        self.client = service.client()
        self.path = f"/v1/users/{quote(USER, safe='')}"
        self.key, record = public_key(service)
        login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
        put(server, record, login.record)
        token = login.token(USER)
        self.page = {"X-API-Key": self.key, "Origin": ORIGIN}
        self.customer = {"Authorization": f"Bearer {token}", "Origin": ORIGIN}
        self.other = {"Authorization": f"Bearer {login.token(OTHER)}", "Origin": ORIGIN}

    def send(self, path: str, body: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        if headers is None:
            answer = self.client.post(path, json=body)
        else:
            with httpx.Client(
                base_url=self.service.url, headers=headers, verify=False, timeout=60
            ) as sender:
                answer = sender.post(path, json=body)
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.service.shop.data_dir, redis_url=self.server.url)

    def export(self) -> dict[str, Any]:
        answer = self.client.get(f"{self.path}/export")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def fill(self) -> None:
        """Let everything be known of the person that may be, by every way."""
        for number, visitor in enumerate(VISITORS):
            seen = {**event("x", f"i0000{number + 1}", type="view"), "user_id": None}
            self.send("/v1/events", [{**seen, "anonymous_id": visitor}], self.page)
            answer = self.client.get("/v1/recommendations", params={"anonymous_id": visitor})
            assert answer.status_code == 200
        with httpx.Client(
            base_url=self.service.url, headers=self.page, verify=False, timeout=60
        ) as page:
            hides = {"hidden_items": ["i00030"], "consent": {"profiling": True}}
            asked = page.patch(
                "/v1/me/preferences", params={"anonymous_id": VISITORS[0]}, json=hides
            )
            assert asked.status_code == 200, asked.text
        profile = {
            "attributes": {"city": "Berlin", "note": f"is {USER}"},
            "external_ids": {"subscriber_key": SUBSCRIBER},
        }
        assert self.client.put(self.path, json=profile).status_code == 200
        for visitor in VISITORS:
            self.send(f"{self.path}/merge", {"anonymous_id": visitor})
        self._events()
        patch = {"consent": {"email_marketing": True}, "followed_brands": ["Brand 1"]}
        answer = self.client.patch(f"{self.path}/preferences", json=patch)
        assert answer.status_code == 200, answer.text
        for _ in range(2):
            asked = self.client.get("/v1/recommendations", params={"user_id": USER})
            assert asked.status_code == 200
        self._imports()
        computed: dict[str, Any] = {f"u:{USER}": {"stage": "active", "churn_risk": 0.25}}

        async def compute() -> None:
            store = await Store.open(self.server.url, read_timeout_s=5.0)
            await store.people.put_many("computed", computed, by="training")
            await store.close()

        asyncio.run(compute())

    def _events(self) -> None:
        now = datetime.now(UTC) - timedelta(minutes=3)
        at = now.isoformat()
        kinds = ("purchase", "view", "add_to_cart", "impression", "impression", "like", "send")
        mine = [event(USER, f"i000{at + 10}", type=kind) for at, kind in enumerate(kinds)]
        survey = {"type": "survey", "item_id": None, "instrument": "nps", "score": 9}
        more = [
            event(USER, "i00040", type="rating", value=4.5),
            {**event(USER, "i00001"), **survey},
            {**event(USER, "i00001"), "type": "complaint", "item_id": None},
            {**event(USER, "i00001"), "type": "search", "item_id": None, "query": "cnry-query 1"},
            event(USER, "i00041", anonymous_id="not merged, but named beside the user"),
        ]
        self.send("/v1/events", mine + more)
        self.send(
            "/v1/events", [{**event("x", "i00042", type="view"), "user_id": None}], self.customer
        )
        order = {"order_id": "cnry-order-1", "user_id": USER, "placed_at": at}
        self.send("/v1/orders", {**order, "lines": [{"item_id": "i00043"}, {"item_id": "i00044"}]})
        for path, document in (
            ("segment", SEGMENT_EXAMPLE),
            ("ga4", GA4_EXAMPLE),
            ("retail", RETAIL_EXAMPLE),
        ):
            # The examples are of one order, which counts once by whatever door.
            text = json.dumps(document).replace('"1001"', f'"order of {path}"')
            text = text.replace('"2375"', json.dumps(USER))
            text = text.replace("2026-11-22T10", "2026-11-20T10").replace("17953425", "17950000")
            assert self.send(f"/v1/events/{path}", json.loads(text))["accepted"]
        self.send("/v1/events", [event(OTHER, "i00001"), event(OTHER, "i00002", type="view")])

    def _imports(self) -> None:
        folder = self.service.shop.data_dir.parent
        events = folder / "events.jsonl"
        line = {"item_id": "i00050", "timestamp": "2026-01-01T10:00:00Z", "type": "purchase"}
        rows = [
            {**line, "user_id": USER, "order_id": "cnry-order-2"},
            {**line, "user_id": None, "anonymous_id": VISITORS[1]},
            {**line, "user_id": USER, "timestamp": f"never, says {USER}"},
            {**line, "user_id": OTHER},
        ]
        events.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
        users = folder / "users.jsonl"
        clash = {"user_id": OTHER, "external_ids": {"subscriber_key": SUBSCRIBER}}
        users.write_text(json.dumps(clash) + "\n")
        settings = self.settings
        files = [FileOptions(str(path), None, "", "UTC", "EUR", None) for path in (events, users)]
        options = event_options(
            files[0],
            default_type="purchase",
            type_given=False,
            price="unit",
            negative_quantity="refund",
            channel=None,
        )
        run_import_events(settings, files[0], options, as_json=True)
        importing_users.run(settings, files[1], UserOptions(), as_json=True)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    with running_shop(tmp_path_factory.mktemp("held"), decision_sample=1.0) as both:
        found = Known(*both)
        found.fill()
        # Some of it shall be in files, some still in the streams.
        until(lambda: found.export()["sections"]["events"]["entries"][-1]["stored_in"] != "stream")
        found.send("/v1/events", [event(USER, "i00060"), event(USER, "i00061", type="view")])
        yield found
        found.client.close()


def section_of(where: str) -> str | None:
    """Return the section that shows what stands in a place; ``None`` if it shows nothing there."""
    if match := re.match(r"(?:key|value of) ([a-z]):\{s\d\d\}", where):
        name = SECTIONS_OF[match.group(1)]
        return "technical" if name in TECHNICAL else name
    for pattern, name in (
        (r"data/events/date=", "events"),
        (r"data/changes/people/", "changes"),
        (r"data/decisions/", "decisions"),
        (r"data/imports/[^/]*/?[^/]*rejects", "rejects"),
    ):
        if re.match(pattern, where):
            return name
    return None


def test_every_place_that_names_the_person_is_in_the_export(known: Known) -> None:
    """No key and no file holds something of the person that the export does not show."""
    folder = known.service.shop.data_dir.parent
    client = redis.Redis(unix_socket_path=str(known.server.socket_path))
    needles = Needles([USER, *VISITORS, SUBSCRIBER])
    places = search_server(client, needles)
    client.close()
    # The server's own files are a copy of its keys; the sources of the imports are the test's.
    places += [
        place
        for place in search_folder(folder, needles)
        if place.where.startswith("data/") or not place.where.endswith((".jsonl", ".aof", ".rdb"))
    ]
    export = known.export()
    unexplained = [place for place in places if section_of(place.where) is None]
    assert not unexplained
    named = {section_of(place.where) for place in places}
    assert named == {
        *("events", "changes", "decisions", "rejects", "technical", "facts", "impressions"),
        *("profile", "preferences", "computed", "external_ids", "merges"),
    }
    for name in named:
        assert name is not None
        assert export["sections"][name]["count"] > 0, name
    letters = {place.where[4] for place in places if place.where.startswith("key ")}
    # The rest of a state needs more than 256 items; sets, streams and lists name nobody in keys.
    assert letters == set(SECTIONS_OF) - {"r", "b", "n", "g", "i", "e"}


def test_every_event_that_is_stored_is_in_the_export(known: Known) -> None:
    """Read here by other means: every row of the log, every entry of the streams."""
    mine: set[tuple[str, str]] = set()

    def is_mine(user_id: str | None, anonymous_id: str | None) -> bool:
        return user_id == USER or (user_id is None and anonymous_id in VISITORS)

    client: Any = redis.Redis(unix_socket_path=str(known.server.socket_path))
    for name in client.scan_iter("e:*"):
        for _, fields in client.xrange(name):
            body = json.loads(fields[b"e"])
            if is_mine(body.get("user_id"), body.get("anonymous_id")):
                mine.add((body["event_id"], body["trust"]))
    client.close()
    for path in (known.service.shop.data_dir / "events").rglob("*.parquet"):
        for row in pq.ParquetFile(path).read().to_pylist():
            if is_mine(row["user_id"], row["anonymous_id"]):
                mine.add((row["event_id"], row["trust"]))
    entries = known.export()["sections"]["events"]["entries"]
    assert {(one["event_id"], one["trust"]) for one in entries} == mine
    assert len(entries) == len(mine) > 20
    assert {one["type"] for one in entries} >= {"purchase", "search", "survey", "merge", "send"}
    assert [one["extra"]["query"] for one in entries if one["type"] == "search"] == ["cnry-query 1"]
    assert {one.get("order_id") for one in entries} >= {"cnry-order-1", "cnry-order-2"}


def test_it_says_what_is_known_in_words(known: Known) -> None:
    sections = known.export()["sections"]
    assert list(sections) == list(BY_NAME)
    assert all(one["what"] and one["why"] and one["title"] for one in sections.values())
    assert all(one["count"] == len(one["entries"]) for one in sections.values())
    assert sections["profile"]["entries"][0]["attributes"]["city"] == "Berlin"
    assert sections["external_ids"]["entries"] == [
        {"system": "subscriber_key", "id": SUBSCRIBER, "in_the_profile": True}
    ]
    chosen = sections["preferences"]["entries"][0]
    assert chosen["hidden_items"] == ["i00030"]
    assert chosen["consent"] == {"email_marketing": True, "profiling": True}
    assert {one["purpose"] for one in chosen["consent_changes"]} == {
        "email_marketing",
        "profiling",
    }
    assert sections["computed"]["entries"] == [{"stage": "active", "churn_risk": 0.25}]
    assert {one["anonymous_id"] for one in sections["merges"]["entries"]} == set(VISITORS)
    bought = [one for one in sections["facts"]["entries"] if one["item_id"] == "i00050"]
    assert bought == [
        {
            "item_id": "i00050",
            "title": "Item 50 of Brand 2",
            "type": "purchase",
            "count": 2,
            "first_at": "2026-01-01T10:00:00Z",
            "last_at": "2026-01-01T10:00:00Z",
        }
    ]
    answers = {one["instrument"]: one["score"] for one in sections["feedback"]["entries"]}
    assert answers == {"nps": 9, "rating": 4.5, "complaint": None}
    assert sum(one["count"] for one in sections["impressions"]["entries"]) == 2
    decisions = sections["decisions"]["entries"]
    assert {one["user_id"] or one["anonymous_id"] for one in decisions} == {USER, *VISITORS}
    assert all(one["items"] and one["candidates"] for one in decisions if one["user_id"])
    history = [(one["document"], one["by"], one["of"]) for one in sections["changes"]["entries"]]
    assert ("profile", "key:all", USER) in history
    assert ("preferences", "visitor", VISITORS[0]) in history
    assert {one["reason"] for one in sections["rejects"]["entries"]} >= {"external_id_taken"}
    kinds = {one["kind"] for one in sections["technical"]["entries"]}
    assert kinds == {
        *("remembered event ids", "events of a browser", "in the index of people"),
        *("import added", "link to the user"),
    }


def test_the_page_shows_the_same_and_needs_nothing_from_elsewhere(known: Known) -> None:
    answer = known.client.get(f"{known.path}/export", headers=HTML)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.text
    for section in BY_NAME.values():
        assert f'<h2 id="{section.name}">' in page
    for text in ("Item 50 of Brand 2", "cnry-query 1", "cnry-order-2", SUBSCRIBER, VISITORS[1]):
        assert text in page
    assert "cnry-user/é &quot;1&quot; 日" in page
    assert '"1"' not in page
    assert not re.findall(r"<script|<link|<img|src=|url\(|https?://", page)


def test_nothing_of_others_is_in_it(known: Known) -> None:
    assert OTHER not in json.dumps(known.export())


def test_somebody_unknown_has_an_empty_export(known: Known) -> None:
    answer = known.client.get("/v1/users/cnry-nobody-1/export").json()
    counts = {name: one["count"] for name, one in answer["sections"].items()}
    assert set(counts.values()) == {0}
    assert answer["user_id"] == "cnry-nobody-1"


def test_a_browser_gets_its_own_alone(known: Known) -> None:
    """A token's customer, a visitor by an id that nobody can guess, and nobody else."""
    url = known.service.url
    with httpx.Client(base_url=url, headers=known.customer, verify=False, timeout=60) as customer:
        mine: dict[str, Any] = {}
        for params in ({}, {"anonymous_id": VISITORS[0]}):
            mine = customer.get("/v1/me/export", params=params).json()
            assert mine["user_id"] == USER
            assert mine["sections"]["events"]["count"] > 20
        decision = mine["sections"]["decisions"]["entries"][0]
        assert not {"rules", "removed", "candidates", "answer"} & set(decision)
        assert_problem(customer.get("/v1/me/export", params={"user_id": USER}), 422, "#/user_id")
        assert_problem(customer.get("/v1/me/export", params={"anonymous_id": "x" * 30}), 404)
    with httpx.Client(base_url=url, headers=known.other, verify=False, timeout=60) as other:
        assert OTHER in other.get("/v1/me/export").text
        assert_problem(other.get("/v1/me/export", params={"anonymous_id": VISITORS[0]}), 404)
    with httpx.Client(base_url=url, headers=known.page, verify=False, timeout=60) as page:
        fresh = "cnry-visitor-of-the-page-0003"
        seen = {**event("x", "i00001", type="view"), "user_id": None, "anonymous_id": fresh}
        assert page.post("/v1/events", json=seen).status_code == 202
        mine = page.get("/v1/me/export", params={"anonymous_id": fresh}).json()
        assert (mine["user_id"], mine["anonymous_id"]) == (None, fresh)
        assert mine["sections"]["facts"]["count"] == 1
        signed_in = page.get("/v1/me/export", params={"anonymous_id": VISITORS[0]})
        assert_problem(signed_in, 403)
        for params in ({}, {"anonymous_id": "short"}):
            bad = page.get("/v1/me/export", params=params)
            assert_problem(bad, 422, "#/anonymous_id")
        params = {"anonymous_id": fresh}
        # Eight a minute; a minute may end in between.
        asking = (page.get("/v1/me/export", params=params).status_code for _ in range(25))
        assert 429 in asking


def test_an_unfinished_merge_is_shown(known: Known) -> None:
    """The visitor's own keys hold it until the merge is completed; the stream says whose it is."""
    visitor, user = "cnry-visitor-0123456789-0009", "cnry-user-of-a-sealed-merge"
    seen = {**event("x", "i00005", type="view"), "user_id": None, "anonymous_id": visitor}
    known.send("/v1/events", seen)
    client = redis.Redis(unix_socket_path=str(known.server.socket_path))

    async def seal() -> None:
        store = await Store.open(known.server.url, read_timeout_s=5.0)
        await store.merger._seal_visitor(user, visitor, datetime.now(UTC))
        await store.close()

    asyncio.run(seal())
    assert client.exists(keys.hot(f"a:{visitor}"))
    client.close()
    sections = known.client.get(f"/v1/users/{user}/export").json()["sections"]
    (fact,) = sections["facts"]["entries"]
    assert (fact["item_id"], fact["anonymous_id"]) == ("i00005", visitor)
    (merge,) = sections["merges"]["entries"]
    assert (merge["anonymous_id"], merge["complete"]) == (visitor, False)
    assert sections["events"]["count"] == 2


def test_the_shell_writes_the_same(known: Known, tmp_path: Path) -> None:
    out, page = tmp_path / "one.json", tmp_path / "one.html"
    for path in (out, page):
        exporting.run(known.settings, USER, path, "en", as_json=True)
    written = json.loads(out.read_text())["sections"]
    served = known.export()["sections"]
    assert written["facts"] == served["facts"]
    assert {one["event_id"] for one in written["events"]["entries"]} == {
        one["event_id"] for one in served["events"]["entries"]
    }
    assert "<h1>" in page.read_text()
    delivered = known.export()["sections"]["delivered"]["entries"]
    assert {one["path"] for one in delivered} == {str(out), str(page)}
