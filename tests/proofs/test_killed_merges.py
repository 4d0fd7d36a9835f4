"""A process may die at any moment of a merge: the smaller version of the proof."""

from pathlib import Path

import pytest

from tests.proofs.killed_merges import prove


@pytest.mark.timeout(600)
async def test_no_history_is_lost_or_doubled_when_merging_processes_die(tmp_path: Path) -> None:
    outcome = await prove(tmp_path, 3)
    assert (outcome.wrong, outcome.wrong_after_rebuild) == (0, 0), outcome
    assert outcome.logged == outcome.events
    assert outcome.kills > 6, outcome
    assert outcome.half_done > 0, outcome
