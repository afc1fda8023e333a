"""Checkpoints: whole or not at all, verified when read, the last two kept."""

import json
import os
from pathlib import Path

import pytest
import torch

from gpt import checkpoint
from gpt.errors import DataError

WEIGHTS = {"w": torch.arange(1000.0)}
MOMENTS = {"exp_avg.w": torch.ones(1000)}


def save(run_dir: Path, step: int, done: bool = False) -> None:
    weights = {"w": torch.arange(1000.0) + step}
    checkpoint.save(run_dir, step, weights, None if done else MOMENTS, {"step": step})


def damage(path: Path) -> None:
    """Flip one bit near the end, where the tensors are."""
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path):
    checkpoint.save(tmp_path, 7, WEIGHTS, MOMENTS, {"sum": 0.1 + 0.2})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.optimizer is not None
    assert (loaded.step, loaded.state) == (7, {"sum": 0.1 + 0.2})
    assert torch.equal(loaded.model["w"], WEIGHTS["w"])
    assert torch.equal(loaded.optimizer["exp_avg.w"], MOMENTS["exp_avg.w"])


def test_no_checkpoint_is_none(tmp_path: Path):
    assert checkpoint.load(tmp_path) is None


def test_the_last_two_are_kept(tmp_path: Path):
    for step in (9, 10, 100):
        save(tmp_path, step)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000010", "step-000100"]


def test_a_done_run_keeps_one_without_optimizer(tmp_path: Path):
    save(tmp_path, 10)
    save(tmp_path, 20, done=True)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.optimizer is None
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_flipped_bit_falls_back_to_the_checkpoint_before(tmp_path: Path, file: str):
    save(tmp_path, 10)
    save(tmp_path, 20)
    damage(tmp_path / "checkpoints" / "step-000020" / file)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.step == 10
    assert "step-000020" in loaded.skipped[0]
    assert "SHA-256" in loaded.skipped[0]


def test_what_was_loaded_does_not_change_with_its_files(tmp_path: Path):
    save(tmp_path, 10)
    loaded = checkpoint.load(tmp_path)
    for file in ("model.safetensors", "optimizer.safetensors"):
        damage(tmp_path / "checkpoints" / "step-000010" / file)
    assert loaded is not None
    assert loaded.optimizer is not None
    assert torch.equal(loaded.model["w"], torch.arange(1000.0) + 10)
    assert torch.equal(loaded.optimizer["exp_avg.w"], torch.ones(1000))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_file_is_refused_with_one_line(tmp_path: Path, file: str):
    save(tmp_path, 10)
    path = tmp_path / "checkpoints" / "step-000010" / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="must hold an intact checkpoint") as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path: Path):
    save(tmp_path, 10)
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 20, WEIGHTS, MOMENTS, {"not": object()})  # no JSON
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]


def test_a_kill_in_the_middle_of_a_save_does_not_hinder_a_process_of_the_same_id(tmp_path: Path):
    (tmp_path / "checkpoints" / f".step-000010.{os.getpid()}").mkdir(parents=True)
    save(tmp_path, 10)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path):
    save(tmp_path, 10)
    damage(tmp_path / "checkpoints" / "step-000010" / "model.safetensors")
    checkpoint.save(tmp_path, 10, {"w": torch.zeros(2)}, MOMENTS, {})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded.model["w"], torch.zeros(2))


def test_a_whole_checkpoint_of_the_same_step_is_left_alone(tmp_path: Path):
    save(tmp_path, 10)
    path = tmp_path / "checkpoints" / "step-000010" / "state.json"
    before = path.stat().st_mtime_ns
    save(tmp_path, 10)
    assert path.stat().st_mtime_ns == before


def test_state_json_is_plain_json_with_the_hashes(tmp_path: Path):
    save(tmp_path, 3)
    manifest = json.loads((tmp_path / "checkpoints" / "step-000003" / "state.json").read_text())
    assert set(manifest["sha256"]) == {"model.safetensors", "optimizer.safetensors"}
