"""Trials as they come into their slots, with jobs that are no processes."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from stored_studies import DATA, StoredStudy, evaluation

from gpt.config import DataConfig
from gpt.events import FILE, read_lines
from sweep.backends.base import Job, Slot, Status
from sweep.search.known_trials import in_memory
from sweep.storage.location import runs_folder
from sweep.storage.rdb import open_storage
from sweep.trainers.gpt import GPTTrainer
from sweep.tuner.callback import Callback, SweepEvent, TrialStarted
from sweep.tuner.options import RunOptions
from sweep.tuner.start import OpenStudy
from sweep.tuner.tuner import Tuner


class Jobs:
    """A backend whose jobs are done as soon as they start, or train until somebody stops them.

    Those that an earlier tuner left behind train until then, too.
    """

    def __init__(self, endless: bool, slots: int = 1) -> None:
        self._endless, self._slots = endless, slots
        self.alive: dict[Path, bool] = {}

    def check(self) -> None:
        pass

    def kind(self) -> str:
        return "cpu"

    def capacity(self) -> list[Slot]:
        return [Slot(index, "cpu", 1) for index in range(self._slots)]

    def start(self, job: Job) -> None:
        self.alive[job.run_dir] = self._endless
        if not self._endless:
            measured = {"event": "evaluation", **asdict(evaluation(200, 50.0))}
            lines = [{**event, "time": time.time()} for event in (measured, {"event": "done"})]
            (job.run_dir / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        found = {job.run_dir for job in jobs}
        self.alive |= dict.fromkeys(found, True)
        return found

    def poll(self) -> Mapping[Path, Status]:
        return {run_dir: Status(alive, None) for run_dir, alive in self.alive.items()}

    def read(self, run_dir: Path, offset: int) -> tuple[list[bytes], int]:
        return read_lines(run_dir, offset)

    def stop(self, run_dir: Path) -> None:
        if run_dir in self.alive:
            self.alive[run_dir] = False

    kill = stop

    def forget(self, run_dir: Path) -> None:
        self.alive.pop(run_dir)


class ReaderLeft(Callback):
    """A display that nobody reads any more once a trial starts."""

    def on(self, event: SweepEvent) -> None:
        if isinstance(event, TrialStarted):
            raise BrokenPipeError


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    text = 'name = "launched"\ntrain = { max_steps = 200, dtype = "float32" }\n'
    return StoredStudy(tmp_path, text + "search.learning_rate = { low = 1e-4, high = 1e-2 }\n")


def tuner(stored: StoredStudy, backend: Jobs, callback: Callback) -> Tuner:
    trainer, study = GPTTrainer(DataConfig()), in_memory(stored.study, stored.storage)
    facts = trainer.recall(stored.spec, DATA)
    places = runs_folder(study), trainer, backend, backend.capacity()
    opened = OpenStudy(study, stored.storage, stored.spec, *places, facts)
    return Tuner(opened, RunOptions(), callback)


def test_a_display_that_fails_as_a_trial_starts_leaves_no_trial_training(stored: StoredStudy):
    backend = Jobs(endless=True)
    with pytest.raises(BrokenPipeError):
        tuner(stored, backend, ReaderLeft()).run(1)
    assert list(backend.alive.values()) == [False]


def test_a_sweep_that_fails_stops_also_a_trial_that_was_left_and_had_no_slot_yet(
    stored: StoredStudy,
):
    for _ in range(2):
        stored.study.enqueue_trial({"learning_rate": 1e-3})
    backend = Jobs(endless=True, slots=2)
    with pytest.raises(BrokenPipeError):
        tuner(stored, backend, ReaderLeft()).run(2)
    assert list(backend.alive.values()) == [False, False]


def test_a_trial_that_is_enqueued_as_another_is_added_costs_neither(
    stored: StoredStudy, tmp_path: Path
):
    name, path = stored.study.study_name, stored.storage.engine.url.database
    other = optuna.load_study(study_name=name, storage=open_storage(path))

    def enqueue(*_: object) -> None:
        if len(other.get_trials()) == 1:  # the tuner's, which has just been written
            other.enqueue_trial({"learning_rate": 1e-3})

    sa.event.listen(stored.storage.engine, "checkin", enqueue)
    tuner(stored, Jobs(endless=False), Callback()).run(1)
    assert [trial.state for trial in other.get_trials()] == [TrialState.COMPLETE] * 2
