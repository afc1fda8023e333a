"""Statistics of paired runs: differences, intervals, answers.

Shapes: S seeds, M stories. A difference is that of an arm to the reference in nats per token, so
below zero the arm is better, and exp of it is a ratio of perplexities.

Why seeds are what is counted: two runs of one recipe differ by about 1 % of perplexity through
their seed alone, so an interval over stories or tokens calls two seeds of the same recipe
different. Runs of two arms on one seed see the same batches, and the difference of such a pair has
about half of that noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from sweep.study.spec import MOST_SEEDS

ERROR_RATE = 0.05  # of false answers, over all interim analyses of a comparison together
FIRST_ANALYSIS = 0.03  # error rate of the first: most comparisons have no other
LATER_ANALYSIS = 0.0065  # of any number of seeds after it, times first / seeds
OTHER_QUESTION = 1 / 32  # of these for a second question of two arms; for each after it a half
FIRST_SEARCHES = 0.04  # error rate of the first analysis over searches
LATER_SEARCHES = 0.005  # of the second; for each after it a half
POWER = 0.8  # with which `further_seeds` settle the comparison, if the estimate is the truth
OUTLIER_RATE = 0.01  # of arms whose seeds are alike, in which one is called an outlier
REPLICATES = 4000  # of the bootstrap: its standard error is then good to about 1 %

SettingsAnswer = Literal["better", "worse", "equivalent", "inconclusive"]
Floats = npt.NDArray[np.float64]


def error_rate(seeds: int, first: int, question: int = 1) -> float:
    """Error rate of an interval with so many seeds, whichever others are analysed.

    A boundary for every number of seeds from the first analysis on: t intervals of 1 - 0.03 at the
    first and of 1 - 0.0065 first / n for each n after it. Their probability of missing the truth
    anywhere from first to 40 times first is 4.2 to 4.7 % for 2 to 40 seeds at first, and hardly
    grows after that (tests/benchmarks/looks.json, with what it was compared with). No number of
    seeds has to be planned, and it may depend on the results, since all of them are counted,
    analysed or not.

    Args:
        seeds: Number of pairs, at least `first`.
        first: Of the first analysis of the question, chosen before any result.
        question: From 1 on. Other settings of the same two arms, or fewer seeds than at first, are
            another question, with a small share of its own.

    Source:
        Armitage, McPherson, Rowe (1969), "Repeated significance tests on accumulating data"; Lan,
        DeMets (1983), "Discrete sequential boundaries for clinical trials".
    """
    share = 1.0 if question == 1 else OTHER_QUESTION / 2.0 ** (question - 2)
    return share * (FIRST_ANALYSIS if seeds == first else LATER_ANALYSIS * first / seeds)


def search_error_rate(analysis: int) -> float:
    """Error rate of the nth interval over searches: 0.04, 0.005, then half of the one before.

    They sum to at most ERROR_RATE over however many: Bonferroni's inequality. Searches are dear,
    so that there are few analyses, and the first with 3 searches can spare no more.

    Args:
        analysis: From 1 on.
    """
    return FIRST_SEARCHES if analysis == 1 else LATER_SEARCHES / 2.0 ** (analysis - 2)


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, its t interval over the seeds, and two tests of it."""

    per_seed: tuple[float, ...]
    mean: float
    sd: float  # between seeds
    error_rate: float  # of the interval: it holds the truth with 1 minus that
    low: float  # the ends of the interval
    high: float
    p: float  # two-sided, of no difference at all
    p_equivalent: float | None  # of a difference beyond the margin, twice the larger side's p value

    @property
    def seeds(self) -> int:
        """Number of pairs."""
        return len(self.per_seed)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    margin: float | None = None,
    error_rate: float = ERROR_RATE,
) -> Difference:
    """Compare two arms seed by seed: the mean of first - second, with a t interval.

    Args:
        first: One figure per seed, at least 2.
        second: The other arm's, on the same seeds in the same order.
        margin: Half the width of the range in which differences do not matter; None: no
            equivalence is claimed.
        error_rate: Of the interval, in (0, 1).

    Source:
        Student (1908); equivalence by two one-sided tests, each at half of the error rate, so that
        it is claimed exactly where the interval lies within the margin: Schuirmann (1987), "A
        comparison of the two one-sided tests procedure and the power approach".
    """
    diffs = np.asarray([first]) - np.asarray([second])
    (found,) = paired_differences(diffs, margin, error_rate)
    return found


def paired_differences(
    diffs: Floats, margin: float | None = None, error_rate: float = ERROR_RATE
) -> list[Difference]:
    """Compute paired_difference for many comparisons at once.

    Args:
        diffs: One row of differences per comparison, shape (K, S).
        margin: See paired_difference.
        error_rate: See paired_difference.
    """
    means, deviations = diffs.mean(axis=1), diffs.std(axis=1, ddof=1)
    varies = deviations > 1e-12 * np.abs(means)  # t has no meaning where nothing varies
    low, high = means.copy(), means.copy()
    p, p_equivalent = (means == 0.0).astype(float), (np.abs(means) >= (margin or 0.0)).astype(float)
    if varies.any():
        test = stats.ttest_1samp(diffs[varies], 0.0, axis=1)
        low[varies], high[varies] = test.confidence_interval(1 - error_rate)
        p[varies] = test.pvalue
        below = stats.ttest_1samp(diffs[varies], margin or 0.0, axis=1, alternative="less")
        above = stats.ttest_1samp(diffs[varies], -(margin or 0.0), axis=1, alternative="greater")
        p_equivalent[varies] = np.minimum(1.0, 2 * np.maximum(below.pvalue, above.pvalue))
    columns = zip(diffs, means, deviations, low, high, p, p_equivalent, strict=True)
    return [
        Difference(
            per_seed=tuple(map(float, row)),
            mean=float(mean),
            sd=float(deviation),
            error_rate=error_rate,
            low=float(least),
            high=float(most),
            p=float(apart),
            p_equivalent=None if margin is None else float(alike),
        )
        for row, mean, deviation, least, most, apart, alike in columns
    ]


def answers(differences: Sequence[Difference]) -> list[SettingsAnswer]:
    """Give one answer per comparison with the reference, about the settings that were compared.

    A comparison's p values are corrected by Holm for how many comparisons there are, and tested at
    its own error rate. Equivalence comes first: a difference that is surely there and surely too
    small to matter is none that anybody should act on.
    """
    apart = adjusted([difference.p for difference in differences], differences)
    known = [1.0 if one.p_equivalent is None else one.p_equivalent for one in differences]
    alike = adjusted(known, differences)
    return [
        _answer(difference.mean, p, p_equivalent)
        for difference, p, p_equivalent in zip(differences, apart, alike, strict=True)
    ]


def adjusted(p_values: Sequence[float], differences: Sequence[Difference]) -> list[float]:
    """Correct p values for the number of comparisons and of interim analyses.

    Each is scaled by ERROR_RATE over the error rate of its own analysis, then corrected by Holm,
    so that it may be read against ERROR_RATE.
    """
    scaled = [
        min(1.0, p * ERROR_RATE / difference.error_rate)
        for p, difference in zip(p_values, differences, strict=True)
    ]
    return holm(scaled)


def _answer(mean: float, p: float, p_equivalent: float) -> SettingsAnswer:
    if p_equivalent <= ERROR_RATE:
        return "equivalent"
    if p <= ERROR_RATE:
        return "better" if mean < 0 else "worse"
    return "inconclusive"


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for how many there are.

    The kth smallest of m is multiplied by m - k + 1, and is at least the one before.

    Source:
        Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return [float(value) for value in corrected]


def further_seeds(
    difference: Difference, margin: float, first: int, question: int = 1, comparisons: int = 1
) -> int | None:
    """Estimate how many more seeds settle an inconclusive comparison; None: over MOST_SEEDS.

    If mean and spread are what they seem, an analysis with that many more seeds says better, worse
    or equivalent with a probability of about POWER: n is the first for which |mean| is at least
    (t_(1 - a/2) + z_POWER) sd / sqrt(n), or at most the margin less that, a being the error rate of
    n seeds.

    Args:
        difference: The comparison so far.
        margin: In nats.
        first: See `error_rate`.
        question: See `error_rate`.
        comparisons: With the reference, in all; a is divided by them, which is Holm's first step.
    """
    n = np.arange(difference.seeds + 1, MOST_SEEDS + 1)
    quantile = _quantiles(first, question, comparisons)[n - first] + stats.norm.ppf(POWER)
    half_width = quantile * difference.sd / np.sqrt(n)
    size = abs(difference.mean)
    settled = (size >= half_width) | (size + half_width <= margin)
    return int(n[settled.argmax()]) - difference.seeds if settled.any() else None


@cache
def _quantiles(first: int, question: int, comparisons: int) -> Floats:
    """Return the t quantiles of the intervals with `first` to MOST_SEEDS seeds."""
    n = np.arange(first, MOST_SEEDS + 1)
    rates = np.asarray([error_rate(int(count), first, question) for count in n])
    return np.asarray(stats.t.ppf(1 - rates / comparisons / 2, n - 1), np.float64)


def outlier(figures: Sequence[float]) -> int | None:
    """Return the index of a figure far above all others, or None.

    Its probability among figures of one normal distribution is below OUTLIER_RATE, by a t test of
    each against the others with Bonferroni's correction. It takes three others to know their
    spread.

    Args:
        figures: One per seed, in nats.

    Source:
        Grubbs (1950), "Sample criteria for testing outlying observations".
    """
    values = np.asarray(figures, dtype=np.float64)
    worst, n = int(values.argmax()), len(values)
    others = np.delete(values, worst)
    if n < 4 or np.ptp(others) == 0.0:
        return None
    distance = (values[worst] - others.mean()) / (others.std(ddof=1) * np.sqrt(1 + 1 / (n - 1)))
    return worst if n * float(stats.t.sf(distance, n - 2)) < OUTLIER_RATE else None


def two_level_bootstrap(
    first: Floats,
    second: Floats,
    tokens: Floats,
    error_rate: float = ERROR_RATE,
) -> tuple[float, float]:
    """Return an interval of the mean difference per token over seeds and stories.

    The stories are the same for all seeds, so both levels are resampled independently of each
    other (the "pigeonhole" bootstrap). A handful of seeds, resampled, varies less than as many
    fresh ones: quantiles of the replicates held the truth in 89 % of simulated studies of 5 seeds,
    not 95 %. So the interval is mean +- t_(S - 1) sqrt(S / (S - 1)) times the replicates' standard
    deviation; tests/benchmarks/verdict.json has its simulated coverage.

    Args:
        first: Summed nats of each story, shape (S, M), at least 2 seeds.
        second: The other arm's, on the same seeds and stories.
        tokens: Targets of each story, shape (M,).
        error_rate: Of the interval, in (0, 1).

    Source:
        Owen (2007), "The pigeonhole bootstrap", arXiv:0712.1111.
    """
    n_seeds, n_stories = first.shape
    rng = np.random.default_rng(0)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), REPLICATES)  # (R, S)
    stories = rng.multinomial(n_stories, np.full(n_stories, 1 / n_stories), REPLICATES)  # (R, M)
    sums = ((seeds @ (first - second)) * stories).sum(axis=1)
    means = sums / (n_seeds * (stories @ tokens))
    mean = float((first - second).sum() / (n_seeds * tokens.sum()))
    error = float(means.std(ddof=1)) * np.sqrt(n_seeds / (n_seeds - 1))
    half = float(stats.t.ppf(1 - error_rate / 2, n_seeds - 1)) * error
    return mean - half, mean + half
