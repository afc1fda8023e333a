import json
import os
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_runs import tiny_config, write_run, write_stories

from gpt.config import TrainConfig, read_config
from gpt.errors import InputError
from gpt.events import read_events
from gpt.train import train
from sweep.trainers.final_training import (
    check_claim,
    claim,
    continue_run,
    is_done,
    prepare_run,
    read_config_file,
    with_data,
    with_steps,
)


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> TrainConfig:
    return tiny_config(write_stories(tmp_path / "text"))


def evaluations(run_dir: Path) -> list[tuple[int, float, float]]:
    """Step, training loss and perplexity of every evaluation in the log."""
    events = [e for e in read_events(run_dir)[0] if e["event"] == "evaluation"]
    return [(e["step"], e["train_loss"], e["perplexity"]) for e in events]


def press_ctrl_c_after_an_evaluation(run_dir: Path) -> None:
    while not evaluations(run_dir):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def test_more_steps_keep_the_warm_up(config):
    longer = with_steps(config, 1000)
    assert (longer.max_steps, longer.warmup_steps) == (1000, config.warmup_steps)


def test_the_same_steps_are_the_same_run(config):
    assert with_steps(config, config.max_steps) == config


def test_fewer_steps_shrink_the_warm_up_in_proportion(config):
    config = config.model_copy(update={"max_steps": 600, "warmup_steps": 100})
    assert with_steps(config, 300).warmup_steps == 50
    assert with_steps(config, 1).warmup_steps == 0


def test_fewer_steps_leave_at_least_one_after_the_warm_up(config):
    config = config.model_copy(update={"max_steps": 10, "warmup_steps": 100})
    assert with_steps(config, 5).warmup_steps == 4


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_one_are_refused(config, steps):
    with pytest.raises(InputError, match=f"--steps must be at least 1, but got {steps}"):
        with_steps(config, steps)


def test_other_text_is_no_longer_pinned_to_the_old_one(config):
    pinned = config.data.model_copy(update={"fingerprint": "0123abcd"})
    config = config.model_copy(update={"data": pinned})
    changed = with_data(config, "built-in").data
    assert (changed.source, changed.fingerprint) == ("built-in", None)


def test_the_column_of_other_text_is_the_one_that_was_asked_for(config, tmp_path):
    own = config.model_copy(update={"data": config.data.model_copy(update={"column": "story"})})
    assert with_data(own, "more.csv", "body").data.column == "body"
    assert with_data(own, "more.txt").data.column is None  # the old text's says nothing of it
    path = tmp_path / "best.json"
    path.write_text(own.model_dump_json())
    with pytest.raises(InputError, match="--column must come with --data"):
        prepare_run(path, tmp_path / "run", column="body", show=print)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("best.yaml", "", "must be a .toml or .json configuration"),
        ("best.toml", "vocab_size = ", "must be TOML, but"),
        ("best.json", "{", "must be JSON, but"),
        ("best.json", "[]", "must hold a table of keys, but got list"),
        ("best.toml", "vocab_size = 280\nlayers = 3", "layers: is not a known key"),
        ("best.toml", 'vocab_size = "280"', "vocab_size: input should be a valid integer"),
    ],
)
def test_read_config_file_says_what_is_wrong_with_it(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        read_config_file(path)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_read_config_file_reads_over_a_byte_order_mark(config, tmp_path):
    path = tmp_path / "best.json"
    path.write_bytes(b"\xef\xbb\xbf" + config.model_dump_json().encode())
    assert read_config_file(path) == config


def test_a_run_that_never_ends_its_warm_up_is_refused(config, tmp_path):
    path = tmp_path / "best.json"
    path.write_text(json.dumps(config.model_dump(mode="json") | {"warmup_steps": 12}))
    with pytest.raises(InputError, match=r"best\.json: .* warmup_steps=12 and max_steps=12"):
        prepare_run(path, tmp_path / "run", show=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_read_config_file_says_that_there_is_none(tmp_path):
    with pytest.raises(InputError, match=r"best\.toml must be a configuration file"):
        read_config_file(tmp_path / "best.toml")


def test_claim_takes_a_new_directory_and_knows_it_again(config, tmp_path):
    run_dir = tmp_path / "deep" / "run"
    claim(run_dir, config)
    assert read_config(run_dir / "config.json") == config
    claim(run_dir, config)


def test_claim_refuses_the_directory_of_another_run_and_names_what_differs(config, tmp_path):
    claim(tmp_path / "run", config)
    other = config.model_copy(update={"n_layer": 2})
    with pytest.raises(InputError, match="n_layer is 1 there and 2 here; pass another --out"):
        claim(tmp_path / "run", other)
    assert read_config(tmp_path / "run" / "config.json") == config


def test_claim_refuses_a_directory_with_something_else_in_it(config, tmp_path):
    (tmp_path / "novel.txt").write_text("Once upon a time")
    for path in (tmp_path, tmp_path / "novel.txt"):
        with pytest.raises(InputError, match="holds something else"):
            check_claim(path)


def test_prepared_pins_the_run_to_the_text_that_it_found(config, tmp_path):
    path = tmp_path / "best.json"
    path.write_text(config.model_dump_json())
    run = prepare_run(path, tmp_path / "run", show=lambda line: None)
    assert run.data.fingerprint is not None
    assert read_config(tmp_path / "run" / "config.json") == run


def test_prepared_refuses_a_vocabulary_that_is_not_the_tokenizers(config, tmp_path):
    path = tmp_path / "best.json"
    path.write_text(json.dumps(config.model_dump(mode="json") | {"vocab_size": 300}))
    with pytest.raises(InputError, match=r"vocab_size must be 280, .* but got 300"):
        prepare_run(path, tmp_path / "run", show=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_final_training_is_the_same_run_as_a_trial(config, tmp_path, capsys):
    run_dir = write_run(tmp_path / "run", config)
    assert continue_run(run_dir, config.max_steps) is None
    assert is_done(run_dir)
    alone = [asdict(evaluation) for evaluation in train(config)]
    assert evaluations(run_dir) == [(e["step"], e["train_loss"], e["perplexity"]) for e in alone]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step 4/12: perplexity ")


def test_a_signal_stops_it_at_a_checkpoint_and_it_continues_to_the_same_losses(config, tmp_path):
    config = config.model_copy(update={"max_steps": 400, "eval_interval": 50})
    whole = write_run(tmp_path / "whole", config)
    assert continue_run(whole, config.max_steps) is None

    interrupted = write_run(tmp_path / "interrupted", config)
    threading.Thread(target=press_ctrl_c_after_an_evaluation, args=[interrupted]).start()
    assert continue_run(interrupted, config.max_steps) == signal.SIGINT
    assert not is_done(interrupted)
    assert continue_run(interrupted, config.max_steps) is None
    assert evaluations(interrupted) == evaluations(whole)
