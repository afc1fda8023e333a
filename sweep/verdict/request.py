"""A request for a verdict: which arms are compared, and with how many runs."""

from collections.abc import Iterable
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from gpt.errors import InputError
from sweep.analysis import results
from sweep.storage.rdb import located_spec
from sweep.storage.schema import attrs_of_all, is_confirm_study, study_attrs
from sweep.study.spec import MOST_SEEDS, StudySpec


@dataclass(frozen=True)
class VerdictRequest:
    """A request that can be answered."""

    study: optuna.Study  # the sweep's
    spec: StudySpec  # as stored: metric, margin and budgets were fixed when the sweep began
    arms: list[str]  # the first is the reference of all comparisons
    top: int  # configurations of each arm to screen
    seeds: int  # of the configuration that stands for its arm

    def top_trials(self, arm: str) -> list[FrozenTrial]:
        """Return the arm's best complete trials of the sweep, the best first."""
        complete = results.complete_trials(self.study, arm)
        return sorted(complete, key=results.rank_key(self.study))[: self.top]


def make_request(
    study: optuna.Study,
    arms: list[str] | None = None,
    seeds: int | None = None,
    top: int | None = None,
) -> VerdictRequest:
    """Check what is asked; whatever is not given is as in the study file.

    Args:
        study: The sweep's.
        arms: At least two, the first the reference; None: all.
        seeds: From 2 to MOST_SEEDS.
        top: At least 1.

    Raises:
        InputError: fewer than two arms, an arm that the study does not have or that has no complete
            trial, a number out of its range, or trials to train again that have no ratio.
    """
    spec = sweep_spec(study)
    if spec.trainer is not None and not spec.trainer.passes_seed(spec.search):
        raise InputError(
            f"a verdict must train with fresh seeds, but trainer.command of study "
            f"{study.study_name!r} has no {{seed}}; add it, and start a new study with "
            f"--as NEW_NAME."
        )
    chosen = _chosen_arms(study, arms)
    for arm in chosen:
        results.best_trial(study, arm)  # raises where the arm has none
    count = spec.verdict.seeds if seeds is None else seeds
    if not 2 <= count <= MOST_SEEDS:
        raise InputError(
            f"--seeds must be from 2 to {MOST_SEEDS}, since one seed shows no spread, "
            f"but got {count}."
        )
    most = spec.verdict.top if top is None else top
    if most < 1:
        raise InputError(f"--top must be at least 1, but got {most}.")
    request = VerdictRequest(study, spec, chosen, most, count)
    require_ratio(study, [trial.values[0] for arm in chosen for trial in request.top_trials(arm)])
    return request


def require_ratio(study: optuna.Study, figures: Iterable[float]) -> None:
    """Raise InputError for a figure of the study's metric that is not above 0: it has no ratio."""
    lowest = min(figures, default=1.0)
    if lowest <= 0:
        raise InputError(
            f"a verdict must compare values above 0, as it compares their ratio, but a run has "
            f"{results.metric_of_study(study).name} {lowest:g}; let the program report a positive "
            f"figure, such as a loss."
        )


def sweep_spec(study: optuna.Study) -> StudySpec:
    """Return the stored study file of a sweep.

    Raises:
        InputError: it is another program's study, or itself a phase of a verdict.
    """
    results.require_ours(study)
    stored = study_attrs(study).spec or {}
    if is_confirm_study(study):
        sweep, phase = _sweep_of(study), str(stored["name"]).rpartition(".")[2]
        way = "which was deleted" if sweep is None else f"pass --study {sweep}"
        raise InputError(
            f"study {study.study_name!r} must be a sweep, but it is the {phase} phase of the "
            f"verdict on {'another study' if sweep is None else repr(sweep)}; {way}."
        )
    return located_spec(study)


def _sweep_of(phase: optuna.Study) -> str | None:
    """Return the present name of the sweep that a phase belongs to; None if it was deleted."""
    sweep = study_attrs(phase).of
    studies = attrs_of_all(phase._storage).items()
    names = (name for name, (_, attrs) in studies if attrs.identity == sweep)
    return next(names, None)


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
