"""``recsvc erase``: without a service, and after backups, rejects and exports."""

import json
import secrets
from pathlib import Path

import pytest

from tests.proofs.searching import Needles, search_folder
from tests.recsvc.commandline import HEADER, Cli, cli

__all__ = ["cli"]


@pytest.fixture
def gone() -> str:
    return f"canary-{secrets.token_hex(8)}"


@pytest.fixture
def shop(cli: Cli, tmp_path: Path, gone: str) -> Path:
    lines = [f"{gone},i{n},2026-01-{1 + n:02d}T10:00:00Z" for n in range(9)]
    lines += [f"other-{n % 3},i{n},2026-01-{1 + n:02d}T10:00:00Z" for n in range(9)]
    (tmp_path / "sales.csv").write_text(HEADER + "\n".join(lines) + "\n")
    assert cli("import", "events", tmp_path / "sales.csv").returncode == 0
    users = f"user_id,crm_id,city\n{gone},c-1,Bonn\nother-1,c-2,Bonn\n"
    (tmp_path / "users.csv").write_text(users)
    assert cli("import", "users", tmp_path / "users.csv").returncode == 0
    # A refused row whose wrong value is the person's id.
    wrong = f"other-1,i1,{gone}\nother-1,i1,yesterday\n"
    (tmp_path / "wrong.csv").write_text(HEADER + wrong)
    assert cli("import", "events", tmp_path / "wrong.csv").returncode == 0
    return tmp_path / "data"


def found(folder: Path, name: str) -> set[str]:
    return {place.where for place in search_folder(folder, Needles([name]))}


def test_one_person_without_a_service(cli: Cli, shop: Path, tmp_path: Path, gone: str) -> None:
    assert len(found(shop, gone)) > 3, "else this test proves nothing"
    done = cli("erase", gone)
    assert done.returncode == 0, done.stderr
    assert "archived events" in done.stdout
    assert "rejected rows" in done.stdout
    assert gone not in done.stdout
    assert not found(shop, gone)
    assert found(shop, "other-1")
    again = json.loads(cli("erase", gone, "--json").stdout)
    assert (again["state"], again["erased"]) == ("done", {})
    # The same file again: all of it is from before.
    assert cli("import", "events", tmp_path / "sales.csv").returncode == 0
    assert not found(shop / "events", gone)
    count = json.loads(cli("archive", "--json").stdout)["events"]
    assert count == 9


def test_what_was_handed_out_is_named_and_a_backup_does_not_bring_them_back(
    cli: Cli, shop: Path, tmp_path: Path, gone: str
) -> None:
    copy, out = tmp_path / "copy", tmp_path / "users.jsonl"
    assert cli("backup", copy).returncode == 0
    assert cli("export", "users", "--out", out).returncode == 0
    assert (
        cli("export", "users", "--user", gone, "--out", tmp_path / f"{gone}.json").returncode == 0
    )
    rejects = tmp_path / "rejects.csv"
    wrong = ("import", "events", tmp_path / "wrong.csv", "--rejects", rejects)
    assert cli(*wrong, "--dry-run").returncode == 0
    receipt = json.loads(cli("erase", gone, "--json").stdout)
    assert [(one["kind"], Path(one["path"]).name) for one in receipt["delivered"]] == [
        ("export", "users.jsonl"),
        ("export", "(user).json"),
        ("rejects", "rejects.csv"),
    ]
    assert [(one["path"], one["told"]) for one in receipt["backups"]] == [(str(copy), True)]
    assert not found(shop, gone)
    shop.rename(tmp_path / "lost")
    assert cli("restore", copy).returncode == 0
    assert not found(shop, gone)
    assert found(shop, "other-1")
    assert "is whole" in cli("backup", copy, "--check").stdout


def test_many_in_one_pass(cli: Cli, shop: Path, tmp_path: Path, gone: str) -> None:
    (tmp_path / "ids.txt").write_text(f"{gone}\nother-0\n\nother-1\n")
    done = json.loads(cli("erase", "--file", tmp_path / "ids.txt", "--json").stdout)
    assert [one["state"] for one in done["erasures"]] == ["done"] * 3
    assert [one["erased"]["archived_events"] for one in done["erasures"]] == [9, 3, 3]
    assert json.loads(cli("archive", "--json").stdout)["events"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say who"),
        (["--file", "nowhere.txt"], "cannot read nowhere.txt"),
        (["x" * 200], "is no id"),
    ],
)
def test_mistakes_are_named(cli: Cli, arguments: list[str], said: str) -> None:
    done = cli("erase", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True)
    assert len(done.stderr.splitlines()) == 1
