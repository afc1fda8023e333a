"""Intervals over searches and seeds, compared by simulation with a known truth. Run by hand:

    python tests/benchmarks/searches.py tests/benchmarks/searches.json

Each of two arms is searched K times with n trials: half of the points are those of the other arm,
too, where both have the knob, the others lie around the best so far. The top 3 by one noisy run are
screened with 3 seeds, and the best is confirmed with S fresh seeds, the same for both arms and
others for each search. The truth is the expected difference of what one search finds. Units are
nats per token. Takes 3 minutes of one core.

Shapes: N searches, K of one study, S seeds, D knobs.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from sweep.verdict.statistics import answers, paired_differences, search_error_rate

Floats = npt.NDArray[np.float64]

MARGIN = math.log(1.01)
STUDIES = 2000
TRUTH_FROM = 100_000  # searches
SEARCHES = (1, 3, 5, 10)


@dataclass(frozen=True)
class Arm:
    """A loss around its optimum: (x - optimum)^2 / width^2 / 2 nats too many for each knob."""

    knobs: int = 3
    width: float = 1.0
    effect: float = 0.0  # at its optimum
    optimum: float = 0.6


@dataclass(frozen=True)
class World:
    """Two arms, the first the reference, and how they are searched and confirmed."""

    first: Arm = Arm()
    second: Arm = Arm()
    noise: float = 0.0112  # between seeds of one recipe, as in tests/benchmarks/verdict.py
    shared: float = 0.9  # share of its variance that runs on one seed have in common
    trials: int = 20  # of each arm
    seeds: int = 5  # that confirm each winner


CASES = {
    "equal arms": World(),
    "equal arms, narrow optimum": World(first=Arm(width=0.5), second=Arm(width=0.5)),
    "second arm has the narrower optimum": World(second=Arm(width=0.5)),
    "second arm has five knobs, the first two": World(first=Arm(knobs=2), second=Arm(knobs=5)),
    "second arm is 2 % better": World(second=Arm(effect=-math.log(1.02))),
    "second arm is 2 % better and has the narrower optimum": World(
        second=Arm(effect=-math.log(1.02), width=0.5)
    ),
    "equal arms, noise of short runs": World(noise=0.038, shared=0.53),
    "equal arms, 8 trials": World(trials=8),
}


def searched(world: World, number: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Search so often; return true values (N,) of what stands for the first and the second arm."""
    most = max(world.first.knobs, world.second.knobs)
    points = rng.random((number, world.trials, most))  # of both arms
    found = [_searched(arm, world, points, rng) for arm in (world.first, world.second)]
    return found[0], found[1]


def _searched(arm: Arm, world: World, points: Floats, rng: np.random.Generator) -> Floats:
    number, half = len(points), world.trials // 2
    truth = np.empty((number, world.trials))
    best, at = np.full(number, np.inf), np.empty((number, arm.knobs))
    shown = np.empty_like(truth)
    for trial in range(world.trials):
        x = points[:, trial, : arm.knobs]
        if trial >= half:
            x = np.clip(at + rng.normal(0, 0.15, at.shape), 0, 1)
        truth[:, trial] = arm.effect + (((x - arm.optimum) / arm.width) ** 2).sum(1) / 2
        shown[:, trial] = truth[:, trial] + rng.normal(0, world.noise, number)
        better = shown[:, trial] < best
        best[better], at[better] = shown[better, trial], x[better]
    top = np.argsort(shown, 1)[:, :3]
    candidates = np.take_along_axis(truth, top, 1)
    screened = candidates + rng.normal(0, world.noise / math.sqrt(3), candidates.shape)
    return np.take_along_axis(candidates, screened.argmin(1)[:, None], 1)[:, 0]


def confirmed(
    world: World, differences: Floats, rng: np.random.Generator, *, same_seeds: bool = False
) -> Floats:
    """Draw pairs of runs (..., K, S) of winners that truly differ by (..., K).

    Args:
        world: Its noise of pairs.
        differences: Of the second arm to the first.
        rng: Of the noise.
        same_seeds: Whether all searches of a study are confirmed with the same seeds, half of whose
            noise of pairs they then share.
    """
    scale = world.noise * math.sqrt(2 * (1 - world.shared))
    own = rng.normal(0, scale, (*differences.shape, world.seeds))
    if same_seeds:
        common = rng.normal(0, scale, (*differences.shape[:-1], 1, world.seeds))
        own = (own + common) / math.sqrt(2)
    return differences[..., None] + own


# --- intervals: means and half widths (N,) of pairs (N, K, S) --------------------------------

Interval = Callable[[Floats], tuple[Floats, Floats]]


def over_searches(pairs: Floats, error_rate: float = 0.05) -> tuple[Floats, Floats]:
    """The t interval of the K means over seeds: that of a balanced nested analysis of variance."""
    means = pairs.mean(-1)
    count = means.shape[-1]
    half = stats.t.ppf(1 - error_rate / 2, count - 1) * means.std(-1, ddof=1) / math.sqrt(count)
    return means.mean(-1), half


def as_one_search(pairs: Floats) -> tuple[Floats, Floats]:
    """The t interval of all pairs, as though they were seeds of one search."""
    flat = pairs.reshape(len(pairs), -1)
    count = flat.shape[-1]
    return flat.mean(-1), stats.t.ppf(0.975, count - 1) * flat.std(-1, ddof=1) / math.sqrt(count)


def random_effects(pairs: Floats) -> tuple[Floats, Floats]:
    """DerSimonian and Laird's (1986): both variances are estimated, and then taken as known."""
    searches, seeds = pairs.shape[1:]
    means = pairs.mean(-1)
    within = pairs.var(-1, ddof=1).mean(-1) / seeds
    between = np.maximum(means.var(-1, ddof=1) - within, 0.0)
    return means.mean(-1), stats.norm.ppf(0.975) * np.sqrt((between + within) / searches)


def bootstrapped(pairs: Floats, replicates: int = 300) -> tuple[Floats, Floats]:
    """Resample searches, and seeds within each; the spread of 95 % of the means."""
    rng = np.random.default_rng(0)
    number, searches, seeds = pairs.shape
    means = np.empty((replicates, number))
    for one in range(replicates):
        of = rng.integers(searches, size=searches)
        within = rng.integers(seeds, size=(searches, seeds))
        means[one] = pairs[:, of[:, None], within].mean((1, 2))
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return (low + high) / 2, (high - low) / 2


INTERVALS: dict[str, Interval] = {
    "t over the searches' means": over_searches,
    "t over all seeds": as_one_search,
    "random effects, normal quantile": random_effects,
    "bootstrap of searches and seeds": bootstrapped,
}


def measured(found: tuple[Floats, Floats], truth: float) -> dict[str, float]:
    """Count how often intervals hold the truth, and false answers."""
    low, high = found[0] - found[1], found[0] + found[1]
    equivalent = (low > -MARGIN) & (high < MARGIN)
    wrong_side = ((high < 0) & (truth >= 0)) | ((low > 0) & (truth <= 0))
    false = np.where(equivalent, abs(truth) >= MARGIN, wrong_side)
    return {
        "coverage": round(float(((low <= truth) & (truth <= high)).mean()), 4),
        "false answers": round(float(false.mean()), 4),
        "half width": round(float(found[1].mean()), 4),
    }


def case(world: World, studies: int, seed: int) -> dict[str, Any]:
    """Simulate one case for each number of searches."""
    rng = np.random.default_rng(seed)
    first, second = searched(world, TRUTH_FROM, rng)
    truth = float((second - first).mean())
    if world.first == world.second:
        truth = 0.0
    found: dict[str, Any] = {
        "true difference": round(truth, 5),
        "deviation between searches": round(float((second - first).std()), 5),
    }
    for searches in SEARCHES:
        first, second = searched(world, studies * searches, rng)
        off = (second - first).reshape(studies, searches)
        pairs = confirmed(world, off, rng)
        of_k: dict[str, Any] = {"runs of an arm": searches * (world.trials + 9 + world.seeds)}
        for name, interval in INTERVALS.items():
            if searches > 1 or interval is as_one_search:
                of_k[name] = measured(interval(pairs), truth)
        if searches > 1:
            same = over_searches(confirmed(world, off, rng, same_seeds=True))
            of_k["t over the searches' means, the same seeds for all"] = measured(same, truth)
            of_k["the verdict's"] = verdict(pairs, truth)
        found[f"{searches} searches"] = of_k
    return found


def verdict(pairs: Floats, truth: float) -> dict[str, float]:
    """The first interval that `verdict --searches` gives, and its answers."""
    means = pairs.mean(-1)
    compared = paired_differences(means, MARGIN, search_error_rate(1))
    said = [answers([one])[0] for one in compared]
    wrong = {"better": truth >= 0, "worse": truth <= 0, "equivalent": abs(truth) >= MARGIN}
    right = "better" if truth <= -MARGIN else "equivalent" if abs(truth) < MARGIN else "worse"
    return {
        "coverage": round(float(np.mean([one.low <= truth <= one.high for one in compared])), 4),
        "false answers": round(float(np.mean([wrong.get(one, False) for one in said])), 4),
        f"said {right}, rightly": round(said.count(right) / len(said), 4),
        "half width": round(float(np.mean([(one.high - one.low) / 2 for one in compared])), 4),
    }


def seeds_of_each(studies: int, seed: int) -> dict[str, Any]:
    """What more seeds for each of 5 searches are worth, against what the searches differ."""
    found = {}
    for seeds in (1, 2, 3, 5, 10):
        world = replace(CASES["equal arms"], seeds=seeds)
        rng = np.random.default_rng(seed)
        first, second = searched(world, studies * 5, rng)
        pairs = confirmed(world, (second - first).reshape(studies, 5), rng)
        _, half = over_searches(pairs)
        found[f"{seeds} seeds"] = {"half width": round(float(half.mean()), 5)}
    return found


def main(out: Path, studies: int = STUDIES) -> None:
    """Simulate every case and write the figures."""
    start = time.perf_counter()
    results: dict[str, Any] = {
        "command": "python tests/benchmarks/searches.py tests/benchmarks/searches.json",
        "studies of each case": studies,
        "cases": {
            name: case(world, studies, 1 + i) for i, (name, world) in enumerate(CASES.items())
        },
        "5 searches, equal arms, by the seeds of each": seeds_of_each(studies, 50),
    }
    results["seconds"] = round(time.perf_counter() - start, 1)
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
