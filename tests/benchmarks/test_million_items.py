"""What the README says of a million items holds on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_S = 180
PRIVATE_DIRTY_MIB = 150
CHANGES_MIB = 15
SEARCH_MS = 100


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_items(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.million_items", "--folder", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["items"] == 1_000_000
    assert found["import_parquet_s"] < IMPORT_S
    assert found["import_csv_s"] < IMPORT_S
    for when in ("start", "requests", "compaction"):
        workers = found[f"worker_after_{when}"]
        assert min(worker["Private_Dirty"] for worker in workers) < PRIVATE_DIRTY_MIB, when
    changed = [worker["Private_Dirty"] for worker in found["worker_after_changes"]]
    assert min(changed) < PRIVATE_DIRTY_MIB + CHANGES_MIB
    for name in ("search_rare", "search_common", "search_nothing", "search_id", "by_category"):
        assert found[name]["median_ms"] < SEARCH_MS
