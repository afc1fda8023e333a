"""Loss against compute as a power law with a floor, L(C) = E + A C ** -alpha, and its uncertainty.

Source:
    Hoffmann et al. (2022), "Training compute-optimal large language models", arXiv:2203.15556,
    along one path of sizes; Kaplan et al. (2020), arXiv:2001.08361, without the floor.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from sweep.verdict.statistics import Floats

FLOORS = 400  # values of E that are tried
# Standard deviation of the change of slope, in nats per squared e-fold of compute: short runs are
# not quite on a power law. Of two real long runs one was off by this, one by less
# (small_to_big.json).
BEND = 0.13
QUANTILES = norm.ppf((np.arange(99) + 0.5) / 99)  # of a normal distribution


def predict(
    compute: Sequence[float], nats: Sequence[float], noise: float, at: float
) -> tuple[float, float, float]:
    """Predict the loss at a larger compute from losses at smaller ones.

    Every floor E from 0 to the lowest loss is as likely beforehand. For each, A and alpha are
    fitted by weighted least squares; floors count by how well they then fit. What the fit, the
    noise of the new run and a slope that bends (BEND) leave open is added.

    Args:
        compute: Of the runs, above 0, in any unit; at least two different ones.
        nats: Their losses, above 0.
        noise: Standard deviation of a loss between seeds, above 0.
        at: The compute to predict for, in the same unit.

    Returns:
        Median, and both ends of the 95 % interval.
    """
    x, y = np.log(np.asarray(compute) / at), np.asarray(nats)
    floors = np.linspace(0.0, y.min(), FLOORS, endpoint=False)
    means, deviations, misfit = np.array([_fit(x, y, floor, noise) for floor in floors]).T
    bend = BEND * np.log(at / max(compute)) ** 2 / 2
    unknown = np.sqrt(deviations**2 + noise**2 + bend**2)
    draws = np.maximum(0.0, means[:, None] + np.outer(unknown, QUANTILES)).ravel()
    weights = np.repeat(np.exp(-0.5 * (misfit - misfit.min())), len(QUANTILES))
    order = np.argsort(draws)
    shares = np.cumsum(weights[order]) / weights.sum()
    median, low, high = (
        float(draws[order][np.searchsorted(shares, share)]) for share in (0.5, 0.025, 0.975)
    )
    return median, low, high


def _fit(x: Floats, y: Floats, floor: float, noise: float) -> tuple[float, float, float]:
    """Return the loss at x = 0 of the fit with this floor, its deviation, and the misfit.

    A loss does not grow with compute: where the data say so, alpha is 0.
    """
    above = y - floor
    weights = (above / noise) ** 2  # the noise of log(above) is noise / above
    centre = np.average(x, weights=weights)
    spread = float(np.sum(weights * (x - centre) ** 2))
    slope = min(0.0, float(np.sum(weights * (x - centre) * np.log(above))) / spread)
    mean = np.average(np.log(above), weights=weights)
    fitted = np.exp(mean + slope * (x - centre))
    at_target = float(np.exp(mean - slope * centre))
    deviation = at_target * float(np.sqrt(1 / weights.sum() + centre**2 / spread))
    return floor + at_target, deviation, float(np.sum(((fitted - above) / noise) ** 2))
