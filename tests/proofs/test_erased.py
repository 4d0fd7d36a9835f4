"""The smaller version of the proof; ``make prove`` erases 1,000 of 10,000 and trains for real."""

from pathlib import Path

import pytest

from tests.proofs.erased import prove


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_left_of_the_erased_and_nothing_is_gone_of_others(tmp_path: Path) -> None:
    outcome = prove(tmp_path, n_people=150, n_erased=20, train=False)
    assert not any(outcome.left.values()), outcome
    assert set(outcome.left) == {"erased", "trained", "rolled back", "rebuilt", "restored"}
    assert not outcome.changed_people, outcome
    assert outcome.lost_events == 0
    assert outcome.receipts["done"] == 20
    # What was not there before could not be missed afterwards.
    kinds = {"events", "changes", "decisions", "imports", "appendonlydir"}
    keys = {f"key {letter}:" for letter in "dhktpuxlm"}
    assert kinds | keys <= set(outcome.planted), outcome.planted
    assert outcome.traffic["events"] > 0
    assert outcome.traffic["pages"] > 0
    assert outcome.traffic["late"] > 0
    assert outcome.proven, outcome
