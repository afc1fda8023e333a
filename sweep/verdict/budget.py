"""The budget ledger: what each arm was given and what it used. Reads only."""

import pandas as pd

from sweep.analysis.results import OUTCOMES, last_evaluations
from sweep.study.spec import StudySpec


def ledger_table(trials: pd.DataFrame, evaluations: pd.DataFrame, spec: StudySpec) -> pd.DataFrame:
    """One row per arm, in the order of the study file.

    Args:
        trials: results.trials_table.
        evaluations: results.evaluations_table of the same study.
        spec: Its study file.

    Returns:
        arm, asked, complete, pruned, diverged, oom, failed, running, waiting (numbers of trials),
        tokens (trained on), device_seconds (training and evaluation, on one slot),
        tuned_parameters (searched in this arm, without compare's).
    """
    last = last_evaluations(evaluations)[["tokens", "elapsed_seconds"]]
    of_trial = trials[["number", "arm", "outcome"]].join(last, on="number")
    return pd.DataFrame([_row(arm, of_trial[of_trial["arm"] == arm], spec) for arm in spec.arms])


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
    """How many parameters the search could move in this arm; a single choice is none."""
    applying = spec.point(arm, lambda name, parameter: parameter.values())
    applying.pop(spec.compare or "", None)
    return sum(len(values) > 1 for values in applying.values())
