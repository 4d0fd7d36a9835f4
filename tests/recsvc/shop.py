"""A small shop made by hand for tests: three tastes, known factors, a model, a catalogue."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.artifact import ARRAYS, ArtifactWriter, ModelArtifact
from feature_store.catalogue import Catalogue, hash_ids
from feature_store.content import EVERY, token_hashes
from feature_store.item_columns import as_catalogue_frame
from feature_store.schema import PURCHASE_CODE, format_time
from feature_store.signals import FEATURES
from feature_store.state import EMPTY_STATE, UserState, fold
from recsvc.engine import Response
from recsvc.merchandising.placements import BUILT_IN, PRODUCTS
from recsvc.retrieval import JoinedModel
from recsvc.snapshot import Snapshot

NOW_S = 1_750_000_000
DAY_S = 86_400
N_TASTES = 3
N_MODEL, N_ALL = 60, 90
"""Items that the small model knows, and items of the small catalogue."""
ON_PRODUCTS = [name for name, placement in BUILT_IN.items() if placement.kinds == PRODUCTS]
"""The built-in placements of a shop that has products only."""
DEFAULT_WEIGHTS = (-1.25, 1.31, 0.03, 0.32, 0.86, 0.24, 0.13, 0.81, 0.18, 1.0, 0.10)


def item_ids(n_items: int) -> list[str]:
    return [f"i{number:05d}" for number in range(n_items)]


TOKENS = {
    EVERY: (0.1, 0.1, 0.1, -5.0),
    **{f"c:taste {taste}": (*(0.8 * np.eye(N_TASTES)[taste]), 1.5) for taste in range(N_TASTES)},
}
"""What content says in the small model: factors, and the log of the expected popularity."""


def content_arrays(
    tokens: Mapping[str, Sequence[float]],
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of an artifact that say what tokens mean."""
    hashes = token_hashes(list(tokens))
    order = np.argsort(hashes)
    values = np.array(list(tokens.values()), dtype=np.float32)[order]
    return {
        "content_tokens": hashes[order],
        "content_factors": values[:, :-1],
        "content_popularity": values[:, -1],
    }


def add_groups(writer: ArtifactWriter) -> None:
    """Say that the young have taste 0 and the old taste 1; for `also` of `write_artifact`."""
    groups = token_hashes([EVERY, "a:age=young", "a:age=old"])
    order = np.argsort(groups)
    vectors = np.array([[0.3, 0.3, 0.3], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32)
    writer.array("start_groups", groups[order])
    writer.array("start_vectors", vectors[order])


def write_artifact(
    models_dir: Path,
    n_items: int = 60,
    seed: int = 0,
    *,
    tokens: Mapping[str, Sequence[float]] | None = None,
    n_rows: int | None = None,
    also: Callable[[ArtifactWriter], None] = lambda _: None,
) -> ModelArtifact:
    """Item `i` belongs to taste `i % 3`; its neighbours are the next items of its taste.

    With `tokens` the model knows of content, and with `n_rows` how long the catalogue was.
    """
    rng = np.random.default_rng(seed)
    taste = np.arange(n_items) % N_TASTES
    factors = np.eye(N_TASTES, dtype=np.float32)[taste]
    factors += rng.normal(0, 0.05, factors.shape).astype(np.float32)
    popularity = np.linspace(2, 1, n_items)
    popularity /= max(popularity.sum(), 1)
    neighbours = (np.arange(n_items)[:, None] + N_TASTES * np.arange(1, 6)) % max(n_items, 1)
    scores = np.broadcast_to(np.linspace(1, 0.2, 5), neighbours.shape)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "item_factors": factors,
        "gram": factors.T @ factors,
        "popularity": popularity,
        "popularity_recent": popularity,
        "trending": popularity[::-1],
        "together_rows": neighbours,
        "together_scores": scores,
        "similar_rows": neighbours,
        "similar_scores": scores,
        "repeat_rate": np.full(n_items, 0.3),
        "repeat_interval_s": np.full(n_items, 14.0 * DAY_S),
        "first_seen_s": NOW_S - DAY_S * np.arange(1, n_items + 1),
    }
    arrays |= content_arrays(tokens) if tokens else {}
    with ArtifactWriter(models_dir, datetime.now(UTC)) as writer:
        for name, values in arrays.items():
            assert name in ARRAYS
            writer.array(name, values)
        also(writer)
        writer.item_ids(item_ids(n_items))
        index = faiss.IndexFlatIP(N_TASTES)
        index.add(factors)
        writer.index(lambda path: faiss.write_index(index, path))
        writer.manifest |= {
            "config": {"alpha": 1.0, "regularization": 0.1},
            "index": {"form": "flat", "nprobe": 0},
            "blend": {"features": list(FEATURES), "weights": {"home": list(DEFAULT_WEIGHTS)}},
        }
        if n_rows is not None:
            newest = format_time(datetime.fromtimestamp(NOW_S - DAY_S, UTC))
            writer.manifest["train"] = {"catalogue_rows": n_rows, "last_event_at": newest}
        return writer.publish()


def make_catalogue(ids: Sequence[str], **columns: Sequence[object]) -> Catalogue:
    frame = as_catalogue_frame(pl.DataFrame({"item_id": ids, **columns}))
    return Catalogue(frame, *hash_ids(list(ids)))


def make_snapshot(artifact: ModelArtifact | None, catalogue: Catalogue) -> Snapshot:
    return Snapshot(catalogue, JoinedModel(artifact, catalogue))


def bought(*purchases: tuple[int, int]) -> UserState:
    """State of somebody who bought (row, days ago)."""
    if not purchases:
        return EMPTY_STATE
    rows, days = zip(*purchases, strict=True)
    return fold(
        EMPTY_STATE,
        np.array(rows, dtype=np.uint32),
        np.full(len(rows), PURCHASE_CODE, dtype=np.uint8),
        (NOW_S - DAY_S * np.array(days)).astype(np.uint32),
    )


def rows_of(response: Response) -> list[int]:
    """Return the rows of a list, best first."""
    return [chosen.row for chosen in response.chosen]
