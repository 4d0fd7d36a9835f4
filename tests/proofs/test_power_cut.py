"""What was acknowledged is in the server's files at every moment."""

from pathlib import Path

import pytest

from tests.proofs.power_cut import prove


async def test_twenty_copies_hold_what_was_acknowledged(tmp_path: Path) -> None:
    outcome = await prove(tmp_path, 20)
    assert (outcome.copies, outcome.missing, outcome.states_behind) == (20, 0, 0)
    assert outcome.acknowledged > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_two_hundred_copies(tmp_path: Path) -> None:
    outcome = await prove(tmp_path, 200)
    assert (outcome.copies, outcome.missing, outcome.states_behind) == (200, 0, 0)
