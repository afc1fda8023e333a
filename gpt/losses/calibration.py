"""Calibration of softmax: reliability bins, expected calibration error, a fitted temperature.

Shapes: M targets, C = n_embd, V classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.losses.fused_linear import logit_blocks

BINS = 15  # as in Guo et al. (2017)
MAX_ITERATIONS = 30  # Newton's method needs about 3
# Of 1 / temperature, relative. The error left after a step is about its square, and what that costs
# in nats the square of that: 1e-8.
LAST_STEP = 1e-2
# A first guess is fitted on one in ONE_IN targets: its error is about one last step. A few targets
# may have no best temperature, but FIRST_ITERATIONS steps do not go far.
ONE_IN, FIRST_ITERATIONS = 8, 4


@dataclass(frozen=True)
class Bin:
    """A group of targets of about the same confidence."""

    count: int
    confidence: float  # mean of the largest p_j
    accuracy: float  # share whose most likely token is the true one


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> list[Bin]:
    """Group targets by confidence into `bins` of equal size (within one), the least sure first.

    Args:
        confidence: Largest probability of each target, shape (M,).
        correct: 1.0 where that token is the true one, else 0.0, shape (M,).
        bins: Number of groups; with fewer targets, one each.
    """
    order = confidence.argsort(stable=True)
    groups = order.tensor_split(min(bins, len(order)))
    return [
        Bin(len(g), confidence[g].double().mean().item(), correct[g].double().mean().item())
        for g in groups
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Mean over targets of |confidence - accuracy| of their bin, in [0, 1].

    Source: the expected calibration error of Guo et al. (2017), arXiv:1706.04599, equation 3, with
    bins of equal mass as Nguyen and O'Connor (2015), arXiv:1508.05154, have them.
    """
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total


@torch.no_grad()
def held_back_nats(hidden: Tensor, weight: Tensor, targets: Tensor, story: Tensor) -> float:
    """Mean cross-entropy after dividing logits by one temperature, fitted on other stories.

    Stories are dealt into two halves; each is measured with the temperature of the other.

    Args:
        hidden: Hidden states h, shape (M, C).
        weight: Output weight W, shape (V, C).
        targets: True token ids, shape (M,).
        story: The story of each target, shape (M,).

    Returns:
        Nats per token. With a single story there is nothing to fit on: temperature 1.

    Source: temperature scaling, Guo et al. (2017), arXiv:1706.04599, section 4.2.
    """
    half = (story % 2).to(hidden.device)
    few = half.nonzero().squeeze(1)[::ONE_IN]
    nats, fitted = 0.0, _newton(hidden[few], weight, targets[few], 1.0, FIRST_ITERATIONS)
    for here in (0, 1):
        others, these = half != here, half == here
        fitted = _newton(hidden[others], weight, targets[others], fitted, MAX_ITERATIONS)
        nats += _nats(hidden[these], weight, targets[these], fitted)
    return nats / len(targets)


def _newton(
    hidden: Tensor, weight: Tensor, targets: Tensor, guess: float, iterations: int
) -> float:
    """Find the 1 / temperature of the lowest cross-entropy, convex in it, by Newton's method."""
    inverse = guess
    for _ in range(iterations if len(targets) else 0):
        slope, curvature = _derivatives(hidden, weight, targets, inverse)
        step = slope / max(curvature, 1e-12)
        new = min(max(inverse - step, inverse / 2), inverse * 2)
        last = abs(new - inverse) <= LAST_STEP * inverse
        inverse = new
        if last:
            break
    return inverse


def _nats(hidden: Tensor, weight: Tensor, targets: Tensor, inverse: float) -> float:
    """Sum of the nats of softmax(inverse * f)."""
    total = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for rows, f in logit_blocks(hidden, weight):
        total += F.cross_entropy(f.mul_(inverse), targets[rows], reduction="none").double().sum()
    return total.item()


def _derivatives(
    hidden: Tensor, weight: Tensor, targets: Tensor, inverse: float
) -> tuple[float, float]:
    """First and second derivative of `_nats` by `inverse`."""
    sums = torch.zeros(2, dtype=torch.float64, device=hidden.device)
    for rows, f in logit_blocks(hidden, weight):
        below = f.sub_(f.amax(1, keepdim=True))  # changes no p, and squares stay small
        p = (inverse * below).softmax(1)
        true = below.gather(1, targets[rows].unsqueeze(1)).squeeze(1)
        mean = p.mul_(below).sum(1)
        variance = p.mul_(below).sum(1) - mean.square()
        sums += torch.stack([mean - true, variance]).double().sum(1)
    slope, curvature = sums.tolist()
    return slope, curvature
