"""Artifacts appear whole or not at all; damage is refused; the registry remembers who served."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from feature_store.artifact import ARRAYS, OPTIONAL, ArtifactWriter, ModelArtifact, remove_partial
from feature_store.errors import ArtifactError, ConflictError, NotFoundError
from feature_store.registry import ModelRegistry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = {"n": 3, "d": 2, "k": 4, "s": 5, "v": 6, "g": 7}


def write(
    models_dir: Path, without: frozenset[str] = frozenset(), **changed: tuple[int, ...]
) -> ModelArtifact:
    with ArtifactWriter(models_dir, NOW) as writer:
        for name, (dtype, dimensions) in ARRAYS.items():
            if name in without:
                continue
            shape = changed.get(name, tuple(SIZES[one] for one in dimensions))
            writer.array(name, np.ones(shape, dtype=dtype))
        writer.item_ids(["a", "b/ü", "{c}"])
        writer.index(lambda path: Path(path).write_bytes(b"index"))
        writer.manifest["config"] = {"d": 2}
        return writer.publish()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    artifact = ModelArtifact(write(tmp_path).path)
    assert artifact.item_ids.to_pylist() == ["a", "b/ü", "{c}"]
    assert artifact.arrays["together_rows"].shape == (3, 4)
    assert artifact.manifest["config"] == {"d": 2}
    assert artifact.manifest["version"] == artifact.version
    assert not list(tmp_path.glob(".*"))


def test_arrays_of_later_times_are_empty_in_an_old_model(tmp_path: Path) -> None:
    artifact = ModelArtifact(write(tmp_path, OPTIONAL).path)
    assert artifact.arrays["content_tokens"].shape == (0,)
    assert artifact.arrays["content_factors"].shape == (0, 2)
    assert {name: str(array.dtype) for name, array in artifact.arrays.items()} == {
        name: dtype for name, (dtype, _) in ARRAYS.items()
    }


def test_a_model_of_a_wrong_shape_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="popularity is float32"):
        write(tmp_path, popularity=(2,))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_lacks_an_array_does_not_appear(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path, NOW) as writer:
        writer.item_ids([])
        with pytest.raises(ArtifactError, match=r"lacks .*gram\.npy"):
            writer.publish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gram.npy", "items.arrow", "index.faiss"])
def test_damage_to_any_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path).path
    whole = (path / name).read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for content in (whole[:-1], flipped, b""):
        (path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match="damaged"):
            ModelArtifact(path)
    (path / name).unlink()
    with pytest.raises(ArtifactError, match="lacks"):
        ModelArtifact(path)


def test_a_foreign_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path).path
    (path / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(ArtifactError, match="format 99"):
        ModelArtifact(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="no readable manifest"):
        ModelArtifact(path)


def test_what_a_killed_training_left_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from datetime import datetime, UTC; from pathlib import Path; "
        "from feature_store.artifact import ArtifactWriter; "
        "ArtifactWriter(Path(sys.argv[1]), datetime.now(UTC)); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert len(list(tmp_path.glob(".*.partial"))) == 1
    with ArtifactWriter(tmp_path, NOW):
        assert remove_partial(tmp_path) == 1
        assert len(list(tmp_path.glob(".*.partial"))) == 1


def test_roll_backs_go_back_step_by_step_and_hold_publishing(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    assert registry.current() is None
    first, second, third = (write(tmp_path).version for _ in range(3))
    for version in (first, second, third):
        before = registry.stamp()
        registry.publish(version, NOW)
        assert registry.stamp() != before
    assert registry.rollback(NOW) == second
    assert registry.rollback(NOW) == first
    with pytest.raises(NotFoundError, match="no earlier model"):
        registry.rollback(NOW)
    assert registry.current() == first
    with pytest.raises(ConflictError, match="on hold"):
        registry.publish(third, NOW)
    registry.set_hold(held=False, now=NOW)
    registry.publish(third, NOW)
    assert registry.rollback(NOW) == first
    assert [entry["action"] for entry in registry.read()["history"]][-3:] == [
        "resume",
        "publish",
        "rollback",
    ]


def test_only_a_whole_model_can_be_promoted(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    good, bad = write(tmp_path), write(tmp_path)
    registry.promote(good.version, NOW)
    (bad.path / "gram.npy").write_bytes(b"")
    with pytest.raises(ArtifactError):
        registry.promote(bad.version, NOW)
    with pytest.raises(NotFoundError, match="there is no model 'nope'"):
        registry.promote("nope", NOW)
    assert registry.current() == good.version


def test_pruning_keeps_the_newest_and_what_serves(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    versions = sorted(write(tmp_path).version for _ in range(4))
    registry.promote(versions[0], NOW)
    assert registry.prune(2) == [versions[1]]
    assert registry.versions() == [versions[0], *versions[2:]]
