"""One arm of a study as an Optuna study of its own: samplers and pruners see nothing of the others.

A slower loss must neither be pruned by a faster one nor send the sampler elsewhere. The view is in
memory and made anew each time: there is nothing to keep in step, also after a resume.
"""

from collections.abc import Iterable

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

BLOWN_UP = ("diverged", "oom", "timeout")  # outcomes told as pruned with the worst perplexity


def arm_trials(study: optuna.Study, arm: str) -> list[FrozenTrial]:
    """The trials of an arm in the order of their numbers, whatever their state."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.user_attrs.get("arm") == arm]


def arm_view(
    trials: Iterable[FrozenTrial], compare: str | None, sampler: BaseSampler | None = None
) -> optuna.Study:
    """An in-memory study of these trials without compare's parameter, which they have in common.

    Failed trials say nothing of their parameters and are left out. A trial that waits to be
    continued counts as running: what it tries is taken.
    """
    view = _quiet_study(sampler)
    for trial in trials:
        if trial.state == TrialState.FAIL:
            continue
        finished = trial.state.is_finished()
        view.add_trial(
            create_trial(
                state=trial.state if finished else TrialState.RUNNING,
                value=trial.value if finished else None,
                params={k: v for k, v in trial.params.items() if k != compare},
                distributions={k: d for k, d in trial.distributions.items() if k != compare},
                intermediate_values=_curve(trial),
            )
        )
    return view


def _curve(trial: FrozenTrial) -> dict[int, float]:
    """A trial's perplexities by step, as the samplers of Optuna should rank it.

    TPE ranks pruned trials by how far they came. One that blew up late came far, but is worse than
    any that was merely pruned: it counts as stopped at step 0.
    """
    if trial.state.is_finished() and trial.user_attrs.get("outcome") in BLOWN_UP:
        return {0: trial.value or 0.0}
    return trial.intermediate_values


def _quiet_study(sampler: BaseSampler | None) -> optuna.Study:
    """An empty study, without Optuna's line of log for each new one."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        return optuna.create_study(sampler=sampler, direction="minimize")
    finally:
        optuna.logging.set_verbosity(verbosity)
