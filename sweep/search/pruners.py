"""The pruner that stops hopeless trials; Optuna's others are named in sweep.study.external.

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

from sweep.search.arms import pruning_view
from sweep.search.known_trials import known_trials
from sweep.storage.schema import trial_attr, trial_attrs
from sweep.study.external.optuna_kinds import make_pruner
from sweep.study.spec import StudySpec


def may_stop_at(spec: StudySpec, step: int) -> bool:
    """Return True if trials may be stopped at a step: after the warm-up and before the end."""
    if spec.pruner.kind == "none" or spec.max_steps is None:  # not known before a trial is complete
        return False
    return _warmup_steps(spec) <= step < spec.max_steps


def should_prune(study: optuna.Study, spec: StudySpec, number: int) -> bool:
    """Return True if the pruner would stop a trial after its last evaluation.

    By default it is Optuna's MedianPruner over the arm's complete trials: the trial's best
    perplexity is above their median at its last step. Shadows are left out: with them, watching the
    pruner would make it milder.

    Args:
        study: The stored study.
        spec: What its study file declares.
        number: The running trial, with its last evaluation reported.
    """
    trials = known_trials(study)
    trial = trials[number]
    if not _may_stop(trial, spec):
        return False
    arm = trial_attrs(trial).arm
    rivals = [other for other in trials if _is_rival(other, arm)]
    complete = [other for other in rivals if other.state == TrialState.COMPLETE]
    if spec.pruner.kind == "median":
        pruner = MedianPruner(spec.pruner.startup_trials, n_warmup_steps=_warmup_steps(spec))
        return pruner.prune(_ReadOnlyStudy(complete, study.direction), trial)
    if len(complete) < spec.pruner.startup_trials:
        return False
    others = [other for other in rivals if other.state in _ENTERED]
    return _optuna_would_prune(study, spec, f"{study.study_name}/{arm}", others, trial)


_ENTERED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def _is_rival(other: FrozenTrial, arm: str | None) -> bool:
    return trial_attr(other, "arm") == arm and trial_attr(other, "shadow") is None


def _optuna_would_prune(
    study: optuna.Study,
    spec: StudySpec,
    name: str,
    others: list[FrozenTrial],
    trial: FrozenTrial,
) -> bool:
    """Ask a pruner of Optuna's about a trial of an arm.

    What it stores, such as the rungs of successive halving, it stores with the trial itself.
    """
    assert spec.max_steps is not None  # or no trial may stop
    kind, startup = spec.pruner.kind, spec.pruner.startup_trials
    first = max(_warmup_steps(spec), 1 if spec.trainer else int(spec.base("eval_interval")))
    pruner = make_pruner(kind, spec.pruner.options, startup, first, spec.max_steps)
    return pruner.prune(pruning_view(study, name, others), trial)


class _ReadOnlyStudy(optuna.Study):
    """Study over an in-memory list of trials; avoids a deep copy of each at every check."""

    def __init__(self, trials: list[FrozenTrial], direction: StudyDirection) -> None:
        self._trials = trials
        self._towards = direction

    @property
    def direction(self) -> StudyDirection:
        return self._towards

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
    return round(spec.pruner.warmup_fraction * (spec.max_steps or 0))
