"""The pruner that stops hopeless trials. Add one by adding a kind here and to PrunerSpec.

A trial is compared with trials of its own arm only: across arms, a loss that starts slower would
die early. A seeded share of the hopeless trials runs on as "shadows": how many of them end among
the best of their arm shows how often the pruner is wrong.
"""

from collections.abc import Container

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.storage.schema import trial_attrs
from sweep.study.spec import StudySpec


def may_stop_at(spec: StudySpec, step: int) -> bool:
    """Return True if trials may be stopped at a step: after the warm-up and before the end."""
    return spec.pruner.kind != "none" and _warmup_steps(spec) <= step < spec.max_steps


def should_prune(study: optuna.Study, spec: StudySpec, number: int) -> bool:
    """Return True if a trial's best perplexity is above the median of its arm at its last step.

    Optuna's MedianPruner over the arm's complete trials, without shadows: with them, watching the
    pruner would make it milder.

    Args:
        study: The stored study.
        spec: What its study file declares.
        number: The running trial, with its last evaluation reported.
    """
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if not _may_stop(trial, spec):
        return False
    arm = trial_attrs(trial).arm
    complete = [
        other
        for other in trials
        if other.state == TrialState.COMPLETE
        and trial_attrs(other).arm == arm
        and trial_attrs(other).shadow is None
    ]
    pruner = MedianPruner(spec.pruner.startup_trials, n_warmup_steps=_warmup_steps(spec))
    return pruner.prune(_ReadOnlyStudy(complete), trial)


class _ReadOnlyStudy(optuna.Study):
    """Study over an in-memory list of trials; avoids a deep copy of each at every check."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        self._trials = trials

    @property
    def direction(self) -> StudyDirection:
        return StudyDirection.MINIMIZE

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def is_shadow(spec: StudySpec, number: int) -> bool:
    """Return True if a trial runs on although it should be stopped; the same on every call."""
    rng = np.random.default_rng([spec.sampler.seed, number])
    return bool(rng.random() < spec.pruner.shadow_fraction)


def _may_stop(trial: FrozenTrial, spec: StudySpec) -> bool:
    """Return False for baselines, which the report compares the best with, and for shadows."""
    if trial.last_step is None or not may_stop_at(spec, trial.last_step):
        return False
    attrs = trial_attrs(trial)
    return attrs.shadow is None and not (attrs.origin or "").startswith("baseline:")


def _warmup_steps(spec: StudySpec) -> int:
    return round(spec.pruner.warmup_fraction * spec.max_steps)
