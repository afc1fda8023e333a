"""Trials as they come into their slots, with jobs that are no processes."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from stand_ins import StandIns, opened, write_event
from stored_studies import StoredStudy, evaluation

from sweep.backends.base import Job
from sweep.storage.rdb import open_storage
from sweep.tuner.callback import Callback, SweepEvent, TrialStarted
from sweep.tuner.options import RunOptions
from sweep.tuner.tuner import Tuner


class Jobs(StandIns):
    """Jobs that are done as soon as they start, or train until somebody stops them.

    Those that an earlier tuner left behind train until then, too.
    """

    def __init__(self, endless: bool, slots: int = 1) -> None:
        super().__init__(slots)
        self._endless = endless

    def start(self, job: Job) -> None:
        self.alive[job.run_dir] = self._endless
        if not self._endless:
            write_event(job.run_dir, {"event": "evaluation", **asdict(evaluation(200, 50.0))})
            write_event(job.run_dir, {"event": "done"})

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        found = {job.run_dir for job in jobs}
        self.alive |= dict.fromkeys(found, True)
        return found


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
    return Tuner(opened(stored, backend), RunOptions(), callback)


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
