"""Numbers per token from which losses are made, and how each moves with the logits.

Shapes: n tokens, V classes; logits f (n, V), targets y (n,), every moment (n,). A loss is a
function of moments; autograd on these few vectors gives all that its gradient needs, since

    dL/df_j = sum over moments m of dL/dm * dm/df_j.

`Moments` leaves that sum to autograd; `ChunkMoments` makes it in place, for gpt.linear_loss.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]

LEAST = 1e-30  # smaller probabilities may have lost digits to underflow


class Moments:
    """What a loss may know of a token. Every moment can be differentiated by the logits.

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
    def true(self) -> Tensor:
        """f_y, the true class's logit."""
        return self._logits.gather(1, self._column).squeeze(1)

    @cached_property
    def logsumexp(self) -> Tensor:
        """log of the sum over j of exp(f_j)."""
        return self.cross_entropy + self.true

    def wrong_sum(self, value: Elementwise, slope: Elementwise) -> Tensor:
        """Sum over j != y of value(f_j).

        The true class is left out, not subtracted: where it dominates, no digit is lost.

        Args:
            value: Of each logit by itself.
            slope: Its derivative.
        """
        return value(self._logits).scatter(1, self._column, 0.0).sum(1)

    @cached_property
    def wrong_total(self) -> Tensor:
        """Sum over j != y of f_j."""
        return self.wrong_sum(lambda f: f, torch.ones_like)

    @cached_property
    def wrong_squares(self) -> Tensor:
        """Sum over j != y of f_j ** 2."""
        return self.wrong_sum(torch.square, lambda f: 2 * f)

    @cached_property
    def variance(self) -> Tensor:
        """Mean over all classes of (f_j - mean of f) ** 2; the same for f and f + constant."""
        top = self._logits.amax(1, keepdim=True).detach()  # so that a mean of 1e4 costs no digits
        return (self._logits - top).var(1, correction=0)

    @cached_property
    def p_squares(self) -> Tensor:
        """Sum over j of p_j ** 2."""
        return self._logits.softmax(1).square().sum(1)


class _Leaf(NamedTuple):
    """A moment as autograd's variable, and its derivatives by the logits."""

    vector: Tensor  # (n,)
    slopes: Callable[[], Tensor] | None  # (n, V), right where j != y; None: zero there
    true_slope: Tensor | float  # (n,), by f_y
    times: float  # a factor of both slopes, which saves a pass over (n, V)


class ChunkMoments(Moments):
    """Moments of a chunk that is overwritten by its gradient: two buffers, no other (n, V) is kept.

    Args:
        logits: f, shape (n, V), float32 or float64; overwritten.
        softmax: A buffer (n, V) for p.
        targets: True token ids y, shape (n,), each in [0, V).
    """

    def __init__(self, logits: Tensor, softmax: Tensor, targets: Tensor) -> None:
        super().__init__(logits, targets)
        self._p = torch.softmax(logits, 1, out=softmax)
        self._p_true = self._p.gather(1, self._column).squeeze(1)
        self._true = logits.gather(1, self._column).squeeze(1)
        self._nats = self._cross_entropies()
        logits.scatter_(1, self._column, 0.0)  # only wrong classes from here on
        self._others: list[_Leaf] = []  # the moments that were asked for, but cross-entropy

    def _cross_entropies(self) -> Tensor:
        """-log p_y; of a chunk in which a p_y may underflow, from the largest p, which never does.

        From all logits, before the true one is left out.
        """
        # On CUDA, looking would stop the queue; on a CPU, the two passes are a tenth of a loss.
        if not self._p.is_cuda and bool((self._p_true > LEAST).all()):
            return -self._p_true.log()
        return -self._p.amax(1).log() - (self._true - self._logits.amax(1))

    def gradient(self, loss: Tensor) -> Tensor:
        """The derivative (n, V) of `loss`, a scalar made of this chunk's moments, by its logits.

        It is where the logits were.
        """
        vectors = [self.cross_entropy, *(leaf.vector for leaf in self._others)]
        of_nats, *rest = torch.autograd.grad(
            loss, vectors, allow_unused=True, materialize_grads=True
        )
        factors = [leaf.times * factor for leaf, factor in zip(self._others, rest, strict=True)]
        at_true = of_nats * (self._p_true - 1)
        for leaf, factor in zip(self._others, factors, strict=True):
            at_true += factor * leaf.true_slope
        self._add_up(of_nats.unsqueeze(1), factors)
        self._others.clear()  # their slopes hold this object: without a cycle, buffers go at once
        return self._logits.scatter_(1, self._column, at_true.unsqueeze(1))

    def _add_up(self, of_nats: Tensor, factors: list[Tensor]) -> None:
        """Turn logits into the sum of slopes times factors, right where j != y."""
        total = self._logits
        terms = [  # all slopes before the logits are overwritten
            (leaf.slopes(), factor.unsqueeze(1))
            for leaf, factor in zip(self._others, factors, strict=True)
            if leaf.slopes
        ]
        of_logits = [factor for slope, factor in terms if slope is total]
        if of_logits:
            total.mul_(sum(of_logits)).addcmul_(self._p, of_nats)
        else:
            torch.mul(self._p, of_nats, out=total)
        for slope, factor in terms:
            if slope is not total:
                total.addcmul_(slope, factor)

    def _ask(
        self,
        value: Tensor,
        slopes: Callable[[], Tensor] | None,
        true_slope: Tensor | float,
        times: float = 1.0,
    ) -> Tensor:
        """A moment that autograd takes for an independent variable."""
        vector = value.detach().requires_grad_()
        self._others.append(_Leaf(vector, slopes, true_slope, times))
        return vector

    @cached_property
    def cross_entropy(self) -> Tensor:  # noqa: D102 - as in Moments
        return self._nats.detach().requires_grad_()

    @cached_property
    def true(self) -> Tensor:  # noqa: D102 - as in Moments
        return self._ask(self._true, None, 1.0)

    def wrong_sum(self, value: Elementwise, slope: Elementwise) -> Tensor:  # noqa: D102 - as in Moments
        sums = value(self._logits).scatter_(1, self._column, 0.0).sum(1)
        return self._ask(sums, lambda: slope(self._logits), 0.0)

    @cached_property
    def wrong_squares(self) -> Tensor:  # noqa: D102 - as in Moments
        norms = torch.linalg.vector_norm(self._logits, dim=1)  # one pass, nothing of size (n, V)
        return self._ask(norms.square(), lambda: self._logits, 0.0, times=2.0)

    @cached_property
    def variance(self) -> Tensor:  # noqa: D102 - as in Moments
        V = self.classes
        # all from the true logit, so that a mean of 1e4 costs no digits
        centred = (self._logits - self._true.unsqueeze(1)).scatter_(1, self._column, 0.0)
        mean = centred.mean(1)
        centred.sub_(mean.unsqueeze(1))
        squares = torch.linalg.vector_norm(centred, dim=1).square()
        return self._ask(squares / V, lambda: centred, -mean, times=2 / V)

    @cached_property
    def p_squares(self) -> Tensor:  # noqa: D102 - as in Moments
        squares = torch.linalg.vector_norm(self._p, dim=1).square()
        return self._ask(
            squares,
            lambda: (self._p - squares.unsqueeze(1)).mul_(self._p),
            self._p_true * (self._p_true - squares),
            times=2.0,
        )
