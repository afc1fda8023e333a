"""What a search of n trials can be expected to find, with its band. Reads tables; knows no plots.

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

LEVEL = 0.05  # of bands that miss the true curve somewhere
DRAWS = 20_000  # of uniform samples, to make a band simultaneous: its level is then good to 0.2 %
MAX_NUMBERS = 2_000_000  # in those draws: fewer of long samples, or a long study would wait for it

Floats = npt.NDArray[np.float64]


def tuning_curve_table(trials: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The best perplexity that a search of n trials of an arm finds in half of all searches.

    As though trials were drawn at random from all that the arm may try: a sampler that learns
    should do better. A trial that was stopped early has no final perplexity and counts as worse
    than every complete one; how often that is wrong, shadow trials say.

    Args:
        trials: results.trials_table.
        arms: Those to have, in this order; one without a complete trial has no row.

    Returns:
        arm, n, perplexity, low, high. low and high are a band for all n together: of 100 such
        bands, 95 hold the whole true curve. low is 0 and high infinite where the trials do not
        bound it, and perplexity is infinite where more than half of such searches complete no
        trial.

    Source:
        Lourie, Cho, He (2023), "Show Your Work with Confidence", arXiv:2311.09480: the median of
        the best of n, with a band from one for the distribution of a single trial.
    """
    finished = trials[~trials["outcome"].isin(UNFINISHED) & (trials["outcome"] != "failed")]
    complete = finished["outcome"] == "complete"
    scores = finished["perplexity"].where(complete, math.inf).to_numpy(dtype=np.float64)
    rows = []
    for arm in arms:
        values = np.sort(scores[(finished["arm"] == arm).to_numpy()])
        if np.isfinite(values).any():
            rows += [(arm, *row) for row in _rows(values)]
    return pd.DataFrame(rows, columns=["arm", "n", "perplexity", "low", "high"])


def _rows(values: Floats) -> list[tuple[int, float, float, float]]:
    """n, perplexity, low and high, from the ordered values (N,) of an arm."""
    share = np.arange(1, len(values) + 1) / len(values)
    below, above = band(len(values))
    rows = []
    for n in range(1, len(values) + 1):
        half = 1 - 0.5 ** (1 / n)  # of single trials are better than half of the searches' bests
        low = _quantile(values, np.concatenate([above[1:], [1.0]]), half)
        low = 0.0 if half <= above[0] else low
        rows.append((n, _quantile(values, share, half), low, _quantile(values, below, half)))
    return rows


def _quantile(values: Floats, distribution: Floats, share: float) -> float:
    """The first value at which the distribution reaches the share; infinite if it never does."""
    place = int(np.searchsorted(distribution, share - 1e-12))
    return float(values[place]) if place < len(values) else math.inf


@cache
def band(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Ends of a band for the distribution function at each of n ordered values.

    All n intervals hold together in 1 - LEVEL of all samples, and each has the same level by
    itself, so the band is as narrow at the ends, where the best trials are, as the data allow.

    Returns:
        below, above: both (n,), for the smallest value first.
    """
    rank = np.arange(1, n + 1)
    draws = max(1000, min(DRAWS, MAX_NUMBERS // n))
    uniform = np.sort(np.random.default_rng(seed).random((draws, n)), axis=1)
    cumulative = stats.beta.cdf(uniform, rank, n + 1 - rank)
    smallest = np.minimum(cumulative, 1 - cumulative).min(axis=1)  # one-sided, over the whole band
    level = np.quantile(smallest, LEVEL)
    ends = (stats.beta.ppf(one, rank, n + 1 - rank) for one in (level, 1 - level))
    below, above = (np.asarray(end, dtype=np.float64) for end in ends)
    return below, above
