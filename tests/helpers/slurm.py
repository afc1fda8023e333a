"""A SLURM cluster of two nodes on this machine: munge, a controller, two daemons."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from postgresql import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,requeue_delay=1
ReturnToService=2
SlurmdTimeout=10
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=2
"""


def find_program(name: str) -> str | None:
    """Path of one of SLURM's programs; daemons are in sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Cluster:
    """Answers to SLURM's commands where $SLURM_CONF names its file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "slurm.conf"
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir()
        for name in ("cgroup.conf", "gres.conf"):
            (folder / name).touch()
        ports = (free_port(), *pair_of_ports())
        host = socket.gethostname().partition(".")[0]
        self.file.write_text(
            CONFIGURATION.format(folder=folder, host=host, ports=ports, user="root")
        )
        self.environment = {**os.environ, "SLURM_CONF": str(self.file)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        names = ("key-file=munge.key", "socket=munge.socket", "pid-file=munged.pid")
        more = ("log-file=munged.log", "seed-file=munge.seed")
        words = [f"--{word.replace('=', f'={folder}/')}" for word in (*names, *more)]
        self._start("munged", "--foreground", "--force", *words)
        self.start_controller()
        for node in ("n1", "n2"):
            self.start_node(node)
        self.wait_until(self.is_idle)

    def __call__(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        shown = subprocess.PIPE
        done = subprocess.run(
            command, check=False, stdout=shown, stderr=shown, text=True, env=self.environment
        )
        return done.stdout + done.stderr

    def is_idle(self) -> bool:
        return self("sinfo", "--noheader", "--format=%T").strip() == "idle"

    def start_node(self, node: str, *before: str) -> None:
        """Start a node's daemon.

        Args:
            node: n1 or n2.
            before: A command that runs the daemon.
        """
        self._start("slurmd", "-D", "-N", node, "-b", key=node, before=before)

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon as a crash would; what it runs goes on."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        self("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def resume_node(self, node: str, *before: str) -> None:
        """Start the daemon of a node again."""
        self.start_node(node, *before)
        self("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def heal_node(self, node: str, *before: str) -> None:
        """Start the daemon of a node again, and wait until both nodes take jobs."""
        self.resume_node(node, *before)
        self.wait_until(self.is_idle)

    def mend(self) -> None:
        """Bring back what is down, as an administrator would, until both nodes take jobs."""

        def is_mended() -> bool:
            states = {node: self.state(node) for node in ("n1", "n2")}
            for node, state in states.items():
                if self.daemons[node].poll() is not None:
                    self.start_node(node)
                if state.startswith("down"):
                    self("scontrol", "update", f"NodeName={node}", "State=RESUME")
            return set(states.values()) <= {"idle", "mixed", "allocated", "completing"}

        self.wait_until(is_mended)

    def state(self, node: str) -> str:
        """Return a node's state in the first partition, such as idle."""
        return self("sinfo", "--noheader", "--format=%T", f"--nodes={node}").partition("\n")[0]

    def start_controller(self) -> None:
        self._start("slurmctld", "-D")

    def stop(self, daemon: str) -> None:
        """End a daemon as its service would; a controller writes down what its jobs do."""
        self.daemons[daemon].terminate()
        self.daemons[daemon].wait()

    def close(self) -> None:
        self("scancel", "--me", "--signal=KILL", "--full")
        for daemon in self.daemons.values():
            with suppress(ProcessLookupError):
                daemon.kill()
            daemon.wait()
        for process in psutil.process_iter():  # what a job has left
            with suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == str(self.file):
                    process.kill()

    def _start(
        self, program: str, *words: str, key: str | None = None, before: tuple[str, ...] = ()
    ) -> None:
        found = find_program(program)
        assert found is not None
        with (self.folder / f"{key or program}.out").open("ab") as out:
            self.daemons[key or program] = subprocess.Popen(
                [*before, found, *words], stdout=out, stderr=out, env=self.environment
            )

    @staticmethod
    def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "SLURM does not come up"
            time.sleep(0.1)


def pair_of_ports() -> tuple[int, int]:
    """Two free ports that follow each other."""
    while True:
        first = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", first + 1)):
            return first, first + 1


@contextmanager
def cluster_in(folder: Path) -> Iterator[Cluster]:
    """Start a cluster; stop all of it at the end."""
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.close()


if __name__ == "__main__":  # by hand: python tests/helpers/slurm.py FOLDER, until Ctrl-C
    with cluster_in(Path(sys.argv[1])) as made, suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={made.file}")
        time.sleep(1e6)
