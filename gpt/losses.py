"""Training objectives on logits. Add a loss by adding one function and one LOSSES entry.

Shapes: N tokens, V = C classes. A loss takes logits (N, V) and targets (N,), then `reduction` and
`ignore_index` as torch's cross_entropy does, then its own options. Knows nothing of models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -1  # nanoGPT's mark for "no target here"


def cross_entropy(
    logits: Tensor, targets: Tensor, reduction: str = "mean", ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Negative log-probability of the true token under softmax, in nats.

    Args:
        logits: Unnormalised scores f, shape (N, V).
        targets: True token ids y, shape (N,), each in [0, V) or ignore_index.
        reduction: "mean" over the tokens that count, "sum", or "none" for shape (N,).
        ignore_index: Targets with this value do not count.
    """
    return F.cross_entropy(
        _accumulable(logits), targets, reduction=reduction, ignore_index=ignore_index
    )


def squentropy(
    logits: Tensor,
    targets: Tensor,
    reduction: str = "mean",
    ignore_index: int = IGNORE_INDEX,
    square_weight: float = 1.0,
) -> Tensor:
    """Cross-entropy plus the mean squared logit of the wrong classes.

    Per token: CE(f, y) + square_weight / (V - 1) * sum over j != y of f_j ** 2.

    Args:
        logits: Unnormalised scores f, shape (N, V).
        targets: True token ids y, shape (N,), each in [0, V) or ignore_index.
        reduction: "mean" over the tokens that count, "sum", or "none" for shape (N,).
        ignore_index: Targets with this value do not count.
        square_weight: Factor of the square term, at least 0; the paper's loss is 1.

    Returns:
        Scalar, or shape (N,) without reduction. The first term is in nats; the second has no unit.

    Source:
        Hui, Belkin, Wright (2023), "Cut your Losses with Squentropy", arXiv:2302.03952, equation 1.
    """
    logits = _accumulable(logits)
    cross = F.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)
    counts = targets != ignore_index
    true = targets.where(counts, 0).unsqueeze(1)  # (N, 1); any valid class where nothing counts
    # The true class is set to zero before squaring: subtracting its square from the whole sum
    # would lose digits when it dominates.
    wrong = logits.scatter(1, true, 0.0)  # (N, V)
    squares = wrong.square().sum(1) * (square_weight / (logits.shape[1] - 1))
    return _reduce(cross + squares.where(counts, 0.0), counts, reduction)


def _accumulable(logits: Tensor) -> Tensor:
    """Half precision holds too few digits for sums over V; float64 stays what it is."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _reduce(per_token: Tensor, counts: Tensor, reduction: str) -> Tensor:
    """The reductions of torch: the mean is over the tokens that count (NaN if there are none)."""
    if reduction == "none":
        return per_token
    if reduction == "sum":
        return per_token.sum()
    if reduction == "mean":
        return per_token.sum() / counts.sum()
    raise ValueError(f"reduction must be one of mean, sum, none, but got {reduction!r}.")


@dataclass(frozen=True)
class Loss:
    """A training objective and its options with their defaults; every option is at least 0."""

    fn: Callable[..., Tensor]
    options: Mapping[str, float] = field(default_factory=dict)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy),
    "squentropy": Loss(squentropy, {"square_weight": 1.0}),
}


def check_loss(name: str, options: Mapping[str, float]) -> None:
    """Raise ValueError with one line unless LOSSES has `name` and it takes these options."""
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, but got {name!r}")
    known = LOSSES[name].options
    for option, value in options.items():
        if option not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"{option} is no option of {name}, which takes: {takes}")
        if value < 0:
            raise ValueError(f"{option} must be at least 0, but got {value}")
