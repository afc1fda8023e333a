"""Sweeps on a Ray cluster: the same figures, and what becomes of them whatever goes away."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import Commands
from faults import slow_down
from invariants import (
    curve,
    events_of,
    start_command,
    stored_trials,
    wait_until,
)
from optuna.trial import TrialState
from ray_cluster import HOURS, RayCluster, processes_below, stall
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt import checkpoint
from gpt.errors import StorageError
from gpt.events import Event, read_events
from sweep.storage.rdb import close_all
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from sweep.tuner import callback as events
from sweep.tuner.callback import Callback
from sweep.tuner.summary import Summary

LONG = 240  # steps of a trial in which something happens, 20 ms each
EVERY = 8  # steps between its evaluations


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come after each evaluation: trials are short."""
    monkeypatch.setattr("sweep.backends.ray.FETCH_SECONDS", 0.1)
    monkeypatch.setattr("sweep.backends.ray.FETCH_SHARE", 1.0)


@pytest.fixture
def run(ray_cluster: RayCluster) -> Callable[..., Summary]:
    for name in {"first", "second"} - set(ray_cluster.nodes):  # whatever an earlier test left
        ray_cluster.start_node(name, {})

    def run_on_ray(spec: StudySpec, folder: Path, trials: int, **options: object) -> Summary:
        address = ray_cluster.address
        return run_tiny(spec, folder, trials, backend="ray", ray_address=address, **options)

    return run_on_ray


class InEachAttempt(Callback):
    """Does one thing after the other, each in the next attempt at trial 0, once it has so many
    evaluations of which the checkpoint is here."""

    def __init__(
        self, folder: Path, does: list[Callable[[], object]], evaluations: int = 3
    ) -> None:
        self._folder, self._does, self._evaluations = folder, does, evaluations
        self.done = 0

    def on(self, event: events.SweepEvent) -> None:
        if not isinstance(event, events.Evaluated) or self.done == len(self._does):
            return
        started = len(happened(self._folder, 0, "start"))
        since = steps_of_attempt(self._folder, 0, started)
        saved = checkpoint.load(self._folder / "runs" / "tiny" / "0")
        if started == self.done + 1 and len(since) >= self._evaluations and saved:
            self.done += 1
            self._does[self.done - 1]()


def happened(folder: Path, number: int, kind: str) -> list[Event]:
    """Events of a kind in the log of a trial, of all its attempts."""
    logged, _ = read_events(folder / "runs" / "tiny" / str(number))
    return [event for event in logged if event["event"] == kind]


def steps_of_attempt(folder: Path, number: int, attempt: int) -> list[int]:
    """Steps that one attempt at a trial has evaluated."""
    logged, _ = read_events(folder / "runs" / "tiny" / str(number))
    found, seen = [], 0
    for event in logged:
        seen += event["event"] == "start"
        if seen == attempt and event["event"] == "evaluation":
            found.append(event["step"])
    return found


def assert_complete(folder: Path, trials: int) -> None:
    """So many trials, each complete with one figure for each step, and its weights are here."""
    stored = stored_trials(folder)
    assert [trial.number for trial in stored] == list(range(trials))
    assert {trial.state for trial in stored} == {TrialState.COMPLETE}
    for number in range(trials):
        steps = [step for step, _ in curve(folder, number)]
        assert steps == sorted(set(steps))
        saved = checkpoint.load(folder / "runs" / "tiny" / str(number))
        assert saved is not None
        assert saved.step == steps[-1]


def assert_as_here(folder: Path, text: Path, trials: int, **study: int) -> None:
    """The figures are, digit for digit, those of the local backend."""
    here = folder / "here"
    here.mkdir()
    run_tiny(tiny_study(here, text, **study), here, trials)
    for number in range(trials):
        assert curve(folder, number) == curve(here, number)


def assert_nobody_left(folder: Path) -> None:
    import ray

    if ray.is_initialized():
        names = ray.util.list_named_actors()
        owner = (folder / "runs" / "tiny" / ".study").read_text()[:8]
        assert not [name for name in names if owner in name]


def test_a_sweep_on_ray_has_the_figures_of_one_on_this_machine(
    ray_cluster: RayCluster, run: Callable[..., Summary], text: Path, tmp_path: Path
):
    seen: list[str] = []

    class Look(Callback):
        def on(self, event: events.SweepEvent) -> None:
            if isinstance(event, events.Evaluated) and not seen:
                seen.extend(" ".join(p.cmdline()) for p in processes_below(ray_cluster.cache("")))

    run(tiny_study(tmp_path, text), tmp_path, 4, callback=Look())
    assert_complete(tmp_path, 4)
    assert_as_here(tmp_path, text, 4)
    assert_nobody_left(tmp_path)
    assert not any(str(tmp_path) in line for line in seen)  # it trains in folders of the nodes
    for node in ("first", "second"):  # the tokens were sent; no node reads the text
        assert len(list((ray_cluster.cache(node) / "tokens").iterdir())) == 1
        assert not (ray_cluster.cache(node) / "index").exists()
        assert not list((ray_cluster.cache(node) / "trials").iterdir())
    told = [event["time"] - time.time() for event in events_of(tmp_path, "evaluation")]
    assert {round(seconds / 3600) for seconds in told} == {0, HOURS}  # one node's clock is wrong
    assert (tmp_path / "runs" / "tiny" / "0" / "log.txt").read_text()


def test_a_trial_goes_on_whatever_of_it_is_killed(
    ray_cluster: RayCluster, run: Callable[..., Summary], text: Path, tmp_path: Path
):
    children: list[psutil.Process] = []

    def process() -> psutil.Process:
        found = ray_cluster.process(tmp_path, 0)
        assert found is not None
        children.append(found)
        return found

    def kill_worker() -> None:
        actor = process().parent()
        assert actor is not None
        actor.kill()

    does = [lambda: process().kill(), kill_worker]
    killed = InEachAttempt(tmp_path, does)
    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    run(spec, tmp_path, 1, workers=1, callback=killed)
    assert killed.done == 2
    assert len(happened(tmp_path, 0, "start")) == 3
    wait_until(lambda: not any(child.is_running() for child in children))
    assert_complete(tmp_path, 1)
    assert_as_here(tmp_path, text, 1, max_steps=LONG, eval_interval=EVERY)


def test_a_wire_that_stalls_costs_a_wait(
    ray_cluster: RayCluster, run: Callable[..., Summary], text: Path, tmp_path: Path
):
    stood: list[float] = []

    def stall_actor() -> None:
        process = ray_cluster.process(tmp_path, 0)
        assert process is not None
        actor = process.parent()
        assert actor is not None
        started = time.monotonic()
        stall([actor], 2.0)
        stood.append(time.monotonic() - started)

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    run(spec, tmp_path, 1, workers=1, callback=InEachAttempt(tmp_path, [stall_actor]))
    assert stood
    assert stood[0] >= 2.0
    assert len(happened(tmp_path, 0, "start")) == 1
    assert_complete(tmp_path, 1)


def test_a_trial_of_a_node_that_is_removed_goes_on_elsewhere(
    ray_cluster: RayCluster, run: Callable[..., Summary], text: Path, tmp_path: Path
):
    gone: list[tuple[str, psutil.Process]] = []

    def remove() -> None:
        name, process = ray_cluster.node_of(tmp_path, 0), ray_cluster.process(tmp_path, 0)
        assert process is not None
        gone.append((name, process))
        ray_cluster.remove_node(name)

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    run(spec, tmp_path, 2, callback=InEachAttempt(tmp_path, [remove]))
    (name, process), *others = gone
    assert not others
    wait_until(lambda: not process.is_running())  # nobody trains beside its successor
    assert len(happened(tmp_path, 0, "start")) == 2
    assert steps_of_attempt(tmp_path, 0, 2)[0] > EVERY  # it did not begin anew
    assert_complete(tmp_path, 2)
    ray_cluster.start_node(name, {})
    assert_as_here(tmp_path, text, 2, max_steps=LONG, eval_interval=EVERY)


def test_actors_outlive_a_killed_tuner_and_the_next_one_finds_them(
    ray_cluster: RayCluster, run: Callable[..., Summary], text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    where = ("--backend", "ray", "--ray-address", ray_cluster.address)
    with start_command(tmp_path, 2, *where) as tuner:
        wait_until(lambda: all(happened(tmp_path, number, "evaluation") for number in (0, 1)))
        tuner.kill()
    known = len(events_of(tmp_path, "evaluation"))
    processes = [ray_cluster.process(tmp_path, number) for number in (0, 1)]
    assert all(processes)
    wait_until(lambda: not ray_cluster.process(tmp_path, 0))  # it ends while there is no tuner
    assert len(events_of(tmp_path, "evaluation")) == known
    run(spec, tmp_path, 2)
    assert [len(happened(tmp_path, number, "start")) for number in (0, 1)] == [1, 1]
    assert_complete(tmp_path, 2)
    assert_nobody_left(tmp_path)


def test_a_signal_stops_at_checkpoints_and_the_same_command_goes_on(
    run: Callable[..., Summary], text: Path, tmp_path: Path
):
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    stop = InEachAttempt(tmp_path, [interrupt])
    assert run(spec, tmp_path, 2, callback=stop).interrupted
    assert {t.state for t in stored_trials(tmp_path)} <= {TrialState.WAITING, TrialState.COMPLETE}
    assert_nobody_left(tmp_path)
    stopped = happened(tmp_path, 0, "stopped")[0]["step"]
    saved = checkpoint.load(tmp_path / "runs" / "tiny" / "0")
    assert saved is not None
    assert saved.step == stopped
    run(spec, tmp_path, 2)
    assert_complete(tmp_path, 2)
    assert min(steps_of_attempt(tmp_path, 0, 2)) > stopped  # no step was repeated


def test_a_full_disk_of_a_node_stops_the_sweep_and_names_the_node(
    ray_cluster: RayCluster, run: Callable[..., Summary], text: Path, tmp_path: Path
):
    def fill() -> None:
        process = ray_cluster.process(tmp_path, 0)
        assert process is not None
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (0, most))  # no file may grow

    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    with pytest.raises(StorageError, match=r"on node 127\.0\.0\.1"):
        run(spec, tmp_path, 1, workers=1, callback=InEachAttempt(tmp_path, [fill]))
    assert {trial.state for trial in stored_trials(tmp_path)} == {TrialState.WAITING}
    run(spec, tmp_path, 1, workers=1)
    assert_complete(tmp_path, 1)


PROGRAM = """
import os, sys
out, steps = sys.argv[1], range(0, 30, 10)
assert out == os.environ["SQUEN_RUN_DIR"] and "/trials/" in out
for step in steps:
    print(f"step {step}: train loss 1.0, val loss {3 - step / 20}", flush=True)
with open(out + "/weights.txt", "w") as file:
    file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
"""
OWN = """
name = "tiny"
resources = { gpus = 0.5 }
search.n = { low = 1, high = 9 }
pruner.kind = "none"
trainer.command = "python program.py {run_dir} {n}"
trainer.metric.name = "v"
trainer.metric.pattern = 'step (?P<step>\\d+): train loss \\S+, val loss (?P<value>\\S+)'
"""


def test_a_program_trains_on_a_share_of_a_gpu_in_a_folder_of_the_node(
    monkeypatch, capsys, ray_cluster: RayCluster, tmp_path: Path
):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "own.toml").write_text(OWN)
    where = ("--backend", "ray", "--ray-address", ray_cluster.address)
    command = Commands(monkeypatch, capsys, tmp_path)
    outcome = command("run", "--study", "own.toml", "--trials", "2", *where)
    assert outcome.code == 0, outcome.err
    for number in range(2):
        run_dir = tmp_path / "runs" / "tiny" / str(number)
        assert (run_dir / "weights.txt").read_text() == "0"
        assert "val loss 2.0" in (run_dir / "log.txt").read_text()
        assert str(run_dir) in (run_dir / "program.json").read_text()  # as it was written here


def test_a_place_that_is_not_there_is_one_line_and_nothing_is_written(
    monkeypatch, capsys, ray_cluster: RayCluster, text: Path, tmp_path: Path
):
    tiny_study(tmp_path, text)
    study = (tmp_path / "tiny.toml").read_text()
    for name, table in (("many", "gpus = 8"), ("wide", "cpus = 64")):
        (tmp_path / f"{name}.toml").write_text(f"{study}\n[resources]\n{table}\n")
    command = Commands(monkeypatch, capsys, tmp_path)
    there = ("--ray-address", ray_cluster.address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = f"127.0.0.1:{silent.getsockname()[1]}"
        for study, arguments, words in (
            ("many", there, "8 GPUs"),
            ("wide", there, "64 CPUs"),
            ("tiny", (*there, "--device", "cuda:1"), "cuda:1"),
            ("tiny", ("--ray-address", "nonsense"), "HOST:PORT"),
            ("tiny", ("--ray-address", "127.0.0.1:1"), "none does"),
            ("tiny", ("--ray-address", mute), "none does"),
        ):
            before = time.monotonic()
            run = ("run", "--study", f"{study}.toml", "--trials", "1", "--backend", "ray")
            outcome = command(*run, *arguments)
            assert (outcome.code, outcome.is_right) == (2, True), outcome
            assert words in outcome.err
            assert time.monotonic() - before < 60  # Ray's own patience is longer
    outcome = command("run", "--study", "tiny.toml", "--backend", "local", *there)
    assert (outcome.code, "--backend ray" in outcome.err) == (2, True)
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "ray", None)
        outcome = command("run", "--study", "tiny.toml", "--backend", "ray")
    assert (outcome.code, "pip install 'squen-sweep[ray]'" in outcome.err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_a_verdict_on_ray_has_the_figures_of_one_on_this_machine(
    monkeypatch, capsys, ray_cluster: RayCluster, text: Path, tmp_path: Path
):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    tiny_study(here, text)
    with (here / "tiny.toml").open("a") as file:
        file.write("[verdict]\ntop = 1\nscreening_seeds = 1\nseeds = 2\n")
    run_tiny(read_study_file(str(here / "tiny.toml"), "cpu"), here, 2)
    close_all()
    shutil.copytree(here, there)
    ask = ("verdict", "--study", "tiny", "--storage", "sweep.db", "--json")
    until = ("--until", "settled", "--max-seeds", "2")  # as many seeds as there is room for
    found = []
    on_ray = ("--backend", "ray", "--ray-address", ray_cluster.address)
    tokens = [ray_cluster.cache(node) / "tokens" for node in ("first", "second")]
    for folder in tokens:
        shutil.rmtree(folder, ignore_errors=True)
    for folder, where in ((here, ()), (there, on_ray)):
        outcome = Commands(monkeypatch, capsys, folder)(*ask, *until, *where)
        assert outcome.code == 0, outcome.err
        found.append(json.loads(outcome.out))
    assert any(folder.exists() for folder in tokens)  # it trained there
    assert found[0]["comparisons"]
    assert found[0]["comparisons"] == found[1]["comparisons"]


def test_a_head_that_is_lost_ends_the_sweep_and_the_same_command_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=LONG, eval_interval=EVERY)
    # The third trial needs the head to be placed.
    tuner = start_command(tmp_path, 3, "--backend", "ray")
    wait_until(lambda: happened(tmp_path, 0, "evaluation"), 200)  # a Ray starts first
    children = psutil.Process(tuner.pid).children(recursive=True)
    (lost,) = [child for child in children if "gcs_server" in child.name()]
    lost.kill()
    output, _ = tuner.communicate()
    assert tuner.returncode == 75, output
    assert "the head of the Ray cluster" in output
    assert "Traceback" not in output
    assert "(raylet)" not in output  # what Ray says of it
    again = start_command(tmp_path, 3, "--backend", "ray")
    assert again.wait() == 0, again.printed()
    assert_complete(tmp_path, 3)
