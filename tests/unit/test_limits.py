"""Limits of a trial, on a clock that the test moves."""

from pathlib import Path

import optuna
import pytest

from gpt.errors import BusyError
from sweep.backends.base import Job, Slot, Status
from sweep.trainers.base import RunFacts
from sweep.tuner.exits import Exit, Intent
from sweep.tuner.limits import GRACE_SECONDS, Limits, SuspendAwareClock
from sweep.tuner.trial import TrialRun, is_overdue, must_be_killed


@pytest.fixture
def run(tmp_path: Path) -> TrialRun:
    """A trial that is launched at 0 seconds."""
    return TrialRun(
        trial=optuna.create_study().ask(),
        arm="cross_entropy",
        job=Job(tmp_path, ("true",), Slot(0, "cpu", 1)),
        facts=RunFacts(max_steps=12, n_params=1000, config={}),
        started_at=0.0,
        last_event_at=0.0,
    )


@pytest.mark.parametrize(("gaps", "awake"), [([1, 2, 4], 7), ([1, 6, 2], 3), ([3600], 0)])
def test_only_gaps_of_more_than_five_seconds_are_left_out(gaps: list[float], awake: float):
    now = 100.0
    clock = SuspendAwareClock(lambda: now)
    began = clock()
    for gap in gaps:
        now += gap
        seconds = clock()
    assert seconds - began == awake


def test_a_trial_is_overdue_after_its_limit_and_says_which(run: TrialRun):
    limits = Limits(trial=40)
    assert not is_overdue(run, limits, now=40)
    assert run.timeout_reason is None
    assert is_overdue(run, limits, now=40.1)
    assert run.timeout_reason == "took longer than 0:40"


def test_a_trial_that_was_asked_to_stop_is_not_overdue_as_well(run: TrialRun):
    run.stop_requested_at = 39
    assert not is_overdue(run, Limits(trial=40), now=50)
    assert run.timeout_reason is None


def test_a_trial_that_is_silent_for_longer_than_its_limit_is_killed(run: TrialRun):
    limits = Limits(silence=20)
    assert not must_be_killed(run, limits, now=20)
    run.last_event_at = 15
    assert not must_be_killed(run, limits, now=35)
    assert run.hang_reason is None
    assert must_be_killed(run, limits, now=35.1)
    assert run.hang_reason == "said nothing for 0:20"


def test_a_trial_that_is_started_again_has_the_time_of_silence_anew(run: TrialRun):
    limits = Limits(silence=20)
    assert must_be_killed(run, limits, now=21)
    run.restarted(now=21)
    assert run.hang_reason is None
    assert not must_be_killed(run, limits, now=41)
    assert must_be_killed(run, limits, now=42)


def test_the_limit_of_a_trial_counts_over_its_restarts(run: TrialRun):
    run.restarted(now=30)
    assert is_overdue(run, Limits(trial=40), now=41)


def test_a_trial_that_ignores_a_request_to_stop_is_killed_after_the_grace(run: TrialRun):
    limits = Limits(silence=None)
    assert not must_be_killed(run, limits, now=1e6)
    run.stop_requested_at = 100
    assert not must_be_killed(run, limits, now=100 + GRACE_SECONDS)
    assert must_be_killed(run, limits, now=100.1 + GRACE_SECONDS)
    assert run.hang_reason is None


def test_without_limits_a_trial_takes_as_long_as_it_takes(run: TrialRun):
    limits = Limits(trial=None, silence=None)
    assert not is_overdue(run, limits, now=1e9)
    assert not must_be_killed(run, limits, now=1e9)


def test_no_time_of_a_suspended_sweep_is_a_trials(run: TrialRun):
    now = 0.0
    clock = SuspendAwareClock(lambda: now)
    limits = Limits(trial=40, silence=20)
    for gap in [1] * 10 + [3600] + [1] * 10:  # suspended for an hour in the middle
        now += gap
        seconds = clock()
        assert not is_overdue(run, limits, seconds)
        assert not must_be_killed(run, limits, seconds)
    now += 1
    assert must_be_killed(run, limits, clock())  # 21 s awake and silent


def test_no_time_in_a_queue_is_a_trials_and_what_it_trained_before_counts(run: TrialRun):
    limits = Limits(trial=40, silence=20)
    run.last_event_at = 30
    run.looked(30, waits=False)
    run.looked(3630, waits=True)  # suspended by its cluster for an hour
    assert not must_be_killed(run, limits, now=3650)
    assert not is_overdue(run, limits, now=3640)
    assert is_overdue(run, limits, now=3641)


LOST = Status(alive=False, exit_code=None, cause="lost", words="was lost: its node died")


def lose(run: TrialRun, evaluated: int = 0, said_alive: bool = False) -> int:
    """Let a process of a trial start, get so far, and be lost; return how many were in vain."""
    run.heard, run.trained = True, said_alive
    if evaluated:
        run.last = evaluated, 9.0
    run.believe(LOST)
    count = run.count_in_vain(None)
    run.restarted(now=0)
    return count


def test_lost_processes_count_until_one_brings_the_trial_further(run: TrialRun):
    assert [lose(run), lose(run), lose(run, evaluated=4)] == [1, 2, 0]
    assert [lose(run), lose(run), lose(run, evaluated=8), lose(run)] == [1, 2, 0, 1]


def test_what_a_lost_process_trained_for_long_is_lost_and_what_a_stopped_one_did_is_not(
    run: TrialRun,
):
    assert [lose(run, said_alive=True), lose(run, said_alive=True)] == [1, 2]
    run.trained, run.last_event = True, {"event": "stopped", "step": 0}
    assert run.count_in_vain(0) == 0


def test_a_process_that_stops_at_a_later_step_was_not_in_vain(run: TrialRun):
    for step, count in ((0, 1), (0, 2), (3, 0), (3, 1), (4, 0)):
        run.last_event = {"event": "stopped", "step": step}
        assert run.count_in_vain(0) == count


def test_a_process_that_found_another_trainer_does_not_count(run: TrialRun):
    assert lose(run) == 1
    assert run.count_in_vain(BusyError.exit_code) == 1


@pytest.mark.parametrize(
    ("intent", "exit_code", "expected"),
    [
        (Intent.TIMEOUT, 0, Exit.TIMEOUT),  # it left a checkpoint
        (Intent.TIMEOUT, -9, Exit.TIMEOUT),  # it ignored the request
        (Intent.TRAIN, -9, Exit.CRASHED),  # it hung: started again once
    ],
)
def test_what_a_limit_ended_is_a_timeout_and_what_hung_is_a_crash(
    run: TrialRun, intent: Intent, exit_code: int, expected: Exit
):
    run.intent = intent
    if exit_code == 0:
        run.last_event = {"event": "stopped", "step": 4}
    assert run.exit(exit_code) is expected
