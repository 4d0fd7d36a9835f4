"""A process may die at any moment of a merge: the smaller version of the proof."""

from pathlib import Path

import pytest

from tests.proofs.killed_merges import prove


@pytest.mark.timeout(600)
async def test_no_history_is_lost_or_doubled_when_merging_processes_die(tmp_path: Path) -> None:
    # A slow machine may kill them too late, but not every time.
    for attempt in range(5):
        outcome = await prove(tmp_path / str(attempt), 3)
        assert (outcome.wrong, outcome.wrong_after_rebuild) == (0, 0), outcome
        assert outcome.logged == outcome.events
        if outcome.kills > 6 and outcome.half_done > 0:
            return
    raise AssertionError("nobody died in the middle")
