"""Which running trials are hopeless. Add a pruner by adding a kind here and to PrunerSpec.

A trial is compared with trials of its own arm only: across arms, a loss that starts slower would
die early. A seeded few of the hopeless ones run on as "shadows": how many of them end among the
best of their arm says how often the pruner is wrong.
"""

from collections.abc import Container

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.study.spec import StudySpec

SHADOW = "shadow"  # attribute: the step at which the trial would have been stopped


def may_stop_at(spec: StudySpec, step: int) -> bool:
    """Whether any trial may be stopped at a step; otherwise there is no need to read one.

    At the last step there is nothing left to save.
    """
    return spec.pruner.kind != "none" and _warmup_steps(spec) <= step < spec.max_steps


def should_prune(study: optuna.Study, spec: StudySpec, number: int) -> bool:
    """Whether a trial's best perplexity is above the median of its arm at this step.

    As Optuna's MedianPruner: the median is over the arm's complete trials. Shadows do not enter,
    or watching the pruner would make it milder.

    Args:
        study: The stored study.
        spec: Its study file.
        number: Of the running trial, with its last evaluation reported.
    """
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if not _may_stop(trial, spec):
        return False
    arm = trial.user_attrs["arm"]
    complete = [
        other
        for other in trials
        if other.state == TrialState.COMPLETE
        and other.user_attrs.get("arm") == arm
        and SHADOW not in other.user_attrs
    ]
    pruner = MedianPruner(spec.pruner.startup_trials, n_warmup_steps=_warmup_steps(spec))
    return pruner.prune(_ReadOnlyStudy(complete), trial)


class _ReadOnlyStudy(optuna.Study):
    """Trials as a pruner looks at them; a study in memory would copy each one at every look."""

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
    """Whether this trial runs on although it should be stopped; the same on every call."""
    rng = np.random.default_rng([spec.sampler.seed, number])
    return bool(rng.random() < spec.pruner.shadow_fraction)


def _may_stop(trial: FrozenTrial, spec: StudySpec) -> bool:
    """Whether stopping is worth a look.

    Baselines always train to their end: the report compares the best trial with their final
    perplexity. A shadow has been through this.
    """
    if trial.last_step is None or not may_stop_at(spec, trial.last_step):
        return False
    return not trial.user_attrs["origin"].startswith("baseline:") and SHADOW not in trial.user_attrs


def _warmup_steps(spec: StudySpec) -> int:
    return round(spec.pruner.warmup_fraction * spec.max_steps)
