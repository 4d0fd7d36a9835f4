"""archive, backup, restore and rebuild on the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def recsvc(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recsvc.cli", "--data-dir", str(data_dir), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=250)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    lines = [f"u{n % 9},i{n % 30},2026-01-{1 + n % 28:02d}T10:00:00Z" for n in range(300)]
    (tmp_path / "sales.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    assert (
        recsvc(tmp_path / "shop", "import", "events", str(tmp_path / "sales.csv")).returncode == 0
    )
    made = recsvc(tmp_path / "shop", "keys", "create", "--name", "n", "--scope", "recs:read")
    assert made.returncode == 0
    return tmp_path / "shop"


@pytest.mark.slow
def test_from_a_backup_back_to_a_shop(shop: Path, tmp_path: Path) -> None:
    archived = json.loads(recsvc(shop, "archive", "--json").stdout)
    assert archived == {"archived": 0, "events": 300}
    copy = str(tmp_path / "copy")
    assert recsvc(shop, "backup", copy).returncode == 0
    again = recsvc(shop, "backup", copy)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    assert "is whole" in recsvc(shop, "backup", copy, "--check").stdout
    refused = recsvc(shop, "rebuild")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--force" in refused.stderr
    keys = recsvc(shop, "keys", "list", "--json").stdout
    shutil.rmtree(shop)
    assert recsvc(shop, "restore", copy).returncode == 0
    assert recsvc(shop, "keys", "list", "--json").stdout == keys
    shutil.rmtree(shop / "valkey")
    done = json.loads(recsvc(shop, "rebuild", "--json").stdout)
    assert (done["events"], done["items"], done["keys"]) == (300, 30, 1)
    next((tmp_path / "copy" / "events").glob("*/*.parquet")).write_bytes(b"")
    damaged = recsvc(tmp_path / "other", "restore", copy)
    assert (damaged.returncode, "damaged" in damaged.stderr) == (1, True)


def test_a_second_training_is_told_so(shop: Path) -> None:
    from training.watch import training_alone

    with training_alone(shop):
        second = recsvc(shop, "train")
    assert second.returncode == 1
    assert "another training" in second.stderr.splitlines()[-1]
    assert recsvc(shop, "train", "--watch", "--every", "soon").returncode == 2
