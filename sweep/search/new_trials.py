"""Trials that begin: proposed ones, and those that somebody has enqueued, completed.

Both are stored with their arm, their origin and all parameters of the study.
"""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sweep.search.samplers import next_arm, next_proposal
from sweep.storage.schema import new_trial_attrs, set_trial_attrs
from sweep.study.spec import StudySpec

CheckParams = Callable[[dict[str, Any]], None]  # raises InputError for what cannot be trained


def add_trial(study: optuna.Study, spec: StudySpec, check: CheckParams) -> FrozenTrial:
    """Add the next trial, stored as RUNNING in one transaction with all that it needs.

    Args:
        study: As its one writer has it.
        spec: Its specification.
        check: Of the trainer.

    Raises:
        InputError: its parameters cannot be trained.
    """
    arm = next_arm(study, spec)
    proposal = next_proposal(study, spec, arm)
    params = proposal.params
    check(params)
    new = create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=spec.distributions(params),
        user_attrs=new_trial_attrs(arm=arm, origin=proposal.origin),
        system_attrs=proposal.system_attrs,
    )
    trial_id = study._storage.create_new_trial(study._study_id, new)
    number = study._storage.get_trial_number_from_id(trial_id)
    return study.get_trials(deepcopy=False)[number]  # others may add one meanwhile


def complete_enqueued(
    study: optuna.Study, spec: StudySpec, frozen: FrozenTrial, check: CheckParams
) -> FrozenTrial:
    """Give a trial of `study.enqueue_trial` its arm and the parameters that it does not fix.

    Args:
        study: As its one writer has it.
        spec: Its specification.
        frozen: The trial, which runs and has no arm.
        check: Of the trainer.

    Raises:
        InputError: a parameter is not searched, or outside of its range, or cannot be trained.
    """
    fixed = frozen.system_attrs.get("fixed_params", {})
    arm = str(fixed[spec.compare]) if spec.compare in fixed else next_arm(study, spec)
    drawn = next_proposal(study, spec, arm).params
    params = spec.completed(arm, fixed, drawn)
    check(params)
    for name, distribution in spec.distributions(params).items():
        internal = distribution.to_internal_repr(params[name])
        study._storage.set_trial_param(frozen._trial_id, name, internal, distribution)
    set_trial_attrs(Trial(study, frozen._trial_id), arm=arm, origin="enqueued")
    return study.get_trials(deepcopy=False)[frozen.number]
