"""Stored trials as pandas tables, one row per trial or per evaluation.

Add a question by adding a function that takes a table and returns a table.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from gpt.errors import InputError
from sweep.storage.rdb import runs_folder
from sweep.storage.schema import (
    evaluations,
    optuna_studies,
    optuna_trials,
    study_attrs,
    summary_attrs,
    trial_attrs,
)

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = ("complete", "pruned", "diverged", "oom", "timeout", "failed", "running", "waiting")
METRICS = (  # fields of an Evaluation that judge a model by the same measure, whatever its loss
    "perplexity",
    "link_perplexity",
    "story_perplexity",
    "temperature_perplexity",
    "bits_per_byte",
    "accuracy",
    "calibration_error",
    "brier_score",
    "entropy",
    "mean_squared_logit",
)
UNFINISHED = ("running", "waiting")
OUTSIDE = "outside"  # arm and origin of trials that another program added
SCREENING, CONFIRM = "screening", "confirm"  # what `squen-sweep verdict` runs after a sweep

_OUTCOME_OF_STATE = {  # of trials without that attribute: unfinished ones, other people's studies
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trials_table(study: optuna.Study) -> "pd.DataFrame":
    """Return one row per trial, by number.

    Returns:
        number         int64    Optuna's trial number
        state          string   complete, pruned, fail, running or waiting: as Optuna has it
        outcome        string   one of OUTCOMES: why it ended, which the state does not always say
        arm            string   the choice of the parameter that the study compares, or "all"
        origin         string   "baseline:<name>", "sobol", "sampler" or "enqueued"; OUTSIDE, as
                                its arm, of a trial that another program added
        perplexity     float64  on validation. Complete: the result. Pruned and running: the last
                                one measured, so after fewer steps. Otherwise NaN: what Optuna
                                holds of a diverged trial may be a cap, not a measurement
        cross_entropy  float64  nats per token: the logarithm of perplexity
        <parameter>    one column per searched parameter, in the order of the study file: float64,
                       Int64 or string; missing where the trial has no such parameter
        n_params       Int64    weights of the model
        seconds        float64  wall-clock time from the last start to the end
        last_step      Int64    optimiser step of the last evaluation
        reason         string   why it is not complete; missing where it is
    """
    import pandas as pd

    trials = study.get_trials(deepcopy=False)
    space = search_space(study)
    ours = study_attrs(study).spec is not None
    rows = [_row(trial, space, ours and trial_attrs(trial).arm is None) for trial in trials]
    dtypes = {
        "number": "int64",
        "state": "string",
        "outcome": "string",
        "arm": "string",
        "origin": "string",
        "perplexity": "float64",
        "cross_entropy": "float64",
        **{name: _dtype(distribution) for name, distribution in space.items()},
        "n_params": "Int64",
        "seconds": "float64",
        "last_step": "Int64",
        "reason": "string",
    }
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def evaluations_table(storage: RDBStorage, study_name: str) -> "pd.DataFrame":
    """Return every evaluation of a study: trial_number and the fields of gpt.events.Evaluation.

    int64 and float64, by trial_number and step.
    """
    import pandas as pd

    columns = [column for column in evaluations.columns if column.name != "trial_id"]
    number = optuna_trials.c.number.label("trial_number")
    query = (
        sa.select(number, *columns)
        .join(optuna_trials, optuna_trials.c.trial_id == evaluations.c.trial_id)
        .join(optuna_studies, optuna_studies.c.study_id == optuna_trials.c.study_id)
        .where(optuna_studies.c.study_name == study_name)
        .order_by(number, evaluations.c.step)
    )
    dtypes = {c.name: "int64" if c.type.python_type is int else "float64" for c in columns}
    dtypes = {"trial_number": "int64"} | dtypes
    if sa.inspect(storage.engine).has_table(evaluations.name):
        with storage.engine.connect() as connection:
            table = pd.read_sql(query, connection).astype(dtypes)
    else:  # Optuna's tools made this database
        table = pd.DataFrame(columns=list(dtypes)).astype(dtypes)
    if table.empty and study_name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=study_name, storage=storage)
        return _reported(study, list(dtypes)) if study_attrs(study).spec is not None else table
    return table


def _reported(study: optuna.Study, columns: list[str]) -> "pd.DataFrame":
    """Return the metric at each step of a study that Optuna copied: it copies no other figure."""
    import pandas as pd

    metric = (study_attrs(study).spec or {}).get("metric", "perplexity")
    rows = [
        {"trial_number": trial.number, "step": step, metric: value}
        for trial in study.get_trials(deepcopy=False)
        for step, value in sorted(trial.intermediate_values.items())
    ]
    table = pd.DataFrame(rows, columns=columns).astype("float64")
    if metric == "perplexity":
        table["cross_entropy"] = np.log(table["perplexity"])
    return table.astype({"trial_number": "int64", "step": "int64"})


def confirm_runs_table(storage: RDBStorage, study: optuna.Study) -> "pd.DataFrame":
    """Return one row per finished run of `squen-sweep verdict` after this sweep.

    Returns:
        phase          string   "screening" (a few configurations of each arm, on the sweep's own
                                validation stories) or "confirm" (the one that was chosen, on
                                stories that the sweep never saw)
        number         int64    of the run, within its phase
        arm            string
        of_trial       int64    the sweep's trial whose configuration it has
        seed           int64    of initialisation and data order; runs of one seed are a pair
        outcome        string   one of OUTCOMES
        run_dir        string   of its training
        <metric>       float64  the last evaluation: perplexity, cross_entropy in nats per token,
                                and every other field of gpt.events.Evaluation; NaN where the run
                                is not complete
        By phase and number.
    """
    import pandas as pd

    tables = [_runs_of_phase(storage, study, phase) for phase in (SCREENING, CONFIRM)]
    return pd.concat(tables, ignore_index=True)


def phase_name(study: str, phase: str) -> str:
    """Return the usual name of the study that holds the runs of a phase."""
    return f"{study}.{phase}"


def name_of_phase(storage: RDBStorage, study: optuna.Study, phase: str) -> str:
    """Return the name of the study that holds the runs of a phase, or is to hold them.

    It is found by the identity of the sweep, which stays when either of the two is renamed.
    """
    usual, identity = phase_name(study.study_name, phase), study_attrs(study).identity
    summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
    for summary in sorted(summaries, key=lambda one: one._study_id):  # copies come later
        attrs = summary_attrs(summary)
        began_as = str((attrs.spec or {}).get("name"))
        if attrs.of is not None and attrs.of == identity and began_as.endswith(f".{phase}"):
            return summary.study_name
        if attrs.of is None and summary.study_name == usual:  # not bound yet
            return usual
    if usual in {summary.study_name for summary in summaries}:  # of a sweep that was deleted
        return phase_name(f"{study.study_name}.{(identity or '')[:8]}", phase)
    return usual


def missing_runs(study: optuna.Study) -> list[int]:
    """List the trials that began to train and have no run directory any more."""
    folder = runs_folder(study)
    return [
        trial.number
        for trial in study.get_trials(deepcopy=False)
        if trial_attrs(trial).n_params is not None and not (folder / str(trial.number)).is_dir()
    ]


def _runs_of_phase(storage: RDBStorage, study: optuna.Study, phase: str) -> "pd.DataFrame":
    import pandas as pd

    name = name_of_phase(storage, study, phase)
    there = name in optuna.get_all_study_names(storage)
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    rows: list[dict[str, Any]] = []
    if there:
        confirm = optuna.load_study(study_name=name, storage=storage)
        rows = [_confirm_row(confirm, run, phase) for run in confirm.get_trials(False, ended)]
    table = pd.DataFrame(rows, columns=list(_CONFIRM_DTYPES)).astype(_CONFIRM_DTYPES)
    last = last_evaluations(evaluations_table(storage, name)).astype("float64")
    table = table.join(last, on="number")
    table.loc[table["outcome"] != "complete", last.columns.to_list()] = math.nan
    return table


def _confirm_row(study: optuna.Study, run: FrozenTrial, phase: str) -> dict[str, Any]:
    attrs = trial_attrs(run)
    named = {"arm": attrs.arm, "of_trial": attrs.of_trial, "outcome": attrs.outcome}
    named["run_dir"] = str(run_dir(study, run))
    return {"phase": phase, "number": run.number, "seed": run.params["seed"], **named}


_CONFIRM_DTYPES = {
    "phase": "string",
    "number": "int64",
    "arm": "string",
    "of_trial": "int64",
    "seed": "int64",
    "outcome": "string",
    "run_dir": "string",
}


def last_evaluations(evaluations: "pd.DataFrame") -> "pd.DataFrame":
    """Select the last evaluation of each trial, indexed by trial_number."""
    ordered = evaluations.sort_values(["trial_number", "step"])
    return ordered.drop_duplicates("trial_number", keep="last").set_index("trial_number")


def arms(study: optuna.Study) -> list[str]:
    """List the arms of the study, in the order of its file; ["all"] if it compares nothing."""
    spec = study_attrs(study).spec or {}
    compared = spec.get("compare")
    if compared is None:
        return ["all"]
    return [str(choice) for choice in spec["search"][compared]["choices"]]


def compared_parameter(study: optuna.Study) -> str | None:
    """Return the name of the parameter whose choices are the arms, or None."""
    compared: str | None = (study_attrs(study).spec or {}).get("compare")
    return compared


def arm_of(trial: FrozenTrial) -> str:
    """Return the arm of a trial; "all" in a study that compares nothing."""
    return trial_attrs(trial).arm or "all"


def outcome_of(trial: FrozenTrial) -> str:
    """Return one of OUTCOMES: the reason why a trial ended, or its state before."""
    if not trial.state.is_finished():  # the attribute is written a moment before the state
        return _OUTCOME_OF_STATE[trial.state]
    return trial_attrs(trial).outcome or _OUTCOME_OF_STATE[trial.state]


def search_space(study: optuna.Study) -> dict[str, BaseDistribution]:
    """Return each parameter that some trial has, in the file's order, with its distribution."""
    space: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        space = trial.distributions | space
    in_file = (study_attrs(study).spec or {}).get("search", {})
    return {name: space[name] for name in {**in_file, **space} if name in space}


def best_trial(study: optuna.Study, arm: str | None = None) -> FrozenTrial:
    """Return the complete trial of the lowest perplexity, of one arm if given; the first of equals.

    Raises:
        InputError: no trial (of the arm) is complete, or the study has no such arm.
    """
    if arm is not None and arm not in arms(study):
        raise InputError(
            f"arm must be one of {', '.join(arms(study))} in study {study.study_name!r}, "
            f"but got {arm!r}."
        )
    complete = complete_trials(study, arm)
    if not complete:
        of_arm = "" if arm is None else f" of {arm}"
        raise InputError(
            f"study {study.study_name!r} must have a complete trial{of_arm}, but it has none; "
            f"run: squen-sweep run --study {study.study_name}"
        )
    return min(complete, key=_value_then_number)


def run_dir(study: optuna.Study, trial: FrozenTrial) -> Path:
    """Return the run directory of a trial, whether or not it is still there.

    Raises:
        InputError: it has none: another program made it.
    """
    attrs = trial_attrs(trial)
    if attrs.arm is None and attrs.run_dir is None:
        raise InputError(
            f"trial {trial.number} of study {study.study_name!r} must have a run directory, but it "
            f"has none; only what `squen-sweep run` trained can be exported or reported."
        )
    return runs_folder(study) / str(trial.number)


def best_by_arm(study: optuna.Study) -> dict[str, tuple[int, float]]:
    """Return number and perplexity of the best trial of each arm that has a complete one."""
    best = {}
    complete = complete_trials(study)  # read once for all arms
    for arm in arms(study):
        if of_arm := [trial for trial in complete if arm_of(trial) == arm]:
            value, number = min(map(_value_then_number, of_arm))
            best[arm] = (number, value)
    return best


def complete_trials(study: optuna.Study, arm: str | None = None) -> list[FrozenTrial]:
    """List our trials, of one arm if given, that are complete with a finite perplexity."""
    ours = study_attrs(study).spec is not None
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if arm in (None, arm_of(trial))
        and not (ours and trial_attrs(trial).arm is None)
        and math.isfinite(trial.values[0])
    ]


def best_so_far(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Return the lowest complete perplexity after each finished trial of an arm.

    Returns:
        number (of the trial), arm, nth (1, 2, ... within the arm, by number; pruned and diverged
        trials count, they cost budget too), perplexity (NaN until the arm has a complete trial).
    """
    finished = trials[~trials["outcome"].isin(UNFINISHED)].sort_values("number")
    complete = finished["perplexity"].where(finished["outcome"] == "complete")
    best = complete.groupby(finished["arm"]).cummin()
    table = finished[["number", "arm"]].copy()
    table["nth"] = table.groupby("arm").cumcount() + 1
    table["perplexity"] = best.groupby(finished["arm"]).ffill()
    return table.reset_index(drop=True)


def outcome_counts(trials: "pd.DataFrame", arms: list[str]) -> "pd.DataFrame":
    """Count outcomes: one row per arm, one column per outcome that occurred."""
    import pandas as pd

    counts = pd.crosstab(trials["arm"], trials["outcome"])
    happened = [outcome for outcome in OUTCOMES if outcome in counts.columns]
    table = counts.reindex(index=arms, columns=happened, fill_value=0).astype("int64")
    return table.rename_axis(index="arm", columns=None)


def _row(trial: FrozenTrial, space: dict[str, BaseDistribution], outside: bool) -> dict[str, Any]:
    outcome, attrs = outcome_of(trial), trial_attrs(trial)
    perplexity = _measured(trial, outcome)
    params = {name: trial.params.get(name) for name in space}
    return params | {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "outcome": outcome,
        "arm": OUTSIDE if outside else arm_of(trial),
        "origin": OUTSIDE if outside else attrs.origin,
        "perplexity": perplexity,
        "cross_entropy": math.log(perplexity) if perplexity > 0 else math.nan,
        "n_params": attrs.n_params,
        "seconds": trial.duration.total_seconds() if trial.duration is not None else math.nan,
        "last_step": trial.last_step,
        "reason": attrs.reason,
    }


def _value_then_number(trial: FrozenTrial) -> tuple[float, int]:
    return trial.values[0], trial.number


def _measured(trial: FrozenTrial, outcome: str) -> float:
    """Return the perplexity that was measured last, or NaN."""
    if outcome == "complete":
        return float(trial.values[0])
    if outcome in ("pruned", "running") and trial.last_step is not None:
        return float(trial.intermediate_values[trial.last_step])
    return math.nan


def _dtype(distribution: BaseDistribution) -> str:
    if isinstance(distribution, FloatDistribution):
        return "float64"
    if isinstance(distribution, IntDistribution):
        return "Int64"
    if isinstance(distribution, CategoricalDistribution):
        kinds = {type(choice) for choice in distribution.choices}
        if kinds == {int}:
            return "Int64"
        if kinds <= {int, float}:
            return "float64"
        return "string" if kinds == {str} else "object"
    return "object"
