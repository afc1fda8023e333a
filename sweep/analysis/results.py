"""Stored trials as pandas tables, one row per trial or per evaluation.

Add a question by adding a function that takes a table and returns a table.
"""

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gpt.errors import InputError
from sweep.storage.location import runs_folder
from sweep.storage.schema import (
    TrialAttrs,
    attrs_of_all,
    is_ours,
    study_attrs,
    trial_attr,
    trial_attrs,
)
from sweep.study.metric import Metric, metric_of

if TYPE_CHECKING:
    import pandas as pd
    from optuna.storages import RDBStorage

    from sweep.analysis.study_reader import StudyReader

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

_OUTCOME_OF_STATE = {  # of trials without that attribute: unfinished ones, other people's studies
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


_COLUMNS = {
    "number": "int64",
    "state": "string",
    "outcome": "string",
    "arm": "string",
    "origin": "string",
    "perplexity": "float64",
    "cross_entropy": "float64",
}
_COLUMNS_AFTER = {
    "n_params": "Int64",
    "seconds": "float64",
    "last_step": "Int64",
    "reason": "string",
}
_TAKEN = {  # columns that are no parameter's, with those that a report adds
    *_COLUMNS,
    *_COLUMNS_AFTER,
    *METRICS,
    *("tokens", "elapsed_seconds", "slot", "tokens_per_second", "peak_memory_bytes"),
    *("training_share", "story"),
}


def param_column(parameter: str) -> str:
    """Return the column of a searched parameter in tables of trials; most have its own name."""
    return f"params_{parameter}" if parameter in _TAKEN else parameter


def open(storage: str | Path, study: str) -> "StudyReader":  # noqa: A001 - results.open(...)
    """Open a study of `squen-sweep run` for reading: its tables, arms and searched parameters.

    Args:
        storage: Path of a SQLite file, or a SQLAlchemy URL.
        study: Name of the study.

    Returns:
        A snapshot, with the pandas tables `trials`, `evaluations` and `confirm_runs`.

    Raises:
        InputError: there is no such storage or study, or another program made it.

    Example:
        >>> found = results.open("runs/sweep.db", "tinystories")
        >>> found.trials.sort_values("perplexity")[["number", "arm", "perplexity"]].head()
    """
    from sweep.analysis.study_reader import read_study
    from sweep.storage.rdb import open_storage
    from sweep.storage.reader import load_study

    opened = open_storage(str(storage))
    return read_study(opened, load_study(opened, study))


def require_ours(study: optuna.Study) -> None:
    """Raise InputError for a study that another program made: it has no arms and no perplexity."""
    if not is_ours(study):
        raise InputError(
            f"study {study.study_name!r} must be one of `squen-sweep run`, but another program "
            f"made it; `squen-sweep status` and `squen-sweep dashboard` show it."
        )


def trials_table(study: optuna.Study) -> "pd.DataFrame":
    """Return one row per trial, by number.

    Returns:
        number         int64    Optuna's trial number
        state          string   complete, pruned, fail, running or waiting: as Optuna has it
        outcome        string   one of OUTCOMES: why it ended, which the state does not always say
        arm            string   the choice of the parameter that the study compares, or "all"
        origin         string   "baseline:<name>", "sobol", "sampler" or "enqueued"; OUTSIDE, as
                                its arm, of a trial that another program added
        perplexity     float64  on validation; of a program with another metric, that metric.
                                Complete: the result. Pruned and running: the last
                                one measured, so after fewer steps. Otherwise NaN: what Optuna
                                holds of a diverged trial may be a cap, not a measurement
        cross_entropy  float64  nats per token: the logarithm of perplexity; NaN of another metric
        <parameter>    one column per searched parameter, in the order of the study file: float64,
                       Int64 or string; missing where the trial has no such parameter. One that
                       is called as another column is "params_<name>", see `param_column`
        n_params       Int64    weights of the model
        seconds        float64  wall-clock time from the last start to the end
        last_step      Int64    optimiser step of the last evaluation
        reason         string   why it is not complete; missing where it is
    """
    import pandas as pd

    space = search_space(study)
    dtypes = {
        **_COLUMNS,
        **{param_column(name): _dtype(distribution) for name, distribution in space.items()},
        **_COLUMNS_AFTER,
    }
    rows = [
        dict.fromkeys(dtypes)
        | {param_column(name): value for name, value in row["params"].items()}
        | {name: value for name, value in row.items() if name in dtypes}
        for row in trial_rows(study)
    ]
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def evaluations_table(storage: "RDBStorage", study_name: str) -> "pd.DataFrame":
    """Return every evaluation of a study: trial_number and the fields of gpt.events.Evaluation.

    int64 and float64, by trial_number and step.
    """
    import pandas as pd
    import sqlalchemy as sa

    from sweep.storage.tables import evaluations, optuna_studies, optuna_trials

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
    if table.empty and study_name in attrs_of_all(storage):
        study = optuna.load_study(study_name=study_name, storage=storage)
        return _reported(study, list(dtypes)) if is_ours(study) else table
    return table


def _reported(study: optuna.Study, columns: list[str]) -> "pd.DataFrame":
    """Return the metric at each step of a study that Optuna copied: it copies no other figure."""
    import numpy as np
    import pandas as pd

    metric = ranked_column(study)
    rows = [
        {"trial_number": trial.number, "step": step, metric: value}
        for trial in study.get_trials(deepcopy=False)
        for step, value in sorted(trial.intermediate_values.items())
    ]
    table = pd.DataFrame(rows, columns=columns).astype("float64")
    if metric == "perplexity" and metric_of_study(study).is_perplexity:
        table["cross_entropy"] = np.log(table["perplexity"])
    return table.astype({"trial_number": "int64", "step": "int64"})


def missing_runs(study: optuna.Study) -> list[int]:
    """List the trials that began to train and have no run directory any more."""
    folder = runs_folder(study)
    return [
        trial.number
        for trial in study.get_trials(deepcopy=False)
        if trial_attrs(trial).n_params is not None and not (folder / str(trial.number)).is_dir()
    ]


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
    return trial_attr(trial, "arm") or "all"


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
    """Return the complete trial of the best metric, of one arm if given; the first of equals.

    In a study of another program that of the lowest or the highest value, by its direction.

    Raises:
        InputError: no trial (of the arm) is complete, the study has no such arm, or it has several
            objectives.
    """
    if arm is not None and arm not in arms(study):
        raise InputError(
            f"arm must be one of {', '.join(arms(study))} in study {study.study_name!r}, "
            f"but got {arm!r}."
        )
    if len(study.directions) > 1:
        raise InputError(
            f"study {study.study_name!r} must have one objective, but it has "
            f"{len(study.directions)}: several trials may be best."
        )
    complete = complete_trials(study, arm)
    if not complete:
        of_arm = "" if arm is None else f" of {arm}"
        named = shlex.quote(study.study_name)
        way = f"; why: squen-sweep status --study {named}" if is_ours(study) else ""
        raise InputError(
            f"study {study.study_name!r} must have a complete trial{of_arm}, but it has none{way}"
            + ("" if way else ".")
        )
    return min(complete, key=rank_key(study))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best complete trials of a study: one, or where it has several objectives, all
    of which no other trial is as good in every one and better in one.
    """
    complete = complete_trials(study)
    if len(study.directions) == 1:
        return [min(complete, key=rank_key(study))] if complete else []
    front = {trial.number for trial in study.best_trials}
    return [trial for trial in complete if trial.number in front]


def run_dir(study: optuna.Study, trial: FrozenTrial, folder: Path | None = None) -> Path:
    """Return the run directory of a trial, whether or not it is still there.

    Args:
        study: The trial's.
        trial: Which was trained by `squen-sweep`.
        folder: That of all run directories of the study, where it is known: it takes a query.

    Raises:
        InputError: it has none: another program made it.
    """
    attrs = trial_attrs(trial)
    if attrs.arm is None and attrs.run_dir is None:
        raise InputError(
            f"trial {trial.number} of study {study.study_name!r} must have a run directory, but it "
            f"has none; only what `squen-sweep run` trained can be exported or reported."
        )
    return (folder or runs_folder(study)) / str(trial.number)


def best_by_arm(study: optuna.Study) -> dict[str, tuple[int, float]]:
    """Return number and perplexity of the best trial of each arm that has a complete one.

    In a study of another program its value; empty where that has several objectives.
    """
    best = {}
    complete = complete_trials(study) if len(study.directions) == 1 else []  # once for all arms
    rank, ours = rank_key(study), is_ours(study)
    for arm in arms(study):
        if of_arm := [trial for trial in complete if not ours or arm_of(trial) == arm]:
            first = min(of_arm, key=rank)
            best[arm] = (first.number, first.values[0])
    return best


def complete_trials(study: optuna.Study, arm: str | None = None) -> list[FrozenTrial]:
    """List our trials, of one arm if given, that are complete with a finite perplexity.

    Of a study of another program all that are complete, finite, and within its constraints.
    """
    ours = is_ours(study)
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if (not ours or (trial_attrs(trial).arm is not None and arm in (None, arm_of(trial))))
        and all(map(math.isfinite, trial.values))
        and all(bound <= 0 for bound in trial.system_attrs.get("constraints") or ())
    ]


def outcome_counts(trials: "pd.DataFrame", arms: list[str]) -> "pd.DataFrame":
    """Count outcomes: one row per arm, one column per outcome that occurred."""
    import pandas as pd

    counts = pd.crosstab(trials["arm"], trials["outcome"])
    happened = [outcome for outcome in OUTCOMES if outcome in counts.columns]
    table = counts.reindex(index=arms, columns=happened, fill_value=0).astype("int64")
    return table.rename_axis(index="arm", columns=None)


def trial_rows(study: optuna.Study) -> list[dict[str, Any]]:
    """Return one plain row per trial, by number: the columns of `trials_table`, and

    params  dict of name and value
    values  list of floats, one for each objective; None where Optuna holds none

    A study of another program is one arm, and "perplexity" is its objective if it has just one.
    """
    ours = is_ours(study)
    single = len(study.directions) == 1
    of_softmax = ours and ranked_column(study) == "perplexity"
    logarithmic = of_softmax and metric_of_study(study).is_perplexity
    trials = study.get_trials(deepcopy=False)
    return [_row(trial, ours, single, logarithmic) for trial in trials]


def _row(trial: FrozenTrial, ours: bool, single: bool, logarithmic: bool) -> dict[str, Any]:
    attrs = trial_attrs(trial) if ours else TrialAttrs()
    outside = ours and attrs.arm is None
    outcome = outcome_of(trial) if ours else _OUTCOME_OF_STATE[trial.state]
    perplexity = _measured(trial, outcome) if single else math.nan
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "outcome": outcome,
        "arm": OUTSIDE if outside else attrs.arm or "all",
        "origin": OUTSIDE if outside else attrs.origin,
        "perplexity": perplexity,
        "cross_entropy": math.log(perplexity) if logarithmic and perplexity > 0 else math.nan,
        "n_params": attrs.n_params,
        "seconds": trial.duration.total_seconds() if trial.duration is not None else math.nan,
        "last_step": trial.last_step,
        "reason": attrs.reason,
        "params": dict(trial.params),
        "values": trial.values,
    }


def metric_of_study(study: optuna.Study) -> Metric:
    """Return the metric that ranks the trials of a study."""
    return metric_of(study_attrs(study).spec)


def ranked_column(study: optuna.Study) -> str:
    """Return the column of the evaluations that ranks trials; of a program the only one it has."""
    spec = study_attrs(study).spec or {}
    return "perplexity" if spec.get("trainer") else str(spec.get("metric", "perplexity"))


def module_of_trials(study: optuna.Study) -> str:
    """Return the module that the processes of a study's trials run."""
    program = (study_attrs(study).spec or {}).get("trainer")
    return "sweep.trainers.run_command" if program else "gpt.train"


def rank_key(study: optuna.Study) -> Callable[[FrozenTrial], tuple[float, int]]:
    """Return a sorting key for complete trials: the best first, of equals the earliest."""
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return lambda trial: (sign * trial.values[0], trial.number)


def ranked(trials: "pd.DataFrame", metric: Metric, *before: str) -> "pd.DataFrame":
    """Sort rows by the columns `before`, then the best first, then by number."""
    ranks = -trials["perplexity"] if metric.maximize else trials["perplexity"]
    keyed = trials.assign(_rank=ranks).sort_values([*before, "_rank", "number"])
    return keyed.drop(columns="_rank")


def longest(study: optuna.Study) -> int | None:
    """Return the last step of the longest complete trial; None before one is complete."""
    steps = (trial.last_step for trial in complete_trials(study))
    return max((step for step in steps if step is not None), default=None)


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
        return "Int64" if max(-distribution.low, distribution.high) < 2**63 else "object"
    if isinstance(distribution, CategoricalDistribution):
        kinds = {type(choice) for choice in distribution.choices}
        if kinds == {int}:
            return "Int64"
        if kinds <= {int, float}:
            return "float64"
        return "string" if kinds == {str} else "object"
    return "object"
