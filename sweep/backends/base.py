"""The interface of a backend, and what it is asked to run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time."""

    index: int
    device: str  # "cpu", "cuda:0", ...
    threads: int  # of the CPU


@dataclass(frozen=True)
class Job:
    """A process to run in a run directory."""

    run_dir: Path  # also what a job is known by
    command: tuple[str, ...]
    slot: Slot
    module: str | None = None  # whose main() the command calls, if a fork may call it instead


@dataclass(frozen=True)
class Status:
    """A job as the backend sees it; the events of its run say more."""

    alive: bool
    exit_code: int | None  # negative if a signal killed it; None: alive, or nobody can know


class Backend(Protocol):
    """Starts, finds, stops and kills jobs. Jobs go on when the tuner dies."""

    def check(self) -> None:
        """Raise an InputError or a NetworkError where it cannot be used; writes nothing."""

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
