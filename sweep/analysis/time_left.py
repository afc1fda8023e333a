"""Estimate of the time that a sweep has left, from its trials so far."""

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from sweep.analysis.results import trial_rows
from sweep.storage.schema import study_attrs

if TYPE_CHECKING:
    import optuna

MIN_FRACTION = 0.05  # of a trial that runs, from which its own speed is known
PRIOR_TRIALS = 4  # as many as the guess counts, before trials show how early they are stopped
TOO_LONG = 5.0  # times the median: such a trial was interrupted for a while


@dataclass(frozen=True)
class Pace:
    """A trial so far."""

    arm: str
    outcome: str  # one of sweep.analysis.results.OUTCOMES
    fraction: float  # of its steps, in [0, 1]
    seconds: float | None  # that they took; None: not known


def seconds_left(
    trials: Sequence[Pace], waiting: int, slots: int, pruner: Mapping[str, Any]
) -> float | None:
    """Estimate the seconds until all trials of a sweep have ended.

    The first trials of an arm are never pruned and the later ones are, so the mean of the first
    would be far too long. Expected are the time of a complete trial and the share of its steps that
    a trial makes which may be pruned, and trials are put into slots as they become free.

    Args:
        trials: Those that ended, in the order of their ends, and those that run.
        waiting: How many are still to start.
        slots: Trials at a time.
        pruner: The table [pruner] of the study.

    Returns:
        None before half a trial is done.
    """
    running = [trial for trial in trials if trial.outcome == "running"]
    ended = [trial for trial in trials if trial.outcome != "running"]
    whole = [
        trial.seconds / trial.fraction
        for trial in trials
        if trial.seconds and trial.fraction > MIN_FRACTION
    ]
    if not whole or sum(trial.fraction for trial in trials) < 0.5:
        return None
    complete = fmean([one for one in whole if one <= TOO_LONG * median(whole)])
    share = _expected_share(ended, pruner)
    free = [_rest(trial, complete, share) for trial in running]
    free += [0.0] * (max(slots, 1) - len(free))
    heapq.heapify(free)
    unprunable = _unprunable(ended, running, pruner)
    for nth in range(waiting):
        takes = complete if nth < unprunable else complete * share
        heapq.heapreplace(free, free[0] + takes)
    return max(free)


def _rest(trial: Pace, complete: float, share: float) -> float:
    """Return the seconds that a running trial still takes."""
    known = trial.seconds is not None and trial.fraction > MIN_FRACTION
    whole = (trial.seconds or 0.0) / trial.fraction if known else complete
    end = max(share, (1.0 + trial.fraction) / 2)  # the later it is, the likelier it is complete
    return max(0.0, whole * (end - trial.fraction))


def _expected_share(ended: Sequence[Pace], pruner: Mapping[str, Any]) -> float:
    """Return the share of its steps that a trial makes which may be pruned.

    The guess is that half of them are stopped as early as the pruner may.
    """
    if pruner.get("kind", "none") == "none":
        return 1.0
    guess = (1.0 + float(pruner.get("warmup_fraction", 0.0))) / 2
    complete: Counter[str] = Counter()
    shares = [guess] * PRIOR_TRIALS
    for trial in ended:
        if complete[trial.arm] >= pruner.get("startup_trials", 0):
            shares.append(trial.fraction)
        complete[trial.arm] += trial.outcome == "complete"
    return fmean(shares)


def _unprunable(ended: Sequence[Pace], running: Sequence[Pace], pruner: Mapping[str, Any]) -> int:
    """Count the trials still to start that are not pruned, as their arm has too few complete."""
    needed = int(pruner.get("startup_trials", 0))
    complete = Counter(trial.arm for trial in ended if trial.outcome == "complete")
    under_way = Counter(trial.arm for trial in running)
    arms = {trial.arm for trial in (*ended, *running)}
    return sum(max(0, needed - complete[arm] - under_way[arm]) for arm in arms)


def pruner_of(study: "optuna.Study") -> dict[str, Any]:
    """Return the table [pruner] of a study."""
    return dict((study_attrs(study).spec or {}).get("pruner", {}))


def stored_paces(study: "optuna.Study") -> list[Pace]:
    """Return the trials of a study, each with the time from its last start to its end."""
    rows = trial_rows(study)
    asked = (study_attrs(study).spec or {}).get("train", {}).get("max_steps")
    steps = asked or max((row["last_step"] or 0 for row in rows), default=0) or 1
    return [
        Pace(
            row["arm"],
            row["outcome"],
            1.0 if row["outcome"] == "complete" else min(1.0, (row["last_step"] or 0) / steps),
            None if math.isnan(row["seconds"]) else row["seconds"],
        )
        for row in rows
    ]
