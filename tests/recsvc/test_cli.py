"""The command line as people and scripts use it: real processes, real files, a real server."""

import json
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_store.embedded import EmbeddedServer
from feature_store.event_log import EventLog
from feature_store.ingest.events import EventOptions
from feature_store.ingest.run import import_events
from feature_store.ingest.source import find_sources
from recsvc.cli import app
from recsvc.commands.importing import complete_imports
from recsvc.settings import load_settings
from tests.recsvc.commandline import HEADER, ROOT, Cli, cli, is_one_clear_line, recsvc, shop

__all__ = ["cli", "shop"]

# --- help and mistakes --------------------------------------------------------------------------


def test_help_is_there_at_once() -> None:
    """What takes long to import is imported by the command that needs it."""
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom recsvc.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'numpy', 'polars', 'faiss', 'pydantic', 'fastapi', 'redis', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"


COMMANDS = """
demo, serve, train, evaluate, import, import events, import items, models, models list, models show,
models promote, models rollback, models hold, models resume, keys, keys create, keys list,
keys revoke, doctor
"""


@pytest.mark.parametrize("command", ["", *re.split(r",\s", COMMANDS.strip())])
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage: " in shown.output
    if command in ("demo", "serve", "train", "import events", "import items", "keys create"):
        assert f"\n    recsvc {command}" in shown.output, "examples can be copied"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dance", r"No such command 'dance'.* see `.* --help`"),
        ("import events", "Missing argument"),
        ("import events x.csv --speed", "No such option: --speed"),
        ("import events x.csv --price piece", "'piece' is not one of"),
        ("import events nowhere.csv", "there is no file nowhere.csv"),
        ("import events x.csv --format ga4", "not yet supported in this version"),
        ("import events x.csv --timezone Mars/Base", "no time zone 'Mars/Base'"),
        ("import events x.csv --currency euro", "three capital letters"),
        ("import events x.csv --type dance", "no event type 'dance'"),
        ("import items pyproject.toml --format csv --map title", "field=COLUMN"),
        ("keys create --name x --scope everything", "unknown scope everything"),
        ("keys revoke nobody", "no key with the id 'nobody'"),
        ("models show none", "no model 'none'"),
        ("models rollback", "no earlier model"),
        ("train --from soon", "--from takes a day"),
        ("train --from 2026-02-01 --to 2026-01-01", "is not before"),
        ("train --engine spark", "not yet supported in this version"),
    ],
)
def test_a_mistake_is_one_clear_line(
    cli: Cli, shop: EmbeddedServer, arguments: str, message: str
) -> None:
    is_one_clear_line(cli(*arguments.split()), 2, message)


def test_bad_surroundings_are_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    sales = tmp_path / "sales.csv"
    sales.write_text(HEADER + "u,i,2024-01-01\n")
    (tmp_path / "in the way").write_text("")
    blocked = recsvc("import", "events", sales, data=tmp_path / "in the way" / "data")
    is_one_clear_line(blocked, 2, "cannot create the folder .*--data-dir")
    down = cli("import", "events", sales, RECSVC_REDIS_URL="redis://127.0.0.1:1/0")
    is_one_clear_line(down, 1, r"no answer from redis://127\.0\.0\.1:1/0.*RECSVC_REDIS_URL")
    wrong = cli("import", "events", sales, RECSVC_REDIS_URL="localhost")
    is_one_clear_line(wrong, 2, "redis_url")
    assert EventLog(tmp_path / "data").count() == 0


def test_a_port_in_use_is_one_clear_line(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("serve", "demo"):
            is_one_clear_line(cli(command, "--port", port), 2, f"{port}.* in use.*--port")


# --- imports ------------------------------------------------------------------------------------


def test_importing_events(cli: Cli, shop: EmbeddedServer, tmp_path: Path) -> None:
    sales = tmp_path / "sales.csv"
    sales.write_text(
        "customer,sku,when\n7,A/1,2024-03-01\n7,B,2024-03-02\n,C,2024-03-02\n8,C,later\n"
    )
    arguments = ("import", "events", sales, "--map", "timestamp=when")
    done = cli(*arguments, "--json", "--rejects", tmp_path / "bad.jsonl")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["rows_read"] == 4
    assert (outcome["accepted"], outcome["duplicates"]) == (2, 0)
    assert outcome["rejected"] == {"missing_user_id": 1, "bad_timestamp": 1}
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in bad] == [
        (4, "missing_user_id"),
        (5, "bad_timestamp"),
    ]
    assert "reading: done" in done.stderr, "progress goes to stderr, as lines into a pipe"
    again = cli(*arguments)
    assert re.search(r"^duplicates +2$", again.stdout, re.MULTILINE), again.stdout
    assert re.search(r"^  bad timestamp +1$", again.stdout, re.MULTILINE)
    assert "rejects.csv" in again.stdout
    assert EventLog(tmp_path / "data").count() == 2


def test_importing_from_standard_input(shop: EmbeddedServer, tmp_path: Path) -> None:
    lines = '{"user": 1, "item": "x", "time": 1709287200}\n'
    arguments = ("import", "events", "-", "--format", "jsonl", "--type", "view", "--json")
    done = recsvc(*arguments, data=tmp_path / "data", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] == 1
    frame = EventLog(tmp_path / "data").scan().collect()
    assert frame.select("user_id", "item_id", "type").rows() == [("1", "x", "view")]


def test_a_dry_run_imports_nothing(cli: Cli, tmp_path: Path) -> None:
    sales = tmp_path / "sales.csv"
    sales.write_text("customer,sku,sold,qty\n7,A,2024-03-01,2\n8,B,2024-03-02,\n,B,2024-03-02,1\n")
    done = cli("import", "events", sales, "--dry-run", "--map", "timestamp=sold")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^sold +timestamp +time ", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^qty +quantity +integer +1 +2 +1 +2", done.stdout, re.MULTILINE)
    assert "2 rows would be accepted, 1 rejected (1 missing_user_id)" in done.stdout
    profile = json.loads(
        cli("import", "events", sales, "--dry-run", "--map", "timestamp=sold", "--json").stdout
    )
    assert profile["would_accept"] == 2
    assert [column["field"] for column in profile["profile"]["columns"]][:2] == [
        "user_id",
        "item_id",
    ]
    # Without a time the profile is shown all the same: it is what one mends the map with.
    unclear = cli("import", "events", sales, "--dry-run")
    assert re.search(r"^sold +- +time", unclear.stdout, re.MULTILINE)
    is_one_clear_line(unclear, 2, "--map timestamp=COLUMN")
    assert not (tmp_path / "data").exists()


def test_a_second_import_at_once_is_refused(
    cli: Cli, shop: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("feature_store.ingest.run", "recsvc.commands.importing"):
        monkeypatch.setattr(f"{module}.LOCK_WAIT_S", 0.05)
    sales = tmp_path / "sales.csv"
    sales.write_text(HEADER + "u,i,2024-01-01\n")
    with EventLog(tmp_path / "data").importing():
        is_one_clear_line(cli("import", "events", sales), 1, "another import .* is running")
        is_one_clear_line(cli("import", "items", sales), 1, "another import .* is running")


def test_an_interrupted_import_is_completed_before_serving(
    cli: Cli, shop: EmbeddedServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = EventLog(tmp_path / "data")
    sales = tmp_path / "sales.csv"
    sales.write_text(HEADER + "u,i,2024-01-01\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    options = EventOptions(now=datetime.now(UTC))
    with pytest.raises(KeyboardInterrupt):
        import_events(log, find_sources(str(sales)), {}, options, fold=killed)
    checks = json.loads(cli("doctor", "--json").stdout)["checks"]
    assert {check["check"]: check["status"] for check in checks}["event log"] == "warning"
    complete_imports(load_settings(data_dir=tmp_path / "data"))
    assert "is complete now" in capfd.readouterr().err
    assert log.pending() == []
    assert cli("import", "events", sales).returncode == 0
    assert log.count() == 1
