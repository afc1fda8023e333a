"""`train --steps` beyond the steps of a run: exact with wsd and constant, said where it is not."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_stories

from gpt import checkpoint
from gpt.config import TrainConfig, read_config
from gpt.errors import BusyError, InputError
from gpt.events import read_events
from gpt.train import only_trainer
from gpt.trainer import branch_step
from sweep.trainers.final_training import claim, continue_run, is_done, prepare_run
from sweep.trainers.long_run.longer import steps_in_common

STEPS, LONGER = 20, 40


@pytest.fixture
def stories(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


def trained(config: TrainConfig, run_dir: Path, steps: int, said: list[str] | None = None) -> Path:
    """The run of a configuration, by the way that `train --steps` goes."""
    path = run_dir.parent / f"{run_dir.name}.json"
    path.write_text(config.model_dump_json())
    show = (lambda line: None) if said is None else said.append
    found = prepare_run(path, run_dir, steps=steps, show=show)
    assert continue_run(run_dir, found.max_steps) is None
    return run_dir


def evaluations(run_dir: Path) -> list[tuple[int, float, float]]:
    events = [event for event in read_events(run_dir)[0] if event["event"] == "evaluation"]
    return [(event["step"], event["train_loss"], event["perplexity"]) for event in events]


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_a_run_that_held_its_peak_is_extended_bit_for_bit(stories, tmp_path, schedule):
    config = tiny_config(stories, schedule=schedule, max_steps=STEPS)
    said: list[str] = []
    longer = trained(config, tmp_path / "longer", STEPS)
    assert is_done(longer)
    trained(config, longer, LONGER, said)
    at_once = trained(config, tmp_path / "at_once", LONGER)
    assert evaluations(longer) == evaluations(at_once)
    ends = [checkpoint.load(run_dir) for run_dir in (longer, at_once)]
    assert all(end is not None and end.step == LONGER for end in ends)
    for name, weights in ends[0].model.items():
        assert torch.equal(weights, ends[1].model[name]), name
    assert any("goes on from step 16, the same as a run of 40 steps" in line for line in said)


def test_a_cosine_goes_on_from_its_last_step_and_says_that_it_is_another_run(stories, tmp_path):
    config = tiny_config(stories, max_steps=STEPS)
    said: list[str] = []
    run_dir = trained(config, tmp_path / "run", STEPS)
    first = evaluations(run_dir)
    trained(config, run_dir, LONGER, said)
    assert evaluations(run_dir)[: len(first)] == first
    assert evaluations(run_dir)[-1][0] == LONGER
    (line,) = [line for line in said if "extended" in line]
    assert "goes on from step 20" in line
    assert "no run of 40 steps" in line


def test_a_finished_cosine_run_keeps_its_last_checkpoint_alone(stories, tmp_path):
    run_dir = trained(tiny_config(stories, max_steps=STEPS), tmp_path / "run", STEPS)
    kept = set(checkpoint.steps_of(run_dir))
    best = min(evaluations(run_dir), key=lambda evaluation: evaluation[2])[0]
    assert kept == {STEPS, best}


def test_a_killed_extension_is_made_again(stories, tmp_path):
    config = tiny_config(stories, schedule="wsd", max_steps=STEPS)
    run_dir = trained(config, tmp_path / "run", STEPS)
    pinned = read_config(run_dir / "config.json")
    before = (run_dir / "config.json").read_text()
    claim(run_dir, pinned.model_copy(update={"max_steps": LONGER}))
    (run_dir / "config.json").write_text(before)  # as if it was killed before its last step
    assert evaluations(trained(config, run_dir, LONGER))[-1][0] == LONGER


def test_steps_below_those_that_are_made_are_refused_in_a_line(stories, tmp_path):
    config = tiny_config(stories, max_steps=STEPS)
    run_dir = trained(config, tmp_path / "run", STEPS)
    with pytest.raises(InputError, match=r"at least the 20 that .*run has made, but got 8"):
        trained(config, run_dir, 8)
    assert is_done(run_dir)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_a_run_that_patience_ended_is_not_extended(stories, tmp_path, schedule):
    changes = {"schedule": schedule, "learning_rate": 0.3, "patience": 1, "eval_interval": 4}
    config = tiny_config(stories, max_steps=200, warmup_steps=2, **changes)
    run_dir = trained(config, tmp_path / "run", 200)
    assert evaluations(run_dir)[-1][0] < 100
    kept = [(run_dir / name).read_bytes() for name in ("config.json", "events.jsonl")]
    with pytest.raises(InputError, match=r"at most 200, since patience ended .*/run at step \d+"):
        trained(config, run_dir, 400)
    assert [(run_dir / name).read_bytes() for name in ("config.json", "events.jsonl")] == kept


def test_a_run_whose_patience_lasted_is_extended(stories, tmp_path):
    config = tiny_config(stories, max_steps=STEPS, patience=5)
    run_dir = trained(config, tmp_path / "run", STEPS)
    assert evaluations(trained(config, run_dir, LONGER))[-1][0] == LONGER


def test_a_run_that_trains_elsewhere_is_not_extended(stories, tmp_path):
    config = tiny_config(stories, schedule="wsd", max_steps=STEPS)
    run_dir = trained(config, tmp_path / "run", STEPS)
    longer = read_config(run_dir / "config.json").model_copy(update={"max_steps": LONGER})
    with only_trainer(run_dir), pytest.raises(BusyError):
        claim(run_dir, longer)
    assert json.loads((run_dir / "config.json").read_text())["max_steps"] == STEPS


def test_a_run_of_another_learning_rate_is_not_an_extension(stories, tmp_path):
    config = tiny_config(stories, max_steps=STEPS)
    run_dir = trained(config, tmp_path / "run", STEPS)
    with pytest.raises(InputError, match=r"learning_rate is 0\.01 there"):
        trained(config.model_copy(update={"learning_rate": 0.02}), run_dir, LONGER)


@pytest.mark.parametrize(
    ("changes", "branch", "common"),
    [
        ({"schedule": "wsd"}, 16, 17),  # the last 3.6 of 18 steps after the warm-up fall
        ({"schedule": "wsd", "schedule_options": {"decay_ratio": 0.5}}, 12, 12),
        ({"schedule": "constant"}, 16, 20),
        ({"schedule": "cosine"}, None, 3),  # the warm-up, and the first step after it
        ({"schedule": "wsd", "loss": "squentropy", "loss_schedule": "linear"}, None, 1),
    ],
)
def test_the_branch_is_the_last_evaluation_before_the_end_matters(stories, changes, branch, common):
    config = tiny_config(stories, max_steps=STEPS, **changes)
    assert branch_step(config) == branch
    longer = config.model_copy(update={"max_steps": LONGER})
    assert steps_in_common(config, longer) == common
