"""What is asked of a sweep: which arms, and how many runs answer it. Runs and judges nothing."""

from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from gpt.errors import InputError
from sweep.analysis import results
from sweep.study.spec import StudySpec

MOST_SEEDS = 900  # as VerdictSpec.seeds


@dataclass(frozen=True)
class Question:
    """A question that can be answered."""

    study: optuna.Study  # the sweep's
    spec: StudySpec  # as stored: margin and budgets were fixed when the sweep began
    arms: list[str]  # the first is the reference of all comparisons
    top: int  # configurations of each arm to screen
    seeds: int  # of the configuration that stands for its arm

    def top_trials(self, arm: str) -> list[FrozenTrial]:
        """The arm's best complete trials of the sweep, the best first."""
        complete = results.complete_trials(self.study, arm)
        return sorted(complete, key=lambda trial: (trial.values[0], trial.number))[: self.top]


def make_question(
    study: optuna.Study,
    arms: list[str] | None = None,
    seeds: int | None = None,
    top: int | None = None,
) -> Question:
    """A question; what is not given is as in the study file.

    Raises:
        InputError: fewer than two arms, an arm that the study does not have or that has no complete
            trial, fewer than 2 seeds, or a number that is too large or too small.
    """
    spec = sweep_spec(study)
    chosen = _chosen_arms(study, arms)
    for arm in chosen:
        results.best_trial(study, arm)  # or it says what to run
    count = spec.verdict.seeds if seeds is None else seeds
    if not 2 <= count <= MOST_SEEDS:
        raise InputError(
            f"--seeds must be from 2 to {MOST_SEEDS}, since one seed shows no spread, "
            f"but got {count}."
        )
    most = spec.verdict.top if top is None else top
    if most < 1:
        raise InputError(f"--top must be at least 1, but got {most}.")
    return Question(study, spec, chosen, most, count)


def sweep_spec(study: optuna.Study) -> StudySpec:
    """The study file of a sweep, as stored.

    Raises:
        InputError: it is another program's study, or itself a phase of a verdict.
    """
    if "spec" not in study.user_attrs:
        raise InputError(
            f"study {study.study_name!r} must be one of `squen-sweep run`, but it is another's."
        )
    if "of" in study.user_attrs:  # as sweep.verdict.confirm_runs binds a phase to its sweep
        sweep, _, phase = study.study_name.rpartition(".")
        raise InputError(
            f"study {study.study_name!r} must be a sweep, but it is the {phase} phase of the "
            f"verdict on {sweep!r}; pass --study {sweep}."
        )
    return StudySpec.model_validate(study.user_attrs["spec"])


def _chosen_arms(study: optuna.Study, asked: list[str] | None) -> list[str]:
    known = results.arms(study)
    for arm in asked or []:
        if arm not in known:
            raise InputError(
                f"--arms must be among {', '.join(known)} in study {study.study_name!r}, "
                f"but got {arm!r}."
            )
    chosen = list(dict.fromkeys(asked or known))
    if len(chosen) < 2:
        what = "--arms names" if asked else f"study {study.study_name!r} has"
        way_out = (
            f"name two of {', '.join(known)}"
            if len(known) > 1
            else 'a study has arms where its file says compare, as in compare = "loss"'
        )
        raise InputError(
            f"a verdict must compare at least two arms, but {what} only {chosen[0]!r}; {way_out}."
        )
    return chosen
