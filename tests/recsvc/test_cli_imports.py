"""import items, import users and export users on the command line."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_store.catalogue_files import CatalogueFiles
from feature_store.embedded import EmbeddedServer
from recsvc.cli import app
from tests.recsvc.commandline import Cli, cli, is_one_clear_line, recsvc, shop

__all__ = ["cli", "shop"]

FEED = '<rss xmlns:g="http://base.google.com/ns/1.0"><channel>{}</channel></rss>'


def entries(*ids: str, price: str = "1.00 EUR") -> str:
    return "".join(
        f"<item><g:id>{one}</g:id><title>T {one}</title><g:price>{price}</g:price></item>"
        for one in ids
    )


def version(tmp_path: Path) -> str:
    return CatalogueFiles(tmp_path / "data" / "catalogue").load().version


@pytest.mark.parametrize("command", ["import items", "import users", "export users"])
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"\n    recsvc {command}" in shown.output, "examples can be copied"


def test_a_feed_from_a_dry_run_to_a_full_import(
    cli: Cli, shop: EmbeddedServer, tmp_path: Path
) -> None:
    feed = tmp_path / "feed.xml"
    feed.write_text(FEED.format(entries("a", "b", "c", "d")))
    tried = cli("import", "items", feed, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert re.search(r"^price +price +text +0 +1 +1.00 EUR", tried.stdout, re.MULTILINE)
    assert "4 rows would be accepted, 0 rejected. Nothing was imported." in tried.stdout
    assert re.search(r"^added +4$", tried.stdout, re.MULTILINE)
    assert version(tmp_path) == ""
    done = cli("import", "items", feed)
    assert re.search(r"^added +4$", done.stdout, re.MULTILINE), done.stdout
    feed.write_text(FEED.format(entries("a", "b", "e", price="2.00 EUR")))
    before = version(tmp_path)
    refused = cli("import", "items", feed, "--full", "--json")
    is_one_clear_line(refused, 2, r"2 of 4 available items \(50 %\) .*: c, d; .*--force")
    changes = json.loads(refused.stdout)["changes"]
    assert (changes["applied"], changes["gone"]) == (False, ["c", "d"])
    assert changes["refused"] in refused.stderr
    assert version(tmp_path) == before
    tried = cli("import", "items", feed, "--full", "--dry-run", "--json")
    is_one_clear_line(tried, 2, "--force")
    assert json.loads(tried.stdout)["changes"] == changes
    forced = cli("import", "items", feed, "--full", "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    changes = json.loads(forced.stdout)["changes"]
    assert (changes["added"], changes["updated"], changes["absent"]) == (1, 2, 2)
    assert (changes["updated_fields"], changes["price_up"]) == ({"price": 2}, 2)
    assert version(tmp_path) != before


def test_a_dry_run_of_items_makes_no_data_directory(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku;price\na;15,00\nb;\n")
    done = cli("import", "items", tmp_path / "items.csv", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["would_accept"], document["changes"]["added"]) == (2, 2)
    assert not (tmp_path / "data").exists()
    comma = cli("import", "items", tmp_path / "items.csv", "--decimal", "point", "--dry-run")
    assert "1 rejected (1 bad_price)" in comma.stdout


def test_a_feed_that_breaks_off_is_a_failure_that_keeps_what_it_had(
    cli: Cli, shop: EmbeddedServer, tmp_path: Path
) -> None:
    feed = tmp_path / "feed.xml"
    feed.write_text(FEED.format(entries("a", "b")).removesuffix("</channel></rss>"))
    done = cli("import", "items", feed, "--json")
    is_one_clear_line(done, 1, "breaks off before its end; the part .* was imported")
    summary = json.loads(done.stdout)
    assert (summary["accepted"], summary["complete"]) == (2, False)
    is_one_clear_line(cli("import", "items", feed, "--full"), 2, "not the whole catalogue")


def test_a_feed_from_standard_input_is_recognised(shop: EmbeddedServer, tmp_path: Path) -> None:
    text = FEED.format(entries("a", "b"))
    done = recsvc("import", "items", "-", "--json", data=tmp_path / "data", stdin=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("import events feed.xml", "looks like a feed of items"),
        ("import events feed.xml --format merchant", "holds items"),
        ("import items feed.xml --format ga4", "not yet supported"),
        ("import items feed.xml --format excel", "no format 'excel'; use one of .*merchant"),
        ("import items feed.xml --map title=g:title", "has no column 'g:title'"),
        ("import items bomb.xml", "declares a document type"),
        ("import items page.html --format merchant", "is a web page"),
        ("import users users.csv --text a,b;c", "--text: 'b;c'"),
        ("import users users.csv --map user_id=nobody", "no column 'nobody'"),
        ("import users users.csv --format merchant", "holds items"),
        ("export users --out /nowhere/users.jsonl", "cannot write /nowhere/users.jsonl"),
        ("export users", "Missing option '--out'"),
    ],
)
def test_a_mistake_is_one_clear_line(
    cli: Cli,
    shop: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("feed.xml").write_text(FEED.format(entries("a")))
    Path("bomb.xml").write_text('<!DOCTYPE rss [<!ENTITY a "b">]><rss>&a;</rss>')
    Path("page.html").write_text("<!DOCTYPE html><html></html>")
    Path("users.csv").write_text("user_id,city\na,Rome\n")
    is_one_clear_line(cli(*arguments.split()), 2, message)


def test_users_in_and_out_again(cli: Cli, shop: EmbeddedServer, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("customer,city,age,tier,external_ids.crm\n7,Rome,33,gold,C7\n8,,x,,\n,,,,\n")
    tried = cli("import", "users", users, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert re.search(r"^city +attributes.city +text", tried.stdout, re.MULTILINE), tried.stdout
    assert "2 rows would be accepted, 1 rejected (1 missing_user_id)" in tried.stdout
    done = cli("import", "users", users, "--json")
    summary = json.loads(done.stdout)
    assert (summary["changed"], summary["rejected"]) == (2, {"missing_user_id": 1})
    assert summary["types"] == {"age": "text", "city": "text"}
    assert re.search(r"^unchanged +2$", cli("import", "users", users).stdout, re.MULTILINE)
    out = tmp_path / "out.jsonl"
    told = json.loads(cli("export", "users", "--out", out, "--json").stdout)
    assert told == {"users": 2, "file": str(out)}
    lines = sorted((json.loads(line) for line in out.read_text().splitlines()), key=str)
    assert lines[0] == {
        "user_id": "7",
        "attributes": {"age": "33", "city": "Rome"},
        "external_ids": {"crm": "C7"},
        "loyalty": {"tier": "gold"},
    }
    again = cli("import", "users", out)
    assert re.search(r"^unchanged +2$", again.stdout, re.MULTILINE), again.stdout
