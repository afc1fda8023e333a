"""Processes of this machine: one for each job, in a session of its own.

Its memory is freed for certain, and a crash or an out-of-memory costs one job.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from gpt.errors import InputError
from gpt.events import read_lines
from sweep.backends.base import Job, Slot, Status
from sweep.backends.fork_client import ForkServer, fork

MAX_AUTO_WORKERS = 8  # beyond it the sampler learns too little between two trials


class LocalBackend:
    """Jobs on the CPU or the CUDA devices of this machine.

    Args:
        device: "auto", "cpu", "cuda" (all devices) or "cuda:N".
        workers: Jobs at a time; None chooses.
    """

    def __init__(self, device: str = "auto", workers: int | None = None) -> None:
        self._device = device
        self._workers = workers
        self._jobs: dict[Path, LocalProcess] = {}

    def check(self) -> None:
        """Raise InputError unless the device is there."""
        if self._workers is not None and self._workers < 1:
            raise InputError(f"workers must be at least 1, but got {self._workers}.")
        self._device = resolve_device(self._device)

    def capacity(self) -> list[Slot]:
        """Return all slots."""
        return plan_slots(self._device, self._workers, cuda_devices())

    def start(self, job: Job) -> None:
        """Start a process; its output is appended to log.txt of the run directory."""
        self._jobs[job.run_dir] = LocalProcess.start(job)

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        """Adopt the processes of an earlier tuner that still run these jobs."""
        found = LocalProcess.find({job.run_dir: job.module for job in jobs})
        self._jobs |= found
        return set(found)

    def poll(self) -> Mapping[Path, Status]:
        """Return the status of each job, by run directory."""
        return {
            run_dir: Status(process.alive, process.exit_code)
            for run_dir, process in self._jobs.items()
        }

    def read(self, run_dir: Path, offset: int) -> tuple[list[bytes], int]:
        """Return the complete lines of events.jsonl after byte `offset`, and the next offset."""
        return read_lines(run_dir, offset)

    def stop(self, run_dir: Path) -> None:
        """Send SIGTERM, at which a trainer writes a checkpoint and ends."""
        if run_dir in self._jobs:
            self._jobs[run_dir].stop()

    def kill(self, run_dir: Path) -> None:
        """Send SIGKILL."""
        if run_dir in self._jobs:
            self._jobs[run_dir].kill()

    def forget(self, run_dir: Path) -> None:
        """Drop a process that has ended."""
        self._jobs.pop(run_dir, None)


def plan_slots(device: str, workers: int | None, n_devices: int = 1) -> list[Slot]:
    """The slots of a sweep.

    Several trials with one thread each do more work than one with all of them at the sizes of a CPU
    budget (tests/benchmarks/slots.json). On CUDA the default is one trial per device.

    Args:
        device: "cpu", "cuda" (all of n_devices) or "cuda:N".
        workers: How many trials at a time; None chooses.
        n_devices: CUDA devices that torch sees.
    """
    cores = available_cores()
    if device == "cpu":
        count = workers or min(cores, MAX_AUTO_WORKERS)
        devices = ["cpu"]
    else:
        devices = [device] if ":" in device else [f"cuda:{i}" for i in range(n_devices)]
        count = workers or len(devices)
    threads = max(1, cores // count)
    return [Slot(i, devices[i % len(devices)], threads) for i in range(count)]


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(device: str) -> str:
    """Resolve "auto": it is CUDA where torch sees a device, else the CPU.

    Raises:
        InputError: the device is not there.
    """
    from gpt.system.device import check_device

    if device == "auto":
        return "cuda" if cuda_devices() else "cpu"
    check_device(device)
    return device


def cuda_devices() -> int:
    """Return the number of CUDA devices that torch sees."""
    import torch

    return torch.cuda.device_count()


class LocalProcess:
    """A process that runs a job; it outlives the tuner if the tuner is killed.

    Args:
        process: None where it had ended before it could be examined.
        forked: Its pid and the server that forked it, if it is not our child.
    """

    def __init__(
        self, process: psutil.Process | None, forked: tuple[int, ForkServer] | None = None
    ) -> None:
        self._process = process
        self._forked = forked

    @classmethod
    def start(cls, job: Job) -> "LocalProcess":
        """Start a job.

        It gets a session of its own, so that Ctrl-C in the terminal reaches only the tuner, which
        then asks every job to stop at a checkpoint. On the CPU, where that can be, it is forked by
        a process that has imported the trainer already: it trains after milliseconds, not seconds.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.slot.threads)}
        with (job.run_dir / "log.txt").open("ab") as log:
            if job.module is not None and job.slot.device == "cpu":
                forked = fork(job.module, job.command, job.run_dir, environment)
                if forked is not None:
                    return cls(_process(forked[0]), forked)
            process = psutil.Popen(
                job.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process)

    @classmethod
    def find(cls, modules: Mapping[Path, str | None]) -> "dict[Path, LocalProcess]":
        """Find the processes that train in these run directories, whoever started them.

        A command line identifies them: a process that has only just been started has not written
        anything yet, and the pid of one that has ended may be another's by now. From here on psutil
        knows it by its pid and its start time, counted from the machine's own start.
        """
        wanted = {str(run_dir.resolve()): run_dir for run_dir in modules}
        found: dict[Path, LocalProcess] = {}
        for process in psutil.process_iter(["cmdline"]) if wanted else ():
            command = process.info["cmdline"] or []
            for argument in command:
                run_dir = wanted.get(argument)
                if run_dir is None or modules[run_dir] not in (None, *command):
                    continue
                candidate = cls(process)
                if candidate.alive:
                    found[run_dir] = candidate
        return found

    @property
    def alive(self) -> bool:
        """True while it runs."""
        if self.exit_code is not None or self._process is None:
            return False
        if self._reports_its_end:
            return True
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def _reports_its_end(self) -> bool:
        """True if exit_code is known as soon as it has ended."""
        return isinstance(self._process, psutil.Popen) or bool(
            self._forked and self._forked[1].alive
        )

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative if a signal killed it; None if it runs or is not ours."""
        if self._forked:
            pid, server = self._forked
            return server.exit_code(pid)
        return self._process.poll() if isinstance(self._process, psutil.Popen) else None

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                self._process.terminate()

    def kill(self) -> None:
        """End it now."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                self._process.kill()


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None
