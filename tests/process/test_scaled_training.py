"""`train --scale`: what is trained, what is said, what is refused, what other programs get."""

from pathlib import Path

import pytest
import torch
from commands import Commands
from tiny_runs import tiny_config, write_stories

from gpt.config import read_config
from gpt.sample import load_model
from sweep.export.trained_run import read_trained_run, require_gpt2
from sweep.trainers.long_run.prediction import PREDICTIONS, Prediction, keep_predictions
from sweep.trainers.long_run.scale import scaled

SCALE = "n_embd=32,n_layer=2,steps=24"


@pytest.fixture
def squen(monkeypatch, capsys, tmp_path: Path, cache: Path) -> Commands:
    """Commands in a folder with the configuration of a tiny run."""
    monkeypatch.chdir(tmp_path)
    config = tiny_config(write_stories(tmp_path / "text"), dropout=0.0)
    (tmp_path / "best.json").write_text(config.model_dump_json())
    return Commands(monkeypatch, capsys, tmp_path)


def test_a_configuration_trains_at_another_size_and_says_what_was_changed(squen, tmp_path):
    done = squen("train", "best.json", "--scale", SCALE, "--out", "big")
    assert done.code == 0
    for words in ("n_layer 1 -> 2, n_embd 16 -> 32, n_head 2 -> 4", "max_steps 12 -> 24", "memory"):
        assert words in done.out
    found = read_config(tmp_path / "big" / "config.json")
    assert (found.n_embd, found.n_layer, found.max_steps, found.warmup_steps) == (32, 2, 24, 4)
    assert found.scaling.width == found.scaling.depth == 2
    again = squen("train", "best.json", "--scale", SCALE, "--out", "big")
    assert "is complete: 24 steps" in again.out


def test_what_was_predicted_and_what_came_is_printed(squen, tmp_path):
    squen("train", "best.json", "--scale", SCALE, "--out", "big")  # prepares the text, and is done
    config = read_config(tmp_path / "big" / "config.json")
    path = tmp_path / "runs" / "small" / PREDICTIONS
    path.parent.mkdir(parents=True)
    keep_predictions(path, [(config, Prediction(5.0, 3.0, 6.0, trusted=False))])
    done = squen("train", "best.json", "--scale", SCALE, "--out", "big")
    assert "predicted by `squen-sweep transfer`: perplexity 148.41" in done.out
    assert "do not trust the ranking" in done.out
    assert "predicted: perplexity 148.41; came: " in done.out
    assert "within the interval" in done.out


def test_a_prediction_is_found_in_the_folder_of_runs_that_is_given(squen, tmp_path):
    squen("train", "best.json", "--runs", "elsewhere")
    run_dir = tmp_path / "elsewhere" / "final" / "best"
    path = tmp_path / "elsewhere" / "small" / PREDICTIONS
    path.parent.mkdir(parents=True)
    predicted = Prediction(5.0, 3.0, 6.0, trusted=True)
    keep_predictions(path, [(read_config(run_dir / "config.json"), predicted)])
    done = squen("train", "best.json", "--runs", "elsewhere")
    assert "predicted by `squen-sweep transfer`: perplexity 148.41" in done.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "n_embd=20"], "multiple of the size of a head, 8, but got 20"),
        (["--scale", "width=20"], "names of n_layer, n_embd"),
        (["--scale", "steps=24", "--steps", "30"], "--steps must not come with steps in --scale"),
        (["--scale", "n_embd=80000,n_layer=9"], "must fit into memory, but needs about"),
    ],
)
def test_a_scale_that_cannot_be_writes_nothing(squen, tmp_path, options, message):
    done = squen("train", "best.json", *options, "--out", "big")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert message in done.err
    assert not (tmp_path / "big").exists()


def test_another_program_gets_a_gpt_2_with_the_same_logits(squen, tmp_path):
    squen("train", "best.json", "--scale", SCALE, "--out", "big")
    model, run = load_model(tmp_path / "big"), read_trained_run(tmp_path / "big")
    require_gpt2(run.config, "huggingface", "the run")
    twin = type(model)(run.config).eval()
    twin.load_state_dict(run.weights, strict=False)
    idx = torch.randint(run.config.vocab_size, (2, 16))
    assert model.config.scaling.width == 2
    assert twin.config.scaling.width == 1
    torch.testing.assert_close(twin.logits(twin(idx)), model.logits(model(idx)))


def test_a_scaled_configuration_file_can_be_scaled_again(tmp_path):
    config = tiny_config(tmp_path / "text")
    big = scaled(config, {"n_embd": 32})
    assert scaled(big, {"n_embd": 64}).base_n_embd == 16
