"""Ways to look again without paying for it, compared by simulation. Run by hand:

    python tests/benchmarks/looks.py tests/benchmarks/looks.json

Pairs of runs differ by a true difference and noise. Each rule gives an interval of the mean after
every look, mean +- c sd / sqrt(n), and says better or worse where zero lies outside, equivalent
where the interval lies within 1 %. Units are nats per token. Takes three minutes of one core.

Shapes: K simulated studies, N seeds, L looks, G points of a grid.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from sweep.verdict.interim.until import next_seeds
from sweep.verdict.statistics import error_rate, search_error_rate

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
MARGIN = math.log(1.01)
MOST = 40  # seeds, the horizon of the boundaries that need one
STUDIES = 20_000
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t with 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "one seed in 20 has 5 times the deviation": lambda rng, shape: (
        rng.standard_normal(shape) * np.where(rng.random(shape) < 0.05, 5.0, 1.0) / math.sqrt(2.2)
    ),
}
PAIR_NOISE = 0.005  # of settings of one shape, tests/benchmarks/seed_noise.json
LOOKS: dict[str, tuple[int, ...]] = {
    "5, 9, 29": (5, 9, 29),
    "5, 10, 20, 40": (5, 10, 20, 40),
    "every number from 5 to 40": tuple(range(5, MOST + 1)),
}
WIDTHS = (5, 10, 30)
OURS = "every number of seeds counted (the verdict's)"
MIXTURE = "confidence sequence: normal mixture of t"
FREE_OF_AN_END = "alpha spending by n / (n + 2.5)"


def grown(seeds: int, most: int, growth: float) -> list[int]:
    """Return the seeds of all analyses from the first on, if none of them settles it."""
    analyses = [seeds]
    while analyses[-1] < most:
        analyses.append(next_seeds(analyses[-1], most, growth=growth))
    return analyses


def quantiles(levels: Sequence[float], looks: Sequence[int]) -> Floats:
    """Return the half widths in standard errors (L,) of t intervals with these error rates."""
    return np.asarray(stats.t.ppf(1 - np.asarray(levels) / 2, np.asarray(looks) - 1))


# --- rules -----------------------------------------------------------------------------------


def single(looks: Sequence[int]) -> Floats:
    """Each look as though it were the only one."""
    return quantiles([ALPHA] * len(looks), looks)


def ledger(looks: Sequence[int]) -> Floats:
    """4 % for the first look, 0.5 % for the second, half of the one before for each other."""
    return quantiles([search_error_rate(nth) for nth in range(1, len(looks) + 1)], looks)


def boundary(information: Sequence[float], increments: Sequence[float]) -> list[float]:
    """Return the bound of |z| at each look that spends these probabilities under no effect.

    Args:
        information: Of each look, increasing, in any unit.
        increments: Probability of passing the bound there and not before, each above 0.

    Source:
        Armitage, McPherson, Rowe (1969), "Repeated significance tests on accumulating data".
    """
    bounds: list[float] = []
    grid, mass, before = np.zeros(1), np.ones(1), 0.0  # of sums that have passed no bound
    for now, probability in zip(information, increments, strict=True):
        step = math.sqrt(now - before)

        def excess(
            bound: float,
            grid: Floats = grid,
            mass: Floats = mass,
            step: float = step,
            p: float = probability,
        ) -> float:
            above, below = (
                stats.norm.sf((bound - grid) / step),
                stats.norm.cdf((-bound - grid) / step),
            )
            return float(mass @ (above + below)) - p

        limit = float(optimize.brentq(excess, 0.0, 40 * math.sqrt(now), xtol=1e-10))
        bounds.append(limit / math.sqrt(now))
        grid, mass = _remaining(limit, grid, mass, step)
        before = now
    return bounds


def _remaining(bound: float, grid: Floats, mass: Floats, step: float) -> tuple[Floats, Floats]:
    """Return a new grid (G,) within +-bound and the probability mass at its points, by Simpson."""
    count = max(129, 2 * math.ceil(4 * bound / step) + 1)
    points = np.linspace(-bound, bound, count)
    weights = np.full(count, 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    density = stats.norm.pdf((points[:, None] - grid) / step) @ mass / step
    return points, density * weights * (points[1] - points[0]) / 3


def spending(of: Callable[[Floats], Floats], looks: Sequence[int]) -> Floats:
    """Lan and DeMets's boundary for a spending function of the share of 40 seeds."""
    share = np.asarray(looks) / MOST
    bounds = boundary(share, np.diff([0.0, *of(share)]))
    return quantiles([2 * float(stats.norm.sf(bound)) for bound in bounds], looks)


def obrien_fleming(share: Floats) -> Floats:
    """Spend as O'Brien and Fleming's boundary does, nearly all of it at the end."""
    return np.asarray(4 * stats.norm.sf(stats.norm.isf(ALPHA / 4) / np.sqrt(share)))


def pocock(share: Floats) -> Floats:
    """Spend as Pocock's boundary does, about as much at each look."""
    return ALPHA * np.log(1 + (math.e - 1) * share)


def hyperbolic(share: Floats) -> Floats:
    """Spend by n / (n + 2.5), which needs no largest number of seeds: two thirds with 5."""
    return ALPHA * share * MOST / (share * MOST + 2.5)


def every_number(looks: Sequence[int]) -> Floats:
    """The verdict's: a boundary for every number of seeds from the first on, looked at or not."""
    return quantiles([error_rate(n, looks[0]) for n in looks], looks)


def mixture(looks: Sequence[int], scale: float = 2.0) -> Floats:
    """Always-valid t test: normal mixture over the effect in deviations, variance unknown.

    The interval is where the mixture's likelihood ratio, invariant to scale, is below 1 / ALPHA.
    The scale is the one of the narrowest interval with 5 to 10 seeds, of 1, 2, 4 and 8.

    Source:
        Lai (1976), "On confidence sequences"; Wang, Ramdas (2025), "Anytime-valid t-tests and
        confidence sequences for Gaussian means with unknown variance", arXiv:2310.03722.
    """
    n = np.asarray(looks, dtype=np.float64)
    g = 1 + n * scale**2
    k = (g / ALPHA**2) ** (1 / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(k < g, np.sqrt((n - 1) * (k - 1) / (1 - k / g)), np.inf)


RULES: dict[str, Callable[[Sequence[int]], Floats]] = {
    "each as the only one, 5 %": single,
    "ledger: 4 %, 0.5 %, half each": ledger,
    "alpha spending like O'Brien-Fleming, to 40 seeds": lambda n: spending(obrien_fleming, n),
    "alpha spending like Pocock, to 40 seeds": lambda n: spending(pocock, n),
    FREE_OF_AN_END: lambda n: spending(hyperbolic, n),
    OURS: every_number,
    MIXTURE: mixture,
}


def empirical_bernstein(pairs: Floats, reach: float) -> Floats:
    """Return half widths (K, N) of the predictable plug-in confidence sequence for bounded pairs.

    Args:
        pairs: Shape (K, N).
        reach: They are taken to lie within +- this; nothing in a training run guarantees it.

    Source:
        Waudby-Smith, Ramdas (2024), "Estimating means of bounded random variables by betting",
        arXiv:2010.09686, theorem 2.
    """
    x = np.clip((pairs + reach) / (2 * reach), 0.0, 1.0)
    n = np.arange(1, x.shape[1] + 1)
    means = (0.5 + np.cumsum(x, 1)) / (n + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2, 1)) / (n + 1)
    before = np.hstack([np.full((len(x), 1), 0.25), variances[:, :-1]])
    last = np.hstack([np.full((len(x), 1), 0.5), means[:, :-1]])
    bets = np.minimum(np.sqrt(2 * math.log(2 / ALPHA) / (before * n * np.log(n + 1))), 0.5)
    cost = np.cumsum(4 * (x - last) ** 2 * (-np.log1p(-bets) - bets) / 4, 1)
    return np.asarray(2 * reach * (math.log(2 / ALPHA) + cost) / np.cumsum(bets, 1))


# --- studies ---------------------------------------------------------------------------------


def intervals(pairs: Floats, looks: Sequence[int]) -> tuple[Floats, Floats]:
    """Return means and standard errors (K, L) after each look."""
    n = np.asarray(looks)
    sums, squares = np.cumsum(pairs, 1)[:, n - 1], np.cumsum(pairs**2, 1)[:, n - 1]
    means = sums / n
    return means, np.sqrt(np.maximum(squares / n - means**2, 0.0) / (n - 1))


def outcome(pairs: Floats, looks: Sequence[int], widths: Floats, effect: float) -> dict[str, float]:
    """Follow studies look by look until an answer; better is a mean below zero.

    Returns:
        missed: studies of which some interval misses the truth; better, worse, equivalent: final
        answers;
        seeds: mean number at the end.
    """
    means, errors = intervals(pairs, looks)
    low, high = means - widths * errors, means + widths * errors
    equivalent = (low > -MARGIN) & (high < MARGIN)
    apart = (low > 0) | (high < 0)
    settled = equivalent | apart
    at = np.where(settled.any(1), settled.argmax(1), len(looks) - 1)
    rows = np.arange(len(pairs))
    return {
        "missed": float(((low > effect) | (high < effect)).any(1).mean()),
        "better": float((~equivalent & (high < 0))[rows, at].mean()),
        "worse": float((~equivalent & (low > 0))[rows, at].mean()),
        "equivalent": float(equivalent[rows, at].mean()),
        "seeds": float(np.asarray(looks)[at].mean()),
    }


def compare(studies: int, seed: int) -> dict[str, Any]:
    """Compare all rules on the same pairs."""
    found: dict[str, Any] = {}
    for name, rule in RULES.items():
        of_rule: dict[str, Any] = {
            "half width in deviations, looked at with 5, 10 and 30 seeds": [
                round(float(c / math.sqrt(n)), 3) for c, n in zip(rule(WIDTHS), WIDTHS, strict=True)
            ]
        }
        for noise, draw in NOISES.items():
            unit = draw(np.random.default_rng(seed), (studies, MOST))
            of_rule[f"any interval misses the truth, {noise}"] = {
                which: round(outcome(unit, looks, rule(looks), 0.0)["missed"], 4)
                for which, looks in LOOKS.items()
            }
        for percent in (0.0, 0.5, 1.0, 2.0):
            effect = -math.log1p(percent / 100)
            pairs = effect + PAIR_NOISE * NOISES["normal"](
                np.random.default_rng(seed + 1), (studies, MOST)
            )
            of_rule[f"{percent:g} % better, noise of pairs {PAIR_NOISE}"] = {
                which: {
                    key: round(value, 3)
                    for key, value in outcome(pairs, looks, rule(looks), effect).items()
                    if key not in ("missed", "worse")
                }
                for which, looks in LOOKS.items()
            }
        found[name] = of_rule
    return found


def bernstein(studies: int, seed: int, reach: float = 0.05) -> dict[str, Any]:
    """Mean half widths of the empirical Bernstein sequence, in deviations of pairs."""
    pairs = PAIR_NOISE * NOISES["normal"](np.random.default_rng(seed), (studies, MOST))
    widths = empirical_bernstein(pairs, reach).mean(0)[np.asarray(WIDTHS) - 1]
    return {
        "pairs taken to lie within": reach,
        "half width in deviations with 5, 10 and 30 seeds": [
            round(float(width / PAIR_NOISE), 2) for width in widths
        ],
    }


def totals(paths: int, seed: int) -> dict[str, Any]:
    """Probability that any interval of the verdict's misses the truth, at every number of seeds.

    From the first number to 40 times as many, or 900. Shares of the error rate are those of a
    corrected comparison (Holm) or of a second question.
    """
    found: dict[str, Any] = {}
    for first in (2, 3, 5, 10, 20, 40):
        n = np.arange(first, min(900, 40 * first) + 1)
        rng, shares, hits = np.random.default_rng(seed), (1.0, 1 / 2, 1 / 3, 1 / 16), np.zeros(4)
        limits = [
            quantiles([share * error_rate(int(one), first) for one in n], n) for share in shares
        ]
        for _ in range(paths // 5000):
            means, errors = intervals(rng.standard_normal((5000, n[-1])), n)
            t = np.abs(means) / errors
            hits += [(t > limit).any(1).sum() for limit in limits]
        missed = hits / (paths // 5000 * 5000)
        found[f"{first} seeds at first"] = {
            f"error rates times {share:.4g}": round(float(one), 5)
            for share, one in zip(shares, missed, strict=True)
        }
    return found


UNTIL = ((0.0, 0.005), (1.0, 0.005), (2.0, 0.005), (0.0, 0.012), (1.0, 0.012), (2.0, 0.012))


def until_settled(studies: int, seed: int) -> dict[str, Any]:
    """What `--until settled --max-seeds 40` ends with, by how fast it adds seeds and by the rule.

    right: better where there is a difference, equivalent where there is none; wrong: any other
    answer but inconclusive.
    """
    found: dict[str, Any] = {}
    steps = {"one by one": 1.0, "a tenth more": 1.1, "half as many again": 1.5}
    for name in (
        OURS,
        FREE_OF_AN_END,
    ):
        for step, growth in steps.items():
            looks = grown(5, MOST, growth)
            widths = RULES[name](looks)
            found[f"{name}, {step}"] = {
                f"{percent:g} %, noise of pairs {noise}": _ended(
                    percent, noise, looks, widths, studies, seed
                )
                for percent, noise in UNTIL
            }
    return found


def _ended(
    percent: float, noise: float, looks: Sequence[int], widths: Floats, studies: int, seed: int
) -> dict[str, float]:
    effect = -math.log1p(percent / 100)
    pairs = effect + noise * np.random.default_rng(seed).standard_normal((studies, MOST))
    ended = outcome(pairs, looks, widths, effect)
    return {
        "right": round(ended["better"] if percent else ended["equivalent"], 3),
        "wrong": round(ended["worse"] + ended["equivalent" if percent else "better"], 4),
        "mean seeds": round(ended["seeds"], 1),
    }


def main(out: Path, studies: int = STUDIES) -> None:
    """Simulate every case and write the figures."""
    start = time.perf_counter()
    results: dict[str, Any] = {
        "command": "python tests/benchmarks/looks.py tests/benchmarks/looks.json",
        "studies of each case": studies,
        "rules": compare(studies, 1),
        "confidence sequence: empirical Bernstein": bernstein(2000, 2),
        "any of the verdict's intervals misses the truth": totals(10 * studies, 3),
        "until settled": until_settled(studies, 4),
    }
    results["seconds"] = round(time.perf_counter() - start, 1)
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
