"""Was the pruner right, and would another one have been better? Reads only.

Add a pruner to compare by adding one CANDIDATES entry.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
import pandas as pd
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from sweep.analysis import results
from sweep.search.arms import arm_trials
from sweep.storage.schema import trial_attrs
from sweep.study.spec import StudySpec


def shadow_table(study: optuna.Study, arms: Sequence[str], top: int) -> pd.DataFrame:
    """How often the pruner would have stopped a trial that ended among the arm's best.

    Returns:
        arm, shadows (finished trials that ran on), among_best (of them, in the arm's top), rate and
        its exact interval low to high (NaN and 0 to 1 without a shadow).
    """
    return pd.DataFrame([_shadow_row(study, arm, top) for arm in arms])


def _shadow_row(study: optuna.Study, arm: str, top: int) -> dict[str, object]:
    finished = [trial for trial in arm_trials(study, arm) if trial.state.is_finished()]
    shadows = [trial for trial in finished if trial_attrs(trial).shadow is not None]
    best = _winners(finished, top)
    wrong = sum(trial.number in best for trial in shadows)
    row: dict[str, object] = {"arm": arm, "shadows": len(shadows), "among_best": wrong}
    if not shadows:
        return row | {"rate": float("nan"), "low": 0.0, "high": 1.0}
    interval = stats.binomtest(wrong, len(shadows)).proportion_ci()
    return row | {"rate": wrong / len(shadows), "low": interval.low, "high": interval.high}


def _winners(trials: Sequence[FrozenTrial], top: int) -> set[int]:
    """Numbers of the best complete trials."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: (trial.values[0], trial.number))
    return {trial.number for trial in best[:top]}


@dataclass(frozen=True)
class Grid:
    """What a pruner must know of a study to be set up."""

    first_step: int  # of the first evaluation
    max_steps: int
    startup_trials: int
    warmup_steps: int  # the study's own


CANDIDATES: dict[str, Callable[[Grid], BasePruner]] = {
    "none": lambda grid: NopPruner(),
    "median, the study's warm-up": lambda grid: MedianPruner(
        grid.startup_trials, grid.warmup_steps
    ),
    "median, no warm-up": lambda grid: MedianPruner(grid.startup_trials, 0),
    "median, warm-up of half": lambda grid: MedianPruner(grid.startup_trials, grid.max_steps // 2),
    "best quarter, the study's warm-up": lambda grid: PercentilePruner(
        25.0, grid.startup_trials, grid.warmup_steps
    ),
    "best three quarters, the study's warm-up": lambda grid: PercentilePruner(
        75.0, grid.startup_trials, grid.warmup_steps
    ),
    "successive halving": lambda grid: SuccessiveHalvingPruner(
        min_resource=grid.first_step, reduction_factor=3
    ),
    "hyperband": lambda grid: HyperbandPruner(
        min_resource=grid.first_step, max_resource=grid.max_steps, reduction_factor=3
    ),
}


def what_if_table(study: optuna.Study, spec: StudySpec, top: int) -> pd.DataFrame:
    """Other pruners on the recorded curves, each within the arm and in the order of the trials.

    Baselines are never stopped, as in the sweep. A record ends where its trial did: what a milder
    pruner would have let run on is counted, but its steps and its result are not known.

    Returns:
        pruner, arm, trials, stopped, steps_saved (share of the recorded steps), beyond_record
        (trials that the sweep stopped and this pruner would not have), winners_lost (of the arm's
        `top` best complete trials, stopped), best_lost (whether the best is among them).
    """
    grids = [
        step for trial in study.get_trials(deepcopy=False) for step in trial.intermediate_values
    ]
    grid = Grid(
        first_step=min(grids, default=1),
        max_steps=spec.max_steps,
        startup_trials=spec.pruner.startup_trials,
        warmup_steps=round(spec.pruner.warmup_fraction * spec.max_steps),
    )
    return pd.DataFrame(
        [
            {"pruner": name, "arm": arm, **_replay(arm_trials(study, arm), make(grid), grid, top)}
            for name, make in CANDIDATES.items()
            for arm in results.arms(study)
        ]
    )


def _replay(
    trials: Sequence[FrozenTrial], pruner: BasePruner, grid: Grid, top: int
) -> dict[str, object]:
    finished = [
        trial for trial in trials if trial.state.is_finished() and trial.intermediate_values
    ]
    best = _winners(finished, 1)
    winners = _winners(finished, top)
    stopped: dict[int, int] = {}  # number of a trial -> steps saved
    beyond = 0
    with _silent():
        replay = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
        for trial in finished:
            end = _stopped_at(replay, trial, grid)
            if end is not None:
                stopped[trial.number] = max(trial.intermediate_values) - end
            elif trial.user_attrs.get("outcome") == "pruned":
                beyond += 1
    recorded = sum(max(trial.intermediate_values) for trial in finished)
    return {
        "trials": len(finished),
        "stopped": len(stopped),
        "steps_saved": sum(stopped.values()) / recorded if recorded else 0.0,
        "beyond_record": beyond,
        "winners_lost": len(winners & stopped.keys()),
        "best_lost": bool(best & stopped.keys()),
    }


def _stopped_at(replay: optuna.Study, trial: FrozenTrial, grid: Grid) -> int | None:
    """The step at which the replay's pruner stops a trial; None if its record ends first."""
    shown = replay.ask()
    free = str(trial.user_attrs.get("origin", "")).startswith("baseline:")
    for step, value in sorted(trial.intermediate_values.items()):
        shown.report(value, step)
        if not free and step < grid.max_steps and shown.should_prune():
            replay.tell(shown, state=TrialState.PRUNED)
            return step
    if trial.state == TrialState.COMPLETE:
        replay.tell(shown, trial.values[0])
    else:
        replay.tell(shown, state=TrialState.PRUNED)
    return None


@contextmanager
def _silent() -> Iterator[None]:
    """Without Optuna's line of log for each new study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
