"""Several processes train one model: the figures of one, resumed bit for bit; none hangs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Commands
from faults import inject
from groups import Group
from invariants import ROOT, trial_processes, wait_until
from tiny_runs import tiny_config, write_run, write_stories

from gpt import checkpoint
from gpt.errors import InputError
from gpt.events import Evaluation, evaluation_of, read_events
from gpt.system import distributed
from gpt.system.distributed import PeerError, share_of_batch
from gpt.train import train
from sweep.trainers import several_gpus

LONG = {"max_steps": 2000, "eval_interval": 4}  # stopped long before


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


def figures(run_dir: Path) -> dict[int, tuple[float, ...]]:
    return {e.step: _figures(e) for e in evaluations(run_dir)}


def _figures(e: Evaluation) -> tuple[float, ...]:
    return (e.train_loss, e.grad_norm, e.cross_entropy, e.story_perplexity, e.calibration_error)


def evaluations(run_dir: Path) -> list[Evaluation]:
    return [evaluation_of(e) for e in read_events(run_dir)[0] if e["event"] == "evaluation"]


def last_event(run_dir: Path) -> dict[str, Any]:
    events = read_events(run_dir)[0]
    return events[-1] if events else {"event": None}


def weights(run_dir: Path, step: int) -> bytes:
    folder = run_dir / "checkpoints" / f"step-{step:06d}"
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("processes", "changes"),
    [
        (2, {"batch_size": 4, "loss": "squentropy"}),  # the sequences are shared
        (2, {"batch_size": 2, "gradient_accumulation_steps": 4, "optimizer": "muon"}),
        (3, {"batch_size": 6, "eval_tokens": 1, "bias": True, "qk_norm": True}),
        (2, {"dtype": "float16", "loss": "squentropy"}),
    ],
)
def test_several_processes_train_to_the_figures_of_one(
    text: Path, tmp_path: Path, processes: int, changes: dict[str, Any]
):
    config = tiny_config(text, dropout=0.0, **changes)
    group = Group(write_run(tmp_path / "run", config), processes)
    alone = list(train(config))
    assert group.join() == [0] * processes, group.printed()
    tolerance = 2e-3 if config.dtype == "float16" else 1e-5
    together = evaluations(tmp_path / "run")
    assert [e.step for e in together] == [4, 8, 12]
    for ours, reference in zip(together, alone, strict=True):
        assert _figures(ours) == pytest.approx(_figures(reference), rel=tolerance)
        assert ours.tokens == reference.tokens
    assert together[-1].temperature_perplexity == pytest.approx(
        alone[-1].temperature_perplexity, rel=tolerance
    )
    assert last_event(tmp_path / "run")["event"] == "done"
    assert [line[:7] for line in group.printed()] == ["step 4:", "step 8:", "step 12"]  # once


def draw_in_steps() -> int:
    """Print what all processes of a group draw in steps 5 and 6, and in step 5 again."""
    with distributed.joined(str):
        draws = []
        for step in (5, 6, 5):
            distributed.seed_step(1337, step)
            draws.append(distributed.gathered(torch.rand(1).item()))
        if distributed.is_first():
            print(json.dumps(draws), flush=True)
    return 0


def test_each_process_draws_its_own_dropout_in_each_step_and_again_after_a_resume(tmp_path: Path):
    group = Group(tmp_path / "none", 2, program=draw_in_steps)
    assert group.join() == [0, 0]
    fifth, sixth, again = json.loads(group.printed()[0])
    assert len({*fifth, *sixth}) == 4
    assert again == fifth


@pytest.mark.parametrize("processes", [2, 3])
def test_a_stopped_group_continues_to_the_same_weights_bit_for_bit(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
):
    config = tiny_config(text, batch_size=6, eval_interval=5, max_steps=20)
    whole = Group(write_run(tmp_path / "whole", config), processes)
    assert whole.join() == [0] * processes
    inject(monkeypatch, "kill@step=13,times=1")  # the first process, which ends the others
    run_dir = write_run(tmp_path / "run", config)
    assert Group(run_dir, processes).join() == [-signal.SIGKILL] + [1] * (processes - 1)
    assert checkpoint.load(run_dir).step == 10  # type: ignore[union-attr]
    assert Group(run_dir, processes).join() == [0] * processes
    assert figures(run_dir) == figures(tmp_path / "whole")
    assert weights(run_dir, 20) == weights(tmp_path / "whole", 20)


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_stops_all_at_a_checkpoint(text: Path, tmp_path: Path, asked: int):
    run_dir = write_run(tmp_path / "run", tiny_config(text, **LONG))
    group = Group(run_dir, 2)
    group.wait_until(lambda: len(evaluations(run_dir)) > 0)
    os.kill(group.processes[asked].pid or 0, signal.SIGTERM)
    assert group.join() == [0, 0], group.printed()
    end = last_event(run_dir)
    assert end["event"] == "stopped"
    assert checkpoint.load(run_dir).step == end["step"] > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_others(text: Path, tmp_path: Path, killed: int):
    run_dir = write_run(tmp_path / "run", tiny_config(text, **LONG))
    group = Group(run_dir, 2)
    group.wait_until(lambda: len(evaluations(run_dir)) > 0)
    group.processes[killed].kill()
    codes = group.join()
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1
    if killed == 1:  # the first is there to say so
        (said,) = (line for line in group.printed() if "error" in line)
        assert said.startswith("error: all 2 processes must train, but one ended")
        assert last_event(run_dir)["event"] == "error"


def test_a_process_that_stands_still_ends_the_others_in_time(text: Path, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(text, **LONG))
    group = Group(run_dir, 2, timeout=10.0)  # a busy machine is not still
    group.wait_until(lambda: len(evaluations(run_dir)) > 0)
    os.kill(group.processes[1].pid or 0, signal.SIGSTOP)
    group.processes[0].join(120)
    assert group.processes[0].exitcode == 1
    group.processes[1].kill()
    assert "stood still for" in group.printed()[-1]


def test_a_failure_of_another_process_is_logged_with_its_reason(text: Path, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(text))
    nowhere = {"SQUEN_SWEEP_CACHE": "/proc/nowhere"}
    group = Group(run_dir, 2, of_last=nowhere)
    assert group.join() == [74, 74]
    end = last_event(run_dir)
    assert (end["event"], end["outcome"]) == ("error", "disk")
    assert "process 1 of 2: the folder for tokens, /proc/nowhere, must be" in end["message"]
    assert len(group.printed()) == 1


def test_a_loss_that_is_not_finite_ends_all_as_diverged(text: Path, tmp_path: Path):
    config = tiny_config(text, learning_rate=1e12, grad_clip=0.0, **LONG)
    group = Group(write_run(tmp_path / "run", config), 2)
    assert group.join() == [1, 1]
    assert last_event(tmp_path / "run")["outcome"] == "diverged"
    assert len([line for line in group.printed() if "diverged: " in line]) == 1


def test_a_directory_in_use_is_refused_once(text: Path, tmp_path: Path):
    from filelock import FileLock

    run_dir = write_run(tmp_path / "run", tiny_config(text))
    with FileLock(run_dir / ".lock"):
        group = Group(run_dir, 2)
        assert group.join() == [75, 75]
    (line,) = group.printed()
    assert line.startswith(f"error: {run_dir} must have one trainer")


def test_a_batch_that_does_not_divide_is_refused_once(text: Path, tmp_path: Path):
    group = Group(write_run(tmp_path / "run", tiny_config(text, batch_size=3)), 2)
    assert group.join() == [2, 2]
    (line,) = group.printed()
    assert line.startswith("error: batch_size or gradient_accumulation_steps must be a multiple of")


@pytest.mark.slow
def test_torchrun_passes_a_signal_on_and_the_run_continues(text: Path, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(text, **LONG))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "2", "-m", "gpt.train", str(run_dir)]
    with (tmp_path / "log.txt").open("wb") as log:
        launcher = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: len(evaluations(run_dir)) > 0, seconds=120)
        launcher.terminate()
        launcher.wait()
    finally:
        launcher.kill()
    end = last_event(run_dir)
    assert end["event"] == "stopped", (tmp_path / "log.txt").read_text()
    assert checkpoint.load(run_dir).step == end["step"]  # type: ignore[union-attr]


@pytest.mark.slow
def test_train_with_two_gpus_is_train_in_two_processes(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    squen = Commands(monkeypatch, capsys, tmp_path)
    config = tiny_config(text, dropout=0.0)
    (tmp_path / "best.json").write_text(config.model_dump_json())
    on_cpu = ("train", "best.json", "--out", "run", "--device", "cpu")
    done = squen(*on_cpu, "--gpus", "2")
    assert (done.code, done.err) == (0, "")
    assert "step 12/12: perplexity " in done.out
    assert "done: run" in done.out
    for ours, reference in zip(evaluations(tmp_path / "run"), train(config), strict=True):
        assert _figures(ours) == pytest.approx(_figures(reference), rel=1e-5)
    again = squen(*on_cpu, "--gpus", "2")
    assert again.out.startswith("run is complete: 12 steps.")


def test_a_process_that_is_killed_before_it_joins_ends_the_others(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    started: list[subprocess.Popen[bytes]] = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    def kill_the_second() -> bool:  # first called when both have just been started
        started[1].kill()
        return False

    monkeypatch.setattr("subprocess.Popen", Started)
    monkeypatch.setattr(several_gpus, "_GRACE_SECONDS", 0.2)
    run_dir = write_run(tmp_path / "run", tiny_config(text, **LONG))
    with pytest.raises(PeerError, match=r"process 1 of 2 must train .*, but ended with SIGKILL"):
        list(several_gpus.train_on_several(run_dir, 2, kill_the_second, print))
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


@pytest.mark.slow
def test_processes_whose_launcher_is_killed_end_at_a_checkpoint(text: Path, tmp_path: Path):
    (tmp_path / "long.json").write_text(tiny_config(text, **LONG).model_dump_json())
    run_dir = tmp_path / "run"
    words = ["train", "long.json", "--out", "run", "--device", "cpu", "--gpus", "2"]
    with (tmp_path / "printed.txt").open("wb") as printed:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "sweep", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=printed,
            stderr=printed,
        )
    try:
        wait_until(lambda: run_dir.is_dir() and len(evaluations(run_dir)) > 0, seconds=120)
        assert len(trial_processes(tmp_path)) == 2
    finally:
        launcher.kill()
        launcher.wait()
    wait_until(lambda: not trial_processes(tmp_path), seconds=120)
    end = last_event(run_dir)
    assert end["event"] == "stopped", (run_dir / "log.txt").read_text()
    assert checkpoint.load(run_dir).step == end["step"] > 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gpus 0", "--gpus must be at least 1, but got 0."),
        ("--gpus 2", "--gpus must be at most 0, the CUDA devices that torch sees, but got 2;"),
        ("--gpus 999 --device cpu", "with --device cpu, the cores here, but got 999."),
        ("--gpus 2 --device cuda:1", "device cuda:1 is not there"),
        ("--gpus 1 --device mps", "device mps must be an Apple GPU, but torch sees none"),
        ("--patience 0", "--patience must be at least 1, but got 0."),
        ("--sample-interval -1", "--sample-interval must be at least 1, but got -1."),
    ],
)
def test_train_refuses_what_cannot_work_in_one_line_and_writes_nothing(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    message: str,
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    squen = Commands(monkeypatch, capsys, tmp_path)
    (tmp_path / "best.json").write_text(tiny_config(text).model_dump_json())
    refused = squen("train", "best.json", "--out", "run", *options.split())
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert message in refused.err
    assert not (tmp_path / "run").exists()


def test_forward_passes_are_shared_before_their_sequences():
    assert share_of_batch(16, 4, 2) == (16, 2)
    assert share_of_batch(16, 3, 2) == (8, 3)
    assert share_of_batch(16, 3, 1) == (16, 3)
    with pytest.raises(InputError, match=r"multiple of the 3 processes .* got 16 and 4"):
        share_of_batch(16, 4, 3)
