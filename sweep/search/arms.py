"""One arm of a study as an Optuna study of its own, so that samplers learn from it alone.

A slower loss must neither be pruned by a faster one nor send the sampler elsewhere. The view is in
memory and made anew each time: nothing has to be kept in step, not even after a resume.
"""

import copy
import math
import sys
from collections.abc import Container, Iterable, Sequence
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.storage.schema import trial_attr, trial_attrs
from sweep.study.metric import PERPLEXITY, Metric

CAPPED_OUTCOMES = ("diverged", "oom", "timeout")  # stored as pruned, with the worst perplexity


def arm_trials(study: optuna.Study, arm: str) -> list[FrozenTrial]:
    """Return the trials of an arm by number, in any state."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial_attr(trial, "arm") == arm]


def arm_view(
    trials: Iterable[FrozenTrial],
    compare: str | None,
    sampler: BaseSampler | None = None,
    metric: Metric = PERPLEXITY,
) -> optuna.Study:
    """Return a study in memory to ask once, with one arm's trials.

    Compare's parameter is left out, since they share it. So are failed trials, which say nothing
    about their parameters. A trial that waits to be continued counts as running.
    """
    counted = (trial for trial in trials if trial.state != TrialState.FAIL)
    seen = [_seen(trial, number, compare) for number, trial in enumerate(counted, 1)]
    return _quiet_study(_Known(seen), sampler, metric.direction)


def gp_observations(
    trials: Sequence[FrozenTrial], metric: Metric = PERPLEXITY
) -> list[FrozenTrial]:
    """Return trials as observations for a Gaussian process, valued by log perplexity.

    Perplexities span orders of magnitude; any other metric stays as it is. A pruned trial has its
    forecast as its value, or it would look bad for not having been trained to its end; one that
    diverged, or whose value is infinite, has the worst finite value of all.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    values = [trial.value for trial in trials if trial.value is not None]
    values = [value for value in values if math.isfinite(value)]
    worst = max(values, key=metric.rank, default=math.nan)
    return [_gp_observation(trial, complete, metric, worst) for trial in trials]


def _gp_observation(
    trial: FrozenTrial, complete: Sequence[FrozenTrial], metric: Metric, worst: float
) -> FrozenTrial:
    value, pruned = trial.value, trial.state == TrialState.PRUNED
    lost = (pruned and _is_capped(trial)) or not (value is None or math.isfinite(value))
    if lost and not math.isnan(worst):
        value = worst
    if value is None:  # running, waiting or failed
        return trial
    if pruned and not lost and metric.is_perplexity:
        value = forecast(trial, complete)
    taken = copy.copy(trial)
    taken.value = _log(value) if metric.is_perplexity else value
    taken.state = TrialState.COMPLETE
    return taken


def _log(value: float) -> float:
    """Return the logarithm; 0 and infinity, of a program whose figure is no nats, have one too."""
    return math.log(min(max(value, math.ulp(0.0)), sys.float_info.max))


def _is_capped(trial: FrozenTrial) -> bool:
    return trial_attrs(trial).outcome in CAPPED_OUTCOMES


class _Known(InMemoryStorage):
    """In-memory storage with known trials; number 0 is the one that a sampler is asked for.

    The trials are never copied, whatever `deepcopy` says: with 1,000 of them, copying took most of
    the time of a proposal.
    """

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._known = trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        known = [trial for trial in self._known if states is None or trial.state in states]
        return super().get_all_trials(study_id, deepcopy, states) + known


class _Pruning(_Known):
    """Known trials of an arm, whose system attributes are written to the stored study."""

    def __init__(
        self, trials: list[FrozenTrial], stored: BaseStorage, direction: StudyDirection
    ) -> None:
        super().__init__(trials)
        self._stored = stored
        self._sign = -1 if direction == StudyDirection.MAXIMIZE else 1

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._stored.set_trial_system_attr(trial_id, key, value)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        complete = [trial for trial in self._known if trial.state == TrialState.COMPLETE]
        if not complete:
            raise ValueError("No trials are completed yet.")  # as Optuna's own storages
        return min(complete, key=lambda trial: (self._sign * trial.values[0], trial.number))


def pruning_view(study: optuna.Study, name: str, trials: list[FrozenTrial]) -> optuna.Study:
    """Return a study of one arm's trials to ask a pruner of Optuna's with.

    Args:
        study: The stored study.
        name: Of the arm; Hyperband chooses a trial's bracket by it and by the trial's number.
        trials: As they are stored, with their numbers.
    """
    known = _Pruning(trials, study._storage, study.direction)
    return _quiet_study(known, None, study.direction, name)


def _seen(trial: FrozenTrial, number: int, compare: str | None) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.number = number  # samplers sort by it
    if not trial.state.is_finished():
        seen.state = TrialState.RUNNING
    seen.params = {k: v for k, v in trial.params.items() if k != compare}
    seen.distributions = {k: d for k, d in trial.distributions.items() if k != compare}
    seen.intermediate_values = _curve(trial)
    return seen


def _curve(trial: FrozenTrial) -> dict[int, float]:
    """Return a trial's perplexities by step, as Optuna's samplers should rank it.

    TPE ranks pruned trials by their last step. One that diverged late came far, but is worse than
    any that was merely pruned: it counts as stopped at step 0.
    """
    if trial.state.is_finished() and _is_capped(trial):
        return {0: trial.value or 0.0}
    return trial.intermediate_values


def _quiet_study(
    storage: BaseStorage,
    sampler: BaseSampler | None,
    direction: Literal["minimize", "maximize"] | StudyDirection,
    name: str | None = None,
) -> optuna.Study:
    """Create a study without Optuna's log line."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        return optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, direction=direction
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def forecast(trial: FrozenTrial, complete: Sequence[FrozenTrial]) -> float:
    """Return the final perplexity that a pruned trial was heading for.

    The complete trial that was nearest at this one's last step went on to fall by some factor; this
    one is assumed to fall by the same.

    Args:
        trial: A pruned trial whose value is its last perplexity.
        complete: Trials of the same arm, evaluated at the same steps.

    Returns:
        Its own last perplexity where no complete trial was evaluated at that step, or where a
        figure is 0 or infinite, which no factor leads to.
    """
    value: float = trial.values[0]
    step = trial.last_step
    if step is None:
        return value
    there: list[tuple[float, float]] = [
        (other.intermediate_values[step], other.values[0])
        for other in complete
        if 0 < other.intermediate_values.get(step, math.nan) < math.inf
        if other.values[0] < math.inf
    ]
    if not there or value == 0:
        return value
    at_step, end = min(there, key=lambda pair: abs(_log(pair[0] / value)))
    return value * end / at_step
