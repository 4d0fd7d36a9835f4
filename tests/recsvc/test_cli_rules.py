"""``recsvc rules``: files that can be reviewed, and an audit that shows what was tampered with."""

import asyncio
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from feature_store.documents import Write
from feature_store.embedded import EmbeddedServer
from feature_store.store import Store
from recsvc.merchandising.publishing import publishing
from tests.recsvc.commandline import Cli, cli

__all__ = ["cli"]

RULE = {
    "status": "draft",
    "name": "ä",
    "placements": ["home"],
    "priority": 3,
    "starts_at": None,
    "ends_at": None,
    "schedule": None,
    "when": None,
    "allow_sensitive": False,
    "action": {"type": "pin", "item_ids": ["a/b"], "positions": [1]},
}
PLACEMENT = {
    "title": "t",
    "sources": [{"source": "new", "weight": 2.0}],
    "limit": 5,
    "kinds": ["product"],
    "diversity": 0.5,
    "freshness": 0.0,
    "filter": None,
    "fallback": "none",
}


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A data folder with a rule in force, a draft and a placement."""

    async def fill(url: str) -> None:
        store = await Store.open(url, read_timeout_s=5.0)
        writes = [Write("rule", "r 1", RULE), Write("rule", "r 2", {**RULE, "name": "draft"})]
        await store.documents.write(writes, "key:anna")
        await store.documents.change(lambda site: publishing(site, ["r 1"]), "key:ben", "go")
        await store.documents.write([Write("placement", "mine", PLACEMENT)], "key:anna")
        await store.close()

    with EmbeddedServer(tmp_path / "data") as server:
        asyncio.run(fill(server.url))
    return tmp_path


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_what_was_exported_is_imported_again_without_a_change(
    filled: Path, cli: Cli, suffix: str
) -> None:
    file = filled / f"rules.{suffix}"
    assert cli("rules", "export", file).returncode == 0
    assert "ä" in file.read_text()
    again = cli("rules", "import", file, "--json")
    assert json.loads(again.stdout) == {"changed": [], "dry_run": False, "rules_version": 1}
    live = filled / f"live.{suffix}"
    cli("rules", "export", live, "--live")
    assert "r 2" not in live.read_text()


def test_a_file_is_published_as_a_whole_or_refused_as_a_whole(filled: Path, cli: Cli) -> None:
    file = filled / "rules.json"
    cli("rules", "export", file)
    document: dict[str, Any] = json.loads(file.read_text())
    document["rules"]["r 2"]["priority"] = 9
    document["rules"]["new"] = deepcopy({key: part for key, part in RULE.items() if part})
    file.write_text(json.dumps(document))
    dry = cli("rules", "import", file, "--dry-run", "--json")
    assert json.loads(dry.stdout)["changed"] == ["rule r 2", "rule new"]
    done = cli("rules", "import", file, "--publish", "--json")
    assert json.loads(done.stdout)["rules_version"] == 2
    live = filled / "live.json"
    cli("rules", "export", live, "--live")
    assert set(json.loads(live.read_text())["rules"]) == {"r 1", "r 2", "new"}
    # The same file again: its revisions are those of before.
    document["rules"]["r 2"]["priority"] = 10
    file.write_text(json.dumps(document))
    refused = cli("rules", "import", file)
    assert refused.returncode == 1
    assert "rule r 2 is at revision 2, not 1" in refused.stderr
    assert cli("rules", "import", file, "--force").returncode == 0
    document["rules"]["new"]["action"]["positions"] = []
    document["placements"]["mine"]["limit"] = 0
    file.write_text(json.dumps(document))
    wrong = cli("rules", "import", file)
    assert wrong.returncode == 2
    assert "rule new: #/action/positions" in wrong.stderr
    assert "placement mine" in wrong.stderr


def test_the_audit_names_who_and_notices_what_was_altered(filled: Path, cli: Cli) -> None:
    audit = json.loads(cli("rules", "audit", "--json").stdout)
    assert audit["verified"] == 3
    assert [entry["by"] for entry in audit["entries"]][:2] == ["key:anna", "key:ben"]
    assert "key:ben" in cli("rules", "audit", "--rule-id", "r 1").stdout
    cli("archive")
    (file,) = (filled / "data" / "changes" / "site").glob("*.jsonl")
    assert "3 changes; none was altered" in cli("rules", "audit", "--verify").stderr
    file.write_bytes(file.read_bytes().replace(b"key:ben", b"key:eve"))
    broken = cli("rules", "audit", "--verify")
    assert broken.returncode == 1
    assert "was altered" in broken.stderr


def test_lint_ends_with_1_if_a_rule_does_nothing(filled: Path, cli: Cli) -> None:
    found = cli("rules", "lint", "--json")
    assert found.returncode == 1, found.stderr
    assert found.stdout, found.stderr
    kinds = {(one["rule_id"], one["kind"]) for one in json.loads(found.stdout)["findings"]}
    assert ("r 1", "never_matches") in kinds
    assert "never_matches" in cli("rules", "lint", "--live").stdout


@pytest.mark.parametrize("content", ["{}", "[", "format = 1\nrules = 3"])
def test_a_file_that_is_none_is_named(filled: Path, cli: Cli, content: str) -> None:
    file = filled / "x.toml"
    file.write_text(content)
    refused = cli("rules", "import", file)
    assert refused.returncode == 2
    assert "x.toml" in refused.stderr
    assert cli("rules", "export", filled / "x.yaml").returncode == 2
