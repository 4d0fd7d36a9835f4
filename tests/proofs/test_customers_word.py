"""The customer's word holds under load on two workers: the smaller version of the proof."""

from pathlib import Path

import pytest

from tests.proofs.customers_word import prove


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("opt_in", "kills"), [(False, 0), (True, 1)])
async def test_what_customers_say_outranks_all_that_marketers_do(
    tmp_path: Path, *, opt_in: bool, kills: int
) -> None:
    outcome = await prove(tmp_path, steps=1_000, seed=6, opt_in=opt_in, kills=kills)
    assert not outcome.violations, "\n".join(outcome.told)
    assert outcome.steps >= 1_000
    assert outcome.kills == kills
    assert min(outcome.actions.values()) >= 3, outcome.actions
    assert min(outcome.events_kept, outcome.events_withheld) > 3
    assert outcome.rules, "of marketers, who write as fast as they can meanwhile"
