"""Statistics of each token's logits, from which losses are made, and their gradients.

Shapes: n tokens, V classes; logits f (n, V), targets y (n,), every statistic (n,). The negatives of
a token are the classes j != y. A loss is a function of statistics; autograd on these few vectors
gives all that its gradient needs, since

    dL/df_j = sum over statistics s of dL/ds * ds/df_j.

`LogitStats` leaves that sum to autograd; `ChunkStats` makes it in place, for
gpt.losses.fused_linear. Add a statistic by adding a property to both.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]

LEAST = 1e-30  # smaller probabilities may have lost digits to underflow


class LogitStats:
    """Statistics of the logits of n tokens, each differentiable by the logits.

    Args:
        logits: Unnormalised scores f, shape (n, V), float32 or float64.
        targets: True token ids y, shape (n,), each in [0, V).

    Attributes:
        classes: V.
    """

    def __init__(self, logits: Tensor, targets: Tensor) -> None:
        self._logits = logits
        self._column = targets.unsqueeze(1)  # (n, 1)
        self.classes = logits.shape[1]

    @cached_property
    def cross_entropy(self) -> Tensor:
        """-log p_y in nats, p = softmax(f)."""
        return -self._logits.log_softmax(1).gather(1, self._column).squeeze(1)

    @cached_property
    def target_logit(self) -> Tensor:
        """f_y, the logit of the true class."""
        return self._logits.gather(1, self._column).squeeze(1)

    @cached_property
    def logsumexp(self) -> Tensor:
        """Logarithm of the sum over j of exp(f_j)."""
        return self.cross_entropy + self.target_logit

    def sum_over_negatives(self, fn: Elementwise, grad_fn: Elementwise) -> Tensor:
        """Sum over j != y of fn(f_j).

        The true class is left out, not subtracted: where it dominates, no digit is lost.

        Args:
            fn: An elementwise function of the logits.
            grad_fn: Its derivative, elementwise too.
        """
        return fn(self._logits).scatter(1, self._column, 0.0).sum(1)

    @cached_property
    def negative_sum(self) -> Tensor:
        """Sum over j != y of f_j."""
        return self.sum_over_negatives(lambda f: f, torch.ones_like)

    @cached_property
    def negative_squares(self) -> Tensor:
        """Sum over j != y of f_j ** 2."""
        return self.sum_over_negatives(torch.square, lambda f: 2 * f)

    @cached_property
    def variance(self) -> Tensor:
        """Variance over all V classes: mean of (f_j - mean of f) ** 2; no shift of f changes it."""
        top = self._logits.amax(1, keepdim=True).detach()  # so that a mean of 1e4 costs no digits
        return (self._logits - top).var(1, correction=0)

    @cached_property
    def p_squares(self) -> Tensor:
        """Sum over j of p_j ** 2."""
        return self._logits.softmax(1).square().sum(1)


class _Leaf(NamedTuple):
    """A statistic as a leaf of autograd's graph, with its derivatives by the logits."""

    vector: Tensor  # (n,)
    negative_grad: Callable[[], Tensor] | None  # (n, V), valid where j != y; None: zero there
    target_grad: Tensor | float  # (n,), by f_y
    scale: float  # a factor of both, which saves a pass over (n, V)


class ChunkStats(LogitStats):
    """Statistics of a chunk that is overwritten by its gradient: two buffers (n, V), no third.

    Args:
        logits: f, shape (n, V), float32 or float64; overwritten.
        softmax: A buffer (n, V) for p.
        targets: True token ids y, shape (n,), each in [0, V).
    """

    def __init__(self, logits: Tensor, softmax: Tensor, targets: Tensor) -> None:
        super().__init__(logits, targets)
        self._p = torch.softmax(logits, 1, out=softmax)
        self._target_p = self._p.gather(1, self._column).squeeze(1)
        self._target_logit = logits.gather(1, self._column).squeeze(1)
        self._target_nats = self._cross_entropies()
        logits.scatter_(1, self._column, 0.0)  # only negatives from here on
        self._leaves: list[_Leaf] = []  # the statistics in use, but for cross-entropy

    def _cross_entropies(self) -> Tensor:
        """-log p_y, while the logits still have the true class.

        In a chunk in which a p_y may underflow it is taken from the largest p, which never does.
        """
        # On CUDA, a check would stop the queue; on a CPU, the two passes are a tenth of a loss.
        if not self._p.is_cuda and bool((self._target_p > LEAST).all()):
            return -self._target_p.log()
        return -self._p.amax(1).log() - (self._target_logit - self._logits.amax(1))

    def gradient(self, loss: Tensor) -> Tensor:
        """Derivative (n, V) of a scalar by this chunk's logits, written where they were.

        Args:
            loss: Made of this chunk's statistics.
        """
        vectors = [self.cross_entropy, *(leaf.vector for leaf in self._leaves)]
        nats_factor, *rest = torch.autograd.grad(
            loss, vectors, allow_unused=True, materialize_grads=True
        )
        factors = [leaf.scale * factor for leaf, factor in zip(self._leaves, rest, strict=True)]
        at_target = nats_factor * (self._target_p - 1)
        for leaf, factor in zip(self._leaves, factors, strict=True):
            at_target += factor * leaf.target_grad
        self._sum_gradients(nats_factor.unsqueeze(1), factors)
        self._leaves.clear()  # else their closures keep the buffers alive in a cycle
        return self._logits.scatter_(1, self._column, at_target.unsqueeze(1))

    def _sum_gradients(self, nats_factor: Tensor, factors: list[Tensor]) -> None:
        """Turn logits into the sum of gradients times factors, valid where j != y."""
        total = self._logits
        terms = [  # all gradients before the logits are overwritten
            (leaf.negative_grad(), factor.unsqueeze(1))
            for leaf, factor in zip(self._leaves, factors, strict=True)
            if leaf.negative_grad
        ]
        of_logits = [factor for grad, factor in terms if grad is total]
        if of_logits:
            total.mul_(sum(of_logits)).addcmul_(self._p, nats_factor)
        else:
            torch.mul(self._p, nats_factor, out=total)
        for grad, factor in terms:
            if grad is not total:
                total.addcmul_(grad, factor)

    def _leaf(
        self,
        value: Tensor,
        negative_grad: Callable[[], Tensor] | None,
        target_grad: Tensor | float,
        scale: float = 1.0,
    ) -> Tensor:
        """Make a statistic an independent variable of autograd."""
        vector = value.detach().requires_grad_()
        self._leaves.append(_Leaf(vector, negative_grad, target_grad, scale))
        return vector

    @cached_property
    def cross_entropy(self) -> Tensor:  # noqa: D102 - as in LogitStats
        return self._target_nats.detach().requires_grad_()

    @cached_property
    def target_logit(self) -> Tensor:  # noqa: D102 - as in LogitStats
        return self._leaf(self._target_logit, None, 1.0)

    def sum_over_negatives(self, fn: Elementwise, grad_fn: Elementwise) -> Tensor:  # noqa: D102 - as in LogitStats
        sums = fn(self._logits).scatter_(1, self._column, 0.0).sum(1)
        return self._leaf(sums, lambda: grad_fn(self._logits), 0.0)

    @cached_property
    def negative_squares(self) -> Tensor:  # noqa: D102 - as in LogitStats
        norms = torch.linalg.vector_norm(self._logits, dim=1)  # one pass, nothing of size (n, V)
        return self._leaf(norms.square(), lambda: self._logits, 0.0, scale=2.0)

    @cached_property
    def variance(self) -> Tensor:  # noqa: D102 - as in LogitStats
        V = self.classes
        # all from the true logit, so that a mean of 1e4 costs no digits
        centred = (self._logits - self._target_logit.unsqueeze(1)).scatter_(1, self._column, 0.0)
        mean = centred.mean(1)
        centred.sub_(mean.unsqueeze(1))
        squares = torch.linalg.vector_norm(centred, dim=1).square()
        return self._leaf(squares / V, lambda: centred, -mean, scale=2 / V)

    @cached_property
    def p_squares(self) -> Tensor:  # noqa: D102 - as in LogitStats
        squares = torch.linalg.vector_norm(self._p, dim=1).square()
        return self._leaf(
            squares,
            lambda: (self._p - squares.unsqueeze(1)).mul_(self._p),
            self._target_p * (self._target_p - squares),
            scale=2.0,
        )
