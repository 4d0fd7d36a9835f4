"""The customer's word holds under load on two workers: the smaller version of the proof."""

from pathlib import Path

import pytest

from tests.proofs.customers_word import prove


@pytest.mark.timeout(600)
async def test_what_customers_say_outranks_all_that_marketers_do(tmp_path: Path) -> None:
    outcome = await prove(tmp_path, steps=2_000, seed=6)
    assert not outcome.violations, "\n".join(outcome.told)
    assert outcome.steps >= 2_000
    assert min(outcome.actions.values()) >= 5, outcome.actions
    assert min(outcome.rules, outcome.events_kept, outcome.events_withheld) > 3
