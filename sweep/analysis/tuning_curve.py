"""Quantile tuning curve: the median of the best of n trials, with a band where one is valid.

Shapes: N finished trials of an arm.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from sweep.analysis.results import UNFINISHED
from sweep.study.metric import PERPLEXITY, Metric

LOWEST_PERPLEXITY = 1.0  # of a model that is certain of every token
BAND_ERROR = 0.05  # of bands that miss the true curve somewhere
DRAWS = 20_000  # of uniform samples, to make a band simultaneous: its level is then good to 0.2 %
MAX_NUMBERS = 2_000_000  # in those draws: fewer of long samples, or a long study would wait for it

_Floats = npt.NDArray[np.float64]


def tuning_curve_table(
    trials: pd.DataFrame,
    arms: Sequence[str],
    sampler: str | None = None,
    floor: float | None = None,
    metric: Metric = PERPLEXITY,
) -> pd.DataFrame:
    """Return the perplexity that the best of n trials of an arm reaches in half of all draws.

    A trial that was stopped early has no final perplexity and counts as worse than every complete
    one; how often that is wrong, shadow trials show.

    Where the sampler draws at random, its trials are exchangeable, so those that it drew (without
    baselines and Sobol points) foretell other random searches, and the curve has a band. A sampler
    that learns makes trials that depend on each other: the curve then is of this arm's own trials
    in random order, and foretells neither a random search nor another one of its own; no band is
    given.

    Args:
        trials: results.trials_table, maybe with the column `tokens` of the last evaluation.
        arms: Those to have, in this order; one without a complete trial has no row.
        sampler: Kind of the study's sampler; a band is given for "random" alone.
        floor: Lowest perplexity that is possible, which bounds the band; None: that of any model.
        metric: What the trials are ranked by; only of perplexity a band is given.

    Returns:
        arm, n, cost, perplexity, low, high. n ends with the arm's own trials: nothing is
        extrapolated. cost is the tokens that n trials of the arm train on, on average over those
        that are drawn from: pruning makes an arm's trials cheaper, so equal n is not equal cost;
        NaN where trials have no tokens. low and high are a band for all n together: of 100 such
        bands, 95 hold the complete true curve. low is the floor and high infinite where the
        trials do not bound it; both are NaN where there is no band. perplexity is infinite (where
        it is maximised: minus infinity) where more than half of such draws complete no trial.

    Source:
        Dodge et al. (2019), "Show Your Work", arXiv:1909.03004: the best that a budget is expected
        to reach, rather than the best that was reached. Lourie, Cho, He (2023), "Show Your Work
        with Confidence", arXiv:2311.09480: the median of the best of n, with a band from one for
        the distribution of a single trial.
    """
    finished = trials[~trials["outcome"].isin(UNFINISHED) & (trials["outcome"] != "failed")]
    exchangeable = sampler == "random" and metric == PERPLEXITY
    sign = -1.0 if metric.maximize else 1.0
    if exchangeable:
        finished = finished[finished["origin"] == "sampler"]
    complete = finished["outcome"] == "complete"
    scores = (sign * finished["perplexity"]).where(complete, math.inf).to_numpy(dtype=np.float64)
    rows: list[tuple[str, int, float, float, float, float]] = []
    for arm in arms:
        mine = (finished["arm"] == arm).to_numpy()
        values, cost = np.sort(scores[mine]), _mean_tokens(finished[mine])
        if np.isfinite(values).any():
            nowhere = [(math.nan, math.nan)] * len(values)
            lowest = LOWEST_PERPLEXITY if floor is None else floor
            ends = _band_rows(values, lowest) if exchangeable else nowhere
            points = zip(_curve(values), ends, strict=True)
            rows += [
                (arm, n, n * cost, sign * best, *end)
                for n, (best, end) in enumerate(points, start=1)
            ]
    return pd.DataFrame(rows, columns=["arm", "n", "cost", "perplexity", "low", "high"])


def _mean_tokens(trials: pd.DataFrame) -> float:
    """Return the tokens that a trial trained on, on average; one without an evaluation had none."""
    if "tokens" not in trials or trials["tokens"].isna().all():
        return math.nan
    return float(trials["tokens"].fillna(0.0).mean())


def _share(n: int) -> float:
    """Share of single trials that are better than half of the bests of n."""
    return float(1 - 0.5 ** (1 / n))


def _curve(values: _Floats) -> list[float]:
    """Return the median of the best of 1 to N, from the ordered values (N,) of an arm."""
    distribution = np.arange(1, len(values) + 1) / len(values)
    return [_quantile(values, distribution, _share(n)) for n in range(1, len(values) + 1)]


def _band_rows(values: _Floats, floor: float) -> list[tuple[float, float]]:
    """Return low and high for 1 to N, from the ordered values (N,) of an arm."""
    below, above = band(len(values))
    rows = []
    for n in range(1, len(values) + 1):
        half = _share(n)
        low = _quantile(values, np.concatenate([above[1:], [1.0]]), half)
        low = floor if half <= above[0] else max(low, floor)
        rows.append((low, _quantile(values, below, half)))
    return rows


def _quantile(values: _Floats, distribution: _Floats, share: float) -> float:
    """Return the first value at which the distribution reaches the share, else infinity."""
    index = int(np.searchsorted(distribution, share - 1e-12))
    return float(values[index]) if index < len(values) else math.inf


@cache
def band(n: int, seed: int = 0) -> tuple[_Floats, _Floats]:
    """Return the ends of a band for the distribution function at each of n ordered values.

    All n intervals hold together in 1 - BAND_ERROR of all samples, and each has the same level by
    itself, so the band is as narrow at the ends, where the best trials are, as the data allow.

    Returns:
        below, above: both (n,), for the smallest value first.
    """
    rank = np.arange(1, n + 1)
    draws = max(1000, min(DRAWS, MAX_NUMBERS // n))
    uniform = np.sort(np.random.default_rng(seed).random((draws, n)), axis=1)
    cumulative = stats.beta.cdf(uniform, rank, n + 1 - rank)
    smallest = np.minimum(cumulative, 1 - cumulative).min(axis=1)  # one-sided, over all n
    level = np.quantile(smallest, BAND_ERROR)
    ends = (stats.beta.ppf(one, rank, n + 1 - rank) for one in (level, 1 - level))
    below, above = (np.asarray(end, dtype=np.float64) for end in ends)
    return below, above
