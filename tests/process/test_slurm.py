"""Sweeps on a SLURM cluster: the same figures, found again, preempted, out of time, cut off."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import Clock
from commands import Commands
from faults import inject, slow_down
from filelock import FileLock
from invariants import ROOT, curve, start_command, stored_trials, wait_until
from optuna.trial import TrialState
from slurm import Cluster
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import BusyError, StorageError, TrialsFailedError
from gpt.events import Event, append_event, read_events
from sweep.backends.base import Job, Slot
from sweep.backends.slurm import SlurmBackend, job_name
from sweep.tuner import callback as events
from sweep.tuner.callback import Callback

LONG = 240  # steps of a trial in which something happens, 20 ms each
ON_SLURM = ("--backend", "slurm", "--hang-timeout", "off")


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


@pytest.fixture(autouse=True)
def soon(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this test ask the cluster, more often than a real one should be asked."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.file))
    monkeypatch.setattr("sweep.backends.slurm.QUEUE_SECONDS", 0.2)
    slow_down(monkeypatch)


class At(Callback):
    """Does something at some evaluations of a sweep, the first of which is number 1."""

    def __init__(self, does: dict[int, Callable[[], object]]) -> None:
        self._seen, self._does = 0, does

    def on(self, event: events.SweepEvent) -> None:
        if isinstance(event, events.Evaluated):
            self._seen += 1
            self._does.get(self._seen, bool)()


class InEachProcess(Callback):
    """Does one thing after the other, each in the next process of trial 0 once it has evaluated."""

    def __init__(self, folder: Path, does: list[Callable[[], object]]) -> None:
        self._folder, self._does, self._done = folder, does, 0

    def on(self, event: events.SweepEvent) -> None:
        evaluated = isinstance(event, events.Evaluated) and self._done < len(self._does)
        if evaluated and starts(self._folder, 0) == self._done + 1:
            self._done += 1
            self._does[self._done - 1]()


class ResumedOnce(Callback):
    """Interrupts the sweep when a process of trial 0 goes on where another has evaluated."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.interrupted = folder, False

    def on(self, event: events.SweepEvent) -> None:
        if isinstance(event, events.Evaluated) and not self.interrupted:
            kinds = [e["event"] for e in read_events(self._folder / "runs" / "tiny" / "0")[0]]
            first = kinds.index("evaluation")
            if "start" in kinds[first:] and kinds[-1] == "evaluation":
                self.interrupted = True
                interrupt()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def ids_of(cluster: Cluster, folder: Path, number: int) -> list[str]:
    """Of all jobs that a run has had."""
    name = job_name(folder / "runs" / "tiny" / str(number))
    return cluster("squeue", "--noheader", "--states=all", "--format=%i", f"--name={name}").split()


def log_of(folder: Path, number: int) -> str:
    return (folder / "runs" / "tiny" / str(number) / "log.txt").read_text()


def id_of(cluster: Cluster, folder: Path, number: int) -> str:
    name = job_name(folder / "runs" / "tiny" / str(number))
    return cluster("squeue", "--noheader", "--format=%i", f"--name={name}").strip()


def happened(folder: Path, number: int, kind: str) -> list[Event]:
    """Events of a kind in the log of a trial, of all its processes."""
    logged, _ = read_events(folder / "runs" / "tiny" / str(number))
    return [event for event in logged if event["event"] == kind]


def starts(folder: Path, number: int) -> int:
    return len(happened(folder, number, "start"))


def steps(folder: Path, number: int) -> list[int]:
    return [event["step"] for event in happened(folder, number, "evaluation")]


def assert_complete(folder: Path, trials: int) -> None:
    """So many trials, each complete, no step evaluated twice."""
    stored = stored_trials(folder)
    assert [trial.number for trial in stored] == list(range(trials))
    assert {trial.state for trial in stored} == {TrialState.COMPLETE}
    for number in range(trials):
        assert len(set(steps(folder, number))) == len(steps(folder, number))


def test_a_sweep_on_slurm_has_the_figures_of_one_on_this_machine_whatever_its_clocks(
    monkeypatch, text: Path, tmp_path: Path
):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    run_tiny(tiny_study(here, text), here, 2)
    an_hour_off = Clock(tmp_path / "clock")
    an_hour_off.prepare(monkeypatch)
    an_hour_off.set(1)
    run_tiny(tiny_study(there, text), there, 2, backend="slurm")
    assert happened(there, 0, "start")[0]["time"] > time.time() + 3000
    for number in range(2):
        assert curve(here, number) == curve(there, number)


def test_jobs_outlive_a_killed_tuner_and_the_next_one_finds_them(
    cluster: Cluster, text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=8)
    with start_command(tmp_path, 2, *ON_SLURM) as tuner:
        wait_until(lambda: all(steps(tmp_path, number) for number in (0, 1)))
        tuner.kill()
    ids = [id_of(cluster, tmp_path, number) for number in (0, 1)]
    assert all(ids)
    run_tiny(spec, tmp_path, 2, backend="slurm")
    assert [starts(tmp_path, number) for number in (0, 1)] == [1, 1]
    assert_complete(tmp_path, 2)


def test_a_signal_stops_jobs_at_checkpoints_and_the_same_command_goes_on(
    text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=8)
    stop = At({3: interrupt})
    assert run_tiny(spec, tmp_path, 2, backend="slurm", callback=stop).interrupted
    states = {trial.state for trial in stored_trials(tmp_path)}
    assert states <= {TrialState.WAITING, TrialState.COMPLETE}
    run_tiny(spec, tmp_path, 2, backend="slurm")
    assert_complete(tmp_path, 2)


def test_the_command_may_be_a_job_itself_and_the_same_job_again_goes_on(
    cluster: Cluster, text: Path, tmp_path: Path
):
    tiny_study(tmp_path, text)
    run = (sys.executable, "-m", "sweep", "run", "--study", str(tmp_path / "tiny.toml"))
    places = ("--storage", str(tmp_path / "sweep.db"), "--runs", str(tmp_path / "runs"))
    command = (*run, *places, *ON_SLURM, "--trials", "2", "--workers", "1", "--device", "cpu")
    log = tmp_path / "tuner.txt"

    def submit(timeout: str) -> int:
        words = shlex.join([*command, "--timeout", timeout])
        job = ("sbatch", "--wait", "--time=10", f"--output={log}", "--open-mode=append")
        return subprocess.run([*job, f"--wrap={words}"], cwd=ROOT, check=False).returncode

    assert submit("3s") == 75, log.read_text()  # two jobs, one after the other, take longer
    assert "time is up" in log.read_text()
    states = {trial.state for trial in stored_trials(tmp_path)}
    assert states <= {TrialState.WAITING, TrialState.COMPLETE}
    assert not id_of(cluster, tmp_path, 0)  # no job of a trial is left in the queue
    assert submit("1h") == 0, log.read_text()
    assert_complete(tmp_path, 2)


def test_a_job_that_slurm_ends_goes_on_without_a_repeated_step(
    cluster: Cluster, text: Path, tmp_path: Path
):
    def cancel() -> None:
        cluster("scancel", id_of(cluster, tmp_path, 0))

    def kill() -> None:
        cluster("scancel", "--signal=KILL", "--full", id_of(cluster, tmp_path, 0))

    def preempt() -> None:
        everything = ("--nodes=2", "--exclusive", "--partition=urgent")
        cluster("sbatch", *everything, "--wrap=sleep 2", "--output=/dev/null")

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=8)
    ends = InEachProcess(tmp_path, [cancel, kill, preempt])
    run_tiny(spec, tmp_path, 1, workers=1, backend="slurm", callback=ends)
    assert starts(tmp_path, 0) == 4
    assert_complete(tmp_path, 1)


def test_a_job_with_less_time_than_its_trial_goes_on_in_the_next_one(text: Path, tmp_path: Path):
    limit = ("--time=2", "--signal=B:TERM@112")  # about eight seconds of the two minutes
    spec = tiny_study(tmp_path, text, max_steps=100_000, eval_interval=20)
    resumed = ResumedOnce(tmp_path)
    run_tiny(spec, tmp_path, 1, workers=1, backend="slurm", sbatch=limit, callback=resumed)
    assert resumed.interrupted
    assert len(set(steps(tmp_path, 0))) == len(steps(tmp_path, 0))


def test_trials_train_on_while_the_scheduler_is_down(cluster: Cluster, text: Path, tmp_path: Path):
    down: list[float] = []

    def away() -> None:
        cluster.stop("slurmctld")
        down.append(time.monotonic())
        threading.Timer(3.0, cluster.start_controller).start()

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=8)
    run_tiny(spec, tmp_path, 2, workers=1, backend="slurm", callback=At({2: away}))
    assert down
    assert [starts(tmp_path, number) for number in (0, 1)] == [1, 1]
    assert_complete(tmp_path, 2)


def test_an_sbatch_whose_answer_is_lost_leads_to_one_job(
    monkeypatch, cluster: Cluster, text: Path, tmp_path: Path
):
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "sbatch"
    lost = "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1"
    once = f"if [ $1 = --parsable ] && mkdir {folder}/once 2>/dev/null; then {lost}; fi"
    real = f'said=$({shutil.which("sbatch")} "$@") || exit; {once}; echo "$said"'
    script.write_text(f"#!/bin/sh\n{real}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    run_tiny(tiny_study(tmp_path, text), tmp_path, 1, workers=1, backend="slurm")
    assert (folder / "once").exists()
    assert len(ids_of(cluster, tmp_path, 0)) == 1
    assert_complete(tmp_path, 1)


def test_a_trainer_on_a_node_that_was_lost_is_heard_to_its_end_and_no_step_is_doubled(
    cluster: Cluster, text: Path, tmp_path: Path
):
    lost: list[str] = []

    def lose() -> None:
        name = job_name(tmp_path / "runs" / "tiny" / "0")
        lost.append(cluster("squeue", "--noheader", "--format=%N", f"--name={name}").strip())
        cluster.lose_node(lost[0])

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=8)
    try:
        run_tiny(spec, tmp_path, 1, workers=1, backend="slurm", callback=At({2: lose}))
    finally:
        cluster.heal_node(lost[0])
    assert starts(tmp_path, 0) == 1
    assert_complete(tmp_path, 1)


class AnotherTrainer(Callback):
    """Holds the lock of each run that starts, until a job has found it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.met: list[int] = []

    def on(self, event: events.SweepEvent) -> None:
        if isinstance(event, events.TrialStarted):
            lock = FileLock(self._folder / "runs" / "tiny" / str(event.trial) / ".lock")
            lock.acquire()
            threading.Thread(target=self._release, args=(lock, event.trial)).start()

    def _release(self, lock: FileLock, trial: int) -> None:
        log = self._folder / "runs" / "tiny" / str(trial) / "log.txt"
        wait_until(lambda: log.exists() and "another process trains there" in log.read_text())
        lock.release()
        self.met.append(trial)


def test_a_job_that_finds_another_trainer_is_handed_in_again_after_a_while(
    monkeypatch, cluster: Cluster, text: Path, tmp_path: Path
):
    monkeypatch.setattr("sweep.backends.slurm.BUSY_SECONDS", 1)
    another = AnotherTrainer(tmp_path)
    run_tiny(tiny_study(tmp_path, text), tmp_path, 1, 1, backend="slurm", callback=another)
    assert another.met == [0]
    assert len(ids_of(cluster, tmp_path, 0)) < 6
    assert_complete(tmp_path, 1)


def test_a_folder_that_a_node_does_not_see_is_named(cluster: Cluster, text: Path, tmp_path: Path):
    hide = f'mount -t tmpfs none {tmp_path} && exec "$@"'
    cluster.lose_node("n2")
    cluster.heal_node("n2", "unshare", "-m", "sh", "-c", hide, "sh")
    try:
        with pytest.raises(TrialsFailedError, match=rf"found no {tmp_path}/runs/tiny/2 on .* n2"):
            run_tiny(
                tiny_study(tmp_path, text), tmp_path, 4, backend="slurm", sbatch=("--nodelist=n2",)
            )
    finally:
        cluster.lose_node("n2")
        cluster.heal_node("n2")


def test_a_full_disk_on_a_node_stops_the_sweep_and_the_same_command_goes_on(
    monkeypatch, text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text)
    with monkeypatch.context() as patch:
        inject(patch, "full@trial=1,step=6")
        with pytest.raises(StorageError, match="tiny/1"):
            run_tiny(spec, tmp_path, 2, backend="slurm")
    run_tiny(spec, tmp_path, 2, backend="slurm")
    assert_complete(tmp_path, 2)


def test_the_last_event_of_a_job_may_come_after_its_end(tmp_path: Path):
    backend, run_dir = SlurmBackend("cpu", 1), tmp_path / "0"
    run_dir.mkdir()
    backend.start(Job(run_dir, ("true",), Slot(0, "cpu", 1)))
    wait_until(lambda: not (backend.poll() and backend._jobs[run_dir].ending is None))
    assert backend.poll()[run_dir].alive
    append_event(run_dir, "done", step=12)
    wait_until(lambda: not backend.poll()[run_dir].alive)
    assert backend.poll()[run_dir].exit_code == 0


def test_a_job_that_sbatch_refuses_is_not_handed_in_by_the_next_look(tmp_path: Path):
    backend = SlurmBackend("cpu", 1, ["--nonsense"])
    with pytest.raises(BusyError, match="sbatch"):
        backend.start(Job(tmp_path, ("true",), Slot(0, "cpu", 1)))
    assert backend.poll() == {}


def test_a_job_that_is_given_up_while_slurm_is_away_is_not_handed_in_once_it_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    backend, job = SlurmBackend("cpu", 1), Job(tmp_path, ("true",), Slot(0, "cpu", 1))
    for name in ("sbatch", "squeue", "scancel"):
        (tmp_path / name).write_text("#!/bin/sh\necho Unable to contact SLURM >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    with monkeypatch.context() as away:
        away.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        backend.start(job)
        backend.stop(tmp_path)
    backend.poll()
    assert backend._jobs[tmp_path].id is None


def test_the_study_file_says_where_its_jobs_run_and_the_command_line_wins(
    monkeypatch, capsys, text: Path, tmp_path: Path
):
    tiny_study(tmp_path, text)
    file = tmp_path / "tiny.toml"
    file.write_text(file.read_text() + '[backend.slurm]\nsbatch = "--partition=nowhere"\n')
    command = Commands(monkeypatch, capsys, tmp_path)
    run = ("run", "--study", "tiny.toml", "--trials", "1", "--backend", "slurm")
    outcome = command(*run)
    assert (outcome.code, "--partition=nowhere" in outcome.err) == (2, True), outcome.err
    outcome = command(*run, "--sbatch=--partition=main")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("sbatch", "words", "code"),
    [
        ("--partition=nowhere", "partition", 2),
        ("--cpus-per-task=1000", "sbatch", 2),
        ("--gres=gpu:8", "sbatch", 2),
        ("--nonsense", "nonsense", 2),
    ],
)
def test_a_place_that_is_not_there_is_one_line_and_nothing_is_written(
    monkeypatch, capsys, text: Path, tmp_path: Path, sbatch: str, words: str, code: int
):
    tiny_study(tmp_path, text)
    command = Commands(monkeypatch, capsys, tmp_path)
    arguments = ("--trials", "1", "--backend", "slurm", f"--sbatch={sbatch}")
    outcome = command("run", "--study", "tiny.toml", *arguments)
    assert outcome.is_right
    assert (outcome.code, words in outcome.err) == (code, True), outcome.err
    assert not (tmp_path / "runs").exists()


def test_without_slurm_or_an_answer_there_is_one_line(
    monkeypatch, capsys, text: Path, tmp_path: Path
):
    tiny_study(tmp_path, text)
    command = Commands(monkeypatch, capsys, tmp_path)
    run = ("run", "--study", "tiny.toml", "--trials", "1", "--backend")
    for name, value, words in (
        ("SLURM_CONF", str(tmp_path / "no.conf"), "sbatch"),
        ("PATH", str(tmp_path), "sbatch in $PATH"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            outcome = command(*run, "slurm")
        assert (outcome.is_right, outcome.code, words in outcome.err) == (True, 2, True), outcome
    outcome = command(*run, "condor")
    assert (outcome.code, "local, slurm" in outcome.err) == (2, True)
    outcome = command(*run, "local", "--sbatch=--time=3")
    assert (outcome.code, "--backend slurm" in outcome.err) == (2, True)
    assert not (tmp_path / "runs").exists()
