"""archive, backup, restore and rebuild on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from tests.recsvc.commandline import Cli, cli, recsvc
from training.watch import training_alone

__all__ = ["cli"]


@pytest.fixture
def shop(tmp_path: Path, cli: Cli) -> Path:
    lines = [f"u{n % 9},i{n % 30},2026-01-{1 + n % 28:02d}T10:00:00Z" for n in range(300)]
    (tmp_path / "sales.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    data = tmp_path / "shop"
    assert cli("import", "events", tmp_path / "sales.csv", data=data).returncode == 0
    made = cli("keys", "create", "--name", "n", "--scope", "recs:read", data=data)
    assert made.returncode == 0
    return data


@pytest.mark.slow
def test_from_a_backup_back_to_a_shop(shop: Path, tmp_path: Path, cli: Cli) -> None:
    archived = json.loads(cli("archive", "--json", data=shop).stdout)
    assert archived == {"archived": 0, "events": 300}
    copy = str(tmp_path / "copy")
    assert cli("backup", copy, data=shop).returncode == 0
    again = cli("backup", copy, data=shop)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    assert "is whole" in cli("backup", copy, "--check", data=shop).stdout
    refused = cli("rebuild", data=shop)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--force" in refused.stderr
    keys = cli("keys", "list", "--json", data=shop).stdout
    shutil.rmtree(shop)
    assert cli("restore", copy, data=shop).returncode == 0
    assert cli("keys", "list", "--json", data=shop).stdout == keys
    shutil.rmtree(shop / "valkey")
    done = json.loads(cli("rebuild", "--json", data=shop).stdout)
    assert (done["events"], done["items"], done["keys"]) == (300, 30, 1)
    next((tmp_path / "copy" / "events").glob("*/*.parquet")).write_bytes(b"")
    damaged = cli("restore", copy, data=tmp_path / "other")
    assert (damaged.returncode, "damaged" in damaged.stderr) == (1, True)


def test_a_second_training_is_told_so(shop: Path, cli: Cli) -> None:
    with training_alone(shop):
        second = recsvc("train", data=shop)
    assert second.returncode == 1
    assert "another training" in second.stderr.splitlines()[-1]
    assert cli("train", "--watch", "--every", "soon", data=shop).returncode == 2
