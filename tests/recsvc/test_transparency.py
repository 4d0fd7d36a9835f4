"""The page on how the ranking works follows what is in force."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from feature_store.documents import Document, SiteDocuments
from recsvc.explaining.transparency import ACTIONS, as_page, transparency
from recsvc.explaining.words import words
from recsvc.merchandising.placements import BUILT_IN, Placement, Source
from recsvc.merchandising.site import Site, read_site
from recsvc.privacy import Privacy
from recsvc.ranking.sources import SOURCES
from recsvc.rules import parse_rule
from recsvc.settings import Settings
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import item_ids, make_catalogue, make_snapshot, write_artifact

SETTINGS = Settings(data_dir=Path("unused"))


def told(
    snapshot: Snapshot, settings: Settings = SETTINGS, language: str = "en"
) -> dict[str, dict[str, Any]]:
    document = transparency(snapshot, settings, words(language))
    return {one["id"]: one for one in document["sections"]}


def texts(section: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["text"] for one in section["parameters"]}


def rule(action: dict[str, Any], **more: Any) -> Any:
    body = {"rule_id": "r", "revision": 1, "status": "live", "placements": ["home"]}
    return parse_rule({**body, "action": action, **more})


def test_sources_and_shares_are_those_of_the_placements(snapshot: Snapshot) -> None:
    before = texts(told(snapshot)["placements"])
    assert set(before) == set(BUILT_IN)
    assert before["home"].startswith("“For you”: what suits you best.")
    mixed = Placement(
        "home", "Just in", (Source("new", 3), Source("due", 1)), diversity=0.2, fallback=False
    )
    changed = replace(snapshot, site=Site(placements={**BUILT_IN, "home": mixed}))
    section = told(changed)["placements"]
    after = texts(section)
    assert after["home"] == (
        "“Just in”: 75% what is new and 25% what you may be running out of."
        " Variety counts 20%. If that is too little, the list is shorter."
    )
    (home,) = [one for one in section["parameters"] if one["name"] == "home"]
    assert home["value"] == {"new": 0.75, "due": 0.25}
    assert {name: text for name, text in after.items() if name != "home"} == {
        name: text for name, text in before.items() if name != "home"
    }


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_source_and_action_has_words(language: str) -> None:
    for name in SOURCES:
        assert words(language).text(f"transparency.source_{name}")
    for action in ACTIONS:
        assert words(language).counted(f"transparency.rule_{action}", 2)


def test_rules_are_counted_by_kind(snapshot: Snapshot) -> None:
    assert told(snapshot)["rules"]["text"].startswith("No rule of the shop is in force")
    target = {"field": "item.brand", "op": "eq", "value": "b1"}
    rules = {
        "a": rule({"type": "boost", "target": target, "weight": 2}),
        "b": rule({"type": "boost", "target": target, "weight": 3}),
        "c": rule(
            {"type": "exclude", "target": target},
            when={"field": "user.attributes.city", "op": "eq", "value": "Rome"},
        ),
    }
    section = told(replace(snapshot, site=Site(rules=rules)), language="de")["rules"]
    assert section["text"] == "3 Regeln des Shops gelten gerade."
    assert texts(section)["boost"] == "2 Regeln rücken bestimmte Artikel nach oben."
    assert texts(section)["exclude"] == "Eine Regel lässt bestimmte Artikel weg."
    assert texts(section)["for_some"].startswith("Eine davon gilt nur unter einer Bedingung")
    assert "pin" not in texts(section)


def test_shares_are_those_of_the_model(tmp_path: Path) -> None:
    shares = [0.1, 0.2, 0, 0, 0, 0, 0, 0.05, 0.05, 0.4, 0.2]
    catalogue = make_catalogue(item_ids(60))
    artifact = write_artifact(tmp_path, 60)
    snapshot = make_snapshot(artifact, catalogue)
    unknown = told(snapshot)["ranking"]
    assert "does not say" in unknown["text"]
    assert {one["value"] for one in unknown["parameters"]} == {None}
    artifact.manifest["blend"] |= {"fitted": True, "n_users": 1_234, "shares": shares}
    known = told(make_snapshot(artifact, catalogue))["ranking"]
    assert "1,234 people" in known["text"]
    assert [(one["name"], one["value"]) for one in known["parameters"]] == [
        ("collaborative", 0.4),
        ("repeat", 0.3),
        ("category_affinity", 0.2),
        ("popularity_recent", 0.05),
        ("growth", 0.05),
    ]
    assert known["parameters"][0]["text"].startswith("40%: How well the item goes with")


def test_settings_and_the_privacy_document_show(snapshot: Snapshot) -> None:
    before = texts(told(snapshot)["privacy"])
    assert "until they refuse" in before["profiling"]
    assert "7 days" in before["decision_days"]
    assert "never_named" not in before
    strict = SETTINGS.model_copy(update={"profiling": "opt_in", "decision_days": 1})
    secretive = replace(snapshot, site=Site(privacy=Privacy(frozenset({"Health > Intimate"}))))
    after = texts(told(secretive, strict)["privacy"])
    assert "only if you agreed" in after["profiling"]
    assert "one day" in after["decision_days"]
    assert after["never_named"] == "One category is never named as a reason."
    assert "Intimate" not in str(told(secretive, strict))


def test_a_shop_without_a_model_says_so() -> None:
    empty = make_snapshot(None, make_catalogue([]))
    document = transparency(empty, SETTINGS, words("en"))
    assert document["model_version"] is None
    sections = told(empty)
    assert "No model is in force yet" in sections["overview"]["parameters"][0]["text"]
    assert sections["ranking"]["parameters"] == []


class Outline(HTMLParser):
    """Collects tags and text; anything that a browser would load is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [name for name, _ in attrs if name in ("src", "href", "onload", "onclick")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_page_says_the_same_and_loads_nothing(snapshot: Snapshot, language: str) -> None:
    evil = Placement("home", "<script>alert(1)</script>", (Source("new"),))
    changed = replace(snapshot, site=Site(placements={**BUILT_IN, "home": evil}))
    document = transparency(changed, SETTINGS, words(language))
    page = as_page(document)
    outline = Outline()
    outline.feed(page)
    assert "script" not in outline.tags
    assert not outline.loaded
    for section in document["sections"]:
        assert section["title"] in outline.text
        assert section["text"] in outline.text
        for parameter in section["parameters"]:
            assert parameter["text"] in outline.text


def test_documents_of_a_site_are_read(snapshot: Snapshot) -> None:
    stored = Document("privacy", "site", 1, {"never_named": ["A", "B > C"]}, "", "")
    documents = SiteDocuments(1, "", {("privacy", "site"): stored})
    site = read_site(documents)
    assert site.privacy.never_named == {"A", "B > C"}
    assert texts(told(replace(snapshot, site=site))["privacy"])["never_named"].startswith("2 ")
