"""Which parameters mattered, arm by arm: a study in, a table out. Knows no plots."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from sweep.analysis.results import complete_trials

if TYPE_CHECKING:
    import pandas as pd

MIN_TRIALS = 8  # of an arm, complete; a random forest on fewer mostly explains noise


def importances_table(study: optuna.Study, arms: Sequence[str]) -> "pd.DataFrame":
    """How much of the variance of log perplexity each parameter explains, within each arm.

    fANOVA on the arm's complete trials; a parameter that was drawn on a logarithmic scale enters by
    its logarithm. An arm with fewer than MIN_TRIALS of them, or where nothing varies, has no rows.

    Returns:
        arm, parameter, importance (they sum to 1 within an arm); largest first within an arm.

    Source:
        Hutter, Hoos, Leyton-Brown (2014), "An Efficient Approach for Assessing Hyperparameter
        Importance", ICML.
    """
    import pandas as pd

    rows = [
        {"arm": arm, "parameter": parameter, "importance": importance}
        for arm in arms
        for parameter, importance in _importances(complete_trials(study, arm)).items()
    ]
    return pd.DataFrame(rows, columns=["arm", "parameter", "importance"])


def _importances(trials: list[FrozenTrial]) -> dict[str, float]:
    parameters = _varied(trials)
    nothing_to_explain = len({trial.values[0] for trial in trials}) < 2
    if len(trials) < MIN_TRIALS or not parameters or nothing_to_explain:
        return {}
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials([_on_linear_scales(trial, parameters) for trial in trials])
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _varied(trials: list[FrozenTrial]) -> list[str]:
    """The parameters that every trial has, with at least two values among them."""
    shared = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    return [name for name in sorted(shared) if len({trial.params[name] for trial in trials}) > 1]


def _on_linear_scales(trial: FrozenTrial, parameters: list[str]) -> FrozenTrial:
    """The trial with the logarithm of all that is logarithmic.

    Optuna's fANOVA weighs a part of a range by its length: on learning rates from 6e-5 to 1e-2 as
    they are it would hardly see what happens below 1e-3.
    """
    params = {name: trial.params[name] for name in parameters}
    distributions = {name: trial.distributions[name] for name in parameters}
    for name, distribution in distributions.items():
        if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
            params[name] = math.log(params[name])
            low, high = math.log(distribution.low), math.log(distribution.high)
            distributions[name] = FloatDistribution(low, high)
    return optuna.trial.create_trial(
        params=params, distributions=distributions, value=math.log(trial.values[0])
    )
