"""Statistics of paired runs: differences, intervals, answers. Knows nothing of studies or training.

Shapes: S seeds, M stories. A difference is that of an arm to the reference in nats per token, so
below zero the arm is better, and exp of it is a ratio of perplexities.

Why seeds are what is counted: two runs of one recipe differ by about 1 % of perplexity through
their seed alone, so an interval over stories or tokens calls two seeds of the same recipe
different. A run of each arm on the same seed sees the same batches, and the difference of such a
pair has about half of that noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.05  # of false answers; intervals have 1 - LEVEL
MOST_SEEDS = 1000  # how far `further_seeds` looks
CHANCE = 0.8  # with which `further_seeds` settle the question, if the estimate is the truth
OUTLYING = 0.01  # of arms whose seeds are alike, to be told that one is not
REPLICATES = 4000  # of the bootstrap: its ends are then good to about 3 % of its width

Answer = Literal["better", "worse", "equivalent", "inconclusive"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, and what a t test over the seeds says of it."""

    per_seed: tuple[float, ...]
    mean: float
    sd: float  # between seeds
    low: float  # the ends of the interval
    high: float
    p: float  # two-sided, of no difference at all
    p_equivalent: float  # of a difference as large as the margin, in either direction

    @property
    def seeds(self) -> int:
        """How many pairs there are."""
        return len(self.per_seed)


def paired_difference(
    first: Sequence[float], second: Sequence[float], margin: float = 0.0
) -> Difference:
    """The mean of first - second over the seeds.

    Args:
        first: One figure per seed, at least 2.
        second: The other arm's, on the same seeds in the same order.
        margin: Half the width of the range in which differences do not matter; 0: each matters.
    """
    (found,) = paired_differences(np.asarray([first]) - np.asarray([second]), margin)
    return found


def paired_differences(diffs: Floats, margin: float = 0.0) -> list[Difference]:
    """As paired_difference, for many at once.

    Args:
        diffs: One row of differences per comparison, shape (K, S).
        margin: See paired_difference.
    """
    means, deviations = diffs.mean(axis=1), diffs.std(axis=1, ddof=1)
    varies = deviations > 1e-12 * np.abs(means)  # t has no meaning where nothing varies
    low, high = means.copy(), means.copy()
    p, p_equivalent = (means == 0.0).astype(float), (np.abs(means) >= margin).astype(float)
    if varies.any():
        test = stats.ttest_1samp(diffs[varies], 0.0, axis=1)
        low[varies], high[varies] = test.confidence_interval(1 - LEVEL)
        p[varies] = test.pvalue
        below = stats.ttest_1samp(diffs[varies], margin, axis=1, alternative="less")
        above = stats.ttest_1samp(diffs[varies], -margin, axis=1, alternative="greater")
        p_equivalent[varies] = np.maximum(below.pvalue, above.pvalue)
    columns = zip(diffs, means, deviations, low, high, p, p_equivalent, strict=True)
    return [Difference(tuple(map(float, row)), *map(float, rest)) for row, *rest in columns]


def answers(differences: Sequence[Difference]) -> list[Answer]:
    """One answer per comparison with the reference, together wrong in at most LEVEL of studies.

    Equivalence comes first: a difference that is surely there and surely too small to matter is
    none that anybody should act on.
    """
    apart = holm([difference.p for difference in differences])
    alike = holm([difference.p_equivalent for difference in differences])
    return [
        _answer(difference.mean, p, p_equivalent)
        for difference, p, p_equivalent in zip(differences, apart, alike, strict=True)
    ]


def _answer(mean: float, p: float, p_equivalent: float) -> Answer:
    if p_equivalent <= LEVEL:
        return "equivalent"
    if p <= LEVEL:
        return "better" if mean < 0 else "worse"
    return "inconclusive"


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for how many there are.

    Source:
        Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return [float(value) for value in corrected]


def further_seeds(difference: Difference, margin: float, comparisons: int = 1) -> int | None:
    """How many more seeds should settle an inconclusive comparison; None: more than MOST_SEEDS.

    If mean and spread are what they seem, then with that many more seeds the answer is better,
    worse or equivalent with a chance of about CHANCE.
    """
    n = np.arange(difference.seeds + 1, MOST_SEEDS + 1)
    error = difference.sd / np.sqrt(n)
    level = LEVEL / comparisons  # Holm's first step
    apart = (stats.t.ppf(1 - level / 2, n - 1) + stats.norm.ppf(CHANCE)) * error
    alike = (stats.t.ppf(1 - level, n - 1) + stats.norm.ppf(CHANCE)) * error
    size = abs(difference.mean)
    settled = (size >= apart) | (size + alike <= margin)
    return int(n[settled.argmax()]) - difference.seeds if settled.any() else None


def outlying(figures: Sequence[float]) -> int | None:
    """Which figure is so far above the others that it is not of their kind; None: none is.

    The chance that it is one of them is below OUTLYING, by a t test of each against the others with
    Bonferroni's correction. It takes three others to know their spread.

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
    return worst if n * float(stats.t.sf(distance, n - 2)) < OUTLYING else None


def two_level_bootstrap(
    first: Floats, second: Floats, tokens: Floats, seed: int = 0
) -> tuple[float, float]:
    """The interval of the mean difference per token when seeds and stories are drawn again.

    The stories are the same for all seeds, so both levels are drawn independently of each other
    (the "pigeonhole" bootstrap). With few seeds it is narrower than it should be: a handful of
    seeds, drawn again, varies less than as many fresh ones.

    Args:
        first: Summed nats of each story, shape (S, M).
        second: The other arm's, on the same seeds and stories.
        tokens: Targets of each story, shape (M,).
        seed: Of the draws.

    Source:
        Owen (2007), "The pigeonhole bootstrap", arXiv:0712.1111.
    """
    n_seeds, n_stories = first.shape
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), REPLICATES)  # (R, S)
    stories = rng.multinomial(n_stories, np.full(n_stories, 1 / n_stories), REPLICATES)  # (R, M)
    sums = ((seeds @ (first - second)) * stories).sum(axis=1)
    means = sums / (n_seeds * (stories @ tokens))
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
