"""The command line as people and scripts use it: real processes, real files, a real server."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_store.embedded import EmbeddedServer, server_binary
from feature_store.event_log import EventLog
from recsvc.cli import app
from recsvc.commands import exits

ROOT = Path(__file__).parents[2]
HEADER = "user_id,item_id,timestamp\n"
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def recsvc(
    *arguments: str | Path, data: Path, stdin: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "recsvc.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "RECSVC_DATA_DIR": str(data), **environment},
        timeout=100,
        check=False,
    )


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Run a command in this process, where everything is imported already."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setenv("RECSVC_DATA_DIR", str(tmp_path / "data"))
            patch.setattr(sys, "argv", ["recsvc", *map(str, arguments)])
            capfd.readouterr()
            code = exits.run(app)
            out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Keep the embedded server up between commands: each of them would start and stop it."""
    with EmbeddedServer(tmp_path / "data", fsync="everysec") as server:
        yield server


def is_one_clear_line(done: "subprocess.CompletedProcess[str]", code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("recsvc: ")]
    assert len(said) == 1, done.stderr
    assert re.search(message, said[0]), said[0]


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


# --- items, keys, models, doctor ----------------------------------------------------------------


def test_from_files_to_a_model(cli: Cli, shop: EmbeddedServer, tmp_path: Path) -> None:
    items, sales = tmp_path / "items.csv", tmp_path / "sales.csv"
    items.write_text("sku,name,price\n" + "".join(f"i{n},Item {n},{n}.50\n" for n in range(30)))
    sales.write_text(
        HEADER
        + "".join(
            f"u{n % 40},i{(n * n + n % 7) % 30},2024-0{1 + n % 5}-1{n % 9}\n" for n in range(800)
        )
    )
    brought = cli("import", "items", items, "--currency", "EUR", "--json")
    assert json.loads(brought.stdout)["accepted"] == 30
    assert cli("import", "events", sales).returncode == 0
    trained = cli("train", "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["published"] is True
    assert result["gate"]["decision"] == "insufficient evidence", "40 people are too few"
    listed = json.loads(cli("models", "list", "--json").stdout)
    assert listed["current"] == result["version"]
    shown = cli("models", "show", result["version"])
    assert re.search(r"^serves +yes$", shown.stdout.strip(), re.MULTILINE | re.IGNORECASE) or (
        "serves" in shown.stdout
    )
    assert "insufficient evidence" in cli("models", "list").stdout
    healthy = json.loads(cli("doctor", "--json").stdout)
    assert healthy["ok"] is True
    assert {c["check"]: c["status"] for c in healthy["checks"]}["model"] == "ok"
    # A damaged model is told, with what to do.
    factors = tmp_path / "data" / "models" / result["version"] / "item_factors.npy"
    factors.write_bytes(factors.read_bytes()[:-8])
    ill = cli("doctor")
    assert ill.returncode == 1
    assert re.search(r"error +model +.*damaged", ill.stdout), ill.stdout
    is_one_clear_line(cli("models", "promote", result["version"]), 1, "is damaged")


def test_keys(cli: Cli, shop: EmbeddedServer) -> None:
    made = cli(
        "keys", "create", "--name", "shop", "--scope", "recs:read", "--scope", "events:write"
    )
    assert re.fullmatch(r"rk_[\w-]{43}\n", made.stdout), "the key alone: a script can take it"
    listed = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert [(key["name"], key["scopes"]) for key in listed] == [
        ("shop", ["events:write", "recs:read"])
    ]
    assert made.stdout.strip() not in json.dumps(listed)
    assert "digest" not in listed[0]
    assert cli("keys", "revoke", listed[0]["key_id"]).returncode == 0
    (again,) = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert again["revoked_at"] is not None
    assert (
        "all"
        not in json.loads(cli("keys", "create", "--name", "a", "--scope", "all", "--json").stdout)[
            "scopes"
        ]
    )


def test_hold_and_resume(cli: Cli) -> None:
    assert "on hold" in cli("models", "hold").stdout
    assert json.loads(cli("models", "list", "--json").stdout)["held"] is True
    assert cli("models", "resume").returncode == 0
    assert json.loads(cli("models", "list", "--json").stdout)["held"] is False


def test_doctor_warns_of_a_server_that_forgets(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "s"
    options = {"port": "0", "unixsocket": str(path), "dir": str(tmp_path), "appendonly": "no"}
    options |= {"save": "", "maxmemory-policy": "allkeys-lru"}
    command = [server_binary()]
    for name, value in options.items():
        command += [f"--{name}", value]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            done = cli("doctor", "--json", RECSVC_REDIS_URL=f"unix://{path}")
        finally:
            server.terminate()
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0
    assert checks["server"]["status"] == "ok"
    assert checks["persistence"]["status"] == "warning"
    assert "appendonly yes" in checks["persistence"]["advice"]
    assert checks["eviction"]["status"] == "warning"


def test_doctor_says_what_is_wrong(cli: Cli) -> None:
    done = cli("doctor", RECSVC_REDIS_URL="redis://127.0.0.1:1")
    assert done.returncode == 1
    assert re.search(r"error +server", done.stdout)
    bad = cli("doctor", "--json", RECSVC_PORT="many")
    assert bad.returncode == 1
    (finding,) = json.loads(bad.stdout)["checks"]
    assert finding["check"] == "settings"
    assert "RECSVC_PORT" in finding["detail"]


# --- evaluation ---------------------------------------------------------------------------------


def test_evaluating_purchases_of_a_file(cli: Cli, tmp_path: Path) -> None:
    sales = tmp_path / "sales.csv"
    rng = random.Random(3)
    days = [f"2024-0{month}-{day}" for month in range(1, 7) for day in range(10, 29)]
    lines = [
        f"c{rng.randrange(60)},p{rng.randrange(25)},{rng.choice(days)}\n" for _ in range(3_000)
    ]
    sales.write_text("buyer,sku,day\n" + "".join(lines) + "c1,,2024-01-01\n")
    mapping = "user_id=buyer,timestamp=day"
    done = cli("evaluate", sales, "--map", mapping, "--test-days", "21", "--k", "5", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["protocol"], document["k"]) == ("temporal", 5)
    row = next(r for r in document["rows"] if (r["model"], r["subset"]) == ("served", "all"))
    assert row["n_users"] > 30
    low, high = row["ndcg_ci95"]
    assert 0 < low <= row["ndcg"] <= high <= 1
    assert "1 rows were passed over: 1 missing_item_id" in done.stderr
    shown = cli("evaluate", sales, "--map", mapping, "--test-days", "21")
    assert re.search(r"^served +all +0\.\d{3} ", shown.stdout, re.MULTILINE)
    assert not (tmp_path / "data").exists(), "an evaluation leaves nothing behind"


def test_evaluating_a_published_split(cli: Cli, tmp_path: Path) -> None:
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("".join(f"{u} {u % 9} {(u + 1) % 9} {(u + 2) % 9}\n" for u in range(90)))
    test.write_text("".join(f"{u} {(u + 3) % 9}\n" for u in range(90)))
    done = cli("evaluate", "--train", train, "--test", test, "--json", "--k", "3")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["protocol"] == "published"
    assert {row["subset"] for row in document["rows"]} == {"all"}
    assert {"served", "popularity"} <= {row["model"] for row in document["rows"]}


@pytest.mark.parametrize("arguments", ["", "x.csv --train a --test b", "--train a"])
def test_an_evaluation_needs_one_kind_of_files(cli: Cli, arguments: str) -> None:
    done = cli("evaluate", *arguments.split())
    is_one_clear_line(done, 2, "either a file of purchases, or both")


def test_one_customer_cannot_be_evaluated(cli: Cli, tmp_path: Path) -> None:
    sales = tmp_path / "sales.csv"
    sales.write_text(HEADER + "u,i,2024-01-01\n")
    is_one_clear_line(cli("evaluate", sales), 2, "nobody bought both before")
