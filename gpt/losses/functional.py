"""Training objectives. Add a loss by adding one function of moments and one LOSSES entry.

A loss says what each token costs, from the numbers in gpt.losses.logit_stats: cross-entropy, the
true class's logit, sums over the wrong classes. Gradients, `reduction` and `ignore_index` as in
torch (gpt.losses.loss), training without the logits (gpt.losses.fused_linear) and options in study
files follow from that. Knows nothing of models.

Shapes: N tokens, V classes (the vocabulary), logits f (N, V), true class y, p = softmax(f). The
cross-entropy is in nats; what is added to it has no unit. Every term is a mean over classes or does
not grow with V, so that options keep their meaning from one vocabulary to another.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.losses import link_functions as links
from gpt.losses.logit_stats import Moments
from gpt.losses.loss import Loss, Option

TINY = 1e-30  # keeps powers of 1 - p_y differentiable where p_y is 1


def cross_entropy(m: Moments, label_smoothing: float) -> Tensor:
    """-log p_y, or with smoothing s: (1 - s) * -log p_y + s * mean over j of -log p_j.

    Args:
        label_smoothing: s, in [0, 1); 0 is maximum likelihood.

    Source:
        Szegedy et al. (2016), arXiv:1512.00567, section 7; as torch's label_smoothing.
    """
    if label_smoothing == 0:
        return m.cross_entropy
    mean_logit = (m.wrong_total + m.true) / m.classes
    return m.cross_entropy + label_smoothing * (m.true - mean_logit)


def squentropy(m: Moments, square_weight: float) -> Tensor:
    """Cross-entropy plus the mean squared logit of the wrong classes.

    CE + square_weight / (V - 1) * sum over j != y of f_j ** 2.

    Args:
        square_weight: At least 0; the paper's loss is 1, and 0 is cross-entropy. What it does
            scales like square_weight / V: 1 is another loss at another vocabulary.

    Source:
        Hui, Belkin, Wright (2023), "Cut your Losses with Squentropy", arXiv:2302.03952, equation 1.
    """
    return m.cross_entropy + square_weight / (m.classes - 1) * m.wrong_squares


def rescaled_squentropy(
    m: Moments, square_weight: float, true_weight: float, true_target: float
) -> Tensor:
    """Squentropy with a square for the true class too, which pulls its logit to a target.

    CE + square_weight / V * (true_weight * (f_y - true_target) ** 2 + sum over j != y of f_j ** 2).

    Args:
        square_weight: At least 0.
        true_weight: k, at least 0. The original study's published code trained 65, a character
            vocabulary's size, which is the default.
        true_target: M, where f_y is pulled to.

    Source:
        The rescaling is that of Hui and Belkin (2020), arXiv:2006.07322, section 5.
    """
    squares = true_weight * (m.true - true_target).square() + m.wrong_squares
    return m.cross_entropy + square_weight / m.classes * squares


def brier_ce(m: Moments, brier_weight: float) -> Tensor:
    """Cross-entropy plus the Brier score of softmax: both proper, so both want the same p.

    CE + brier_weight * sum over j of (p_j - [j = y]) ** 2.

    Args:
        brier_weight: At least 0. The Brier score is in [0, 2].

    Source:
        Brier (1950), Monthly Weather Review 78; proper: Gneiting and Raftery (2007), section 4.
    """
    return m.cross_entropy + brier_weight * (m.p_squares - 2 * _p_true(m) + 1)


def logit_l2(m: Moments, square_weight: float) -> Tensor:
    """Cross-entropy plus the mean squared logit of all classes: CE + w / V * sum of f_j ** 2.

    Args:
        square_weight: w, at least 0.

    Source:
        Dauphin and Cubuk (2021), "Deconstructing the regularization of BatchNorm"; Kornblith et
        al. (2021), arXiv:2010.16402, appendix B (logit penalty).
    """
    return m.cross_entropy + square_weight / m.classes * (m.wrong_squares + m.true.square())


def logit_variance(m: Moments, square_weight: float) -> Tensor:
    """Cross-entropy plus the variance of the logits: logit_l2 without the shift softmax ignores.

    CE + w / V * sum over j of (f_j - mean of f) ** 2.

    Args:
        square_weight: w, at least 0.
    """
    return m.cross_entropy + square_weight * m.variance


def z_loss(m: Moments, z_weight: float) -> Tensor:
    """Cross-entropy plus z_weight * logsumexp(f) ** 2, which keeps the normaliser near 1.

    Args:
        z_weight: At least 0; PaLM's is 1e-4.

    Source:
        Chowdhery et al. (2022), "PaLM", arXiv:2204.02311, section 5.
    """
    return m.cross_entropy + z_weight * m.logsumexp.square()


def focal(m: Moments, gamma: float) -> Tensor:
    """Cross-entropy that cares less for tokens it knows: (1 - p_y) ** gamma * CE.

    Args:
        gamma: At least 0; 0 is cross-entropy.

    Source:
        Lin et al. (2017), "Focal loss for dense object detection", arXiv:1708.02002, equation 4.
    """
    doubt = (-torch.expm1(-m.cross_entropy)).clamp_min(TINY)  # 1 - p_y
    return doubt**gamma * m.cross_entropy


def poly1(m: Moments, epsilon: float) -> Tensor:
    """Cross-entropy with another first coefficient of its series: CE + epsilon * (1 - p_y).

    Args:
        epsilon: At least -1; 0 is cross-entropy.

    Source:
        Leng et al. (2022), "PolyLoss", arXiv:2204.12511, equation 6.
    """
    return m.cross_entropy + epsilon * (1 - _p_true(m))


def absolute(m: Moments, residual_weight: float) -> Tensor:
    """Squentropy with |f_j| in place of f_j ** 2.

    CE + residual_weight / (V - 1) * sum over j != y of |f_j|.

    Args:
        residual_weight: At least 0.
    """
    sizes = m.wrong_sum(torch.abs, torch.sign)
    return m.cross_entropy + residual_weight / (m.classes - 1) * sizes


def huber(m: Moments, residual_weight: float, huber_delta: float) -> Tensor:
    """Squentropy with Huber's function: f_j ** 2 / 2 up to delta, then delta * (|f_j| - delta / 2).

    CE + residual_weight / (V - 1) * sum over j != y of huber(f_j).

    Args:
        residual_weight: At least 0.
        huber_delta: Above 0, in units of logits.

    Source:
        Huber (1964), Annals of Mathematical Statistics 35.
    """

    def slope(f: Tensor) -> Tensor:
        return f.clamp(-huber_delta, huber_delta)

    def value(f: Tensor) -> Tensor:
        return slope(f) * torch.sub(f, slope(f), alpha=0.5)

    sums = m.wrong_sum(value, slope)
    return m.cross_entropy + residual_weight / (m.classes - 1) * sums


def logistic(m: Moments, residual_weight: float) -> Tensor:
    """Cross-entropy plus the mean of V one-against-all logistic losses.

    CE + residual_weight / V * (softplus(-f_y) + sum over j != y of softplus(f_j)).

    Args:
        residual_weight: At least 0.

    Source:
        Rifkin and Klautau (2004), "In defense of one-vs-all classification", JMLR 5.
    """
    sums = F.softplus(-m.true) + m.wrong_sum(F.softplus, torch.sigmoid)
    return m.cross_entropy + residual_weight / m.classes * sums


def _p_true(m: Moments) -> Tensor:
    return (-m.cross_entropy).exp()


SQUARE_WEIGHT = Option(1.0, low=1e-3, high=10.0, log=True)
RESIDUAL_WEIGHT = Option(1.0, low=1e-3, high=10.0, log=True)

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        cross_entropy,
        {"label_smoothing": Option(0.0, low=0.0, high=0.2, below=1.0)},
        links.cross_entropy,
    ),
    "squentropy": Loss(squentropy, {"square_weight": SQUARE_WEIGHT}, links.squentropy),
    "rescaled_squentropy": Loss(
        rescaled_squentropy,
        {
            "square_weight": SQUARE_WEIGHT,
            "true_weight": Option(65.0, low=1.0, high=1000.0, log=True),
            "true_target": Option(1.0, low=0.0, high=20.0),
        },
        links.rescaled_squentropy,
    ),
    "brier_ce": Loss(brier_ce, {"brier_weight": Option(1.0, low=1e-2, high=10.0, log=True)}),
    "logit_l2": Loss(logit_l2, {"square_weight": SQUARE_WEIGHT}, links.logit_l2),
    "logit_variance": Loss(logit_variance, {"square_weight": SQUARE_WEIGHT}, links.logit_variance),
    "z_loss": Loss(z_loss, {"z_weight": Option(1e-4, low=1e-5, high=1e-1, log=True)}),
    "focal": Loss(focal, {"gamma": Option(2.0, low=0.0, high=5.0)}, links.focal),
    "poly1": Loss(poly1, {"epsilon": Option(1.0, low=-1.0, high=8.0, at_least=-1.0)}, links.poly1),
    # no link: its optimum may lie where f_j = 0, from which pi_j cannot be read
    "absolute": Loss(absolute, {"residual_weight": RESIDUAL_WEIGHT}),
    "huber": Loss(
        huber,
        {
            "residual_weight": RESIDUAL_WEIGHT,
            "huber_delta": Option(1.0, low=0.1, high=10.0, log=True, at_least=1e-6),
        },
        links.huber,
    ),
    "logistic": Loss(logistic, {"residual_weight": RESIDUAL_WEIGHT}, links.logistic),
}


def check_loss(name: str, options: Mapping[str, float]) -> None:
    """Raise ValueError with one line unless LOSSES has `name` and it takes these options."""
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, but got {name!r}")
    LOSSES[name].checked(options)
