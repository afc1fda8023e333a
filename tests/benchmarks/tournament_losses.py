"""Members of tournament.toml that are no losses of ours: label smoothing, squentropy's own link."""

import torch
from torch import Tensor

from gpt.losses import LOSSES, LogitStats, Loss, link_functions
from gpt.losses.functional import SQUARE_WEIGHT, cross_entropy
from gpt.losses.link_functions import FLOOR
from gpt.losses.options import Option


def own_link(s: LogitStats, square_weight: float) -> Tensor:
    """Cross-entropy of the probabilities that squentropy's link function reads from the logits.

    -log pi_y + log(sum of pi_j), with pi_j = (p_j + kappa f_j) / (1 + kappa f_j) and
    kappa = 2 w / (V - 1), raised to a hundredth of p_j as `gpt.losses.link_functions.floored` does.
    """
    kappa = 2 * square_weight / (s.classes - 1)
    normaliser = s.logsumexp
    fixed = normaliser.detach().unsqueeze(1)

    def by_logit(f: Tensor) -> Tensor:
        p = (f - fixed).exp()
        below = 1 + kappa * f
        slope = ((p + kappa) * (1 - p) + (p + kappa * f) * p) / below.square()
        return torch.where(_is_floored(p, f, kappa), FLOOR * p, slope)

    def by_normaliser(f: Tensor) -> Tensor:
        p = (f - fixed).exp()
        return torch.where(_is_floored(p, f, kappa), -FLOOR * p, -p / (1 + kappa * f))

    others = s.sum_over_negatives(lambda f: _linked((f - fixed).exp(), f, kappa), by_logit)
    slope = s.sum_over_negatives(by_normaliser, torch.zeros_like).detach()
    others = others + slope * (normaliser - normaliser.detach())  # p_j depends on all logits
    true = _linked((-s.cross_entropy).exp(), s.target_logit, kappa)
    return (others + true).log() - true.log()


def _linked(p: Tensor, f: Tensor, kappa: float) -> Tensor:
    return torch.where(_is_floored(p, f, kappa), FLOOR * p, (p + kappa * f) / (1 + kappa * f))


def _is_floored(p: Tensor, f: Tensor, kappa: float) -> Tensor:
    return p + kappa * f < FLOOR * p * (1 + kappa * f).clamp_min(torch.finfo(p.dtype).tiny)


LOSSES["smoothed"] = Loss(
    cross_entropy,
    {"label_smoothing": Option(0.1, low=0.01, high=0.2, below=1.0)},
    link_functions.cross_entropy,
)
LOSSES["own_link"] = Loss(own_link, {"square_weight": SQUARE_WEIGHT}, link_functions.squentropy)
