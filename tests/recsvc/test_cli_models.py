"""Commands about models, keys and health: real files, a real server."""

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from feature_store.embedded import EmbeddedServer, server_binary
from tests.recsvc.commandline import HEADER, Cli, cli, is_one_clear_line, shop
from tests.waiting import until

__all__ = ["cli", "shop"]

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
            until(path.exists)
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
