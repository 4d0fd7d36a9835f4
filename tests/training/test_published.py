from pathlib import Path

import numpy as np
import pytest

from feature_store.errors import UserError
from recsvc.recommender import EngineRecommender
from training.config import TrainConfig
from training.published import evaluate_published, read_split

CONFIG = TrainConfig(n_factors=8, min_blend_users=20, n_bootstrap=100, n_threads=1)


def write_split(folder: Path, n_users: int = 120, n_items: int = 60) -> tuple[Path, Path]:
    """Users like the items of one third; two of their items are for the test."""
    rng = np.random.default_rng(0)
    train, test = [], []
    for user in range(n_users):
        mine = rng.permutation(np.arange(user % 3, n_items, 3))[:12]
        train.append(" ".join(map(str, [user, *mine[:10]])))
        test.append(" ".join(map(str, [user, *mine[10:]])))
    files = folder / "train.txt", folder / "test.txt"
    for file, lines in zip(files, (train, test), strict=True):
        file.write_text("\n".join(lines) + "\n")
    return files


def test_a_split_with_tastes(tmp_path: Path) -> None:
    result = evaluate_published(*write_split(tmp_path), CONFIG, EngineRecommender)
    document = result.document
    assert document["protocol"] == "published"
    assert document["n_candidates"] == 60
    rows = {row["model"]: row for row in document["rows"]}
    assert {row["subset"] for row in document["rows"]} == {"all"}
    assert {row["n_users"] for row in document["rows"]} == {120}
    # Ten unknown items of the right third remain, two of them wanted: all fit into the list.
    assert rows["als"]["recall"] > 0.95
    assert rows["served"]["recall"] > 0.95
    assert rows["popularity"]["recall"] < 0.6


def test_by_hand(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 a b\n2 a\n3 b a\n\n4\n")
    (tmp_path / "test.txt").write_text("1 c\n2 b c\n9 a\n")
    result = evaluate_published(
        tmp_path / "train.txt", tmp_path / "test.txt", CONFIG, EngineRecommender
    )
    row = result.row("popularity", "all")
    assert row is not None
    # User 9 has no training items. What is masked cannot be recommended: 1 gets c, 2 gets b and c.
    assert row["n_users"] == 2
    assert row["recall"] == row["ndcg"] == 1.0
    assert row["novelty"] == pytest.approx(np.mean(-np.log2([1 / 3, 2 / 3, 1 / 3])), abs=1e-3)


def test_pairs_count_once_and_ids_are_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("7 10 9 9 ä/{x}\n")
    (tmp_path / "test.txt").write_text("7 10\n")
    known, train, test = read_split(tmp_path / "train.txt", tmp_path / "test.txt")
    assert known.item_ids.to_list() == ["10", "9", "ä/{x}"]
    assert sorted(train.item.tolist()) == [0, 1, 2]
    assert test.item.tolist() == [0]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (None, b"1 a\n", "cannot be read"),
        (b"", b"1 a\n", "holds no pairs"),
        (b"1\n2\n", b"1 a\n", "holds no pairs"),
        (b"1 a\n", b"2 a\n", "no user of"),
        (b"1 \xff\n", b"2 a\n", "cannot be read as text"),
    ],
)
def test_bad_files(tmp_path: Path, train: bytes | None, test: bytes, said: str) -> None:
    if train is not None:
        (tmp_path / "train.txt").write_bytes(train)
    (tmp_path / "test.txt").write_bytes(test)
    with pytest.raises(UserError, match=said):
        evaluate_published(tmp_path / "train.txt", tmp_path / "test.txt", CONFIG, EngineRecommender)
