"""Trials that are no processes: a backend whose jobs write what a test has them write."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from stored_studies import DATA, StoredStudy

from gpt.config import DataConfig
from gpt.events import FILE, Event, has_grown, read_lines
from sweep.backends.base import Job, Slot, Status
from sweep.search.known_trials import in_memory
from sweep.storage.location import runs_folder
from sweep.trainers.base import Trainer
from sweep.trainers.gpt import GPTTrainer
from sweep.tuner.start import OpenStudy


class StandIns:
    """A backend whose jobs train until they are stopped, and say nothing.

    Args:
        slots: Jobs at a time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.alive: dict[Path, bool] = {}  # by run directory

    def check(self) -> None:
        pass

    def kind(self) -> str:
        return "cpu"

    def capacity(self) -> list[Slot]:
        return [Slot(index, "cpu", 1) for index in range(self.slots)]

    def start(self, job: Job) -> None:
        self.alive[job.run_dir] = True

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        return set()

    def poll(self) -> Mapping[Path, Status]:
        return {run_dir: Status(alive, None) for run_dir, alive in self.alive.items()}

    def read(self, run_dir: Path, offset: int) -> tuple[list[bytes], int]:
        return read_lines(run_dir, offset) if has_grown(run_dir, offset) else ([], offset)

    def stop(self, run_dir: Path) -> None:
        self.kill(run_dir)

    def kill(self, run_dir: Path) -> None:
        if run_dir in self.alive:
            self.alive[run_dir] = False

    def forget(self, run_dir: Path) -> None:
        del self.alive[run_dir]


def write_event(run_dir: Path, event: Event) -> None:
    """Append an event as a trainer does, but for waiting for the disk."""
    with (run_dir / FILE).open("a") as file:
        file.write(json.dumps({**event, "time": time.time()}) + "\n")


def opened(stored: StoredStudy, backend: StandIns, trainer: Trainer | None = None) -> OpenStudy:
    """A stored study, as a tuner takes it."""
    trainer, study = trainer or GPTTrainer(DataConfig()), in_memory(stored.study, stored.storage)
    facts = trainer.recall(stored.spec, DATA)
    places = runs_folder(study), trainer, backend, backend.capacity()
    return OpenStudy(study, stored.storage, stored.spec, *places, facts)
