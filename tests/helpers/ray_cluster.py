"""A Ray cluster of a head and two nodes on this machine, each with a cache of tokens of its own."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from clocks import Clock
from faults import SLOW, prepare

from sweep.storage.location import owner_of_runs

# Without it Ray replaces 127.0.0.1 by an address that others reach. It is read with the import.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - not 15, or it hardly trains beside others
LOOPBACK = "127.0.0.1"
OBJECT_BYTES = 80 * 2**20  # of each node's object store
SOON = {  # a node that is gone is lost after some seconds; one that stands still, after thirty
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 3,
}
HOURS = 1  # by which the clock of the second node is ahead


class RayCluster:
    """Trials train on two nodes, each with two CPUs and one GPU that is only said to be there.

    They see no file of the tuner but by its path: a test that wants to know looks for it.
    """

    def __init__(self, folder: Path, settings: dict[str, int] = SOON) -> None:
        from ray.cluster_utils import Cluster

        self._folder = folder
        folder.mkdir()
        Clock(folder / "clock").set(HOURS)
        self.nodes: dict[str, Any] = {}
        self._cluster = Cluster()
        try:
            self._cluster.add_node(num_cpus=0, _system_config=settings, **self._shared())
            self.start_node("first", {})
            self.start_node("second", {"PYTHONPATH": f"{folder}/clock:{os.environ['PYTHONPATH']}"})
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _shared() -> dict[str, Any]:
        return {
            "node_ip_address": LOOPBACK,
            "object_store_memory": OBJECT_BYTES,
            "include_dashboard": False,
        }

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def start_node(self, name: str, environment: dict[str, str]) -> None:
        variables = {
            "SQUEN_SWEEP_CACHE": str(self.cache(name)),
            "SQUEN_FAULT": SLOW,
            **environment,
        }
        size = {"num_cpus": 2, "num_gpus": 1}
        for left in reversed(range(5)):
            try:
                self.nodes[name] = self._cluster.add_node(
                    **size, env_vars=variables, **self._shared()
                )
                return
            except Exception:  # Ray waits for 30 s, which a busy machine takes
                if not left:
                    raise

    def remove_node(self, name: str) -> None:
        """As if it had lost its power: its daemon and its workers are killed."""
        self._cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def cache(self, name: str) -> Path:
        return self._folder / name

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()
        for process in processes_below(self._folder):
            process.kill()

    # --- what runs there ---------------------------------------------------------------------

    def daemons(self) -> list[psutil.Process]:
        """What a network reaches of the nodes: their raylets, and the actors whose trials train."""
        pids = [node.all_processes["raylet"][0].process.pid for node in self.nodes.values()]
        actors = [process.parent() for process in processes_below(self._folder)]
        return [psutil.Process(pid) for pid in pids] + [actor for actor in actors if actor]

    def process(self, folder: Path, number: int) -> psutil.Process | None:
        """The process that trains a trial of the study "tiny" of a folder, if there is one."""
        owner = (owner_of_runs(folder / "runs" / "tiny") or "none")[:8]
        found = processes_below(self._folder, f"/trials/tiny-{owner}-{number}-")
        return found[0] if found else None

    def node_of(self, folder: Path, number: int) -> str:
        """The name of the node that trains it."""
        process = self.process(folder, number)
        assert process is not None
        line = " ".join(process.cmdline())
        return next(name for name in self.nodes if str(self.cache(name)) in line)


def processes_below(folder: Path, words: str = "/trials/") -> list[psutil.Process]:
    """Processes that train in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if f"{folder}/" in line and words in line and "prctl" not in line:
            found.append(process)
    return found


def stall(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Let processes stand still, as those that a network does not reach."""
    stopped = list(processes)
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for process in stopped:
        process.send_signal(signal.SIGCONT)


@contextmanager
def ray_cluster_in(folder: Path, settings: dict[str, int] = SOON) -> Iterator[RayCluster]:
    """Start a cluster, on a busy machine maybe at the second try; stop all of it."""
    prepare()
    try:
        cluster = RayCluster(folder / "1", settings)
    except Exception as error:
        print(f"Ray did not start: {error}; once more", file=sys.stderr)
        cluster = RayCluster(folder / "2", settings)
    try:
        yield cluster
    finally:
        cluster.close()


if __name__ == "__main__":  # by hand: python tests/helpers/ray_cluster.py, until Ctrl-C
    with (
        tempfile.TemporaryDirectory() as name,
        ray_cluster_in(Path(name)) as made,
        suppress(KeyboardInterrupt),
    ):
        print(f"squen-sweep run --backend ray --ray-address {made.address}", flush=True)
        time.sleep(1e6)
