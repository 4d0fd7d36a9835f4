"""What content says of items that nobody has bought: known answers, and both ends of the ridge."""

import numpy as np
import polars as pl
import pytest

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.content import EVERY, summed, token_hash
from feature_store.item_columns import as_catalogue_frame
from tests.training.shop import END_MS, as_events, interactions_of
from training.config import TrainConfig
from training.dataset import Interactions, read_interactions
from training.fit import fit
from training.items import read_content
from training.models.content import LEAST_POPULARITY, RIDGES, Content, fit_content

F32 = np.float32


def shop(n: int = 400, noise: float = 0.01, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Items of four colours and ten brands; the colour decides the factors."""
    rng = np.random.default_rng(seed)
    colour, brand = np.arange(n) % 4, rng.integers(0, 10, n)
    factors = np.eye(4, dtype=F32)[colour] + rng.normal(0, noise, (n, 4)).astype(F32)
    rows = np.repeat(np.arange(n, dtype=np.uint32), 2)
    tokens = np.stack([[f"colour{c}" for c in colour], [f"brand{b}" for b in brand]], 1).ravel()
    return pl.DataFrame({"row": rows, "token": tokens}), factors


def guess(content: Content, *tokens: str) -> tuple[np.ndarray, float]:
    frame = pl.DataFrame({"row": [0] * len(tokens), "token": list(tokens)})
    values = np.hstack([content.factors, content.popularity[:, None]])
    sums, _ = summed(frame.cast({"row": pl.UInt32}), [0], content.tokens, values)
    return sums[0, :-1], float(sums[0, -1])


def learned(noise: float, popularity: np.ndarray | None = None) -> Content:
    tokens, factors = shop(noise=noise)
    recent = np.full(len(factors), 0.01, F32) if popularity is None else popularity
    return fit_content(tokens, factors, recent, np.full(len(factors), 9), seed=1)


def test_what_decides_is_found() -> None:
    content = learned(0.01)
    assert content.ridges[0] == RIDGES[-1]  # nothing to shrink away
    for colour in range(4):
        factors, popularity = guess(content, f"colour{colour}", "brand3")
        assert factors == pytest.approx(np.eye(4)[colour], abs=0.05)
        assert popularity == pytest.approx(np.log(0.01), abs=1e-3)


def test_noise_is_shrunk_to_what_is_common_to_all() -> None:
    rng = np.random.default_rng(3)
    tokens, _ = shop()
    factors = rng.normal(1, 1, (400, 4)).astype(F32)
    content = fit_content(tokens, factors, np.full(400, 0.01, F32), np.full(400, 9), seed=1)
    assert content.ridges[0] >= RIDGES[1]
    assert guess(content, "colour0")[0] == pytest.approx(factors.mean(axis=0), abs=0.06)
    assert guess(content, "unheard of")[0] == pytest.approx(factors.mean(axis=0), abs=1e-4)


def test_the_popularity_of_like_items_is_expected() -> None:
    recent = np.where(np.arange(400) % 4 == 2, 1e-2, 1e-5).astype(F32)
    content = learned(0.01, recent)
    assert guess(content, "colour2")[1] == pytest.approx(np.log(1e-2 + LEAST_POPULARITY), abs=0.3)
    assert guess(content, "colour1")[1] == pytest.approx(np.log(1e-5 + LEAST_POPULARITY), abs=0.3)


def test_an_item_counts_by_the_root_of_its_buyers() -> None:
    tokens = pl.DataFrame({"row": np.arange(20, dtype=np.uint32), "token": ["same"] * 20})
    factors = np.array([[1.0]] * 10 + [[0.0]] * 10, dtype=F32)
    buyers = np.array([900] * 10 + [100] * 10)
    content = fit_content(tokens, factors, np.zeros(20, F32), buyers, seed=1)
    assert guess(content, "same")[0] == pytest.approx([0.75], abs=1e-3)


def test_nothing_is_learned_from_bare_ids_or_rare_tokens() -> None:
    none = pl.DataFrame(schema={"row": pl.UInt32, "token": pl.String})
    rare = pl.DataFrame({"row": np.arange(4, dtype=np.uint32), "token": ["rare"] * 4})
    for tokens in (none, rare):
        content = fit_content(
            tokens, np.ones((4, 3), F32), np.ones(4, F32), np.ones(4, int), seed=0
        )
        assert content.factors.shape == (0, 3)
        assert len(content.tokens) == len(content.popularity) == 0


def catalogue_of(interactions: Interactions, kinds: dict[str, str]) -> Catalogue:
    ids = interactions.item_ids.to_list()
    frame = pl.DataFrame(
        {
            "item_id": ids,
            "categories": [[f"Taste {item[-1]}"] for item in ids],
            "kind": [kinds.get(item, "product") for item in ids],
        }
    )
    return Catalogue(as_catalogue_frame(frame), *hash_ids(ids))


def test_a_fitted_model_knows_the_tokens_of_its_items() -> None:
    lines = [
        (f"p{person}", f"i{10 * nth + person % 2}", float(nth))
        for person in range(30)
        for nth in range(8)
        if nth != person % 8
    ]
    known = interactions_of(lines)
    content = read_content(catalogue_of(known, {}), np.arange(len(known.item_ids), dtype=np.int32))
    config = TrainConfig(n_factors=4, n_threads=1)
    fitted = fit(known, config, END_MS, content=content)
    hashes = set(fitted.arrays["content_tokens"].tolist())
    assert hashes == {
        token_hash(token)
        for token in (EVERY, "c:taste 0", "c:taste 1", "w:taste")
    }  # fmt: skip
    assert fitted.config["content_ridges"][0] in RIDGES
    without = fit(known, config, END_MS, content=content, newcomers=False)
    assert len(without.arrays["content_tokens"]) == 0


def test_content_is_popular_by_looks_and_products_by_purchases() -> None:
    bought = [(f"p{person}", f"i{person % 3}", 1.0) for person in range(9)]
    views = [(f"p{person}", item, 1.0) for person in range(8) for item in ("guide", "i9")]
    frame = pl.concat([as_events(bought), as_events(views, "view")])
    known = read_interactions(frame.lazy())
    rows = np.arange(len(known.item_ids), dtype=np.int32)
    content = read_content(catalogue_of(known, {"guide": "content"}), rows)
    fitted = fit(known, TrainConfig(n_factors=2, n_threads=1), END_MS, content=content)
    popularity = dict(zip(fitted.item_ids, fitted.arrays["popularity"].tolist(), strict=True))
    assert popularity["i9"] == 0.0  # looked at, never bought
    assert popularity["guide"] / popularity["i0"] == pytest.approx(8 * 0.15 / 3, rel=1e-3)
    assert sum(popularity.values()) == pytest.approx(1, abs=1e-5)
