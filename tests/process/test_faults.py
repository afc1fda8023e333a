"""Faults that are really injected: each fires, costs no trial, and leaves the study sound."""

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from faults import inject, slow_down
from injector import Fault, parse
from invariants import (
    assert_sound,
    assert_undisturbed,
    evaluated,
    events_of,
    start_command,
    stored_trials,
    trial_processes,
    wait_until,
)
from optuna.trial import TrialState
from tiny_runs import tiny_config, write_run, write_stories
from tiny_studies import run_tiny, tiny_study

from gpt import checkpoint
from gpt.config import read_config
from gpt.errors import BusyError, StorageError
from gpt.events import read_events
from gpt.train import train_directory
from sweep.backends.base import Job, Slot
from sweep.backends.local import LocalProcess
from sweep.callbacks.plain import QuietProgress
from sweep.tuner.callback import Evaluated, SweepEvent
from sweep.tuner.limits import Limits, SuspendAwareClock


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


def fired(folder: Path) -> list[tuple[str, str, int]]:
    return [(e["action"], e["at"], e["step"]) for e in events_of(folder, "fault")]


def attempts_of(folder: Path, number: int) -> list[int]:
    events, _ = read_events(folder / "runs" / "tiny" / str(number))
    return [event["attempt"] for event in events if event["event"] == "start"]


# --- how faults are written ------------------------------------------------------------------


def test_faults_are_parsed_with_their_defaults():
    assert parse("kill@trial=2,step=7; hang; slow@at=start,ms=5") == [
        Fault(action="kill", trial="2", step=7),
        Fault(action="hang"),
        Fault(action="slow", at="start", ms=5),
    ]
    assert parse("") == []


@pytest.mark.parametrize(
    "text", ["explode", "kill@step", "kill@step=x", "kill@at=home", "kill@when=7", "kill@step=7,"]
)
def test_a_fault_that_is_not_known_is_refused(text: str):
    with pytest.raises(ValueError, match="SQUEN_FAULT must be like kill@trial=2"):
        parse(text)


# --- trials that die -------------------------------------------------------------------------


def test_a_trial_that_is_killed_in_any_phase_resumes_under_its_number(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inject(
        monkeypatch,
        "kill@trial=0,at=start; kill@trial=1,step=7; kill@trial=2,at=evaluation,step=8; "
        "kill@trial=3,at=checkpoint,step=8",
    )
    summary = run_tiny(tiny_study(tmp_path, text), tmp_path, trials=4)
    assert fired(tmp_path) == [
        ("kill", "start", 0),
        ("kill", "step", 7),
        ("kill", "evaluation", 8),
        ("kill", "checkpoint", 8),
    ]
    assert summary.outcomes == {"complete": 4}
    assert [attempts_of(tmp_path, number) for number in range(4)] == [[1, 2]] * 4
    assert_sound(tmp_path, trials=4)
    assert_undisturbed(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "step"), [("start", 0), ("step", 7), ("evaluation", 8), ("checkpoint", 8)]
)
def test_a_trial_that_dies_twice_in_a_phase_fails_and_the_sweep_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, step: int
):
    inject(monkeypatch, f"kill@trial=0,at={phase},step={step},times=2")
    summary = run_tiny(tiny_study(tmp_path, text), tmp_path, trials=2)
    assert fired(tmp_path) == [("kill", phase, step)] * 2
    assert summary.outcomes == {"complete": 1, "failed": 1}
    assert stored_trials(tmp_path)[0].user_attrs["reason"] == "was killed by signal 9"
    assert attempts_of(tmp_path, 0) == [1, 2]
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)


@pytest.mark.parametrize(("times", "outcome"), [(4, "complete"), (5, "failed")])
def test_a_trial_that_is_ended_five_times_before_its_first_step_fails_and_says_so(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, outcome: str
):
    inject(monkeypatch, f"term@trial=0,at=start,times={times}")
    summary = run_tiny(tiny_study(tmp_path, text), tmp_path, trials=1)
    assert fired(tmp_path) == [("term", "start", 0)] * times
    assert summary.outcomes == {outcome: 1}
    reason = stored_trials(tmp_path)[0].user_attrs.get("reason", "")
    assert reason.startswith("was ended 5 times in a row at step 0") == (outcome == "failed")
    assert_sound(tmp_path, trials=1)
    assert_undisturbed(tmp_path)


def test_a_trial_that_is_asked_to_end_before_it_listens_did_not_crash(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "sweep.backends.fork_client.SUPPORTED", False
    )  # imports torch first, deaf till then
    spec = tiny_study(tmp_path, text)
    begun: list[int] = []  # "start" events after each of the two

    def terminate_twice() -> None:
        for _ in range(2):
            wait_until(lambda: trial_processes(tmp_path))
            (process,) = trial_processes(tmp_path)
            process.terminate()
            wait_until(lambda process=process: not process.is_running())
            begun.append(len(events_of(tmp_path, "start")))

    thread = threading.Thread(target=terminate_twice)
    thread.start()
    summary = run_tiny(spec, tmp_path, trials=1, workers=1)
    thread.join()
    assert begun == [0, 0]
    assert summary.outcomes == {"complete": 1}
    assert_sound(tmp_path, trials=1)
    assert_undisturbed(tmp_path)


def test_when_everything_is_killed_while_checkpoints_are_written_the_last_whole_ones_serve(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inject(monkeypatch, "stop@at=checkpoint,step=8")
    tiny_study(tmp_path, text)
    tuner = start_command(tmp_path, 2)
    wait_until(lambda: len(fired(tmp_path)) == 2)
    for process in (psutil.Process(tuner.pid), *trial_processes(tmp_path)):
        process.kill()
    tuner.communicate()
    wait_until(lambda: not trial_processes(tmp_path))
    runs = [tmp_path / "runs" / "tiny" / str(number) for number in (0, 1)]
    for run_dir in runs:
        assert len(list(run_dir.glob("checkpoints/.step-000008.*/state.json"))) == 1
        saved = checkpoint.load(run_dir)
        assert saved is not None
        assert (saved.step, saved.skipped) == (4, ())
    output, _ = start_command(tmp_path, 2).communicate()
    assert {t.user_attrs["outcome"] for t in stored_trials(tmp_path)} == {"complete"}, output
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)


def test_a_loss_that_is_not_finite_is_found_at_its_step_and_never_tried_again(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inject(monkeypatch, "nan@trial=0,step=5; inf@trial=1,step=6; -inf@trial=2,step=7")
    summary = run_tiny(tiny_study(tmp_path, text), tmp_path, trials=3)
    assert len(fired(tmp_path)) == 3
    assert summary.outcomes == {"diverged": 3}
    assert summary.best == {}
    expected = [(5, "nan"), (6, "inf"), (7, "-inf")]
    for trial, (step, loss) in zip(stored_trials(tmp_path), expected, strict=True):
        reason = trial.user_attrs["reason"]
        assert f"training loss {loss}, gradient norm" in reason
        assert f"after step {step} at learning rate" in reason
        assert (trial.state, trial.value) == (TrialState.PRUNED, 280)
        assert attempts_of(tmp_path, trial.number) == [1]
    assert_sound(tmp_path, trials=3)


def test_out_of_memory_goes_on_with_half_the_micro_batch_then_is_told_to_the_sampler(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")  # larger blocks are not kept in reserve
    inject(monkeypatch, "memory@trial=0,bytes=100000; memory@trial=1,bytes=100000,times=2")
    spec = tiny_study(tmp_path, text, max_steps=3, eval_interval=3, batch_size=1024)
    summary = run_tiny(spec, tmp_path, trials=3)  # a slot goes on with the third
    assert [action for action, _, _ in fired(tmp_path)] == ["memory"] * 3
    assert summary.outcomes == {"complete": 2, "oom": 1}
    runs = [
        read_config(tmp_path / "runs" / "tiny" / str(number) / "config.json") for number in "01"
    ]
    assert [(c.batch_size, c.gradient_accumulation_steps) for c in runs] == [(512, 2)] * 2
    trials = stored_trials(tmp_path)
    assert [attempts_of(tmp_path, number) for number in (0, 1)] == [[1, 2], [1, 2]]
    assert trials[0].user_attrs["micro_batch"] == 512
    assert (trials[1].value, trials[1].state) == (280, TrialState.PRUNED)
    assert "allocate" in trials[1].user_attrs["reason"]
    assert_sound(tmp_path, trials=3)
    assert_undisturbed(tmp_path)


# --- a disk that is full ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "torn"),  # bytes of a file; whether a line of events.jsonl is
    [(0, False), (1_000, True), (20_000, False)],  # no event, half an event, but no weights
)
def test_a_full_disk_stops_the_sweep_and_after_space_is_made_it_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, torn: bool
):
    inject(monkeypatch, f"full@trial=0,step=6,bytes={room}")
    spec = tiny_study(tmp_path, text)
    with pytest.raises(StorageError, match=r"tiny/0 .*writable.* free there.*make space"):
        run_tiny(spec, tmp_path, trials=2, workers=1)
    assert StorageError.exit_code == 74
    assert fired(tmp_path) == [("full", "step", 6)]
    assert not trial_processes(tmp_path)
    assert [t.state for t in stored_trials(tmp_path)] == [TrialState.WAITING]  # no other was begun
    run_dir = tmp_path / "runs" / "tiny" / "0"
    assert (not (run_dir / "events.jsonl").read_bytes().endswith(b"\n")) == torn
    saved = checkpoint.load(run_dir)
    assert saved is not None
    assert (saved.step, saved.skipped) == (4, ())
    monkeypatch.delenv("SQUEN_FAULT")
    assert run_tiny(spec, tmp_path, trials=2, workers=1).outcomes == {"complete": 2}
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)


def test_a_database_on_a_full_disk_ends_the_sweep_with_74_and_loses_nothing(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=80, eval_interval=8)
    process = start_command(tmp_path, 2)
    wait_until(lambda: evaluated(tmp_path) >= 1)
    # Of the tuner alone: less than a page of the database, more than it prints.
    psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    output, _ = process.communicate()
    assert process.returncode == 74, output
    last = output.splitlines()[-1]
    assert last.startswith(f"error: storage {tmp_path / 'sweep.db'} must be writable, but: ")
    assert " free in " in last
    assert not trial_processes(tmp_path)
    output, _ = start_command(tmp_path, 2).communicate()
    assert {t.user_attrs["outcome"] for t in stored_trials(tmp_path)} == {"complete"}, output
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)


# --- what takes too long ---------------------------------------------------------------------


def test_trials_that_hang_or_stand_still_are_started_again_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inject(
        monkeypatch,
        "hang@trial=0,step=6; stop@trial=1,step=6; hang@trial=2,step=6,times=2",
    )

    moved: dict[float, int] = {}  # how often, by the time of the fault

    def clock() -> float:
        """Move on by two minutes shortly after each fault, when the tuner has read of it.

        And again half a minute later, if the tuner stood still till then.
        """
        for run_dir in (tmp_path / "runs" / "tiny").glob("[0-9]*"):
            last = (read_events(run_dir)[0] or [{"event": "none"}])[-1]
            if last["event"] == "fault" and (age := time.time() - last["time"]) > 0.5:
                moved[last["time"]] = 1 + int(age // 30)
        return time.monotonic() + 120 * sum(moved.values())

    spec, limits = tiny_study(tmp_path, text), Limits(silence=100)
    summary = run_tiny(spec, tmp_path, trials=3, workers=1, limits=limits, clock=clock)
    assert sorted(fired(tmp_path)) == [("hang", "step", 6)] * 3 + [("stop", "step", 6)]
    assert summary.outcomes == {"complete": 2, "timeout": 1}
    hung = stored_trials(tmp_path)[2]
    assert hung.user_attrs["reason"] == "said nothing for 1:40, 2 times"
    assert (hung.state, hung.value) == (TrialState.PRUNED, 280)
    assert_sound(tmp_path, trials=3)
    assert_undisturbed(tmp_path)


class SuspendedOnce(QuietProgress):
    """The job stands still for an hour while its tuner reads the first evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suspended = 0.0  # seconds

    def on(self, event: SweepEvent) -> None:
        if isinstance(event, Evaluated) and not self.suspended:
            trainers = trial_processes(self.folder)
            for process in trainers:
                process.suspend()
            self.suspended = 3600.0 * bool(trainers)
            for process in trainers:
                process.resume()


def test_a_job_that_is_suspended_for_longer_than_any_limit_goes_on_when_it_is_resumed(
    text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text, max_steps=100, eval_interval=10)
    callback = SuspendedOnce(tmp_path)
    clock = SuspendAwareClock(lambda: time.monotonic() + callback.suspended)
    limits = Limits(trial=300, silence=300)
    summary = run_tiny(spec, tmp_path, trials=1, limits=limits, callback=callback, clock=clock)
    assert callback.suspended
    assert summary.outcomes == {"complete": 1}
    assert attempts_of(tmp_path, 0) == [1]
    assert_sound(tmp_path, trials=1)
    assert_undisturbed(tmp_path)


def test_a_trial_over_its_time_is_told_as_timeout_and_its_checkpoint_stays(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    spec = tiny_study(tmp_path, text, max_steps=1_000_000, eval_interval=10)
    run_dir = tmp_path / "runs" / "tiny" / "0"

    def clock() -> float:
        """Move on by an hour when there is a checkpoint."""
        return time.monotonic() + 3600 * any(run_dir.glob("checkpoints/step-*"))

    limits = Limits(trial=1200)
    summary = run_tiny(spec, tmp_path, trials=1, workers=1, limits=limits, clock=clock)
    assert summary.outcomes == {"timeout": 1}
    (trial,) = stored_trials(tmp_path)
    assert trial.user_attrs["reason"] == "took longer than 20:00"
    assert checkpoint.load(run_dir) is not None
    assert_sound(tmp_path, trials=1)


def test_the_time_of_a_sweep_ends_it_at_checkpoints_with_75_and_it_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=240, eval_interval=40)
    process = start_command(tmp_path, 2, "--timeout", "3s")
    output, _ = process.communicate()
    assert process.returncode == 75, output
    assert "run the same command again to continue" in output
    states = {t.state for t in stored_trials(tmp_path)}
    assert TrialState.WAITING in states
    assert states <= {TrialState.WAITING, TrialState.COMPLETE}  # one may have been fast enough
    start_command(tmp_path, 2).communicate()
    assert_sound(tmp_path, trials=2)


def test_a_stopped_trainer_keeps_others_out_of_its_directory_and_reports_once(
    text: Path, tmp_path: Path
):
    run_dir = write_run(tmp_path / "run", tiny_config(text, max_steps=600, eval_interval=20))
    command = (sys.executable, "-P", "-m", "gpt.train", str(run_dir))
    job = Job(run_dir, command, Slot(0, "cpu", 1), "gpt.train")
    process = LocalProcess.start(job)
    wait_until(lambda: any(e["event"] == "evaluation" for e in read_events(run_dir)[0]))
    (trainer,) = trial_processes(run_dir)
    os.kill(trainer.pid, signal.SIGSTOP)
    with pytest.raises(BusyError, match="must have one trainer"):
        next(train_directory(run_dir))
    second = LocalProcess.start(job)
    wait_until(lambda: not second.alive)
    assert second.exit_code == 75
    os.kill(trainer.pid, signal.SIGCONT)
    wait_until(lambda: not process.alive)
    events, _ = read_events(run_dir)
    assert [e["attempt"] for e in events if e["event"] == "start"] == [1]
    steps = [e["step"] for e in events if e["event"] == "evaluation"]
    assert steps == list(range(20, 601, 20))
