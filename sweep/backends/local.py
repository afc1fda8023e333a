"""Processes of this machine: one for each job, in a session of its own.

Its memory is freed for certain, and a crash or an out-of-memory costs one job.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from gpt.errors import InputError
from gpt.events import has_grown, read_lines
from gpt.system.visible_devices import visible_devices
from sweep.backends.base import ANY, Job, Resources, Slot, Status
from sweep.backends.fork_client import ForkServer, fork

MAX_AUTO_WORKERS = 8  # beyond it the sampler learns too little between two trials


class LocalBackend:
    """Jobs on the CPU or the CUDA devices of this machine.

    Args:
        device: "auto", "cpu", "cuda" (all devices), "cuda:N" or "mps".
        workers: Jobs at a time; None chooses.
        arguments: None, since nobody is asked for a place.
        resources: For each trial.
    """

    def __init__(
        self,
        device: str = "auto",
        workers: int | None = None,
        arguments: Sequence[str] = (),
        resources: Resources = ANY,
    ) -> None:
        gpus = resources.gpus_on(device)
        self._resources = Resources(gpus, resources.cpus)
        self._device = device if device != "auto" or gpus is None else "cuda" if gpus else "cpu"
        self._workers = workers
        self._jobs: dict[Path, LocalProcess] = {}

    def check(self) -> None:
        """Raise InputError unless the device is there, and what each trial needs of it."""
        gpus, cpus, cores = self._resources.gpus or 0, self._resources.cpus, available_cores()
        if cpus is not None and cpus > cores:
            raise InputError(
                f"resources.cpus must be at most the {cores} cores of this machine, but is {cpus}."
            )
        devices = cuda_devices() if gpus else 0
        if gpus > 1 and ":" in self._device:
            raise InputError(
                f"--device must be cuda where resources.gpus is {gpus:g}, but got {self._device}."
            )
        if gpus and gpus > devices and self._device == "cuda":
            raise InputError(
                f"resources.gpus must be at most the {devices} GPUs that torch sees here, but is "
                f"{gpus:g}; use --device cpu."
            )
        self._device = resolve_device(self._device)
        room = len(plan_slots(self._device, None, devices, self._resources))
        if gpus and self._workers is not None and self._workers > room:
            raise InputError(
                f"--workers must be at most {room} where resources.gpus is {gpus:g}, but got "
                f"{self._workers}."
            )

    def kind(self) -> str:
        """Return the budget, "cpu" or "cuda"; raise InputError where there is no such device."""
        return "cuda" if resolve_device(self._device).startswith("cuda") else "cpu"

    def capacity(self) -> list[Slot]:
        """Return all slots."""
        return plan_slots(self._device, self._workers, cuda_devices(), self._resources)

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
        return read_lines(run_dir, offset) if has_grown(run_dir, offset) else ([], offset)

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


def plan_slots(
    device: str, workers: int | None, n_devices: int = 1, resources: Resources = ANY
) -> list[Slot]:
    """The slots of a sweep.

    Several trials with one thread each do more work than one with all of them at the sizes of a CPU
    budget (tests/benchmarks/slots.json). On CUDA the default is one trial per device.

    Args:
        device: "cpu", "cuda" (all of n_devices), "cuda:N" or "mps".
        workers: How many trials at a time; None chooses.
        n_devices: CUDA devices that torch sees.
        resources: For each trial; by default one device, or a share of the cores.
    """
    cores, gpus = available_cores(), resources.gpus or 1
    if device == "cpu":
        room = min(cores // (resources.cpus or 1), MAX_AUTO_WORKERS)
        places = [Slot(0, "cpu", 1)]
    elif gpus > 1:
        groups = [range(i, i + int(gpus)) for i in range(0, n_devices - int(gpus) + 1, int(gpus))]
        places = [Slot(0, "cuda", 1, len(group), visible_devices(group)) for group in groups]
        room = len(places)
    else:
        devices = [f"cuda:{i}" for i in range(n_devices)] if device == "cuda" else [device]
        places = [Slot(0, one, 1) for one in devices]
        room = len(places) * int(1 / gpus + 1e-9)
    count = workers or max(1, room)
    threads = resources.cpus or max(1, cores // count)
    return [replace(places[i % len(places)], index=i, threads=threads) for i in range(count)]


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(device: str) -> str:
    """Resolve "auto": CUDA where torch sees a device, else an Apple GPU, else the CPU.

    Raises:
        InputError: the device is not there.
    """
    import torch

    from gpt.system.device import check_device

    if device == "auto":
        on_apple = "mps" if torch.backends.mps.is_available() else "cpu"
        return "cuda" if cuda_devices() else on_apple
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
        # a trial is one process, also where the tuner's cluster set WORLD_SIZE for its own
        alone = {"OMP_NUM_THREADS": str(job.slot.threads), "WORLD_SIZE": "1"}
        environment = {**os.environ, **alone}
        if job.slot.visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = job.slot.visible
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
