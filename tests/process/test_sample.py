"""Stories from a checkpoint: seeded, they begin with the prompt; damage is one clear line."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_run, write_stories

from gpt.errors import DataError, InputError
from gpt.losses.functional import LOSSES
from gpt.model import GPT
from gpt.sample import _link_scores, generate, load_model, sample
from gpt.train import train_directory
from sweep.export.trained_run import read_trained_run


@pytest.fixture
def run_dir(tmp_path: Path, cache: Path) -> Path:
    text = write_stories(tmp_path / "text")
    folder = write_run(tmp_path / "run", tiny_config(text))
    assert list(train_directory(folder))
    return folder


def test_a_story_begins_with_the_prompt(run_dir: Path):
    (story,) = sample(run_dir, "Tom saw", max_new_tokens=20)
    assert story.startswith("Tom saw")
    assert len(story) > len("Tom saw")


def test_the_same_seed_tells_the_same_story_and_another_one_another(run_dir: Path):
    once, again, other = (sample(run_dir, "Lily", seed=seed) for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_no_story_holds_an_end_of_text(run_dir: Path):
    stories = sample(run_dir, "", max_new_tokens=300, temperature=1.5, num_samples=4)
    assert len(stories) == 4
    assert not any("<|endoftext|>" in story for story in stories)


def test_temperature_zero_takes_the_most_likely_token(run_dir: Path):
    model = load_model(run_dir)
    start = torch.tensor([[5, 6]])
    with torch.no_grad():
        likely = model.logits(model(start))[0, -1].argmax()
    drawn = generate(model, start, 1, 0.0, None, torch.Generator(), end=-1)
    assert drawn[0, -1] == likely


def test_top_k_one_is_temperature_zero(run_dir: Path):
    model, start = load_model(run_dir), torch.tensor([[5, 6]])
    one, zero = (
        generate(model, start, 10, t, k, torch.Generator(), end=-1)
        for t, k in ((1.0, 1), (0.0, None))
    )
    assert torch.equal(one, zero)


def assert_likeliest_tokens_are_drawn(model: GPT) -> None:
    drawn = generate(model, torch.tensor([[5, 6], [7, 8]]), 30, 0.0, None, torch.Generator(), -1)
    for end in range(2, drawn.shape[1]):
        with torch.no_grad():
            hidden = model(drawn[:, max(0, end - model.config.block_size) : end])
        likely = model.logits(hidden[:, -1]).argmax(-1)
        assert drawn[:, end].tolist() == likely.tolist()


def test_every_token_is_drawn_from_what_the_whole_text_before_it_makes_likely(run_dir: Path):
    assert_likeliest_tokens_are_drawn(load_model(run_dir))


def test_a_model_with_qk_norm_and_another_activation_is_sampled_likewise(run_dir: Path):
    config = json.loads((run_dir / "config.json").read_text())
    config |= {"qk_norm": True, "activation": "relu2"}
    (run_dir / "config.json").write_text(json.dumps(config))
    model = load_model(run_dir)
    assert model.config.qk_norm
    assert_likeliest_tokens_are_drawn(model)


def test_a_row_longer_than_the_block_forgets_its_beginning(run_dir: Path):
    model: GPT = load_model(run_dir)
    start = torch.arange(10, 10 + model.config.block_size + 5)[None]
    cut = start[:, 5:]
    long, short = (
        generate(model, s, 1, 0.0, None, torch.Generator(), end=-1) for s in (start, cut)
    )
    assert long[0, -1] == short[0, -1]


def test_a_truncated_checkpoint_is_one_clear_line(run_dir: Path):
    (weights,) = run_dir.glob("checkpoints/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="must hold an intact checkpoint"):
        sample(run_dir, "Tom")


@pytest.mark.parametrize("change", [{"n_layer": 2}, {"bias": True}, {"n_embd": 32}])
def test_weights_of_another_model_than_config_json_has_are_refused(run_dir: Path, change: dict):
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | change))
    for read in (load_model, read_trained_run):
        with pytest.raises(DataError, match=r"in config\.json, where transformer") as refused:
            read(run_dir)
        assert "\n" not in str(refused.value)


def test_a_run_without_checkpoint_says_to_train_it(tmp_path: Path, cache: Path):
    text = write_stories(tmp_path / "text")
    folder = write_run(tmp_path / "run", tiny_config(text))
    with pytest.raises(InputError, match="train it first"):
        sample(folder, "Tom")


def test_the_link_of_a_loss_draws_from_its_own_probabilities(tmp_path: Path, cache: Path):
    options = {"square_weight": 20.0}
    config = tiny_config(write_stories(tmp_path / "text"), loss="squentropy", loss_options=options)
    folder = write_run(tmp_path / "run", config)
    assert list(train_directory(folder))
    model, start = load_model(folder), torch.tensor([[5, 6]] * 20_000)
    with torch.no_grad():
        logits = model.logits(model(start[:1]))[0, -1]
    p = logits.softmax(-1)
    pi = LOSSES["squentropy"].probabilities(p, logits, options)
    drawn = generate(
        model, start, 1, 1.0, None, torch.Generator().manual_seed(0), -1, _link_scores(config, 12)
    )
    share = drawn[:, -1].bincount(minlength=len(pi)) / len(start)
    assert (share - pi).abs().max() < 0.01
    assert (p - pi).abs().max() > 0.03  # another distribution than softmax
    told, linked = (sample(folder, "Tom", temperature=1.0, link=link) for link in (False, True))
    assert told != linked


def test_the_link_of_a_loss_whose_weight_fell_to_zero_is_softmax(tmp_path: Path, cache: Path):
    config = tiny_config(
        write_stories(tmp_path / "text"), loss="squentropy", loss_schedule="linear"
    )
    folder = write_run(tmp_path / "run", config)
    assert list(train_directory(folder))
    logits = torch.randn(3, 280)
    torch.testing.assert_close(_link_scores(config, 12)(logits), logits.log_softmax(-1))


def test_the_link_of_the_best_checkpoint_has_the_weight_of_its_step(tmp_path: Path, cache: Path):
    steps = {"learning_rate": 1.0, "schedule": "constant", "max_steps": 4, "eval_interval": 2}
    loss = {"loss": "squentropy", "loss_options": {"square_weight": 20.0}}
    text = write_stories(tmp_path / "text")
    config = tiny_config(text, loss_schedule="linear", **loss, **steps)
    folder = write_run(tmp_path / "run", config)
    evaluations = list(train_directory(folder))
    best = min(evaluations, key=lambda e: e.cross_entropy)
    assert best.step < evaluations[-1].step  # where the weight is 0
    told, linked = (
        sample(folder, "Tom", temperature=1.0, best=True, link=link) for link in (False, True)
    )
    assert told != linked


def test_the_link_of_a_plugins_loss_is_refused_as_only_training_runs_its_code(run_dir: Path):
    config = json.loads((run_dir / "config.json").read_text())
    config |= {"loss": "sharp", "plugins": {"my_losses.py": "0" * 64}}
    (run_dir / "config.json").write_text(json.dumps(config))
    assert sample(run_dir, "Tom", max_new_tokens=5)
    with pytest.raises(InputError, match=r"'sharp'; leave --link out"):
        sample(run_dir, "Tom", link=True)
