"""Where a trial trains: a process of its own, in a slot of its own. Knows nothing of Optuna.

Its memory is freed for certain, and a crash or an out-of-memory costs one trial.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sweep.backends.fork_client import ForkServer, fork

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # to end, at a checkpoint if it can
MAX_AUTO_WORKERS = 8  # beyond it the sampler learns too little between two trials


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time."""

    index: int
    device: str  # "cpu", "cuda:0", ...
    threads: int  # of the CPU


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


def faster_dtype(device: str) -> str:
    """What training multiplies matrices in where a study leaves it open: what is faster.

    bfloat16 where the device has instructions for it: on CPUs with AVX512-BF16 trials of the
    tinystories budget train 1.2 to 1.7 times as fast as in float32 (roofline.json and
    precision.json in tests/benchmarks). A CPU without them would convert every number first.
    """
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    describe = getattr(torch.cpu, "get_capabilities", dict)  # not in older versions of torch
    has: Mapping[str, Any] = describe()
    return "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") else "float32"


def cuda_devices() -> int:
    """How many CUDA devices torch sees."""
    import torch

    return torch.cuda.device_count()


class TrialProcess:
    """A process that trains one run directory; it outlives the driver if the driver is killed.

    Args:
        process: None where it had ended before it could be looked at.
        forked: Its pid and who has forked it, of a process of ours that is not our child.
    """

    def __init__(
        self, process: psutil.Process | None, forked: tuple[int, ForkServer] | None = None
    ) -> None:
        self._process = process
        self._forked = forked

    @classmethod
    def start(cls, run_dir: Path, slot: Slot) -> "TrialProcess":
        """Start `python -m gpt.train` on run_dir; what it prints goes to run_dir/log.txt.

        It gets a session of its own, so that Ctrl-C in the terminal reaches only the driver, which
        then asks every trial to stop at a checkpoint. On the CPU, where that can be, it is forked
        by a process that has imported torch already: it trains after milliseconds, not seconds.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": str(slot.threads)}
        with (run_dir / "log.txt").open("ab") as log:
            if slot.device == "cpu" and (forked := fork(run_dir, environment)):
                return cls(_process(forked[0]), forked)
            process = psutil.Popen(
                [sys.executable, "-P", "-m", "gpt.train", str(run_dir.resolve())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process)

    @classmethod
    def find(cls, run_dir: Path) -> "TrialProcess | None":
        """The process that an earlier driver started on run_dir and that still lives, if any.

        Its command line tells it: a process that has only just been started has not said anything
        yet, and the number of one that has ended may be another's by now. From here on psutil
        knows it by its pid and its start time, counted from the machine's own start.
        """
        place = str(run_dir.resolve())
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "gpt.train" in command and place in command:
                found = cls(process)
                if found.alive:
                    return found
        return None

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        if self.exit_code is not None or self._process is None:
            return False
        if self._tells_its_end:
            return True
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def _tells_its_end(self) -> bool:
        """Whether exit_code is surely there once it has ended."""
        return isinstance(self._process, psutil.Popen) or bool(
            self._forked and self._forked[1].alive
        )

    @property
    def exit_code(self) -> int | None:
        """Of a process of ours that has ended, negative for a signal; None of another's."""
        if self._forked:
            pid, server = self._forked
            return server.exit_code(pid)
        return self._process.poll() if isinstance(self._process, psutil.Popen) else None

    @property
    def obeyed(self) -> bool:
        """Whether a process of ours was asked to end and did, before it had begun to listen."""
        code = self.exit_code
        return code is not None and -code in ASKING

    def exit_reason(self) -> str:
        """How a process of ours that has ended did so, in words."""
        code = self.exit_code
        if code is None:
            return "ended without a word"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

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
