"""Chaos on a Ray cluster of two nodes: as in chaos.py, and actors and nodes are lost, too.

    python tests/helpers/ray_chaos.py --seeds 5 --output tests/benchmarks/chaos_ray.json

runs on one cluster, and writes for each seed what was done and what it cost.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from chaos import OF_A_CLUSTER, OF_THE_DRIVER, Chaos, Fault, add
from forked import heed_signals
from invariants import ROOT
from ray_cluster import RayCluster, processes_below, ray_cluster_in, stall

from gpt.events import read_events

# The command, with files that come each second: trials are short.
RUN = (
    "import sweep.backends.ray as ray; ray.FETCH_SECONDS = 1.0; ray.FETCH_SHARE = 1.0; "
    "from sweep.cli import main; main()"
)


class RayChaos(Chaos):
    """A sweep whose trials run on a cluster of Ray."""

    def __init__(self, folder: Path, seed: int, ray: RayCluster) -> None:
        super().__init__(folder, seed, size=OF_A_CLUSTER)
        self.ray, self.patience, self.wait = ray, 3600.0, 600.0
        self.kinds = [ON_A_NODE, ON_A_NODE, OF_A_RAY_DRIVER]

    def _start(self) -> "subprocess.Popen[str]":
        if self.driver is not None and self.driver.poll():
            self.driver.communicate()  # closes its output
            self.driver = None
        if self.driver is None:
            place = ["--backend", "ray", "--ray-address", self.ray.address]
            options = ["--trials", str(self.trials), "--workers", "2", "--device", "cpu", "--quiet"]
            stored = ["--storage", str(self.folder / "sweep.db"), "--runs", f"{self.folder}/runs"]
            study = ["run", "--study", str(self.folder / "tiny.toml")]
            self.driver = subprocess.Popen(
                [sys.executable, "-c", RUN, *study, *options, *place, *stored],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=heed_signals,  # noqa: PLW1509 - it takes no lock
            )
        return self.driver

    def training(self) -> list[psutil.Process]:
        """Processes of trials that train on the nodes, and no longer import."""
        found = []
        for process in processes_below(self.ray.cache(""), "/trials/tiny-"):
            with suppress(psutil.NoSuchProcess, OSError, IndexError):  # it has just ended
                events, _ = read_events(Path(process.cmdline()[-1]))
                started = [event["pid"] for event in events if event["event"] == "start"]
                found += [process] if process.pid in started else []
        return found

    def of_a_trial(self, signum: int, actor: bool) -> bool:
        """Send a signal to a process that trains, or to its actor."""
        found = self.training()
        try:
            process = self.rng.choice(found) if found else None
            process = process and (process.parent() if actor else process)
            if process is None or process.pid == 1:
                return False
            process.send_signal(signum)
        except psutil.NoSuchProcess:
            return False
        return True

    def stall_actor(self) -> bool:
        """Let an actor stand still: its trial trains on, and nobody hears of it."""
        found = self.training()
        try:
            actor = found[0].parent() if found else None
            if actor is None or actor.pid == 1:
                return False
            stall([actor], 2.0)
        except psutil.NoSuchProcess:
            return False
        return True

    def lose_node(self) -> bool:
        """Kill a node, and start another one."""
        if not self.training():
            return False
        name = self.rng.choice(sorted(self.ray.nodes))
        self.ray.remove_node(name)
        self.ray.start_node(name, {})
        return True


KILL, TERM = signal.SIGKILL, signal.SIGTERM
ON_A_NODE: dict[str, Fault] = {
    "SIGKILL of a trial": lambda one: one.of_a_trial(KILL, actor=False),
    "SIGTERM of a trial": lambda one: one.of_a_trial(TERM, actor=False),
    "SIGKILL of an actor": lambda one: one.of_a_trial(KILL, actor=True),
    "SIGSTOP of an actor for 2 s": RayChaos.stall_actor,
    "SIGKILL of a node": RayChaos.lose_node,
    "a flipped bit in a checkpoint": Chaos.flip_a_bit,
}
OF_A_RAY_DRIVER = {name: fault for name, fault in OF_THE_DRIVER.items() if "everything" not in name}


def run_seed(folder: Path, seed: int, cluster: RayCluster, seconds: float) -> dict[str, Any]:
    """Chaos for so long, the rest in peace, then the checks; returns the figures."""
    one = RayChaos(folder, seed, cluster)
    started = time.monotonic()
    try:
        one.disturb(seconds, faults=12)
        one.settle()
    finally:
        if one.driver is not None:
            one.driver.kill()
    took = time.monotonic() - started
    one.check()
    assert not processes_below(cluster.cache(""))
    return {"seed": seed, "seconds": round(took, 1), **one.figures()}


def main() -> None:
    """Run the seeds and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of chaos for each")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, ray_cluster_in(Path(place)) as cluster:
        for seed in range(options.first, options.first + options.seeds):
            with tempfile.TemporaryDirectory() as name:
                os.environ["SQUEN_SWEEP_CACHE"] = str(Path(name) / "cache")
                figures = run_seed(Path(name), seed, cluster, options.seconds)
            print(json.dumps(figures), flush=True)
            if options.output:
                add(figures, options.output, options.seconds, "ray_chaos.py")


if __name__ == "__main__":
    main()
