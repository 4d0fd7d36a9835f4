"""The small shop, made once for each file of tests."""

import pytest

from feature_store.artifact import ModelArtifact
from recsvc.snapshot import Snapshot
from tests.recsvc.shop import (
    N_ALL,
    N_MODEL,
    item_ids,
    make_catalogue,
    make_snapshot,
    write_artifact,
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return write_artifact(tmp_path_factory.mktemp("models"), N_MODEL)


@pytest.fixture(scope="module")
def snapshot(artifact: ModelArtifact) -> Snapshot:
    brands = [f"b{number % 4}" for number in range(N_ALL)]
    paths = [[f"Food > F{number % 5}"] if number % 7 else [] for number in range(N_ALL)]
    groups = [f"g{number // 2}" if number < 20 else None for number in range(N_ALL)]
    # Some content that the model knows, and some that it does not.
    kinds = ["content" if number in (*range(50, 55), *range(80, 84)) else "product"
             for number in range(N_ALL)]  # fmt: skip
    return make_snapshot(
        artifact,
        make_catalogue(
            item_ids(N_ALL), brand=brands, categories=paths, group_id=groups, kind=kinds
        ),
    )
