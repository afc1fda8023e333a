"""Training losses. Add a loss by adding one function of LogitStats and one LOSSES entry.

A loss is the cost of each token, made from the statistics of gpt.losses.logit_stats: cross-entropy,
the true class's logit, sums over the wrong classes. Gradients, `reduction` and `ignore_index` as in
torch (gpt.losses.loss), training without the logits (gpt.losses.fused_linear) and options in study
files follow from that.

Shapes: N tokens, V classes (the vocabulary), logits f (N, V), true class y, p = softmax(f). The
cross-entropy is in nats; what is added to it has no unit. Every term is a mean over classes or does
not grow with V, so that options keep their meaning from one vocabulary to another.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.losses import link_functions
from gpt.losses.logit_stats import LogitStats
from gpt.losses.loss import Loss
from gpt.losses.options import Option

TINY = 1e-30  # keeps powers of 1 - p_y differentiable where p_y is 1


def cross_entropy(s: LogitStats, label_smoothing: float) -> Tensor:
    """Cross-entropy of softmax, with label smoothing: -log p_y where that is 0.

    (1 - a) * -log p_y + a * mean over j of -log p_j.

    Args:
        label_smoothing: a, in [0, 1); 0 is maximum likelihood.

    Source:
        Szegedy et al. (2016), arXiv:1512.00567, section 7; as torch's label_smoothing.
    """
    if label_smoothing == 0:
        return s.cross_entropy
    mean_logit = (s.negative_sum + s.target_logit) / s.classes
    return s.cross_entropy + label_smoothing * (s.target_logit - mean_logit)


def squentropy(s: LogitStats, square_weight: float) -> Tensor:
    """Cross-entropy plus the mean squared logit of the wrong classes.

    CE + square_weight / (V - 1) * sum over j != y of f_j ** 2.

    Args:
        square_weight: At least 0; the paper's loss is 1, and 0 is cross-entropy. Its effect scales
            like square_weight / V: 1 is another loss at another vocabulary.

    Source:
        Hui, Belkin, Wright (2023), "Cut your Losses with Squentropy", arXiv:2302.03952, equation 1.
    """
    return s.cross_entropy + square_weight / (s.classes - 1) * s.negative_squares


def rescaled_squentropy(
    s: LogitStats, square_weight: float, true_weight: float, true_target: float
) -> Tensor:
    """Squentropy with a square for the true class too, which pulls its logit towards a target.

    CE + square_weight / V * (true_weight * (f_y - true_target) ** 2 + sum over j != y of f_j ** 2).

    Args:
        square_weight: At least 0.
        true_weight: k, at least 0. The original study's published code trained 65, a character
            vocabulary's size, which is the default.
        true_target: M, towards which f_y is pulled.

    Source:
        The rescaling is that of Hui and Belkin (2020), arXiv:2006.07322, section 5.
    """
    squares = true_weight * (s.target_logit - true_target).square() + s.negative_squares
    return s.cross_entropy + square_weight / s.classes * squares


def brier_ce(s: LogitStats, brier_weight: float) -> Tensor:
    """Cross-entropy plus the Brier score of softmax: both are proper, so they share an optimum.

    CE + brier_weight * sum over j of (p_j - [j = y]) ** 2.

    Args:
        brier_weight: At least 0. The Brier score is in [0, 2].

    Source:
        Brier (1950), Monthly Weather Review 78; proper: Gneiting and Raftery (2007), section 4.
    """
    return s.cross_entropy + brier_weight * (s.p_squares - 2 * _target_p(s) + 1)


def logit_l2(s: LogitStats, square_weight: float) -> Tensor:
    """Cross-entropy plus the mean squared logit of all classes.

    CE + square_weight / V * sum over j of f_j ** 2.

    Args:
        square_weight: At least 0.

    Source:
        Dauphin and Cubuk (2021), "Deconstructing the regularization of BatchNorm"; Kornblith et
        al. (2021), arXiv:2010.16402, appendix B (logit penalty).
    """
    return s.cross_entropy + square_weight / s.classes * (
        s.negative_squares + s.target_logit.square()
    )


def logit_variance(s: LogitStats, square_weight: float) -> Tensor:
    """Cross-entropy plus the variance of the logits: logit_l2 without the shift softmax ignores.

    CE + square_weight / V * sum over j of (f_j - mean of f) ** 2.

    Args:
        square_weight: At least 0.
    """
    return s.cross_entropy + square_weight * s.variance


def z_loss(s: LogitStats, z_weight: float) -> Tensor:
    """Cross-entropy plus z_weight * logsumexp(f) ** 2, which keeps the normaliser near 1.

    Args:
        z_weight: At least 0; PaLM's is 1e-4.

    Source:
        Chowdhery et al. (2022), "PaLM", arXiv:2204.02311, section 5.
    """
    return s.cross_entropy + z_weight * s.logsumexp.square()


def focal(s: LogitStats, gamma: float) -> Tensor:
    """Focal loss, which gives likely tokens less weight: (1 - p_y) ** gamma * CE.

    Args:
        gamma: At least 0; 0 is cross-entropy.

    Source:
        Lin et al. (2017), "Focal loss for dense object detection", arXiv:1708.02002, equation 4.
    """
    doubt = (-torch.expm1(-s.cross_entropy)).clamp_min(TINY)  # 1 - p_y
    return doubt**gamma * s.cross_entropy


def poly1(s: LogitStats, epsilon: float) -> Tensor:
    """PolyLoss, cross-entropy with another first coefficient: CE + epsilon * (1 - p_y).

    Args:
        epsilon: At least -1; 0 is cross-entropy.

    Source:
        Leng et al. (2022), "PolyLoss", arXiv:2204.12511, equation 6.
    """
    return s.cross_entropy + epsilon * (1 - _target_p(s))


def absolute(s: LogitStats, residual_weight: float) -> Tensor:
    """Squentropy with |f_j| in place of f_j ** 2.

    CE + residual_weight / (V - 1) * sum over j != y of |f_j|.

    Args:
        residual_weight: At least 0.
    """
    sizes = s.sum_over_negatives(torch.abs, torch.sign)
    return s.cross_entropy + residual_weight / (s.classes - 1) * sizes


def huber(s: LogitStats, residual_weight: float, huber_delta: float) -> Tensor:
    """Squentropy with Huber's function: f_j ** 2 / 2 up to delta, then delta * (|f_j| - delta / 2).

    CE + residual_weight / (V - 1) * sum over j != y of huber(f_j).

    Args:
        residual_weight: At least 0.
        huber_delta: Above 0, in units of logits.

    Source:
        Huber (1964), Annals of Mathematical Statistics 35.
    """

    def grad_fn(f: Tensor) -> Tensor:
        return f.clamp(-huber_delta, huber_delta)

    def fn(f: Tensor) -> Tensor:
        return grad_fn(f) * torch.sub(f, grad_fn(f), alpha=0.5)

    sums = s.sum_over_negatives(fn, grad_fn)
    return s.cross_entropy + residual_weight / (s.classes - 1) * sums


def logistic(s: LogitStats, residual_weight: float) -> Tensor:
    """Cross-entropy plus the mean of V one-against-all logistic losses.

    CE + residual_weight / V * (softplus(-f_y) + sum over j != y of softplus(f_j)).

    Args:
        residual_weight: At least 0.

    Source:
        Rifkin and Klautau (2004), "In defense of one-vs-all classification", JMLR 5.
    """
    sums = F.softplus(-s.target_logit) + s.sum_over_negatives(F.softplus, torch.sigmoid)
    return s.cross_entropy + residual_weight / s.classes * sums


def _target_p(s: LogitStats) -> Tensor:
    return (-s.cross_entropy).exp()


SQUARE_WEIGHT = Option(1.0, low=1e-3, high=10.0, log=True, is_weight=True)
RESIDUAL_WEIGHT = Option(1.0, low=1e-3, high=10.0, log=True, is_weight=True)

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        cross_entropy,
        {"label_smoothing": Option(0.0, low=0.0, high=0.2, below=1.0)},
        link_functions.cross_entropy,
    ),
    "squentropy": Loss(squentropy, {"square_weight": SQUARE_WEIGHT}, link_functions.squentropy),
    "rescaled_squentropy": Loss(
        rescaled_squentropy,
        {
            "square_weight": SQUARE_WEIGHT,
            "true_weight": Option(65.0, low=1.0, high=1000.0, log=True),
            "true_target": Option(1.0, low=0.0, high=20.0),
        },
        link_functions.rescaled_squentropy,
    ),
    "brier_ce": Loss(
        brier_ce, {"brier_weight": Option(1.0, low=1e-2, high=10.0, log=True, is_weight=True)}
    ),
    "logit_l2": Loss(logit_l2, {"square_weight": SQUARE_WEIGHT}, link_functions.logit_l2),
    "logit_variance": Loss(
        logit_variance, {"square_weight": SQUARE_WEIGHT}, link_functions.logit_variance
    ),
    "z_loss": Loss(
        z_loss, {"z_weight": Option(1e-4, low=1e-5, high=1e-1, log=True, is_weight=True)}
    ),
    "focal": Loss(focal, {"gamma": Option(2.0, low=0.0, high=5.0)}, link_functions.focal),
    "poly1": Loss(
        poly1, {"epsilon": Option(1.0, low=-1.0, high=8.0, at_least=-1.0)}, link_functions.poly1
    ),
    # no link function: its optimum may lie where f_j = 0, from which pi_j cannot be read
    "absolute": Loss(absolute, {"residual_weight": RESIDUAL_WEIGHT}),
    "huber": Loss(
        huber,
        {
            "residual_weight": RESIDUAL_WEIGHT,
            "huber_delta": Option(1.0, low=0.1, high=10.0, log=True, at_least=1e-6),
        },
        link_functions.huber,
    ),
    "logistic": Loss(logistic, {"residual_weight": RESIDUAL_WEIGHT}, link_functions.logistic),
}
