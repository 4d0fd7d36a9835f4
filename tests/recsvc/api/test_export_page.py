"""All that is held, as somebody reads it: in their language, whole, and harmless."""

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from feature_store.embedded import EmbeddedServer
from recsvc.api.accepting import Form, preferred
from recsvc.explaining.transparency import CONTROLS
from recsvc.explaining.words import words
from recsvc.exports.sections import SECTIONS
from tests.recsvc.api.browser import ORIGIN, page_of, put, secret_of
from tests.recsvc.api.service import Service, assert_problem, event
from tests.recsvc.signing import Backend

EVIL = "\"><script>alert(1)</script><img src=x onerror='x'>"


class Outline(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def customer(
    running: tuple[Service, EmbeddedServer], client: httpx.Client
) -> Iterator[tuple[str, httpx.Client]]:
    """Somebody who did and said something, and their browser."""
    service, server = running
    login = Backend(secret_of(service), "EdDSA", (ORIGIN,))
    put(server, login.record)
    user = f"reader-{time.monotonic_ns()}"
    profile = {"attributes": {"note": EVIL, "city": "Köln"}, "loyalty": {"tier": "gold"}}
    client.put(f"/v1/users/{user}", json=profile).raise_for_status()
    said = [
        event(user, "i00003", unit_price={"amount": "1.50", "currency": "EUR"}),
        {**event(user, ""), "type": "search", "item_id": None, "query": EVIL},
        {**event(user, ""), "type": "unsubscribe", "item_id": None},
        {**event(user, ""), "type": "survey", "item_id": None, "instrument": "nps", "score": 7},
        event(user, "i00004", type="impression"),
    ]
    assert client.post("/v1/events", json=said).json()["accepted"] == len(said)
    chosen = {"consent": {"profiling": True}, "hidden_brands": [EVIL], "page": {"modules": []}}
    client.patch(f"/v1/users/{user}/preferences", json=chosen).raise_for_status()
    client.get("/v1/recommendations", params={"user_id": user}).raise_for_status()
    with page_of(service, Authorization=f"Bearer {login.token(user)}") as browser:
        yield user, browser


@pytest.mark.parametrize(
    ("headers", "params", "language", "is_page"),
    [
        ({}, {}, "en", False),
        ({"Accept": "text/html,*/*;q=0.8", "Accept-Language": "de-AT,en;q=0.5"}, {}, "de", True),
        ({"Accept-Language": "de"}, {"format": "html"}, "de", True),
        ({"Accept": "text/html"}, {"format": "json", "language": "de"}, "de", False),
        ({"Accept-Language": "fr"}, {"format": "html"}, "en", True),
    ],
)
def test_it_comes_in_the_form_and_language_that_is_asked_for(
    client: httpx.Client,
    customer: tuple[str, httpx.Client],
    headers: dict[str, str],
    params: dict[str, str],
    language: str,
    is_page: bool,
) -> None:
    user, browser = customer
    told = words(language)
    answers = [client.get(f"/v1/users/{user}/export", params=params, headers=headers)]
    if language == "de" and is_page:  # a browser may have four a minute
        answers.append(browser.get("/v1/me/export", params=params, headers=headers))
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["content-language"] == language
        assert {"accept", "accept-language"} <= set(re.split(", *", answer.headers["vary"].lower()))
        assert "etag" not in answer.headers
        if not is_page:
            sections = answer.json()["sections"]
            assert sections["events"]["title"] == told.text("export_titles.events")
            continue
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        page = Outline(answer.text)
        assert answer.text.startswith(f'<!doctype html><html lang="{language}">')
        for section in SECTIONS:
            assert section.title(told) in page.text
            assert section.what(told) in page.text
        assert told.text("export_values.purchase") in page.text
        assert told.text("export_fields.order_id") in page.text
        assert "Item 3 of Brand 3" in page.text
        assert told.text("reasons_unnamed.buy_again") in page.text
        assert page.text.rstrip().endswith(told.text("export.end"))


def test_what_it_holds_does_nothing_on_a_page(
    client: httpx.Client, customer: tuple[str, httpx.Client]
) -> None:
    answer = client.get(f"/v1/users/{customer[0]}/export", params={"format": "html"})
    page = Outline(answer.text)
    assert page.text.count(EVIL) >= 3
    assert not page.open
    assert not {"script", "img", "link", "iframe", "form", "object"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.attributes <= {
        *("lang", "charset", "name", "content", "class", "id", "href", "datetime")
    }


def test_every_field_has_a_name_in_every_language(customer: tuple[str, httpx.Client]) -> None:
    """So that nobody reads `frequency_days`; what shops name themselves is theirs."""
    sections = customer[1].get("/v1/me/export").json()["sections"]
    unnamed = set()

    def look(value: Any, *path: str) -> None:
        if isinstance(value, dict) and not {"attributes", "external_ids", "context"} & set(path):
            for name, one in value.items():
                if f"export_fields.{name}" not in words("de"):
                    unnamed.add(name)
                look(one, *path, name)
        elif isinstance(value, list):
            for one in value:
                look(one, *path)

    for section in sections.values():
        look(section["entries"])
    columns = {name for section in SECTIONS for name in section.columns}
    unnamed |= {name for name in columns if f"export_fields.{name}" not in words("de")}
    assert not unnamed


def test_an_unknown_form_is_refused(customer: tuple[str, httpx.Client]) -> None:
    answer = customer[1].get("/v1/me/export", params={"format": "xml"})
    assert_problem(answer, 422, "#/format")
    assert_problem(customer[1].get("/v1/me/export", params={"colour": "x"}), 422, "#/colour")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html", "html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/json, text/html", "json"),
        ("text/html, application/json", "html"),
        ("application/json;q=0.5, text/html;q=0.9", "html"),
        ("text/html;level=1;q=0.2, application/json;q=0.3", "json"),
        ("text/html;q=0", "json"),
        ("TEXT/HTML ; Q=1.0", "html"),
        ("text/plain, ,;;", "json"),
    ],
)
def test_accept(accept: str, form: Form) -> None:
    assert preferred(accept) == form


def test_transparency_names_addresses_that_customers_can_use(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for address in CONTROLS.values():
        method, path = address.split()
        assert path.startswith("/v1/me/") or path == "/v1/me"
        assert method.lower() in paths[path]
