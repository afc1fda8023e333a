"""Each arm's share of the search: its budget, its baselines, and how often the pruner was wrong."""

from collections import Counter
from collections.abc import Sequence

import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from sweep.analysis.results import (
    OUTCOMES,
    complete_trials,
    evaluations_table,
    last_evaluations,
    rank_key,
    trials_table,
)
from sweep.search.arms import arm_trials
from sweep.storage.schema import trial_attrs
from sweep.study.spec import StudySpec


def taken_over(study: optuna.Study) -> dict[str, int]:
    """Count each arm's trials that an extension of the study took over; arms without are left out.

    They were asked for when the study searched less.
    """
    attrs = (trial_attrs(trial) for trial in study.get_trials(deepcopy=False))
    return dict(Counter(one.arm for one in attrs if one.arm and one.taken_over is not None))


def ledger_table(study: optuna.Study, spec: StudySpec, storage: RDBStorage) -> pd.DataFrame:
    """Return one row per arm, in the order of the study file.

    Args:
        study: Of the search.
        spec: Its study file.
        storage: Holds the evaluations.

    Returns:
        arm, asked, complete, pruned, diverged, oom, failed, running, waiting (numbers of trials),
        taken_over (of those asked, how many before the study was extended), tokens (trained on),
        device_seconds (training and evaluation, on one slot), tuned_parameters (searched in this
        arm, without compare's).
    """
    earlier, evaluations = taken_over(study), evaluations_table(storage, study.study_name)
    last = last_evaluations(evaluations)[["tokens", "elapsed_seconds"]]
    of_trial = trials_table(study)[["number", "arm", "outcome"]].join(last, on="number")
    rows = [
        _row(arm, of_trial[of_trial["arm"] == arm], spec) | {"taken_over": earlier.get(arm, 0)}
        for arm in spec.arms
    ]
    return pd.DataFrame(rows)


def _row(arm: str, mine: pd.DataFrame, spec: StudySpec) -> dict[str, object]:
    counts = {outcome: int((mine["outcome"] == outcome).sum()) for outcome in OUTCOMES}
    return {
        "arm": arm,
        "asked": len(mine),
        **counts,
        "tokens": int(mine["tokens"].sum()),
        "device_seconds": float(mine["elapsed_seconds"].sum()),
        "tuned_parameters": tuned_parameters(spec, arm),
    }


def tuned_parameters(spec: StudySpec, arm: str) -> int:
    """Count the parameters that the search could move in this arm; a single choice is none."""
    applying = spec.point(arm, lambda name, parameter: parameter.values())
    applying.pop(spec.compare or "", None)
    return sum(len(values) > 1 for values in applying.values())


def shadow_table(study: optuna.Study, arms: Sequence[str], top: int) -> pd.DataFrame:
    """Count the trials that the pruner would have stopped and that ended among the arm's best.

    Returns:
        arm, shadows (finished trials that ran on), among_best (of them, in the arm's top), rate and
        its exact interval low to high (NaN and 0 to 1 without a shadow).
    """
    return pd.DataFrame([_shadow_row(study, arm, top) for arm in arms])


def _shadow_row(study: optuna.Study, arm: str, top: int) -> dict[str, object]:
    finished = [trial for trial in arm_trials(study, arm) if trial.state.is_finished()]
    shadows = [trial for trial in finished if trial_attrs(trial).shadow is not None]
    best = _winners(study, finished, top)
    wrong = sum(trial.number in best for trial in shadows)
    row: dict[str, object] = {"arm": arm, "shadows": len(shadows), "among_best": wrong}
    if not shadows:
        return row | {"rate": float("nan"), "low": 0.0, "high": 1.0}
    interval = stats.binomtest(wrong, len(shadows)).proportion_ci()
    return row | {"rate": wrong / len(shadows), "low": interval.low, "high": interval.high}


def _winners(study: optuna.Study, trials: Sequence[FrozenTrial], top: int) -> set[int]:
    """Return the numbers of the best complete trials."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=rank_key(study))
    return {trial.number for trial in best[:top]}


def baseline_table(study: optuna.Study, arms: Sequence[str]) -> pd.DataFrame:
    """Rank each baseline among the complete trials of its arm.

    Returns:
        arm, baseline, trial, perplexity (the study's metric), rank (1: the best), complete (how
        many trials are); without baselines that are not complete.
    """
    rows = []
    for arm in arms:
        trials = sorted(complete_trials(study, arm), key=rank_key(study))
        for rank, trial in enumerate(trials, start=1):
            kind, _, name = (trial_attrs(trial).origin or "").partition(":")
            if kind == "baseline":
                rows.append((arm, name, trial.number, trial.values[0], rank, len(trials)))
    columns = ["arm", "baseline", "trial", "perplexity", "rank", "complete"]
    return pd.DataFrame(rows, columns=columns)
