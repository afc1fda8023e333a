"""Importance of parameters, arm by arm, as answers to two questions."""

import math
import random
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from sweep.analysis.results import complete_trials, metric_of_study, param_column
from sweep.study.metric import Metric

if TYPE_CHECKING:
    import pandas as pd

FANOVA_TRIALS = 1000  # of an arm, complete, for fANOVA: its time grows with their square
SAMPLED = 500  # of more
MIN_TRIALS = 8  # of an arm, complete; on fewer, both methods mostly explain noise
OVER_THE_RANGE, OF_THE_BEST = "over the range", "of the best"  # the two questions


def importances_table(study: optuna.Study, arms: Sequence[str]) -> "pd.DataFrame":
    """Compute the importance of each parameter within each arm, by Optuna's two methods.

    "over the range": the share of the variance of log perplexity that the parameter explains over
    all that was searched (fANOVA). "of the best": the share in what sets the best tenth of the
    trials apart from the others (PED-ANOVA, Optuna's default and the dashboard's). A parameter can
    ruin a run and yet not separate good ones, so the two may differ. Of an arm with more than
    FANOVA_TRIALS complete trials fANOVA sees SAMPLED, drawn at random, the same at each call.

    Returns:
        arm, question, parameter (its column), importance (they sum to 1 within an arm and
        question); largest first. An arm with fewer than MIN_TRIALS complete trials, or with equal
        ones, has no rows.

    Source:
        Hutter, Hoos, Leyton-Brown (2014), "An Efficient Approach for Assessing Hyperparameter
        Importance", ICML. Watanabe, Bansal, Hutter (2023), "PED-ANOVA", arXiv:2304.10255.
    """
    import pandas as pd

    rows = []
    for arm in arms:
        trials = complete_trials(study, arm)
        names = _varied(trials)
        if len(trials) < MIN_TRIALS or not names or len({trial.values[0] for trial in trials}) < 2:
            continue
        metric = metric_of_study(study)
        memory = optuna.storages.InMemoryStorage()
        for question, evaluator, chosen in (
            (OVER_THE_RANGE, FanovaImportanceEvaluator(seed=0), _sampled(trials)),
            (OF_THE_BEST, PedAnovaImportanceEvaluator(), trials),
        ):
            of_arm = optuna.create_study(storage=memory, direction=metric.direction)
            of_arm.add_trials([_on_linear_scales(trial, names, metric) for trial in chosen])
            found = optuna.importance.get_param_importances(of_arm, evaluator=evaluator)
            rows += [(arm, question, param_column(name), share) for name, share in found.items()]
    return pd.DataFrame(rows, columns=["arm", "question", "parameter", "importance"])


def dashboard_importances(study: optuna.Study) -> dict[str, float]:
    """Return the importances that Optuna Dashboard shows: PED-ANOVA over all arms together."""
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    if len({trial.values[0] for trial in complete_trials(study)}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a target, which it needs for the direction
        return dict(
            optuna.importance.get_param_importances(
                study,
                evaluator=PedAnovaImportanceEvaluator(),
                target=lambda trial: sign * trial.values[0],
            )
        )


def _sampled(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    if len(trials) <= FANOVA_TRIALS:
        return trials
    drawn = random.Random(0).sample(range(len(trials)), SAMPLED)
    return [trials[place] for place in sorted(drawn)]


def _varied(trials: list[FrozenTrial]) -> list[str]:
    """Name the parameters that every trial has, with at least two values among them."""
    shared = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    return [name for name in sorted(shared) if len({trial.params[name] for trial in trials}) > 1]


def _on_linear_scales(trial: FrozenTrial, names: list[str], metric: Metric) -> FrozenTrial:
    """Take logarithms of the perplexity and of whatever was searched on a logarithmic scale.

    Optuna's fANOVA weighs a part of a range by its length: on learning rates from 6e-5 to 1e-2 as
    they are it would hardly see what happens below 1e-3.
    """
    params = {name: trial.params[name] for name in names}
    distributions = {name: trial.distributions[name] for name in names}
    for name, space in distributions.items():
        if isinstance(space, FloatDistribution | IntDistribution) and space.log:
            params[name] = math.log(params[name])
            distributions[name] = FloatDistribution(math.log(space.low), math.log(space.high))
    value = math.log(trial.values[0]) if metric.is_perplexity else trial.values[0]
    return optuna.trial.create_trial(params=params, distributions=distributions, value=value)
