"""How much a search's best flatters itself, and what a search of n trials can be expected to find.

Reads only. Shapes: N finished trials of an arm.
"""

import math
from functools import cache

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage
from scipy import stats

from gpt.errors import InputError
from sweep.results import UNFINISHED
from sweep.verdict.inference import LEVEL, Floats
from sweep.verdict.phases import SCREENING, seeds_of
from sweep.verdict.question import Question
from sweep.verdict.readings import by_seed, phase_runs

DRAWS = 20_000  # of uniform samples, to make a band simultaneous: its level is then good to 0.2 %


def curse_table(question: Question, storage: RDBStorage) -> pd.DataFrame:
    """The search's best trial of each arm against its own settings on fresh seeds.

    Both on the sweep's own validation stories, so that the seed is all that differs.

    Returns:
        arm, trial, searched (perplexity in the sweep), confirmed (geometric mean over the screening
        seeds), ratio (confirmed to searched: above 1, the search flattered itself), seeds; without
        arms that were not screened.
    """
    runs = phase_runs(question, storage, SCREENING)
    seeds = seeds_of(question.spec, SCREENING, question.spec.verdict.screening_seeds)
    rows = []
    for arm in question.arms:
        best = question.top_trials(arm)[0]
        try:
            nats = by_seed(runs, best.number, seeds, "cross_entropy")
        except InputError:  # a single candidate is not screened
            continue
        searched, confirmed = best.values[0], math.exp(float(np.mean(nats)))
        rows.append((arm, best.number, searched, confirmed, confirmed / searched, len(seeds)))
    columns = ["arm", "trial", "searched", "confirmed", "ratio", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def best_after_table(trials: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The best perplexity that a search of n trials of this arm finds in half of all searches.

    As though trials were drawn at random from all that the arm may try: a sampler that learns
    should do better. A trial that was stopped early has no final perplexity and counts as worse
    than every complete one; how often that is wrong, shadow trials say.

    Returns:
        n, perplexity, low, high. low and high are a band for all n together: of 100 such bands, 95
        hold the whole true curve. low is 0 and high infinite where the trials do not bound it, and
        perplexity is infinite where more than half of such searches complete no trial.

    Source:
        Lourie, Cho, He (2023), "Show Your Work with Confidence", arXiv:2311.09480: the median of
        the best of n, with a band from one for the distribution of a single trial.
    """
    finished = trials[(trials["arm"] == arm) & ~trials["outcome"].isin(UNFINISHED)]
    finished = finished[finished["outcome"] != "failed"]
    scores = finished["perplexity"].where(finished["outcome"] == "complete", math.inf)
    values = np.sort(scores.to_numpy(dtype=np.float64))
    columns = ["n", "perplexity", "low", "high"]
    if not np.isfinite(values).any():
        return pd.DataFrame(columns=columns)
    share = np.arange(1, len(values) + 1) / len(values)
    below, above = band(len(values))
    rows = []
    for n in range(1, len(values) + 1):
        half = 1 - 0.5 ** (1 / n)  # of single trials are better than half of the searches' bests
        low = _quantile(values, np.concatenate([above[1:], [1.0]]), half)
        low = 0.0 if half <= above[0] else low
        rows.append((n, _quantile(values, share, half), low, _quantile(values, below, half)))
    return pd.DataFrame(rows, columns=columns)


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
    uniform = np.sort(np.random.default_rng(seed).random((DRAWS, n)), axis=1)
    cumulative = stats.beta.cdf(uniform, rank, n + 1 - rank)
    smallest = np.minimum(cumulative, 1 - cumulative).min(axis=1)  # one-sided, over the whole band
    level = np.quantile(smallest, LEVEL)
    ends = (stats.beta.ppf(one, rank, n + 1 - rank) for one in (level, 1 - level))
    below, above = (np.asarray(end, dtype=np.float64) for end in ends)
    return below, above
