"""Orders follow the rows that change; what is shared is computed once."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from feature_store.catalogue_files import CatalogueFiles, merged_frame
from feature_store.item_changes import ItemChange
from feature_store.registry import ModelRegistry
from recsvc.ranking import shared_join
from recsvc.ranking.join import Join, reordered
from recsvc.snapshot import SnapshotHolder
from tests.recsvc.shop import item_ids, make_catalogue, write_artifact

I64 = npt.NDArray[np.int64]


@given(
    values=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    moves=st.dictionaries(st.integers(0, 45), st.integers(0, 4), max_size=12),
)
def test_an_order_follows_the_rows_that_move(values: list[int], moves: dict[int, int]) -> None:
    """What has the value 0 has no place; equal ones stand by row."""
    n_rows = max([len(values), *(row + 1 for row in moves)])
    before = np.array(values + [0] * (n_rows - len(values)))
    after = before.copy()
    after[list(moves)] = list(moves.values())

    def order_of(numbers: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        rows = np.lexsort((np.arange(n_rows), -numbers))
        return rows[numbers[rows] > 0].astype(np.int32)

    def keys(rows: I64) -> tuple[npt.NDArray[Any], ...]:
        return after[rows] > 0, -after[rows], rows

    moved = np.array(sorted(moves), dtype=np.int64)
    found = reordered(order_of(before), moved, keys, n_rows)
    assert found.tolist() == order_of(after).tolist()


def test_two_workers_compute_once(tmp_path: Path, monkeypatch: Any) -> None:
    ids = item_ids(40)
    files = CatalogueFiles(tmp_path / "catalogue")
    frame = pl.DataFrame({"item_id": ids[:30]})
    files.publish(merged_frame(make_catalogue([]), frame, range(30)), 0)
    artifact = write_artifact(tmp_path / "models", 40)
    ModelRegistry(tmp_path / "models").publish(artifact.version, datetime.now(UTC))
    computed = []
    shareable = Join.shareable

    def counted(self: Join) -> dict[str, Any]:
        computed.append(self)
        return shareable(self)

    monkeypatch.setattr(Join, "shareable", counted)
    first, second = SnapshotHolder(tmp_path), SnapshotHolder(tmp_path)
    assert len(computed) == 1
    mine, theirs = first.current.model, second.current.model
    assert np.array_equal(mine.by_popularity, theirs.by_popularity)
    assert not theirs.model_rows.flags.writeable
    # An item that the model knows comes to the catalogue: one worker follows, the other not yet.
    change = ItemChange("put", 30, (ids[30],), {"title": "T"}, 31)
    second.apply_changes([change], 1)
    known = second.current.model
    assert known.model_rows[30] == 30
    assert known.catalogue_rows[30] == 30
    assert 30 in known.popular
    assert first.current.model.catalogue_rows[30] == -1
    assert 30 not in first.current.model.popular


def test_a_damaged_share_is_made_again(tmp_path: Path) -> None:
    files = CatalogueFiles(tmp_path / "catalogue")
    frame = pl.DataFrame({"item_id": item_ids(20)})
    files.publish(merged_frame(make_catalogue([]), frame, range(20)), 0)
    catalogue = files.load().catalogue
    artifact = write_artifact(tmp_path / "models", 20)
    before = shared_join.joined(artifact, catalogue).popular.tolist()
    (folder,) = (tmp_path / "joins").glob("[!.]*")
    path = folder / "popular.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    assert shared_join.joined(artifact, catalogue).popular.tolist() == before
    path.unlink()
    assert shared_join.joined(artifact, catalogue).popular.tolist() == before
