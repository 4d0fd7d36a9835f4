"""The smaller version of the proof; ``make prove`` runs a million events."""

from pathlib import Path

import pytest

from tests.proofs.nothing_lost import prove


@pytest.mark.timeout(600)
def test_no_acknowledged_event_is_lost_or_counted_twice(tmp_path: Path) -> None:
    outcome = prove(tmp_path, n_events=20_000, n_writers=4)
    assert outcome.distinct_ids == outcome.rows == 20_000
    assert outcome.people > 2_000
    assert outcome.wrong_states == 0
    assert outcome.killed["worker"] > 0, outcome
    assert outcome.killed["server"] > 0, outcome
