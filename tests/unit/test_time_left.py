"""The time that is left, on recorded sweeps that run again without a clock.

tests/helpers/recorded_sweeps.json has the trials of real sweeps in their order: arm, n_layer, the
step at which each ended, and how. Their seconds follow from those: a layer costs a third of what
all else of a step does, as measured on the CPU budget of studies/tinystories.toml.
"""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from stored_studies import STUDY, StoredStudy, evaluation

from sweep.analysis.time_left import Pace, seconds_left
from sweep.callbacks.live import LiveProgress
from sweep.tuner.callback import (
    Counts,
    Evaluated,
    Opened,
    SweepEvent,
    TrialFinished,
    TrialStarted,
)

RECORDED = json.loads((Path(__file__).parents[1] / "helpers/recorded_sweeps.json").read_text())
PRUNER = "[pruner]\nwarmup_fraction = 0.4\nstartup_trials = 4\n"
START = 0.2  # seconds until a trial trains
NO_PRUNER = {"kind": "none", "warmup_fraction": 0.0, "startup_trials": 4}


class Replay:
    """A recorded sweep, each trial in the first slot that is free."""

    def __init__(self, sweep: dict, slots: int) -> None:
        self.slots, self.pruner = slots, sweep["pruner"]
        free, self.trials = [0.0] * slots, []
        for arm, n_layer, step, outcome in sweep["trials"]:
            slot = free.index(min(free))
            took = START * (1 + slot) + step / sweep["max_steps"] * (4 + 2 * n_layer)
            fraction = step / sweep["max_steps"]
            self.trials.append((free[slot], free[slot] + took, arm, fraction, outcome))
            free[slot] += took
        self.end = max(free)
        self.by_end = sorted(self.trials, key=lambda trial: trial[1])

    def estimate_after(self, count: int) -> tuple[float, float]:
        """The estimate at the end of so many trials, and what was really left."""
        now = self.by_end[count - 1][1]
        ended = [Pace(t[2], t[4], t[3], t[1] - t[0]) for t in self.by_end[:count]]
        running = [t for t in self.by_end[count:] if t[0] <= now]
        under_way = [
            Pace(t[2], "running", t[3] * (now - t[0]) / (t[1] - t[0]), now - t[0]) for t in running
        ]
        waiting = len(self.trials) - count - len(running)
        left = seconds_left([*ended, *under_way], waiting, self.slots, self.pruner)
        assert left is not None
        return left, self.end - now


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("name", RECORDED)
def test_after_a_quarter_of_the_trials_the_time_left_is_right_within_thirty_percent(
    name: str, slots: int
):
    replay = Replay(RECORDED[name], slots)
    estimate, left = replay.estimate_after(len(replay.trials) // 4)
    # With two complete trials of an arm before its pruning, ten of forty are too few to know it.
    assert estimate == pytest.approx(left, rel=0.6 if name == "smoke" else 0.3)


@pytest.mark.parametrize("name", RECORDED)
def test_near_the_end_it_is_the_longest_trial_under_way_that_counts(name: str):
    replay = Replay(RECORDED[name], 2)
    estimate, left = replay.estimate_after(len(replay.trials) - 1)
    longest = max(end - start for start, end, *_ in replay.trials)
    assert abs(estimate - left) < 0.5 * longest


@pytest.mark.parametrize("slots", [1, 3])
def test_without_pruning_equal_trials_give_the_exact_time(slots: int):
    ended = [Pace("all", "complete", 1.0, 10.0)] * 3
    assert seconds_left(ended, 5 * slots, slots, NO_PRUNER) == pytest.approx(50.0)


def test_running_trials_count_with_what_is_done_of_them():
    half = [Pace("all", "running", 0.5, 5.0), Pace("all", "running", 0.9, 9.0)]
    assert seconds_left(half, 0, 2, NO_PRUNER) == pytest.approx(5.0)
    assert seconds_left(half, 1, 2, NO_PRUNER) == pytest.approx(11.0)


def test_nothing_is_said_before_half_a_trial():
    assert seconds_left([Pace("all", "running", 0.4, 4.0)], 10, 1, NO_PRUNER) is None
    assert seconds_left([], 10, 2, NO_PRUNER) is None


def test_a_trial_that_paused_for_a_night_does_not_count():
    ended = [Pace("all", "complete", 1.0, 10.0)] * 4 + [Pace("all", "complete", 1.0, 40_000.0)]
    assert seconds_left(ended, 2, 1, NO_PRUNER) == pytest.approx(20.0)


def test_trials_of_an_earlier_call_count_as_outcomes_not_as_time():
    earlier = [Pace("all", "pruned", 0.4, None)] * 8 + [Pace("all", "complete", 1.0, None)] * 4
    now = [Pace("all", "running", 0.5, 5.0)]
    pruner = {"kind": "median", "warmup_fraction": 0.4, "startup_trials": 0}
    left = seconds_left([*earlier, *now], 10, 1, pruner)
    assert left is not None
    assert 0.4 * 100 < left < 0.8 * 100 + 5


def test_the_display_shows_it(tmp_path: Path):
    sweep, now = RECORDED["tinystories"], [0.0]
    replay = Replay(sweep, 2)
    stored = StoredStudy(tmp_path, STUDY + "[train]\nmax_steps = 400\n" + PRUNER)
    console = Console(file=io.StringIO(), width=120, height=40)
    shown = LiveProgress(console, clock=lambda: now[0])
    shown.on(Opened(stored.study, stored.storage))
    events: list[tuple[float, SweepEvent]] = []
    for number, (start, end, arm, fraction, outcome) in enumerate(replay.trials):
        events.append((start, TrialStarted(number, arm, {}, 400, {})))
        for step in range(40, round(400 * fraction) + 1, 40):
            at = start + (end - start) * step / (400 * fraction) - 1e-6
            measured = replace(evaluation(step, 9.0), elapsed_seconds=at - start)
            events.append((at, Evaluated(number, measured)))
        events.append((end, TrialFinished(number, arm, outcome, 9.0, None)))
    finished = 0
    for at, event in sorted(events, key=lambda pair: pair[0]):
        now[0] = at
        shown.on(event)
        finished += isinstance(event, TrialFinished)
        shown.on(Counts(finished, len(replay.trials), {}))
        if finished == len(replay.trials) // 4:
            break
    console.print(shown.draw())
    minutes, seconds = re.search(r"(\d+):(\d\d) left", console.file.getvalue()).groups()
    assert 60 * int(minutes) + int(seconds) == pytest.approx(replay.end - now[0], rel=0.3)
