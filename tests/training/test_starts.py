"""Groups of people as starts: means by hand, anonymity, and only where attributes help."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.content import EVERY, token_hash
from recsvc.recommender import EngineRecommender
from tests.training.shop import END_MS, Line, bare_catalogue, interactions_of
from training.config import TrainConfig
from training.fit import fit
from training.models.starts import MIN_PEOPLE, PRIOR_PEOPLE, fit_starts
from training.progress import silent
from training.starts import learn_starts
from training.workshop import Workshop

CONFIG = TrainConfig(n_factors=6, n_threads=1, n_bootstrap=200, k=5, min_gate_users=50)


def test_means_by_hand_and_no_small_group() -> None:
    members = np.repeat(np.eye(2, dtype=np.float32), [30, 19], axis=0)
    said: list[dict[str, Any]] = [{"Age": "18-24", "pets": ["cat", "dog"]}] * 30
    said += [{"age": "65+", "pets": ["dog"]}] * 19
    arrays = fit_starts(members, members, said)
    names = (EVERY, "a:age=18-24", "a:pets=cat", "a:pets=dog")
    assert sorted(arrays["start_groups"].tolist()) == sorted(map(token_hash, names))
    vectors = dict(zip(arrays["start_groups"].tolist(), arrays["start_vectors"], strict=True))
    every = np.array([30, 19]) / 49
    assert vectors[token_hash(EVERY)] == pytest.approx(every)
    young = (np.array([30, 0]) + PRIOR_PEOPLE * every) / (30 + PRIOR_PEOPLE)
    assert vectors[token_hash("a:age=18-24")] == pytest.approx(young)
    dogs = (np.array([30, 19]) + PRIOR_PEOPLE * every) / (49 + PRIOR_PEOPLE)
    assert vectors[token_hash("a:pets=dog")] == pytest.approx(dogs)
    few = fit_starts(members, members[: MIN_PEOPLE - 1], said[: MIN_PEOPLE - 1])
    assert few["start_groups"].shape == (0,)
    assert few["start_vectors"].shape == (0, 2)


def tastes(n_people: int = 240) -> list[Line]:
    """Half of the people buy even items only, the others odd ones."""
    rng = np.random.default_rng(5)
    appeal = 1 / (1 + np.arange(20))
    lines: list[Line] = []
    for person in range(n_people):
        for day in np.sort(rng.uniform(0, 90, 12)):
            basket = rng.choice(20, 3, replace=False, p=appeal / appeal.sum())
            lines += [
                (f"p{person:03d}", f"i{2 * nth + person % 2:02d}", float(day)) for nth in basket
            ]
    return lines


def learned(attributes: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    known = interactions_of(tastes())
    rows = np.arange(len(known.item_ids), dtype=np.int32)
    shop = Workshop(CONFIG, bare_catalogue(known), rows, EngineRecommender, Path("unused"), silent)
    fitted = fit(known, CONFIG, END_MS, together=False, similar=False)
    return learn_starts(shop, fitted, known, attributes)


def test_attributes_that_say_something_are_used() -> None:
    said = {f"u:p{person:03d}": {"side": "odd" if person % 2 else "even"} for person in range(240)}
    arrays, summary = learned(said)
    assert summary is not None
    assert summary["used"]
    assert summary["difference_ci95"][0] > 0
    assert summary["ndcg_attributes"] > 1.1 * summary["ndcg_popularity"]
    assert set(arrays["start_groups"].tolist()) == {
        token_hash(name) for name in (EVERY, "a:side=odd", "a:side=even")
    }


def test_attributes_that_say_nothing_are_not_published() -> None:
    rng = np.random.default_rng(1)
    said = {f"u:p{person:03d}": {"coin": int(rng.integers(2))} for person in range(240)}
    arrays, summary = learned(said)
    assert summary is not None
    assert not summary["used"]
    assert summary["difference_ci95"][0] <= 0
    assert len(arrays["start_groups"]) == 0


def test_of_nobody_nothing_is_learned() -> None:
    for said in ({}, {"u:stranger": {"side": "odd"}}, {"u:p001": {"side": "odd"}}):
        arrays, summary = learned(said)
        assert summary is None
        assert arrays["start_vectors"].shape == (0, 6)
