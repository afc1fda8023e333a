"""Chaos: a sweep of short trials while a seeded script kills, stops, interrupts and damages.

    python tests/helpers/chaos.py --seeds 10 --output tests/benchmarks/chaos.json

runs many seeds and writes after each what was done and what it cost; `--first 5 --seeds 5` adds
five more to the same file. tests/process/test_chaos.py runs one. With `--slurm` trials are jobs of
a cluster of two nodes, and jobs, nodes and the scheduler are disturbed, too.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from forked import Forked
from invariants import (
    assert_sound,
    assert_undisturbed,
    events_of,
    start_command,
    stored_trials,
    trial_processes,
)
from slurm import Cluster, cluster_in
from tiny_runs import write_stories
from tiny_studies import tiny_study

from gpt.config import read_config
from gpt.events import read_events

TRIALS, MAX_STEPS = 12, 1600  # so that all trials take longer than the chaos
OF_A_CLUSTER = 8, 1000  # the same where each process imports torch first
EVAL_INTERVAL = 40
PAUSE = 0.3, 2.5  # seconds before each fault, drawn evenly


class Chaos:
    """A sweep in a folder, and what can be done to it.

    Attributes:
        pause: Seconds before each fault, at least and at most.
        patience: Seconds for the rest of the sweep, in peace.
        wait: Seconds for a trial that trains, until a fault comes all the same.
        kinds: Faults by kind, one of which is drawn first.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        cluster: Cluster | None = None,
        size: tuple[int, int] = (TRIALS, MAX_STEPS),
        pause: tuple[float, float] = PAUSE,
        eval_interval: int = EVAL_INTERVAL,
    ) -> None:
        self.folder = folder
        self.pause = pause
        self.cluster = cluster
        self.trials, self.max_steps = size
        self.eval_interval = eval_interval
        on_slurm = ("--backend", "slurm", "--hang-timeout", "off")
        self.words = ("--quiet", *(on_slurm if cluster else ()))
        self.patience, self.wait = (3600.0, 600.0) if cluster else (280.0, 30.0)
        self.kinds = [OF_A_TRIAL, OF_A_TRIAL, OF_THE_DRIVER, *([OF_THE_CLUSTER] if cluster else [])]
        self.rng = random.Random(seed)
        self.fired: Counter[str] = Counter()
        self.driver: Forked | None = None
        text = write_stories(folder / "text")
        tiny_study(folder, text, max_steps=self.max_steps, eval_interval=eval_interval)

    def disturb(self, seconds: float, faults: int) -> None:
        """Do something bad again and again, so long and so often at least.

        The command is run again whenever it has ended, and faults wait for trials that train. It
        is over at the latest when the study is complete.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until or self.fired.total() < faults:
            if self._start().poll() == 0:
                return
            self._wait_for_a_trial()
            time.sleep(self.rng.uniform(*self.pause))
            kind = self.rng.choice(self.kinds)
            name = self.rng.choice(list(kind))
            if kind[name](self):
                self.fired[name] += 1

    def _start(self) -> Forked:
        """The command, run again if it has ended."""
        if self.driver is not None and self.driver.poll():
            self.driver.communicate()  # closes its output
            self.driver = None
        if self.driver is None:
            self.driver = start_command(self.folder, self.trials, *self.words)
        return self.driver

    def training(self) -> list[psutil.Process]:
        """Processes of trials; on a cluster, where most of them import, those that train."""
        found = trial_processes(self.folder)
        if self.cluster is None:
            return found
        pids = {event["pid"] for event in events_of(self.folder, "start")}
        return [process for process in found if process.pid in pids]

    def _wait_for_a_trial(self) -> None:
        until = time.monotonic() + self.wait
        while not self.training() and time.monotonic() < until:
            if self.driver is not None and self.driver.poll() is not None:
                return
            time.sleep(0.1)

    def settle(self) -> None:
        """Run the command until it says that the study is complete."""
        if self.cluster is not None:
            self.cluster.mend()
        for _ in range(3):
            driver = self._start()
            output, _ = driver.communicate(timeout=self.patience)
            if driver.returncode == 0:
                return
        raise AssertionError(f"the sweep does not end: {output}")

    # --- faults; each says whether it could be done ------------------------------------------

    def signal_trial(self, number: int) -> bool:
        """To one of the processes that train."""
        processes = self.training()
        return bool(processes) and _send(self.rng.choice(processes), number)

    def signal_driver(self, number: int) -> bool:
        """To the one that asks and tells."""
        if self.driver is None or self.driver.poll() is not None:
            return False
        return _send(psutil.Process(self.driver.pid), number)

    def stop_trial(self) -> bool:
        """Make a trial stand still for a second."""
        processes = self.training()
        if not processes or not _send(processes[0], signal.SIGSTOP):
            return False
        time.sleep(1)
        return _send(processes[0], signal.SIGCONT)

    def stop_driver(self) -> bool:
        """Make the driver stand still for a second."""
        if not self.signal_driver(signal.SIGSTOP):
            return False
        time.sleep(1)
        return self.signal_driver(signal.SIGCONT)

    def kill_everything(self) -> bool:
        """As if the machine had gone."""
        if not self.signal_driver(signal.SIGKILL):
            return False
        for process in trial_processes(self.folder):
            _send(process, signal.SIGKILL)
        return True

    def interrupt_twice(self) -> bool:
        """An impatient user."""
        return self.signal_driver(signal.SIGINT) and self.signal_driver(signal.SIGINT)

    def flip_a_bit(self) -> bool:
        """In the newest checkpoint of a trial that goes on: it has moments."""
        found = sorted(self.folder.glob("runs/tiny/*/checkpoints/step-*/optimizer.safetensors"))
        if not found:
            return False
        path = self.rng.choice(found)
        try:
            content = bytearray(path.read_bytes())
            content[-1 - self.rng.randrange(100)] ^= 1 << self.rng.randrange(8)
            path.write_bytes(content)
        except OSError:  # it was just replaced
            return False
        return True

    def cancel_job(self) -> bool:
        """As a user or an administrator would."""
        assert self.cluster is not None
        ids = self.cluster("squeue", "--me", "--noheader", "--states=R", "--format=%i").split()
        return bool(ids) and not self.cluster("scancel", self.rng.choice(ids))

    def lose_node(self) -> bool:
        """For two seconds; what trains there goes on."""
        assert self.cluster is not None
        node = self.rng.choice(["n1", "n2"])
        self.cluster.lose_node(node)
        time.sleep(2)
        self.cluster.resume_node(node)
        return True

    def stop_scheduler(self) -> bool:
        """For three seconds."""
        assert self.cluster is not None
        self.cluster.stop("slurmctld")
        time.sleep(3)
        self.cluster.start_controller()
        return True

    # --- what it came to ---------------------------------------------------------------------

    def check(self) -> None:
        """Nothing lost, nothing doubled, nothing changed."""
        assert_sound(self.folder, self.trials)
        assert_undisturbed(self.folder)
        run_dirs = [p.name for p in (self.folder / "runs" / "tiny").iterdir() if p.is_dir()]
        assert sorted(run_dirs, key=int) == [str(number) for number in range(self.trials)]
        for trial in stored_trials(self.folder):
            run_dir = self.folder / "runs" / "tiny" / str(trial.number)
            config = read_config(run_dir / "config.json")
            assert config.learning_rate == trial.params["learning_rate"]
            assert (config.n_layer, config.loss) == (trial.params["n_layer"], trial.params["loss"])
            assert_one_writer_at_a_time(run_dir)

    def figures(self) -> dict[str, Any]:
        """What was done, and what it cost."""
        outcomes = Counter(t.user_attrs["outcome"] for t in stored_trials(self.folder))
        evaluations = len(events_of(self.folder, "evaluation"))
        kept = sum(len(trial.intermediate_values) for trial in stored_trials(self.folder))
        broken_off = len(events_of(self.folder, "start")) - len(events_of(self.folder, "done"))
        return {
            "study": f"{self.trials} trials of {self.max_steps} steps on 2 slots",
            "faults": dict(sorted(self.fired.items())),
            "outcomes": dict(sorted(outcomes.items())),
            "processes": len(events_of(self.folder, "start")),
            "steps_kept": kept * self.eval_interval,
            "steps_evaluated_twice": (evaluations - kept) * self.eval_interval,
            "steps_repeated_at_most": (evaluations - kept + broken_off) * self.eval_interval,
            "trials_lost_or_doubled": 0,  # or check() had failed
        }


def assert_one_writer_at_a_time(run_dir: Path) -> None:
    """Attempts count up, and within one the steps do."""
    attempt = step = 0
    for event in read_events(run_dir)[0]:
        if event["event"] == "start":
            assert event["attempt"] == attempt + 1
            attempt, step = attempt + 1, 0
        elif event["event"] == "evaluation":
            assert event["step"] > step
            step = event["step"]


def _send(process: psutil.Process, number: int) -> bool:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


Fault = Callable[[Chaos], bool]
OF_A_TRIAL: dict[str, Fault] = {
    "SIGKILL of a trial": lambda chaos: chaos.signal_trial(signal.SIGKILL),
    "SIGTERM of a trial": lambda chaos: chaos.signal_trial(signal.SIGTERM),
    "SIGSTOP of a trial for 1 s": Chaos.stop_trial,
    "a flipped bit in a checkpoint": Chaos.flip_a_bit,
}
OF_THE_DRIVER: dict[str, Fault] = {
    "SIGKILL of the driver": lambda chaos: chaos.signal_driver(signal.SIGKILL),
    "SIGINT of the driver": lambda chaos: chaos.signal_driver(signal.SIGINT),
    "SIGTERM of the driver": lambda chaos: chaos.signal_driver(signal.SIGTERM),
    "SIGHUP of the driver": lambda chaos: chaos.signal_driver(signal.SIGHUP),
    "SIGINT of the driver twice": Chaos.interrupt_twice,
    "SIGSTOP of the driver for 1 s": Chaos.stop_driver,
    "SIGKILL of everything": Chaos.kill_everything,
}
OF_THE_CLUSTER: dict[str, Fault] = {
    "a job cancelled": Chaos.cancel_job,
    "a node lost for 2 s": Chaos.lose_node,
    "the scheduler away for 3 s": Chaos.stop_scheduler,
}


def run_seed(
    folder: Path,
    seed: int,
    seconds: float,
    faults: int = 12,
    cluster: Cluster | None = None,
    size: tuple[int, int] = (TRIALS, MAX_STEPS),
    pause: tuple[float, float] = PAUSE,
    eval_interval: int = EVAL_INTERVAL,
) -> dict[str, Any]:
    """Chaos for so long, the rest in peace, then the checks; returns the figures."""
    size = OF_A_CLUSTER if cluster else size
    chaos = Chaos(folder, seed, cluster, size, pause, eval_interval)
    started = time.monotonic()
    try:
        chaos.disturb(seconds, faults)
        chaos.settle()
    finally:
        for process in trial_processes(folder):
            process.kill()
        if chaos.driver is not None:
            chaos.driver.kill()
    took = time.monotonic() - started
    chaos.check()
    return {"seed": seed, "seconds": round(took, 1), **chaos.figures()}


def main() -> None:
    """Run the seeds and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="0 to SEEDS - 1")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="of chaos for each")
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        cluster = None
        if options.slurm:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
            cluster = stack.enter_context(cluster_in(Path(folder)))
            os.environ["SLURM_CONF"] = str(cluster.file)
        run_seeds(options, cluster)


def run_seeds(options: argparse.Namespace, cluster: Cluster | None) -> None:
    """Print the figures of each, and add them to the file."""
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as name:
            os.environ["SQUEN_SWEEP_CACHE"] = str(Path(name) / "cache")
            figures = run_seed(Path(name), seed, options.seconds, cluster=cluster)
        print(json.dumps(figures), flush=True)
        if options.output:
            program = "chaos.py --slurm" if options.slurm else "chaos.py"
            add(figures, options.output, options.seconds, program)


def add(figures: dict[str, Any], path: Path, seconds: float, program: str) -> None:
    """Put a seed's figures beside those of the seeds that the file has already."""
    kept = json.loads(path.read_text())["seeds"] if path.exists() else []
    results = [result for result in kept if result["seed"] != figures["seed"]]
    results = sorted([*results, figures], key=lambda result: int(result["seed"]))
    options = f"--seeds {len(results)} --seconds {seconds:g} --output {path}"
    command = f"python tests/helpers/{program} {options}"
    path.write_text(json.dumps(summary(results, command), indent=1) + "\n")


def summary(results: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """The sums over all seeds, and every seed's own figures."""
    from tests.benchmarks.measuring import machine

    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for result in results:
        faults.update(result["faults"])
        outcomes.update(result["outcomes"])
    keys = [key for key in results[0] if key.startswith(("processes", "steps_", "trials_"))]
    return {
        "command": command,
        "machine": machine(),
        "study": f"{results[-1]['study']}, evaluated each {EVAL_INTERVAL}",
        "faults": dict(sorted(faults.items())),
        "faults_in_all": faults.total(),
        "outcomes": dict(sorted(outcomes.items())),
        **{key: sum(result[key] for result in results) for key in keys},
        "seeds": results,
    }


if __name__ == "__main__":
    main()
