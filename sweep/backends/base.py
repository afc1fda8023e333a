"""The interface of a backend, and what it is asked to run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class Resources:
    """Share of a machine for each trial, as the [resources] of a study file give it."""

    gpus: float | None = None  # 0.5: two trials share one; 0: the CPU alone; None: the backend's
    cpus: int | None = None  # threads; None: the backend's

    def gpus_on(self, device: str) -> float | None:
        """Return the GPUs of a trial where --device says something, which comes first."""
        if device == "auto":
            return self.gpus
        return 0 if device == "cpu" else self.gpus or 1


ANY = Resources()


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time."""

    index: int
    device: str  # "cpu", "cuda", "cuda:0", ...
    threads: int  # of the CPU
    processes: int = 1  # more: one for each of so many GPUs
    visible: str | None = None  # CUDA_VISIBLE_DEVICES of the job; None: as it is


@dataclass(frozen=True)
class Job:
    """A process to run in a run directory."""

    run_dir: Path  # also what a job is known by
    command: tuple[str, ...]
    slot: Slot
    module: str | None = None  # whose main() the command calls, if a fork may call it instead
    tokens: Path | None = None  # what it reads besides; the folder's name says what is in it


@dataclass(frozen=True)
class Status:
    """A job as the backend sees it; the events of its run say more."""

    alive: bool
    exit_code: int | None  # negative if a signal killed it; None: alive, or nobody can know
    waits: bool = False  # in a queue, or suspended by its cluster: no limit counts
    # lost: its machine or its scheduler ended it; disk: that of another machine is full
    cause: Literal["lost", "oom", "disk"] | None = None
    words: str | None = None  # for which cause


class Backend(Protocol):
    """Starts, finds, stops and kills jobs. Jobs go on when the tuner dies."""

    def check(self) -> None:
        """Raise an InputError or a NetworkError where it cannot be used; writes nothing."""

    def kind(self) -> str:
        """Return "cpu" or "cuda", on which jobs train; see StudySpec's budgets."""

    def capacity(self) -> list[Slot]:
        """Return all slots, busy or not."""

    def start(self, job: Job) -> None:
        """Start a job; returns at once."""

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        """Adopt those of these jobs that an earlier tuner started and that still run; one call."""

    def poll(self) -> Mapping[Path, Status]:
        """Return the status of every job that was started or found, by run directory."""

    def read(self, run_dir: Path, offset: int) -> tuple[list[bytes], int]:
        """Return the complete lines of a run's events after byte `offset`, and the next offset."""

    def stop(self, run_dir: Path) -> None:
        """Ask a job for a checkpoint and an end; more than once is harmless."""

    def kill(self, run_dir: Path) -> None:
        """End a job now."""

    def forget(self, run_dir: Path) -> None:
        """Drop a job that has ended from what `poll` returns."""
