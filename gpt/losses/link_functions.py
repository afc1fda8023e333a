"""Link functions: from logits to the probabilities that a loss is minimised by.

A loss that adds a penalty to cross-entropy is not proper under softmax: where its expectation
under true probabilities pi is least, softmax(f) is not pi. But pi can be read off that optimum. Let
wrong_j be the derivative of the loss by f_j where j is a wrong class, and right_j where j is the
true one; at the optimum their mean under pi is zero for every j,

    (1 - pi_j) * wrong_j + pi_j * right_j = 0,    so    pi_j = wrong_j / (wrong_j - right_j).

For squentropy, with kappa = 2 w / (V - 1): pi_j = (p_j + kappa f_j) / (1 + kappa f_j). A loss that
depends on p_y alone, l(p_y), has its optimum where pi_j * l'(p_j) is the same for all j, so
pi_j is proportional to -1 / l'(p_j).

A link function takes p = softmax(f) and f, each (..., V), and the loss's options, and returns
pi (..., V) as at the optimum. It may overwrite f. Off the optimum these are not probabilities yet:
see `floored`.
"""

import torch
from torch import Tensor

# Off the optimum a link function may give a token 0 or less. The token keeps a hundredth of what
# softmax gives it, which costs at most log(100) = 4.6 nats more than softmax does.
FLOOR = 0.01


def floored(pi: Tensor, p: Tensor) -> Tensor:
    """Raise each pi_j to at least FLOOR * p_j: probabilities, once divided by their sum.

    Overwrites pi. At an optimum no pi_j is below FLOOR * p_j, so nothing changes.
    """
    return torch.maximum(pi, FLOOR * p, out=pi)


def cross_entropy(p: Tensor, f: Tensor, label_smoothing: float) -> Tensor:
    """Invert p = (1 - a) pi + a / V, where a is the smoothing."""
    if label_smoothing == 0:
        return p
    return (p - label_smoothing / p.shape[-1]) / (1 - label_smoothing)


def squentropy(p: Tensor, f: Tensor, square_weight: float) -> Tensor:
    """Balance wrong = p + kappa f and right = p - 1, with kappa = 2 w / (V - 1)."""
    kappa = 2 * square_weight / (p.shape[-1] - 1)
    return _balanced(torch.add(p, f, alpha=kappa, out=f), 1 - p)


def rescaled_squentropy(
    p: Tensor, f: Tensor, square_weight: float, true_weight: float, true_target: float
) -> Tensor:
    """Balance wrong = p + kappa f, right = p - 1 + kappa k (f - M), with kappa = 2 w / V."""
    kappa = 2 * square_weight / p.shape[-1]
    return _balanced(p + kappa * f, (1 - p - kappa * true_weight * (f - true_target)).relu_())


def logit_l2(p: Tensor, f: Tensor, square_weight: float) -> Tensor:
    """pi = p + kappa f, with kappa = 2 w / V."""
    return p + 2 * square_weight / p.shape[-1] * f


def logit_variance(p: Tensor, f: Tensor, square_weight: float) -> Tensor:
    """pi = p + kappa (f - mean of f), with kappa = 2 w / V."""
    return logit_l2(p, f - f.mean(-1, keepdim=True), square_weight)


def focal(p: Tensor, f: Tensor, gamma: float) -> Tensor:
    """pi proportional to p / ((1 - p) ** (gamma - 1) * (1 - p - gamma p log p)).

    Source: Charoenphakdee et al. (2021), "On focal loss for class-posterior probability
    estimation", arXiv:2011.09172, theorem 11.
    """
    doubt = (1 - p).clamp_min(torch.finfo(p.dtype).eps)
    return p / (doubt ** (gamma - 1) * (doubt - gamma * torch.xlogy(p, p)))


def poly1(p: Tensor, f: Tensor, epsilon: float) -> Tensor:
    """pi proportional to p / (1 + epsilon p)."""
    return p / (1 + epsilon * p).clamp_min(torch.finfo(p.dtype).eps)


def huber(p: Tensor, f: Tensor, residual_weight: float, huber_delta: float) -> Tensor:
    """Balance as squentropy does, with f limited to +-delta."""
    kappa = residual_weight / (p.shape[-1] - 1)
    return _balanced(p + kappa * f.clamp(-huber_delta, huber_delta), 1 - p)


def logistic(p: Tensor, f: Tensor, residual_weight: float) -> Tensor:
    """pi = (p + kappa sigmoid(f)) / (1 + kappa), with kappa = w / V."""
    kappa = residual_weight / p.shape[-1]
    return (p + kappa * f.sigmoid()) / (1 + kappa)


def _balanced(wrong: Tensor, minus_right: Tensor) -> Tensor:
    """Solve (1 - pi) * wrong + pi * right = 0, given that wrong > 0 >= right; overwrites both.

    Off the optimum wrong may be negative: class j is too likely even if it is wrong, so it gets
    about 0. Callers handle the other case, where it is too likely even if it is true.
    """
    up = wrong.clamp_min_(torch.finfo(wrong.dtype).tiny)
    return up.div_(minus_right.add_(up))
