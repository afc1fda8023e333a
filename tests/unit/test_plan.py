"""The plan of a study before it runs, and the study file to start from."""

import re
from pathlib import Path

import pytest
from commands import Commands

from gpt.config import TrainConfig
from gpt.model import GPT
from sweep.study.toml_file import read_study_file
from sweep.trainers.estimate import measure

STUDY = """
name = "planned"
compare = "loss"
[data]
source = "stories.txt"
bpe_vocab_size = 300
[train]
n_embd = 16
n_head = 2
block_size = 16
batch_size = 2
max_steps = 30
warmup_steps = 1
eval_interval = 10
eval_tokens = 64
[search.loss]
choices = ["cross_entropy", "squentropy", "z_loss"]
[search.learning_rate]
low = 1e-3
high = 1e-2
log = true
[search.n_layer]
low = 1
high = 3
[[baselines]]
name = "usual"
params = { learning_rate = 1e-3, n_layer = 1 }
[sampler]
startup_trials = 2
"""


@pytest.fixture
def squen(monkeypatch, capsys, tmp_path: Path) -> Commands:
    (tmp_path / "stories.txt").write_text("one\n<|endoftext|>\ntwo\n")
    (tmp_path / "planned.toml").write_text(STUDY)
    return Commands(monkeypatch, capsys, tmp_path)


def weights(config: TrainConfig) -> int:
    """Parameters of the model itself, without positions."""
    model = GPT(config)
    return sum(p.numel() for p in model.parameters()) - model.transformer.wpe.weight.numel()


def test_check_prints_the_plan_and_writes_nothing(squen: Commands):
    before = sorted(path.name for path in squen.folder.iterdir())
    done = squen("check", "planned.toml", "--trials", "12", "--device", "cpu", "--workers", "2")
    assert (done.code, done.err) == (0, "")
    assert "12, 4 for each of cross_entropy, squentropy, z_loss" in done.out
    assert "1 of a baseline, 2 at Sobol points, 1 by tpe" in done.out
    assert "stories.txt" in done.out
    assert f"30 steps, {30 * 2 * 16} tokens, 3 evaluations of 64 tokens" in done.out
    assert "2 at a time on cpu" in done.out
    assert sorted(path.name for path in squen.folder.iterdir()) == before


def test_the_plan_has_the_parameters_of_each_depth(squen: Commands):
    spec = read_study_file(str(squen.folder / "planned.toml"), "cpu")
    out = squen("check", "planned.toml", "--device", "cpu").out
    shown = {
        int(n): int(count.replace(",", ""))
        for n, count in re.findall(r"(\d) layers? +([\d,]+) parameters", out)
    }
    for n_layer in (1, 2, 3):
        params = {"loss": "cross_entropy", "learning_rate": 1e-3, "n_layer": n_layer}
        config = spec.train_config(params, spec.data, "cpu", 1)
        assert shown[n_layer] == weights(config)


def test_a_trial_is_measured_by_its_steps_and_evaluations():
    config = TrainConfig(
        n_layer=1, n_head=1, n_embd=8, block_size=8, batch_size=2, vocab_size=300, max_steps=20
    )
    cost = measure(config)
    longer = config.model_copy(update={"max_steps": 20_000, "eval_interval": 10_000})
    assert measure(longer).seconds > 20 * cost.seconds  # a thousand times as many steps
    assert cost.peak_memory_bytes > 10**7


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["planned.toml", "--trials", "0"], "--trials"),
        (["planned.toml", "--workers", "many"], "--workers"),
        (["nowhere.toml"], "nowhere.toml"),
        (["stories.txt"], "stories.txt"),
    ],
)
def test_check_refuses_in_one_line(squen: Commands, words: list[str], named: str):
    done = squen("check", *words)
    assert (done.code, done.out) == (2, "")
    assert done.is_right
    assert named in done.err


def test_check_names_the_key_that_is_wrong_and_a_text_that_is_not_there(squen: Commands):
    file = squen.folder / "planned.toml"
    file.write_text(STUDY.replace("max_steps", "max_stepz"))
    assert "max_stepz" in squen("check", "planned.toml").err
    file.write_text(STUDY.replace("stories.txt", "gone.txt"))
    done = squen("check", "planned.toml", "--device", "cpu")
    assert (done.code, done.out) == (2, "")
    assert "gone.txt" in done.err


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_init_writes_a_study_that_can_run_on_every_device(squen: Commands, device: str):
    done = squen("init", "first")
    assert (done.code, done.err) == (0, "")
    file = squen.folder / "first.toml"
    spec = read_study_file(str(file), device)
    assert spec.name == "first"
    assert spec.arms == ["cross_entropy", "squentropy"]
    assert "squen-sweep run --study first.toml" in file.read_text()


def test_init_takes_a_text_as_run_does(squen: Commands):
    assert squen("init", "own", "--data", "my stories.txt").code == 0
    spec = read_study_file(str(squen.folder / "own.toml"), "cpu")
    assert spec.data.source == "my stories.txt"


def test_init_for_a_program_writes_a_stand_in_beside_the_study(squen: Commands):
    done = squen("init", "own", "--program")
    assert (done.code, done.err) == (0, "")
    spec = read_study_file(str(squen.folder / "own.toml"), "cpu")
    assert spec.trainer is not None
    assert "own.py" in spec.trainer.command
    assert {"seed", "learning_rate", "optimizer"} <= spec.trainer.placeholders
    before = sorted(path.name for path in squen.folder.iterdir())
    plan = squen("check", "own.toml", "--device", "cpu")
    assert (plan.code, plan.err) == (0, "")
    assert "val_loss, to minimize" in plan.out
    assert sorted(path.name for path in squen.folder.iterdir()) == before
    (squen.folder / "own.py").unlink()
    gone = squen("check", "own.toml", "--device", "cpu")
    assert (gone.code, gone.out) == (2, "")
    assert "own.py" in gone.err


def test_init_replaces_no_program_and_takes_no_text_for_one(squen: Commands):
    (squen.folder / "mine.py").write_text("mine")
    for words in (["mine", "--program"], ["other", "--program", "--data", "stories.txt"]):
        done = squen("init", *words)
        assert (done.code, done.out) == (2, "")
        assert done.is_right
    assert (squen.folder / "mine.py").read_text() == "mine"
    assert not (squen.folder / "mine.toml").exists()


def test_init_replaces_no_file_and_makes_no_study_that_cannot_be(squen: Commands):
    for name in ("planned", "planned.toml", "final", "a b", "no/folder"):
        done = squen("init", name)
        assert (done.code, done.out) == (2, "")
        assert done.is_right
    assert (squen.folder / "planned.toml").read_text() == STUDY
    assert sorted(path.name for path in squen.folder.iterdir()) == ["planned.toml", "stories.txt"]
